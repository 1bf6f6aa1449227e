//! What clients of our rooms counted stands beside what the server counted of the same tracks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod backends;
mod cluster;
mod common;

use backends::Backend;
use common::*;
use fanlight_events::Direction;
use fanlight_store::collector::{ClientsReader, Collector};
use fanlight_store::{Store, report};
use fanlight_telemetry::Report;
use fanlight_telemetry::collector::Source;
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery};
use fanlight_telemetry::decode::browser::{Beacon, Claimed, Sender};
use fanlight_telemetry::decode::livekit_metrics;
use fanlight_telemetry::report::TrackReport;
use serde_json::{Value, json};
use std::path::Path;

/// 2026-11-21 20:00:00 UTC.
const START_MS: u64 = 1_795_291_200_000;

/// One life of a page: Alice joins, publishes, leaves.
fn life(store: &Store, sid: &str, joined_ms: u64, left_ms: u64) {
    let track = format!("TR_{sid}");
    let events = [
        fact_at(joined_ms, "RM_1", sid, "", joined("alice")),
        fact_at(joined_ms + 500, "RM_1", sid, &track, published()),
        sample(left_ms - 100, "RM_1", sid, &track, Direction::Publish, 210),
        fact_at(left_ms, "RM_1", sid, "", left()),
    ];
    assert!(events.into_iter().all(|event| store.sender().try_send(event)));
}

/// A page's report of Alice's camera, by a clock that is `behind_ms` late.
fn said(collector: &Collector, source: Source, connection: &str, at_ms: u64, behind_ms: u64, packets: u64) {
    let at_ms = at_ms - behind_ms;
    let sent =
        json!({ "id": "OT", "type": "outbound-rtp", "timestamp": at_ms, "mid": "1", "packetsSent": packets });
    let reports = json!([{ "connection": connection, "at": at_ms, "stats": [sent] }]);
    let body = json!({ "page": connection, "now": at_ms, "reports": reports }).to_string();
    let whose = Claimed { room: "demo".into(), user: "alice".into() };
    let sender = Sender { now_ms: at_ms + behind_ms, ..Sender::default() };
    for report in Beacon::parse(body.as_bytes()).unwrap().into_reports(source, &whose, sender) {
        collector.sender().send_and_wait(report).unwrap();
    }
}

fn connections(reader: &ClientsReader) -> Vec<ClientConnection> {
    reader.connections(&ClientQuery { limit: 10, ..ClientQuery::default() }).unwrap().rows
}

fn both(dir: &Path, reader: &ClientsReader) -> Report {
    let mut report = report(dir, "demo").unwrap();
    reader.put_beside(&mut report).unwrap();
    report
}

fn packets(tracks: &[TrackReport]) -> Vec<Option<u64>> {
    tracks.iter().map(|track| track.client.as_ref().map(|client| client.packets)).collect()
}

#[test]
fn each_life_of_a_page_has_its_own_counts_also_with_a_wrong_clock() {
    for backend in Backend::each() {
        let dir = backend.dir();
        let store = open(dir);
        assert!(store.sender().try_send(fact_at(START_MS, "RM_1", "", "", room_started("demo"))));
        life(&store, "PA_1", START_MS + 10, START_MS + 20_000);
        life(&store, "PA_2", START_MS + 21_000, START_MS + 60_000);
        assert_eq!(store.close().unwritten_rows, 0);
        let reader = backend.reader();
        assert_eq!(packets(&both(dir, &reader).rooms[0].participants[0].tracks), [None]);

        let collector = backend.collector();
        const HOUR_MS: u64 = 3_600_000;
        for (at_ms, packets) in [(1_000, 10), (19_900, 209)] {
            said(&collector, Source::Browser, "first", START_MS + at_ms, HOUR_MS, packets);
        }
        for (at_ms, packets) in [(22_000, 10), (59_000, 205)] {
            said(&collector, Source::Browser, "second", START_MS + at_ms, HOUR_MS, packets);
        }
        said(&collector, Source::BrowserByKey, "liar", START_MS + 30_000, 0, 1_000_000);
        collector.close();

        let room = both(dir, &reader).rooms.remove(0);
        let counted: Vec<_> = room.participants.iter().map(|one| packets(&one.tracks)).collect();
        assert_eq!(counted, [[Some(209)], [Some(205)]]);
        let client = room.participants[0].tracks[0].client.as_ref().unwrap();
        assert_eq!((client.server_packets, client.at_ms), (220, START_MS + 19_900 - HOUR_MS));
        let json: Value = serde_json::from_str(&both(dir, &reader).to_json()).unwrap();
        assert_eq!(json["rooms"][0]["participants"][1]["tracks"][0]["client"]["packets"], 205);
        let text = both(dir, &reader).to_text(START_MS + 70_000);
        assert!(text.contains("AT CLIENT  DIFF %") && text.contains("209    5.00"), "{text}");

        for connection in connections(&reader) {
            let sides = reader.sides(dir, &connection).unwrap();
            let found =
                sides.map(|sides| (sides.participant.sid.as_str().to_owned(), packets(&sides.tracks)));
            let wanted = match connection.connection_id.as_str() {
                "first" => Some(("PA_1".to_owned(), vec![Some(209)])),
                "second" => Some(("PA_2".to_owned(), vec![Some(205)])),
                _ => None,
            };
            assert_eq!(found, wanted);
        }
    }
}

#[test]
fn tracks_that_shared_an_m_line_have_what_was_counted_in_their_time() {
    for backend in Backend::each() {
        let store = open(backend.dir());
        let events = [
            fact_at(START_MS, "RM_1", "", "", room_started("demo")),
            fact_at(START_MS + 10, "RM_1", "PA_1", "", joined("alice")),
            fact_at(START_MS + 1_000, "RM_1", "PA_1", "TR_a", published()),
            fact_at(START_MS + 10_000, "RM_1", "PA_1", "TR_b", published()),
        ];
        assert!(events.into_iter().all(|event| store.sender().try_send(event)));
        assert_eq!(store.close().unwritten_rows, 0);
        let collector = backend.collector();
        for (at_ms, packets) in [(1_500, 10), (9_500, 100), (11_000, 130), (20_000, 300)] {
            said(&collector, Source::Browser, "c", START_MS + at_ms, 0, packets);
        }
        collector.close();
        let participants = both(backend.dir(), &backend.reader()).rooms.remove(0).participants;
        assert_eq!(packets(&participants[0].tracks), [Some(100), Some(200)]);
    }
}

#[test]
fn what_a_livekit_client_measured_stands_beside_its_participant() {
    for backend in Backend::each() {
        let (dir, store) = (backend.dir(), open(backend.dir()));
        assert!(store.sender().try_send(fact_at(START_MS, "RM_1", "", "", room_started("demo"))));
        life(&store, "PA_1", START_MS + 10, START_MS + 20_000);
        life(&store, "PA_2", START_MS + 21_000, START_MS + 60_000);
        assert_eq!(store.close().unwritten_rows, 0);
        let collector = backend.collector();
        // One text, which is the track of the series under label 3, and one sample: 2.5.
        let batch = b"\x1a\x07TR_PA_1\x22\x0c\x08\x03\x18\x80\x20\x22\x05\x1d\0\0\x20\x40";
        let sender = livekit_metrics::Sender {
            room_sid: "RM_1".into(),
            room: "demo".into(),
            participant_sid: "PA_1".into(),
            identity: "alice".into(),
            at_ns: (START_MS + 9_000) * 1_000_000,
            ..Default::default()
        };
        for report in livekit_metrics::Batch::read(batch, &sender).unwrap().reports {
            collector.sender().send_and_wait(report).unwrap();
        }
        collector.close();

        let reader = backend.reader();
        let room = both(dir, &reader).rooms.remove(0);
        let [metric] = &room.participants[0].metrics[..] else { panic!("one metric") };
        assert_eq!(
            (metric.label.as_str(), metric.value),
            ("CLIENT_VIDEO_SUBSCRIBER_FREEZE_COUNT", Some(2.5))
        );
        assert_eq!((metric.track.as_str(), metric.at_ms), ("TR_PA_1", START_MS + 9_000));
        assert!(room.participants[1].metrics.is_empty());
        let connection = connections(&reader).remove(0);
        let sides = reader.sides(dir, &connection).unwrap().unwrap();
        assert_eq!((sides.participant.sid.as_str(), packets(&sides.tracks)), ("PA_1", vec![None]));
    }
}
