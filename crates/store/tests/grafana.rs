//! Every query of the dashboards runs, on reports that the collector stored.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod reports;

use cluster::{Cluster, collector};
use fanlight_telemetry::collector::{Source, StatsObject};
use reports::*;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const STEPS: u64 = 40;
/// All counters begin anew with this step.
const RESET: u64 = 20;
/// What a counter grows by in a step.
const GROWTH: u64 = 600;

const INBOUND: &[&str] = &[
    "bytesReceived",
    "packetsReceived",
    "packetsDiscarded",
    "retransmittedPacketsReceived",
    "packetsLost",
    "jitter",
    "jitterBufferDelay",
    "jitterBufferEmittedCount",
    "concealedSamples",
    "totalSamplesReceived",
    "audioLevel",
    "framesPerSecond",
    "frameWidth",
    "frameHeight",
    "framesDropped",
    "framesDecoded",
    "keyFramesDecoded",
    "totalFreezesDuration",
    "totalPausesDuration",
    "totalDecodeTime",
    "nackCount",
    "pliCount",
    "firCount",
];
const OUTBOUND: &[&str] = &[
    "bytesSent",
    "packetsSent",
    "retransmittedPacketsSent",
    "targetBitrate",
    "framesPerSecond",
    "frameWidth",
    "frameHeight",
    "totalEncodeTime",
    "framesEncoded",
    "nackCount",
    "pliCount",
    "firCount",
];
const REMOTE: &[&str] = &["roundTripTime", "fractionLost", "jitter"];
const TRANSPORT: &[&str] = &["bytesSent", "bytesReceived", "packetsSent", "packetsReceived"];
const PAIR: &[&str] = &[
    "currentRoundTripTime",
    "bytesSent",
    "bytesReceived",
    "availableOutgoingBitrate",
    "availableIncomingBitrate",
];

/// What one client says at one step: all numbers grow alike.
fn objects(step: u64) -> Vec<String> {
    let number = (step % RESET + 1) * GROWTH;
    let object = |kind: &str, id: &str, media: Option<&str>, members: &[&str], more: Value| {
        let mut object: Map<String, Value> =
            members.iter().map(|name| ((*name).to_owned(), json!(number))).collect();
        object.extend(more.as_object().unwrap().clone());
        object.insert("type".to_owned(), json!(kind));
        object.insert("id".to_owned(), json!(id));
        object.insert("timestamp".to_owned(), json!(step));
        if let Some(media) = media {
            object.insert("kind".to_owned(), json!(media));
        }
        Value::Object(object).to_string()
    };
    let mut objects = Vec::new();
    for media in ["audio", "video"] {
        // A client may say anything: no text breaks a panel.
        objects.push(object("inbound-rtp", &format!("I{media}"), Some(media), INBOUND, json!({})));
        objects.push(object(
            "inbound-rtp",
            &format!("X{media}"),
            Some(media),
            &[],
            json!({"bytesReceived": "a", "jitter": null}),
        ));
        let durations =
            json!({"qualityLimitationDurations": {"cpu": number, "bandwidth": number, "other": number}});
        objects.push(object("outbound-rtp", &format!("O{media}"), Some(media), OUTBOUND, durations));
        objects.push(object("remote-inbound-rtp", &format!("R{media}"), Some(media), REMOTE, json!({})));
    }
    let selected = json!({"dtlsState": "connected", "selectedCandidatePairId": "CP"});
    objects.push(object("transport", "T", None, TRANSPORT, selected));
    let pair =
        json!({"state": "succeeded", "nominated": true, "localCandidateId": "L", "remoteCandidateId": "C"});
    objects.push(object("candidate-pair", "CP", None, PAIR, pair));
    let candidate = json!({"candidateType": "host", "protocol": "udp", "address": "192.0.2.1", "port": 5000});
    objects.push(object("local-candidate", "L", None, &[], candidate.clone()));
    objects.push(object("remote-candidate", "C", None, &[], candidate));
    objects
}

/// A dashboard as it is provisioned.
struct Dashboard {
    name: String,
    json: Value,
}

fn dashboards() -> Vec<Dashboard> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../grafana/dashboards");
    let mut found: Vec<Dashboard> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            Dashboard { name: path.file_stem().unwrap().to_str().unwrap().to_owned(), json }
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).unwrap().as_array().unwrap()
}

/// What Grafana puts into a query.
struct Grafana {
    variables: BTreeMap<String, String>,
    from: u64,
    to: u64,
    interval_ms: u64,
}

impl Grafana {
    fn fill(&self, sql: &str) -> String {
        let time = |ns: u64| {
            let since = std::time::Duration::from_nanos(ns).as_secs();
            format!("'{}'", rfc3339(since))
        };
        let mut sql = sql
            .replace("$__timeFrom()", &time(self.from))
            .replace("$__timeTo()", &time(self.to))
            .replace("$__interval_ms", &self.interval_ms.to_string());
        for (name, value) in &self.variables {
            sql = sql
                .replace(&format!("${{{name}:raw}}"), value)
                .replace(&format!("${{{name}:sqlstring}}"), &format!("'{}'", value.replace('\'', "''")));
        }
        assert!(!sql.contains('$'), "{sql}");
        sql
    }

    /// The values of variables: what their queries give, else what is given here.
    fn choose(&mut self, cluster: &Cluster, dashboard: &Dashboard, given: &[(&str, &str)]) {
        self.variables =
            given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for variable in list(&dashboard.json, "/templating/list") {
            let name = variable["name"].as_str().unwrap();
            if variable["type"] == "query" {
                let rows = cluster.sql("d", &self.fill(variable["query"].as_str().unwrap()));
                let first = rows.first().unwrap_or_else(|| panic!("{name} has no value"));
                self.variables.entry(name.to_owned()).or_insert_with(|| first.clone());
            } else {
                self.variables.entry(name.to_owned()).or_default();
            }
        }
    }
}

fn rfc3339(seconds: u64) -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &format!("@{seconds}")])
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}

fn fill(cluster: &Cluster) {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector(dir.path(), &cluster.uri("d"));
    for (connection, source) in [("c1", Source::SoraUserAgent), ("it's", Source::Browser)] {
        for step in 0..STEPS {
            let mut said = report(connection, step, &[]);
            said.source = source;
            for object in objects(step) {
                said.take(StatsObject::parse(&object));
            }
            assert_eq!(said.rejected_objects(), 0);
            collector.sender().send_and_wait(said).unwrap();
        }
    }
    assert!(collector.health().unfit_objects.is_empty());
    collector.close();
    // As if each had come at its own time.
    cluster.sql("d", "UPDATE fanlight_report SET created_at = 'epoch'::timestamptz + (at_ns / 1000 + 1500000) * interval '1 microsecond'");
}

#[test]
fn every_query_of_the_dashboards_tells_what_was_stored() {
    let cluster = Cluster::start();
    cluster.database("d");
    fill(&cluster);
    let mut graphs = 0;
    for dashboard in dashboards() {
        let mut ids: Vec<u64> = Vec::new();
        for interval_ms in [60_000, 300_000] {
            let (from, to) = (at(0), at(STEPS) - 1);
            let mut grafana = Grafana { variables: BTreeMap::new(), from, to, interval_ms };
            grafana.choose(&cluster, &dashboard, &[]);
            if dashboard.name == "connection" {
                grafana.choose(&cluster, &dashboard, &[("connection_id", "browser:it's")]);
            }
            for panel in list(&dashboard.json, "/panels") {
                ids.push(panel["id"].as_u64().unwrap());
                let title = panel["title"].as_str().unwrap();
                if panel["type"] == "row" {
                    continue;
                }
                for target in list(panel, "/targets") {
                    let sql = grafana.fill(target["rawSql"].as_str().unwrap());
                    let rows = cluster.sql("d", &sql);
                    assert!(!rows.is_empty(), "{} / {title} shows nothing:\n{sql}", dashboard.name);
                    if target["format"] == "time_series" {
                        graphs += 1;
                        check(title, &rows, &sql);
                    }
                }
            }
        }
        ids.sort_unstable();
        let panels = ids.len() / 2;
        ids.dedup();
        assert_eq!(ids.len(), panels, "{}: two panels have one id", dashboard.name);
    }
    assert!(graphs > 80, "{graphs}");
}

/// Time, name and a number, in this order, and nothing below zero.
fn check(title: &str, rows: &[String], sql: &str) {
    for row in rows {
        let [time, name, value] = row.split('|').collect::<Vec<_>>()[..] else { panic!("{title}: {row}") };
        assert!(time.starts_with("20") && time.ends_with("+00") && !name.is_empty(), "{title}: {row}");
        // The first report of all has none before it.
        let value: f64 = if value.is_empty() { 0.0 } else { value.parse().unwrap() };
        assert!(value >= 0.0, "{title}: {row}\n{sql}");
    }
}

/// The query of a panel of the dashboard of one connection, for `c1`.
fn panel(cluster: &Cluster, title: &str, (from, to): (u64, u64)) -> Vec<(String, f64)> {
    let dashboard = dashboards().into_iter().find(|dashboard| dashboard.name == "connection").unwrap();
    let mut grafana = Grafana { variables: BTreeMap::new(), from, to, interval_ms: 60_000 };
    grafana.choose(cluster, &dashboard, &[("connection_id", "c1")]);
    let panels = list(&dashboard.json, "/panels");
    let panel = panels.iter().find(|panel| panel["title"] == title).unwrap_or_else(|| panic!("no {title}"));
    let rows = cluster.sql("d", &grafana.fill(panel["targets"][0]["rawSql"].as_str().unwrap()));
    rows.iter()
        .map(|row| {
            let columns: Vec<&str> = row.split('|').collect();
            (columns[1].to_owned(), columns[2].parse().unwrap())
        })
        .collect()
}

#[test]
fn a_rate_is_right_at_a_reset_and_after_silence_and_a_value_ends_with_its_stream() {
    let cluster = Cluster::start();
    cluster.database("d");
    fill(&cluster);
    let rates: Vec<f64> = panel(&cluster, "Inbound audio: bitrate", (at(0), at(STEPS) - 1))
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    // 600 bytes a minute are 80 bit/s, also where the counter begins anew and what it says is all there is.
    assert_eq!(rates.len() as u64, STEPS - 1);
    assert!(rates.iter().all(|rate| (rate - 80.0).abs() < 1e-6), "{rates:?}");
    let ratios = panel(&cluster, "Inbound audio: delay in the jitter buffer", (at(0), at(STEPS) - 1));
    assert!(ratios.iter().all(|(_, value)| (value - 1.0).abs() < 1e-9) && ratios.len() > 30, "{ratios:?}");

    // A gauge holds while its stream is told of, and for a quarter of an hour.
    let held = panel(&cluster, "Inbound audio: jitter", (at(STEPS - 1), at(STEPS + 60)));
    assert!(held.iter().all(|(id, _)| id == "Iaudio"));
    assert_eq!(held.len(), 15);

    // Unchanged for nine minutes, then more: the rate is of the last minute, because reports came in between.
    let dir = tempfile::tempdir().unwrap();
    let collector = collector(dir.path(), &cluster.uri("d"));
    for (step, bytes) in (100..110).map(|step| (step, 1_000)).chain([(110, 1_600)]) {
        let mut said = report("c1", step, &[]);
        let object = json!({"type": "inbound-rtp", "id": "Iaudio", "kind": "audio", "timestamp": step, "bytesReceived": bytes});
        said.take(StatsObject::parse(&object.to_string()));
        collector.sender().send_and_wait(said).unwrap();
    }
    collector.close();
    assert_eq!(
        cluster.count(
            "d",
            &format!("sora_user_agent_stats WHERE timestamp >= '{}'", rfc3339(at(100) / 1_000_000_000))
        ),
        2
    );
    let rates = panel(&cluster, "Inbound audio: bitrate", (at(100), at(111)));
    assert_eq!(rates, [("Iaudio".to_owned(), 80.0)]);
}

/// Stands in for three functions of TimescaleDB, so that its queries are read and typed at least.
const STAND_INS: &str = "
CREATE FUNCTION time_bucket_gapfill(width interval, at timestamptz, start timestamptz, finish timestamptz) RETURNS timestamptz
  LANGUAGE sql AS 'SELECT date_bin(width, at, timestamptz ''epoch'')';
CREATE FUNCTION locf(value anyelement) RETURNS anyelement LANGUAGE sql AS 'SELECT value';
CREATE FUNCTION last_step(state numeric, value numeric, at timestamptz) RETURNS numeric LANGUAGE sql AS 'SELECT value';
CREATE AGGREGATE last(numeric, timestamptz) (SFUNC = last_step, STYPE = numeric)";

#[test]
fn the_forms_for_timescaledb_are_sql() {
    let cluster = Cluster::start();
    cluster.database("d");
    fill(&cluster);
    cluster.sql("d", STAND_INS);
    let detected = [
        ("if_plain", "/*"),
        ("end_plain", "*/"),
        ("if_timescale", "/**/"),
        ("end_timescale", "/**/"),
        ("connection_id", "c1"),
    ];
    let mut forms = 0;
    for dashboard in dashboards() {
        let (from, to) = (at(0), at(STEPS) - 1);
        let mut grafana = Grafana { variables: BTreeMap::new(), from, to, interval_ms: 60_000 };
        grafana.choose(&cluster, &dashboard, &detected);
        for target in
            list(&dashboard.json, "/panels").iter().filter_map(|panel| panel["targets"].as_array()).flatten()
        {
            let sql = target["rawSql"].as_str().unwrap();
            if sql.contains("${if_timescale:raw}") {
                forms += 1;
                assert!(!cluster.sql("d", &grafana.fill(sql)).is_empty(), "{sql}");
            }
        }
    }
    assert!(forms > 30, "{forms}");
}
