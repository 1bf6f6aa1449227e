//! What Prometheus reads: one text made of snapshots, without a global registry. docs/metrics.md lists the names.
//!
//! Names are coturn's where coturn has the same thing. No label ever names a user, a credential, a room or an address of a
//! client: series would never end.

mod clients;
mod collector;
mod http;
mod rtcstats;

pub(crate) use collector::ExporterMetrics;

use crate::client_metrics::MetricsCounters;
use crate::health::{Health, State, ThreadHealth};
use fanlight_base::Now;
use fanlight_events::turn::LegCounters;
use fanlight_http::collector::CollectorApp;
use fanlight_http::{ClientStats, Gate};
use fanlight_shard::{Counters, Load, SharedAcceptorCounters, SharedTurnCounters};
use fanlight_store::collector::CollectorSender;
use fanlight_store::coturn::InputSnapshot;
use fanlight_store::{EventSender, TurnHealth, TurnMonitor};
use fanlight_telemetry::Traffic;
use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use std::sync::Arc;

/// Where the numbers come from.
pub(crate) struct Metrics {
    /// When the process began, and what the time is.
    pub(crate) started: Now,
    pub(crate) now: Arc<dyn Fn() -> Now + Send + Sync>,
    pub(crate) shards: Vec<(Counters, Load)>,
    pub(crate) acceptor: Option<SharedAcceptorCounters>,
    pub(crate) turn: Option<SharedTurnCounters>,
    pub(crate) monitor: TurnMonitor,
    pub(crate) events: EventSender,
    pub(crate) collector: Option<(CollectorApp, CollectorSender)>,
    pub(crate) client_stats: Option<Arc<ClientStats>>,
    pub(crate) client_metrics: Option<MetricsCounters>,
    pub(crate) gate: Gate,
    pub(crate) health: Health,
}

/// A leg of what was relayed.
type OfTraffic = fn(&Traffic) -> LegCounters;
/// A number of an input at a time in milliseconds since the Unix epoch, if there is one.
type OfInputAt = fn(&InputSnapshot, u64) -> Option<f64>;
/// A counter of an input.
type OfInput = fn(&InputSnapshot) -> u64;

/// Fields of the TURN thread's counters that may fall.
const GAUGES: [&str; 1] = ["allocations_open"];

impl Metrics {
    /// As Prometheus reads it (text format 0.0.4).
    pub(crate) fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.families())
    }

    fn families(&self) -> Vec<MetricFamily> {
        let mut sheet = Sheet::default();
        process(&mut sheet, self.started);
        threads(&mut sheet, &self.health.threads().collect::<Vec<_>>());
        media(&mut sheet, &self.shards);
        if let Some(acceptor) = &self.acceptor {
            for (name, help, value) in acceptor.snapshot().fields() {
                let name = format!("fanlight_acceptor_{name}_total");
                sheet.counter(&name, &format!("ICE-TCP: {}", lower(help)), |to| to.sample(&[], value as f64));
            }
        }
        if let Some(turn) = &self.turn {
            for (name, help, value) in turn.snapshot().fields() {
                let help = format!("Own TURN server: {}", lower(help));
                if GAUGES.contains(&name) {
                    let name = format!("fanlight_turn_server_{name}");
                    sheet.gauge(&name, &help, |to| to.sample(&[], value as f64));
                } else {
                    let name = format!("fanlight_turn_server_{name}_total");
                    sheet.counter(&name, &help, |to| to.sample(&[], value as f64));
                }
            }
        }
        sheet.counter(
            "fanlight_store_events_refused_total",
            "Events that did not fit the queue to the record.",
            |to| {
                to.sample(&[("lane", "fact")], self.events.facts_refused() as f64);
                to.sample(&[("lane", "sample")], self.events.samples_refused() as f64);
            },
        );
        sheet.gauge("fanlight_store_failing", "1 while the record cannot be written.", |to| {
            to.sample(&[], f64::from(u8::from(self.events.record_fails())));
        });
        sheet.counter("fanlight_store_failures_total", "Times the record began to fail.", |to| {
            to.sample(&[], self.events.record_failures() as f64);
        });
        let health = self.monitor.snapshot();
        relayed(&mut sheet, &health);
        accounting(&mut sheet, &health);
        inputs(&mut sheet, &health, (self.now)().unix_ms());
        http::http(&mut sheet, &self.gate.snapshot());
        if let Some((app, store)) = &self.collector {
            collector::collector(&mut sheet, &app.snapshot(), &store.health());
        }
        if let Some(door) = &self.client_stats {
            clients::client_stats(&mut sheet, &door.counts());
            rtcstats::rtcstats(&mut sheet, &door.rtcstats());
        }
        if let Some(counters) = &self.client_metrics {
            clients::client_metrics(&mut sheet, &counters.snapshot());
        }
        sheet.families
    }
}

fn process(sheet: &mut Sheet, started: Now) {
    sheet.gauge("fanlight_build_info", "Version of this server; always 1.", |to| {
        to.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    });
    sheet.gauge("fanlight_start_time_seconds", "When this process began, seconds since 1970.", |to| {
        to.sample(&[], started.unix_ns as f64 / 1e9);
    });
}

/// Whether threads turn.
fn threads(sheet: &mut Sheet, threads: &[ThreadHealth<'_>]) {
    sheet.gauge(
        "fanlight_thread_up",
        "1 while the thread makes turns; 0 when it is stuck or has ended.",
        |to| {
            for thread in threads {
                to.sample(&[("thread", thread.name)], f64::from(u8::from(thread.state == State::Working)));
            }
        },
    );
    sheet.counter("fanlight_thread_stuck_total", "Times that the thread ended no turn for 1.6 s.", |to| {
        for thread in threads {
            to.sample(&[("thread", thread.name)], thread.stuck as f64);
        }
    });
}

/// What media threads count.
fn media(sheet: &mut Sheet, shards: &[(Counters, Load)]) {
    let snapshots: Vec<_> =
        shards.iter().map(|(counters, load)| (counters.snapshot(), load.snapshot())).collect();
    let Some((counters, load)) = snapshots.first() else { return };
    let names: Vec<_> = counters.fields().map(|(name, help, _)| (name, help)).collect();
    let loads: Vec<_> = load.fields().map(|(name, help, _)| (name, help)).collect();
    for (place, (name, help)) in names.into_iter().enumerate() {
        let name = format!("fanlight_shard_{name}_total");
        sheet.counter(&name, &format!("Media thread: {}", lower(help)), |to| {
            for (shard, (counters, _)) in snapshots.iter().enumerate() {
                let value = counters.fields().nth(place).map_or(0, |(_, _, value)| value);
                to.sample(&[("shard", &shard.to_string())], value as f64);
            }
        });
    }
    for (place, (name, help)) in loads.into_iter().enumerate() {
        let name = format!("fanlight_shard_{name}");
        sheet.gauge(&name, &format!("Media thread: {}", lower(help)), |to| {
            for (shard, (_, load)) in snapshots.iter().enumerate() {
                let value = load.fields().nth(place).map_or(0, |(_, _, value)| value);
                to.sample(&[("shard", &shard.to_string())], value as f64);
            }
        });
    }
}

/// coturn's names for the four counters of a leg.
const LEG: [(&str, &str); 4] = [
    ("rcvp", "packets received"),
    ("rcvb", "bytes received"),
    ("sentp", "packets sent"),
    ("sentb", "bytes sent"),
];

/// How clients come, as coturn calls it; others appear when they come.
const TRANSPORTS: [&str; 4] = ["UDP", "TCP", "TLS/TCP", "DTLS/UDP"];

/// What was relayed, by coturn's names; it grows while traffic flows, not only when an allocation ends.
fn relayed(sheet: &mut Sheet, health: &TurnHealth) {
    let legs: [(&str, &str, OfTraffic); 2] =
        [("", "clients", |traffic| traffic.client), ("_peer", "peers", |traffic| traffic.peer)];
    for (infix, whom, leg) in legs {
        for (place, (name, what)) in LEG.into_iter().enumerate() {
            let value = |traffic: &Traffic| leg(traffic).fields()[place] as f64;
            let traffic = &health.status.traffic;
            let help = format!("TURN: {what}, between servers and {whom}.");
            sheet.counter(&format!("turn_traffic{infix}_{name}"), &help, |to| {
                for (realm, traffic) in traffic {
                    to.sample(&[("realm", realm.as_str())], value(traffic));
                }
            });
            let help = format!("TURN: {what}, between servers and {whom}, all realms.");
            sheet.counter(&format!("turn_total_traffic{infix}_{name}"), &help, |to| {
                // Nothing sums up to -0.
                to.sample(&[], traffic.values().map(value).sum::<f64>() + 0.0);
            });
        }
    }
    sheet.gauge("turn_total_allocations", "TURN: open allocations, by how the client came.", |to| {
        let open = &health.status.open_allocations;
        for name in TRANSPORTS {
            to.sample(&[("type", name)], open.get(name).map_or(0.0, |count| *count as f64));
        }
        for (transport, count) in open.iter().filter(|(name, _)| !TRANSPORTS.contains(&name.as_str())) {
            let name = if transport.is_empty() { "unknown" } else { transport.as_str() };
            to.sample(&[("type", name)], *count as f64);
        }
    });
}

/// What the accounting makes of it.
fn accounting(sheet: &mut Sheet, health: &TurnHealth) {
    let status = &health.status;
    sheet.gauge("fanlight_turn_sessions_open", "TURN: user sessions that are open.", |to| {
        to.sample(&[], status.open_sessions as f64);
    });
    sheet.counter(
        "fanlight_turn_sessions_ended_total",
        "TURN: user sessions ended, by the last end.",
        |to| {
            for (reason, count) in &status.sessions_ended {
                to.sample(&[("reason", reason)], *count as f64);
            }
        },
    );
    sheet.counter("fanlight_turn_quota_hits_total", "TURN: users refused or cut off by a quota.", |to| {
        for (quota, count) in &status.quota_hits {
            to.sample(&[("quota", quota.as_str())], *count as f64);
        }
    });
    let account = &status.accounting;
    for (name, help, value) in [
        ("events", "messages taken", account.events),
        ("duplicates", "messages heard twice", account.duplicates),
        ("orphans", "names with traffic but without an allocation", account.orphans),
        ("orphan_events", "messages of these", account.orphan_events),
        ("ambiguous", "messages that could be about several allocations", account.ambiguous),
        ("refused", "allocations, orphans and servers beyond what is held", account.refused),
        ("node_restarts", "TURN servers that started anew", account.node_restarts),
        ("outages", "times that the inputs were away", account.outages),
        ("rows_refused", "rows that found no place while the disk was away", status.rows_refused),
    ] {
        let name = format!("fanlight_turn_account_{name}_total");
        sheet.counter(&name, &format!("TURN accounting: {help}."), |to| to.sample(&[], value as f64));
    }
}

/// How the inputs fare.
fn inputs(sheet: &mut Sheet, health: &TurnHealth, now_ms: u64) {
    let gauges: [(&str, &str, OfInputAt); 3] = [
        ("connected", "whether it is connected", |input, _| Some(f64::from(u8::from(input.connected)))),
        ("nodes_connected", "TURN servers connected to it", |input, _| {
            Some(input.nodes.iter().filter(|node| node.connected).count() as f64)
        }),
        ("last_message_age_seconds", "seconds since a TURN server was last heard", |input, now_ms| {
            input.last_message_ms.map(|ms| now_ms.saturating_sub(ms) as f64 / 1000.0)
        }),
    ];
    for (name, help, value) in gauges {
        sheet.gauge(
            &format!("fanlight_turn_input_{name}"),
            &format!("Input of TURN statistics: {help}."),
            |to| {
                for input in &health.inputs {
                    if let Some(value) = value(input, now_ms) {
                        to.sample(&[("input", input.name)], value);
                    }
                }
            },
        );
    }
    let counters: [(&str, &str, OfInput); 6] = [
        ("messages", "messages about allocations", |input| input.messages),
        ("gaps", "times it was away", |input| input.gaps),
        ("unreadable", "messages that make no sense", |input| input.unreadable),
        ("tee_dropped", "commands that the Redis server behind it did not get", |input| input.tee_dropped),
        ("refused", "connections refused because there were too many", |input| input.refused),
        ("broken", "connections closed for what they said", |input| input.broken),
    ];
    for (name, help, value) in counters {
        let name = format!("fanlight_turn_input_{name}_total");
        sheet.counter(&name, &format!("Input of TURN statistics: {help}."), |to| {
            for input in &health.inputs {
                to.sample(&[("input", input.name)], value(input) as f64);
            }
        });
    }
}

/// Families in the order in which they were begun; one without a sample is left out.
#[derive(Default)]
struct Sheet {
    families: Vec<MetricFamily>,
}

/// Samples of one family.
struct Samples {
    kind: MetricType,
    metrics: Vec<Metric>,
}

impl Sheet {
    fn counter(&mut self, name: &str, help: &str, fill: impl FnOnce(&mut Samples)) {
        self.family(name, help, MetricType::COUNTER, fill);
    }

    fn gauge(&mut self, name: &str, help: &str, fill: impl FnOnce(&mut Samples)) {
        self.family(name, help, MetricType::GAUGE, fill);
    }

    fn family(&mut self, name: &str, help: &str, kind: MetricType, fill: impl FnOnce(&mut Samples)) {
        let mut samples = Samples { kind, metrics: Vec::new() };
        fill(&mut samples);
        if samples.metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(samples.metrics);
        self.families.push(family);
    }
}

impl Samples {
    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut metric = Metric::from_label(pairs(labels));
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

/// A sentence within another one.
fn lower(sentence: &str) -> String {
    let sentence = sentence.trim();
    let mut letters = sentence.chars();
    match (letters.next(), letters.as_str()) {
        // UDP, ICE and their kind stay as they are.
        (Some(first), rest) if !rest.starts_with(char::is_uppercase) => {
            first.to_lowercase().chain(rest.chars()).collect()
        }
        _ => sentence.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Job, Watched};
    use fanlight_events::turn::Quota;
    use fanlight_shard::Clock;
    use fanlight_store::Store;
    use fanlight_telemetry::TurnStatus;
    use std::collections::BTreeMap;
    use std::fmt::Write;
    use std::sync::Weak;
    use std::time::Instant;

    /// Something of everything.
    fn health() -> TurnHealth {
        let leg = LegCounters { rx_packets: 1, rx_bytes: 2, tx_packets: 3, tx_bytes: 4 };
        let status = TurnStatus {
            open_allocations: BTreeMap::from([("UDP".into(), 2), ("".into(), 1)]),
            open_sessions: 2,
            sessions_ended: BTreeMap::from([("released", 5)]),
            quota_hits: BTreeMap::from([(Quota::UserBytes, 7)]),
            traffic: BTreeMap::from([
                ("a\"b".into(), Traffic { client: leg, peer: leg }),
                ("c".into(), Traffic { client: leg, peer: leg }),
            ]),
            ..TurnStatus::default()
        };
        let input = InputSnapshot {
            name: "resp",
            address: "127.0.0.1:6380".into(),
            connected: true,
            last_message_ms: Some(1_000),
            messages: 1,
            gaps: 0,
            unreadable: 0,
            tee_dropped: 0,
            refused: 0,
            broken: 0,
            nodes: Vec::new(),
        };
        TurnHealth { inputs: vec![input], status }
    }

    fn sheet() -> Vec<MetricFamily> {
        let dir = tempfile::tempdir().expect("a folder");
        let settings =
            fanlight_store::Settings { node: "ND_test".into(), retention_days: 0, turn: Default::default() };
        let store = Store::open(dir.path(), settings).expect("it opens");
        let (now, events, monitor) =
            (Now { mono_ns: 0, unix_ns: 9_000_000_000 }, store.sender(), store.turn_monitor());
        let thread = Watched { name: "shard-0".to_owned(), job: Job::Calls, turns: Weak::new() };
        let watched = Health::new(&[thread], Clock::new(Instant::now()), store.sender(), None);
        let metrics = Metrics {
            started: now,
            now: Arc::new(move || now),
            shards: vec![Default::default(), Default::default()],
            acceptor: Some(Default::default()),
            turn: Some(Default::default()),
            monitor,
            events,
            collector: None,
            client_stats: None,
            client_metrics: None,
            gate: Gate::default(),
            health: watched,
        };
        let mut sheet = Sheet { families: metrics.families() };
        store.close();
        // The record above has no TURN: what is said of it comes from here.
        sheet.families.retain(|family| !family.name().starts_with("turn_") && !is_account(family.name()));
        relayed(&mut sheet, &health());
        accounting(&mut sheet, &health());
        inputs(&mut sheet, &health(), 3_500);
        sheet.families.extend(collector::sample_families());
        sheet.families.extend(clients::sample_families());
        sheet.families.retain(|family| !family.name().starts_with("fanlight_http_"));
        sheet.families.extend(http::sample_families());
        sheet.families.extend(rtcstats::sample_families());
        sheet.families
    }

    fn is_account(name: &str) -> bool {
        ["fanlight_turn_account_", "fanlight_turn_sessions_", "fanlight_turn_quota_", "fanlight_turn_input_"]
            .iter()
            .any(|begin| name.starts_with(begin))
    }

    /// The list of all metrics.
    fn markdown() -> String {
        let mut page = String::from(
            "# Metrics\n\nServed as Prometheus reads them on `prometheus_port` (or `prometheus: {port, username, password}`), at any \
             path, on `bind_addresses`. A test compares this list with what is served; `FANLIGHT_WRITE_DOCS=1 cargo test -p \
             fanlight metrics` writes it anew.\n\nUnits stand in the names; what has none counts things. Counters begin at 0 with \
             the process. Names that begin with `turn_` are coturn's and mean the same, summed over all TURN servers that \
             Fanlight hears of, its own included; but they grow while traffic flows, not only when an allocation ends. coturn's \
             counters have no `_total` behind their names, so theirs have none here. No label names a user, credential, room or \
             client. Beyond 64 realms the others are `(other)`.\n\nThe collector's own listener (`fanlight.collector.exporter_port`, \
             5891) serves `fanlight_collector_*` too, and what Kohaku's exporter had, by its names: `echo_*`. Beyond 16 hosts the \
             others are `(other)`.\n\n| name | type | labels | meaning |\n|---|---|---|---|\n",
        );
        for family in sheet() {
            let kind = match family.get_field_type() {
                MetricType::COUNTER => "counter",
                MetricType::HISTOGRAM => "histogram",
                _ => "gauge",
            };
            let labels: Vec<_> =
                family.get_metric().first().into_iter().flat_map(Metric::get_label).collect();
            let labels: Vec<_> = labels.iter().map(|label| format!("`{}`", label.name())).collect();
            let _ = writeln!(
                page,
                "| `{}` | {kind} | {} | {} |",
                family.name(),
                labels.join(", "),
                family.help()
            );
        }
        page
    }

    #[test]
    fn the_committed_list_names_what_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        if std::env::var_os("FANLIGHT_WRITE_DOCS").is_some() {
            std::fs::write(path, markdown()).expect("written");
        }
        let committed = std::fs::read_to_string(path).expect("docs/metrics.md");
        assert!(
            committed == markdown(),
            "docs/metrics.md differs from the code: run FANLIGHT_WRITE_DOCS=1 cargo test -p fanlight metrics"
        );
    }

    #[test]
    fn the_text_has_the_form_that_prometheus_wants() {
        let families = sheet();
        let text = TextEncoder::new().encode_to_string(&families).expect("it encodes");
        assert!(
            text.contains("# TYPE turn_traffic_rcvb counter\nturn_traffic_rcvb{realm=\"a\\\"b\"} 2\n"),
            "{text}"
        );
        assert!(text.contains("\nturn_total_traffic_peer_sentb 8\n"), "{text}");
        assert!(text.contains("\nturn_total_allocations{type=\"UDP\"} 2\n"), "{text}");
        assert!(text.contains("\nfanlight_turn_quota_hits_total{quota=\"user_bytes\"} 7\n"), "{text}");
        assert!(
            text.contains("\nfanlight_turn_input_last_message_age_seconds{input=\"resp\"} 2.5\n"),
            "{text}"
        );
        let mut names: Vec<_> = families.iter().map(|family| family.name().to_owned()).collect();
        for family in &families {
            let (name, help) = (family.name(), family.help());
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help:?}");
            let total = name.ends_with("_total");
            let counts = family.get_field_type() == MetricType::COUNTER;
            assert!(total == counts || name.starts_with("turn_"), "{name}");
            for label in family.get_metric().iter().flat_map(Metric::get_label) {
                let known = [
                    "version", "shard", "lane", "realm", "type", "reason", "quota", "input", "status",
                    "code", "method", "host", "url", "thread",
                ];
                assert!(known.contains(&label.name()), "{name} has the label {}", label.name());
            }
        }
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "a family is there twice");
    }

    #[test]
    fn a_sentence_within_another_begins_small_but_for_names() {
        assert_eq!(lower(" Loop turns."), "loop turns.");
        assert_eq!(lower("UDP packets sent."), "UDP packets sent.");
    }
}
