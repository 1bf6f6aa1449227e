//! TURN rows in the database: whose they are, what a report says of them, and how they leave.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::*;
use fanlight_base::Now;
use fanlight_events::turn::{
    AllocationName, Leg, LegCounters, Path as ClientPath, Quota, TurnEvent, TurnInput,
};
use fanlight_events::{Event, TurnQuotaHit};
use fanlight_store::{DATABASE_FILE, Settings, Store, report, turn_allocations, turn_sessions, turn_usage};
use fanlight_telemetry::report::RelayReport;
use fanlight_telemetry::turn_account::usage::{By, Price};
use fanlight_telemetry::turn_query::{Filter, Slice};
use rusqlite::Connection;
use std::path::Path;

const DAY_MS: u64 = 86_400_000;

fn count(dir: &Path, sql: &str) -> i64 {
    let database = Connection::open(dir.join(DATABASE_FILE)).unwrap();
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn execute(dir: &Path, sql: &str) {
    Connection::open(dir.join(DATABASE_FILE)).unwrap().execute_batch(sql).unwrap();
}

fn say(store: &Store, user: &str, id: u64, event: TurnEvent) {
    let name = AllocationName { realm: "r".into(), user: user.into(), id };
    let input = TurnInput::Event { node: Some("n".into()), name, event };
    // What is heard live has no other time than now.
    let heard = Now { mono_ns: 0, unix_ns: unix_ms() * 1_000_000 };
    assert!(store.sender().try_send(Event::Turn(heard, input)));
}

fn opened(store: &Store, user: &str, id: u64) {
    say(store, user, id, TurnEvent::Opened { lifetime_s: 600, path: ClientPath::default() });
}

fn relayed(rx_bytes: u64, tx_bytes: u64) -> LegCounters {
    LegCounters { rx_packets: 10, rx_bytes, tx_packets: 10, tx_bytes }
}

fn ended(store: &Store, user: &str, id: u64, bytes: LegCounters) {
    say(store, user, id, TurnEvent::Deleted);
    say(store, user, id, TurnEvent::Total(Leg::Client, bytes));
    say(store, user, id, TurnEvent::Total(Leg::Peer, bytes));
}

/// A room with one participant.
fn call(store: &Store, participant: &str, identity: &str) {
    let sender = store.sender();
    assert!(sender.try_send(fact("RM_1", "", "", room_started("demo"))));
    assert!(sender.try_send(fact("RM_1", participant, "", joined(identity))));
}

fn in_room(room: &str) -> Filter {
    Filter { room: Some(room.into()), ..Filter::default() }
}

#[test]
fn a_participants_relay_stands_in_its_room_its_report_and_its_bill() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    call(&store, "PA_ann", "ann");
    opened(&store, "1795305890:PA_ann", 1);
    opened(&store, "1795305890:PA_ann", 2);
    say(&store, "1795305890:PA_ann", 2, TurnEvent::Traffic(Leg::Peer, relayed(7, 5)));
    ended(&store, "1795305890:PA_ann", 1, relayed(2_000, 1_000));
    opened(&store, "1795305890:carol", 3);
    ended(&store, "1795305890:carol", 3, relayed(1, 1));
    wait_for("carol's end on record", || {
        turn_sessions(dir.path(), &Filter::default(), Slice::ALL)
            .is_ok_and(|page| page.rows.iter().any(|row| row.ended.is_some()))
    });

    let sessions = turn_sessions(dir.path(), &in_room("demo"), Slice::ALL).unwrap().rows;
    let [session] = sessions.as_slice() else { panic!("{sessions:#?}") };
    assert_eq!((session.user(), session.room(), session.ended), ("ann", "demo", None));
    let live = turn_allocations(dir.path(), &in_room("demo"), Slice::ALL).unwrap().rows;
    assert_eq!(live.iter().map(|one| one.name.id).collect::<Vec<_>>(), [2]);
    assert_eq!(live[0].participant, session.participant);

    let told = report(dir.path(), "demo").unwrap();
    let relay = told.rooms[0].participants[0].relay.unwrap();
    let expected =
        RelayReport { sessions: 1, held_ms: relay.held_ms, sent_bytes: 1_005, received_bytes: 2_007 };
    assert_eq!(relay, expected);
    assert!(told.to_text(unix_ms()).contains("over a TURN relay for "));
    store.close();

    // The next process goes on with the same session, and does not know the participant any more.
    let store = open(dir.path());
    ended(&store, "1795305890:PA_ann", 2, relayed(70, 50));
    store.close();
    let by_room = turn_usage(dir.path(), &Filter::default(), By::Room, Price::default()).unwrap();
    let brief: Vec<_> =
        by_room.iter().map(|line| (line.key.as_str(), line.peer.rx_bytes, line.peer.tx_bytes)).collect();
    assert_eq!(brief, [("demo", 2_070, 1_050), ("", 1, 1)]);
    let by_user = turn_usage(dir.path(), &Filter::default(), By::User, Price::default()).unwrap();
    assert_eq!(by_user.iter().map(|line| line.key.as_str()).collect::<Vec<_>>(), ["ann", "carol"]);
}

#[test]
fn who_left_before_the_server_began_is_found_in_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    call(&store, "PA_ann", "ann");
    store.close();
    let store = open(dir.path());
    opened(&store, "PA_ann", 1);
    ended(&store, "PA_ann", 1, relayed(2_000, 1_000));
    store.close();
    let sessions = turn_sessions(dir.path(), &in_room("demo"), Slice::ALL).unwrap().rows;
    assert_eq!(sessions.iter().map(|one| one.user()).collect::<Vec<_>>(), ["ann"]);
}

#[test]
fn old_turn_rows_leave_and_what_is_open_or_ended_later_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for (user, id) in [("old", 1), ("long", 2), ("open", 3), ("young", 4)] {
        opened(&store, user, id);
        ended(&store, user, id, relayed(1_000, 1_000));
    }
    store.close();
    // Backwards by days: `begun` for the beginning, `ended` for the end.
    let shift = |user: &str, begun: u64, ended: u64| {
        let (begun, ended) = (begun * DAY_MS, ended * DAY_MS);
        for table in ["turn_sessions", "turn_allocations"] {
            execute(
                dir.path(),
                &format!(
                    "UPDATE {table} SET started_ms = started_ms - {begun}, ended_low_ms = ended_low_ms - {ended},
                     ended_high_ms = ended_high_ms - {ended} WHERE person = '{user}'"
                ),
            );
        }
    };
    shift("old", 31, 31);
    shift("long", 31, 1);
    shift("open", 31, 0);
    for table in ["turn_sessions", "turn_allocations"] {
        let open = "SET ended_low_ms = NULL, ended_high_ms = NULL, reason = NULL WHERE person = 'open'";
        execute(dir.path(), &format!("UPDATE {table} {open}"));
    }
    // More than a portion.
    execute(
        dir.path(),
        "CREATE TEMP TABLE more AS SELECT * FROM turn_allocations WHERE person = 'old';
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO turn_allocations SELECT * FROM
             (SELECT 100000 + i AS number FROM n) CROSS JOIN
             (SELECT session, node, realm, user, id, person, room, transport, local, remote, tls, cipher, moved_from,
                     started_ms, start_known, last_status_ms, lifetime_s, released_ms, ended_low_ms, ended_high_ms,
                     reason, active_until_ms, refreshes, client_rx_packets, client_rx_bytes, client_tx_packets,
                     client_tx_bytes, peer_rx_packets, peer_rx_bytes, peer_tx_packets, peer_tx_bytes, deltas_match,
                     quality, peak_bps, leftover, class, participant_sid, identity, room_sid, named_room FROM more)",
    );
    assert_eq!(count(dir.path(), "SELECT count(*) FROM turn_allocations"), 5_004);

    let store = Store::open(dir.path(), Settings { retention_days: 30, ..settings() }).unwrap();
    wait_for("deletion", || count(dir.path(), "SELECT count(*) FROM turn_allocations") == 3);
    store.close();
    let people = |table: &str| -> Vec<String> {
        let database = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
        let mut statement = database.prepare(&format!("SELECT person FROM {table} ORDER BY person")).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    for table in ["turn_allocations", "turn_sessions"] {
        assert_eq!(people(table), ["long", "open", "young"], "{table}");
    }
}

#[test]
fn ends_and_quotas_stand_in_the_timeline_of_those_they_concern() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    call(&store, "PA_ann", "ann");
    for (id, user) in [(1, "1795305890:PA_ann"), (2, "1795305890:carol")] {
        opened(&store, user, id);
        ended(&store, user, id, relayed(100, 50));
    }
    for participant in ["PA_ann", ""] {
        let hit = TurnQuotaHit {
            node: "n".into(),
            realm: "r".into(),
            user: format!("1795305890:{participant}"),
            quota: Quota::UserBytes,
            limit: 1_000,
        };
        // A TURN server knows no rooms.
        assert!(store.sender().try_send(fact("", participant, "", hit)));
    }
    wait_for("all on record", || {
        count(dir.path(), "SELECT count(*) FROM timeline WHERE event LIKE 'turn_%'") == 4
    });
    let status = store.turn_monitor().snapshot().status;
    let packets = LegCounters { rx_packets: 10, tx_packets: 10, ..LegCounters::default() };
    assert_eq!((status.quota_hits[&Quota::UserBytes], status.open_sessions), (2, 0));
    assert_eq!((status.sessions_ended["closed"], status.traffic["r"].peer), (2, relayed(200, 100) + packets));
    store.close();

    let told = report(dir.path(), "demo").unwrap();
    let turn: Vec<_> =
        told.rooms[0].timeline.iter().filter(|event| event.event.starts_with("turn_")).collect();
    assert_eq!(turn.len(), 2, "of others: {turn:#?}");
    assert!(turn.iter().all(|event| event.participant.as_str() == "PA_ann"));
    let end = turn.iter().find(|event| event.event == "turn_session_ended").unwrap();
    assert_eq!((&end.fields["user"], &end.fields["peer_rx_bytes"]), (&"ann".into(), &100.into()));
    let hit = turn.iter().find(|event| event.event == "turn_quota_hit").unwrap();
    assert_eq!((&hit.fields["quota"], &hit.fields["limit"]), (&"user_bytes".into(), &1_000.into()));
}
