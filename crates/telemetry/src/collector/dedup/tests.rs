use super::*;
use crate::collector::{ConnectionEnvelope, Source, StatsObject};
use proptest::prelude::*;
use std::collections::BTreeSet;

const NOW_MS: u64 = 1_795_000_000_000;
const STEP_NS: u64 = 60_000_000_000;

fn at(step: u64) -> u64 {
    NOW_MS * 1_000_000 - 3_600_000_000_000 + step * STEP_NS
}

fn object(id: &str, members: &str) -> StatsObject {
    let json = format!(r#"{{"id":"{id}","type":"candidate-pair","timestamp":{},{members}}}"#, members.len());
    StatsObject::parse(&json).unwrap()
}

fn report(connection: &str, at_ns: u64, objects: &[(&str, &str)]) -> ClientReport {
    ClientReport {
        source: Source::SoraUserAgent,
        at_ns,
        connection: Some(ConnectionEnvelope {
            connection_id: connection.into(),
            ..ConnectionEnvelope::default()
        }),
        label: "WebRTC SFU Sora".into(),
        version: "2023.1.0".into(),
        node_name: "sora@127.0.0.1".into(),
        extra: "{}".into(),
        objects: objects.iter().map(|(id, members)| object(id, members)).collect(),
        rejected: BTreeMap::new(),
    }
}

fn dedup() -> Dedup {
    Dedup::new(DedupSettings::default(), 7)
}

/// The ids that are kept of each report.
fn kept(dedup: &mut Dedup, reports: &[ClientReport]) -> Vec<String> {
    let ids = |planned: Planned| {
        let ids: Vec<&str> = planned.objects().map(|object| object.id.as_str()).collect();
        ids.join(" ")
    };
    reports.iter().map(|report| ids(dedup.plan(NOW_MS, report.clone()))).collect()
}

#[test]
fn the_same_values_at_another_time_are_not_stored_again() {
    let planned = dedup().plan(NOW_MS, report("c", at(0), &[("a", r#""n":1"#)]));
    assert_eq!((planned.fresh.len(), planned.unchanged()), (1, 0));
    let mut dedup = dedup();
    let steps = [
        report("c", at(0), &[("a", r#""n":1"#), ("b", r#""n":1"#)]),
        report("c", at(1), &[("a", r#""n":1.0 "#), ("b", r#""n":2"#)]),
        report("c", at(2), &[("a", r#""n":1"#), ("b", r#""n":2"#)]),
    ];
    assert_eq!(kept(&mut dedup, &steps), ["a b", "b", ""]);
    let again = dedup.plan(NOW_MS, report("c", at(3), &[("a", r#""n":1"#)]));
    assert_eq!((again.fresh.len(), again.unchanged()), (0, 1));
}

#[test]
fn a_value_that_returns_is_stored() {
    let widths = ["1280", "640", "640", "1280"].iter().zip(0..);
    let steps: Vec<_> = widths
        .map(|(width, step)| report("c", at(step), &[("a", &format!(r#""frameWidth":{width}"#))]))
        .collect();
    assert_eq!(kept(&mut dedup(), &steps), ["a", "a", "", "a"]);
}

#[test]
fn connections_types_and_ids_are_told_apart() {
    let mut other_kind = report("c", at(1), &[("a", r#""n":1"#)]);
    other_kind.objects[0] =
        StatsObject::parse(r#"{"id":"a","type":"transport","timestamp":1,"n":1}"#).unwrap();
    let mut other_client = report("c", at(1), &[("a", r#""n":1"#)]);
    other_client.connection.as_mut().unwrap().client_id = "somebody else".into();
    let steps = [
        report("c", at(0), &[("a", r#""n":1"#)]),
        report("d", at(0), &[("a", r#""n":1"#)]),
        report("c", at(1), &[("b", r#""n":1"#)]),
        other_kind,
        other_client,
    ];
    // The fourth is of a time that the connection has said already.
    assert_eq!(kept(&mut dedup(), &steps), ["a", "a", "b", "a", "a"]);
}

#[test]
fn both_of_soras_ways_of_telling_are_one_connection() {
    let mut webhook = report("c", at(1), &[("a", r#""n":1"#)]);
    webhook.source = Source::SoraWebhook;
    let mut browser = report("c", at(2), &[("a", r#""n":1"#)]);
    browser.source = Source::Browser;
    let steps = [report("c", at(0), &[("a", r#""n":1"#)]), webhook, browser];
    assert_eq!(kept(&mut dedup(), &steps), ["a", "", "a"]);
}

#[test]
fn an_unchanged_object_is_stored_again_after_the_heartbeat() {
    let steps: Vec<_> = (0..21).map(|step| report("c", at(step), &[("a", r#""n":1"#)])).collect();
    let stored: Vec<usize> = kept(&mut dedup(), &steps)
        .iter()
        .enumerate()
        .filter(|(_, ids)| !ids.is_empty())
        .map(|(step, _)| step)
        .collect();
    assert_eq!(stored, [0, 10, 20]);
}

#[test]
fn a_late_report_is_handed_on_whole_and_changes_nothing() {
    let steps = [
        report("c", at(0), &[("a", r#""n":1"#)]),
        report("c", at(2), &[("a", r#""n":2"#)]),
        report("c", at(1), &[("a", r#""n":1"#)]),
        report("c", at(2), &[("a", r#""n":2"#)]),
        report("c", at(3), &[("a", r#""n":2"#)]),
        report("c", at(4), &[("a", r#""n":1"#)]),
    ];
    assert_eq!(kept(&mut dedup(), &steps), ["a", "a", "a", "a", "", "a"]);
}

#[test]
fn what_a_late_report_hides_is_stored_again_with_the_next() {
    let steps = [
        report("c", at(0), &[("a", r#""n":1"#)]),
        report("c", at(2), &[("a", r#""n":1"#)]),
        report("c", at(1), &[("a", r#""n":2"#)]),
        report("c", at(3), &[("a", r#""n":1"#)]),
        report("c", at(4), &[("a", r#""n":1"#)]),
    ];
    assert_eq!(kept(&mut dedup(), &steps), ["a", "", "a", "a", ""]);
}

#[test]
fn a_clock_that_is_far_ahead_spoils_nothing() {
    let day = 86_400_000_000_000;
    let steps = [
        report("c", at(0), &[("a", r#""n":1"#)]),
        report("c", at(0) + day, &[("a", r#""n":2"#)]),
        report("c", at(1), &[("a", r#""n":1"#)]),
        report("c", at(2), &[("a", r#""n":2"#)]),
    ];
    assert_eq!(kept(&mut dedup(), &steps), ["a", "a", "", "a"]);
}

#[test]
fn last_values_are_taken_over_from_a_store() {
    let mut dedup = dedup();
    let reported = report("c", at(5), &[("a", r#""n":1"#), ("b", r#""n":2"#)]);
    assert!(!dedup.knows(&reported.key()));
    let value = |id: &str, members: &str| LastValue {
        kind: "candidate-pair".into(),
        id: id.into(),
        at_ns: at(1),
        // The store may have its own way of writing.
        json: format!(r#"{{ {members}, "timestamp": 0, "type": "candidate-pair", "id": "{id}" }}"#),
    };
    let last =
        LastValues { at_ns: Some(at(4)), objects: vec![value("a", r#""n": 1"#), value("b", r#""n": 1"#)] };
    dedup.restore(NOW_MS, &reported.key(), &last);
    assert!(dedup.knows(&reported.key()));
    assert_eq!(kept(&mut dedup, &[reported]), ["b"]);
    assert_eq!(dedup.objects(), 2);
}

#[test]
fn memory_is_bounded_and_the_idle_go_first() {
    let mut dedup = Dedup::new(DedupSettings { objects_max: 6, connections_max: 3, ..Default::default() }, 1);
    let two = [("a", r#""n":1"#), ("b", r#""n":1"#)];
    for name in ["c1", "c2", "c3"] {
        kept(&mut dedup, &[report(name, at(0), &two)]);
    }
    kept(&mut dedup, &[report("c1", at(1), &two), report("c4", at(0), &two)]);
    let knows = |dedup: &Dedup, name: &str| dedup.knows(&report(name, 0, &[]).key());
    assert_eq!(["c1", "c2", "c3", "c4"].map(|name| knows(&dedup, name)), [true, false, true, true]);
    assert_eq!((dedup.connections(), dedup.objects()), (3, 6));
    let five: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|id| (*id, r#""n":1"#)).collect();
    kept(&mut dedup, &[report("c5", at(0), &five)]);
    assert!(dedup.objects() <= 6 && knows(&dedup, "c5"));
    dedup.clear();
    assert_eq!((dedup.connections(), dedup.objects()), (0, 0));
}

#[test]
fn a_connection_with_ever_new_ids_is_bounded_by_itself() {
    let mut dedup = dedup();
    for step in 0..40 {
        let ids: Vec<String> = (0..1_000).map(|n| format!("{step}-{n}")).collect();
        let objects: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), r#""n":1"#)).collect();
        let planned = dedup.plan(NOW_MS, report("c", at(step), &objects));
        assert_eq!(planned.fresh.len(), 1_000);
        assert!(dedup.objects() <= CONNECTION_OBJECTS_MAX);
    }
}

proptest! {
    /// A reader that takes the last stored value sees what was said, whatever came twice or after a restart. Only between a late
    /// report and the latest one before it came may the late one's value show.
    #[test]
    fn what_is_read_back_is_what_was_said(
        said in prop::collection::vec((0..12u64, 0..3u32, any::<bool>()), 1..40),
        heartbeat_ms in 1..900_000u64,
    ) {
        let mut dedup = Dedup::new(DedupSettings { heartbeat_ms, ..Default::default() }, 3);
        // What is said at one time is one thing: the first.
        let mut truth = BTreeMap::new();
        let mut stored: BTreeMap<u64, u32> = BTreeMap::new();
        let mut reports = BTreeSet::new();
        let mut hidden = BTreeSet::new();
        for (step, value, restart) in said {
            let value = *truth.entry(step).or_insert(value);
            let reported = report("c", at(step), &[("a", &format!(r#""n":{value}"#))]);
            let key = reported.key();
            if restart {
                dedup.clear();
            }
            if !dedup.knows(&key) {
                let last = stored.last_key_value().map(|(step, value)| LastValue {
                    kind: "candidate-pair".into(),
                    id: "a".into(),
                    at_ns: at(*step),
                    json: object("a", &format!(r#""n":{value}"#)).json,
                });
                let at_ns = reports.last().map(|step| at(*step));
                dedup.restore(NOW_MS, &key, &LastValues { at_ns, objects: last.into_iter().collect() });
            }
            let planned = dedup.plan(NOW_MS, reported);
            // As a store does: each report of a connection once.
            hidden.extend(reports.iter().copied().filter(|reported| *reported > step));
            if reports.insert(step) && !planned.fresh.is_empty() {
                stored.insert(step, value);
            }
        }
        truth.retain(|step, _| !hidden.contains(step));
        for (step, value) in truth {
            let seen = stored.range(..=step).next_back().map(|(_, value)| *value);
            prop_assert_eq!(seen, Some(value), "at {}", step);
        }
    }
}
