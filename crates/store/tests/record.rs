//! What goes in comes out: events through a real store, read back as a report and with plain SQL.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::*;
use fanlight_events::Direction;
use fanlight_store::{DATABASE_FILE, ReportError, Settings, Store, StoreError, report};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::path::Path;

fn database(dir: &Path) -> Connection {
    Connection::open(dir.join(DATABASE_FILE)).unwrap()
}

fn count(dir: &Path, sql: &str) -> i64 {
    database(dir).query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Alice publishes, Bob watches, all stamps known.
fn call(store: &Store, room: &str, start_ms: u64) {
    let sender = store.sender();
    let (alice, bob, track) = (format!("PA_a{room}"), format!("PA_b{room}"), format!("TR_{room}"));
    let events = [
        fact_at(start_ms, room, "", "", room_started("demo")),
        fact_at(start_ms + 10, room, &alice, "", joined("alice")),
        fact_at(start_ms + 20, room, &bob, "", joined("bob")),
        fact_at(start_ms + 331, room, &alice, "", active()),
        fact_at(start_ms + 400, room, &alice, &track, published()),
        fact_at(start_ms + 500, room, &bob, &track, subscribed(&alice)),
        sample(start_ms + 5_000, room, &alice, &track, Direction::Publish, 100),
        sample(start_ms + 5_000, room, &bob, &track, Direction::Subscribe, 90),
        sample(start_ms + 10_000, room, &alice, &track, Direction::Publish, 210),
    ];
    for event in events {
        assert!(sender.try_send(event));
    }
}

fn end(store: &Store, room: &str, end_ms: u64) {
    let sender = store.sender();
    assert!(sender.try_send(fact_at(end_ms, room, &format!("PA_a{room}"), "", left())));
    assert!(sender.try_send(fact_at(end_ms + 5, room, "", "", room_ended("departed"))));
}

#[test]
fn a_call_is_told_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let start_ms = unix_ms();
    call(&store, "RM_1", start_ms);
    end(&store, "RM_1", start_ms + 11_000);
    assert_eq!(store.close().unwritten_rows, 0);

    let told = report(dir.path(), "RM_1").unwrap();
    let told: Value = serde_json::from_str(&told.to_json()).unwrap();
    let room = &told["rooms"][0];
    assert_eq!(room["name"], "demo");
    assert_eq!(room["ended_ms"], start_ms + 11_005);
    assert_eq!(room["reason"], "departed");
    let [alice, bob] = [&room["participants"][0], &room["participants"][1]];
    assert_eq!((&alice["identity"], &alice["left_ms"]), (&json!("alice"), &json!(start_ms + 11_000)));
    assert_eq!((&bob["identity"], &bob["reason"]), (&json!("bob"), &json!("room_closed")));
    assert_eq!(alice["client"]["sdk"], "js");
    let expected = json!({
        "sid": "TR_RM_1", "direction": "publish", "kind": "video", "source": "camera", "codec": "video/VP8",
        "started_ms": start_ms + 400, "ended_ms": start_ms + 11_000,
        "counters": serde_json::to_value(counters(210)).unwrap(),
    });
    assert_eq!(alice["tracks"], json!([expected]));
    assert_eq!(bob["tracks"][0]["direction"], "subscribe");
    assert_eq!(bob["tracks"][0]["counters"]["packets"], 90);
    let events: Vec<_> =
        room["timeline"].as_array().unwrap().iter().map(|event| event["event"].clone()).collect();
    assert_eq!(
        events,
        [
            "room_started",
            "participant_joined",
            "participant_joined",
            "participant_active",
            "track_published",
            "track_subscribed",
            "participant_left",
            "room_ended",
        ]
    );
    assert_eq!(
        room["timeline"][3],
        json!({"t_ms": start_ms + 331, "event": "participant_active", "participant": "PA_aRM_1",
               "connect_ms": 321, "connection_type": "udp", "srtp_profile": "AEAD_AES_128_GCM"})
    );
}

#[test]
fn every_sample_is_kept_with_its_layers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let start_ms = unix_ms();
    call(&store, "RM_1", start_ms);
    store.close();
    let database = database(dir.path());
    let sql = "SELECT c.number, c.t_ms, c.packets, c.rtt_us, c.layers->0->>'rid' FROM counters c
               JOIN tracks t ON t.id = c.track_id WHERE t.direction = 'publish' ORDER BY c.number";
    let rows: Vec<(i64, u64, i64, i64, String)> = database
        .prepare(sql)
        .unwrap()
        .query_map([], |row| {
            let t_ms: i64 = row.get(1)?;
            Ok((row.get(0)?, t_ms.unsigned_abs(), row.get(2)?, row.get(3)?, row.get(4)?))
        })
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let expected =
        [(1, start_ms + 5_000, 100, 18, "h".to_owned()), (2, start_ms + 10_000, 210, 18, "h".to_owned())];
    assert_eq!(rows, expected);
}

#[test]
fn a_live_room_is_told_while_the_store_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    call(&store, "RM_1", unix_ms());
    let live = || report(dir.path(), "demo").ok().filter(|report| report.rooms[0].timeline.len() == 6);
    wait_for("the call on record", || live().is_some());
    let told = live().unwrap();
    assert_eq!((told.rooms[0].ended_ms, told.rooms[0].reason.as_ref()), (None, None));
    assert_eq!(told.rooms[0].participants[1].left_ms, None);
    assert!(told.to_text(unix_ms()).contains("still open"));
    store.close();
}

#[test]
fn rooms_of_one_name_are_all_told_the_newest_last() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let start_ms = unix_ms();
    for (room, after_ms) in [("RM_z", 0), ("RM_a", 60_000), ("RM_m", 30_000)] {
        call(&store, room, start_ms + after_ms);
        end(&store, room, start_ms + after_ms + 20_000);
    }
    store.close();
    let told = report(dir.path(), "demo").unwrap();
    let sids: Vec<_> = told.rooms.iter().map(|room| room.sid.as_str()).collect();
    assert_eq!(sids, ["RM_z", "RM_m", "RM_a"]);
    assert!(told.rooms.iter().all(|room| room.participants.len() == 2 && room.timeline.len() == 8));
    assert_eq!(report(dir.path(), "RM_m").unwrap().rooms.len(), 1);
}

#[test]
fn what_is_not_there_is_said_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let missing = report(dir.path(), "demo").unwrap_err();
    assert!(matches!(missing, ReportError::NoDatabase(_)));
    open(dir.path()).close();
    let missing = report(dir.path(), "demo").unwrap_err();
    assert!(missing.to_string().starts_with("no room with name or sid \"demo\" in "), "{missing}");
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    call(&store, "RM_1", unix_ms());
    assert!(matches!(Store::open(dir.path(), settings()), Err(StoreError::InUse(_))));
    store.close();
    open(dir.path()).close();
}

#[test]
fn a_database_of_a_later_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close();
    database(dir.path()).pragma_update(None, "user_version", 99).unwrap();
    let newer = Store::open(dir.path(), settings()).unwrap_err();
    assert!(matches!(newer, StoreError::Newer { found: 99, .. }), "{newer}");
    assert!(matches!(report(dir.path(), "demo"), Err(ReportError::Version { found: 99, .. })));
}

#[test]
fn an_orderly_end_is_not_taken_for_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let start_ms = unix_ms();
    call(&store, "RM_1", start_ms);
    end(&store, "RM_1", start_ms + 11_000);
    store.close();
    open(dir.path()).close();
    assert_eq!(report(dir.path(), "demo").unwrap().rooms[0].reason.as_deref(), Some("departed"));
}

#[test]
fn numbers_go_on_where_the_last_run_ended() {
    let dir = tempfile::tempdir().unwrap();
    for room in ["RM_1", "RM_2"] {
        let store = open(dir.path());
        call(&store, room, unix_ms());
        end(&store, room, unix_ms());
        store.close();
    }
    assert_eq!(count(dir.path(), "SELECT count(*) FROM tracks"), 4);
    assert_eq!(count(dir.path(), "SELECT count(*) FROM timeline"), 16);
}

#[test]
fn the_heartbeat_names_the_node_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let seen = "SELECT seen_ms - boot_ms FROM heartbeat WHERE node = 'ND_test'";
    wait_for("a second heartbeat", || count(dir.path(), seen) >= 1_000);
    store.close();
}

#[test]
fn old_rooms_are_forgotten_with_all_their_rows() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let old_ms = unix_ms() - 31 * 86_400_000;
    for room in ["RM_1", "RM_2"] {
        call(&store, room, old_ms);
        end(&store, room, old_ms);
    }
    call(&store, "RM_new", unix_ms());
    end(&store, "RM_new", unix_ms());
    store.close();
    let store = Store::open(dir.path(), Settings { retention_days: 30, ..settings() }).unwrap();
    wait_for("deletion", || count(dir.path(), "SELECT count(*) FROM rooms") == 1);
    store.close();
    for (table, left) in [("participants", 2), ("tracks", 2), ("counters", 3), ("timeline", 8)] {
        assert_eq!(count(dir.path(), &format!("SELECT count(*) FROM {table}")), left, "{table}");
    }
    assert_eq!(report(dir.path(), "demo").unwrap().rooms[0].sid.as_str(), "RM_new");
}

#[test]
fn events_after_the_close_are_refused_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sender = store.sender();
    store.close();
    assert!(!sender.try_send(fact("RM_1", "", "", room_started("demo"))));
    assert!(!sender.try_send(sample(1, "RM_1", "PA_1", "TR_1", Direction::Publish, 1)));
    assert_eq!((sender.facts_refused(), sender.samples_refused()), (1, 1));
}
