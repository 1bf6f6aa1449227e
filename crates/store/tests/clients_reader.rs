//! What clients have reported, read back alike from SQLite and from PostgreSQL.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod backends;
mod cluster;
mod reports;

use backends::Backend;
use cluster::Cluster;
use fanlight_store::collector::{ClientsReader, PostgresSettings};
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery, StoredObject};
use fanlight_telemetry::collector::{ClientReport, Reason, Source, StatsObject};
use reports::*;

fn all(reader: &ClientsReader) -> Vec<ClientConnection> {
    reader.connections(&ClientQuery { limit: 100, ..ClientQuery::default() }).unwrap().rows
}

/// The connection of this id.
fn named(reader: &ClientsReader, id: &str) -> ClientConnection {
    let query = ClientQuery { connection_id: Some(id.to_owned()), limit: 1, ..ClientQuery::default() };
    reader.connections(&query).unwrap().rows.remove(0)
}

/// Types, ids, and at which steps they were said.
fn told(objects: &[StoredObject]) -> Vec<String> {
    let line =
        |stored: &StoredObject| format!("{}{} {}", stored.kind, stored.id, (stored.at_ns - at(0)) / STEP_NS);
    objects.iter().map(line).collect()
}

/// A report of a page that somebody with a token has.
fn of_page(connection: &str, user: &str, step: u64, objects: &[(&str, u64)]) -> ClientReport {
    let mut said = report(connection, step, objects);
    said.source = Source::Browser;
    let envelope = said.connection.as_mut().unwrap();
    (envelope.channel_id, envelope.client_id) = ("lobby".into(), user.into());
    (envelope.role, envelope.multistream) = (None, None);
    said
}

#[test]
fn what_was_said_is_read_back() {
    for backend in Backend::each() {
        let collector = backend.collector();
        let sender = collector.sender();
        for step in 0..6 {
            let mut said = report("c1", step, &[("a", step / 2), ("b", 7)]);
            said.extra = format!(r#"{{"n":{step},"é😀":"\u0000"}}"#);
            said.reject(Reason::NoId, 1);
            sender.send_and_wait(said).unwrap();
        }
        let mut browser = of_page("c2", "client", 3, &[("a", 1)]);
        let envelope = browser.connection.as_mut().unwrap();
        (envelope.participant_sid, envelope.room_sid) = ("PA_1".into(), "RM_1".into());
        sender.send_and_wait(browser).unwrap();

        let reader = backend.reader();
        let query = |query: ClientQuery| reader.connections(&ClientQuery { limit: 10, ..query }).unwrap();
        let found = query(ClientQuery::default());
        assert_eq!((found.total, found.rows.len()), (2, 2));
        assert_eq!((found.rows[0].source.as_str(), found.rows[1].source.as_str()), ("browser", "sora"));
        assert_eq!((&found.rows[0].role, found.rows[0].multistream), (&None, None));
        let one = named(&reader, "c1");
        assert_eq!((one.reports, one.stored, one.unchanged, one.rejected), (6, 4, 8, 6));
        assert_eq!((one.first_ns, one.last_ns, one.role.as_deref()), (at(0), at(5), Some("sendrecv")));
        assert_eq!((one.multistream, one.label.as_str()), (Some(true), "WebRTC SFU Sora"));
        for (wish, rows) in [
            (ClientQuery { participant_sid: Some("PA_1".into()), ..Default::default() }, 1),
            (ClientQuery { room_sid: Some("RM_1".into()), ..Default::default() }, 1),
            (ClientQuery { channel_id: Some("lobby".into()), ..Default::default() }, 1),
            (ClientQuery { client_id: Some("client".into()), ..Default::default() }, 2),
            (ClientQuery { connection_id: Some("c2".into()), ..Default::default() }, 1),
            (ClientQuery { connection_id: Some("browser:c2".into()), ..Default::default() }, 0),
            (ClientQuery { source: Some("sora".into()), ..Default::default() }, 1),
            (ClientQuery { proven: true, ..Default::default() }, 1),
            (ClientQuery { number: Some(one.number), ..Default::default() }, 1),
            (ClientQuery { from_ns: Some(at(4)), ..Default::default() }, 1),
            (ClientQuery { from_ns: Some(at(0)), to_ns: Some(u64::MAX), ..Default::default() }, 2),
            (ClientQuery { to_ns: Some(at(3)), ..Default::default() }, 1),
            (ClientQuery { offset: 1, ..Default::default() }, 1),
            (ClientQuery { room_sid: Some(String::new()), ..Default::default() }, 0),
            (ClientQuery { channel_id: Some("\0".into()), ..Default::default() }, 0),
        ] {
            assert_eq!(query(wish.clone()).rows.len(), rows, "{wish:?}");
        }
        let series = |from, to, limit| {
            let range = (at(from), at(to));
            let stored = reader.series(one.number, "codec", "a", range, limit).unwrap();
            stored.iter().map(|stored| (stored.at_ns - at(0)) / STEP_NS).collect::<Vec<_>>()
        };
        assert_eq!(series(0, 9, 100), [0, 2, 4]);
        assert_eq!(series(0, 9, 2), [0, 2]);
        assert_eq!(series(3, 4, 100), [2]);
        assert_eq!(series(3, 5, 100), [2, 4]);
        assert_eq!(series(9, 19, 100), [4]);
        let whole = reader.series(one.number, "codec", "a", (0, i64::MAX as u64), 100).unwrap();
        assert_eq!((whole.len(), whole[2].stats_ms), (3, 4.5));
        let json: serde_json::Value = serde_json::from_str(&whole[2].json).unwrap();
        assert_eq!(json["value"], 2);
        assert_eq!(told(&reader.latest(one.number).unwrap()), ["codeca 4", "codecb 0"]);
        let said = reader.reports(one.number, (at(1), at(3)), 10).unwrap();
        assert_eq!(said.len(), 2);
        let extra: serde_json::Value = serde_json::from_str(&said[0].extra).unwrap();
        assert_eq!((&extra["n"], &extra["é😀"]), (&1.into(), &"\0".into()));
        assert_eq!((said[0].stored, said[0].unchanged, said[0].rejected), (0, 2, 1));
        assert_eq!(reader.reports(77, (0, u64::MAX), 10).unwrap(), []);
        collector.close();
    }
}

#[test]
fn the_latest_of_every_type_and_id_is_found() {
    for backend in Backend::each() {
        let collector = backend.collector();
        for step in 0..5u64 {
            for connection in ["before", "c", "then"] {
                let mut said = report(connection, step, &[]);
                for (kind, id) in
                    [("a", "1"), ("a", "2"), ("b", "1"), ("c", "0"), ("c", "9"), ("c", "99"), ("d", "1")]
                {
                    // Some are not in every report.
                    if kind != "c" || step < 3 {
                        let json =
                            format!(r#"{{"type":"{kind}","id":"{id}","timestamp":{step},"n":{step}}}"#);
                        said.take(StatsObject::parse(&json));
                    }
                }
                collector.sender().send_and_wait(said).unwrap();
            }
        }
        collector.close();
        let reader = backend.reader();
        let latest = reader.latest(named(&reader, "c").number).unwrap();
        assert_eq!(told(&latest), ["a1 4", "a2 4", "b1 4", "c0 2", "c9 2", "c99 2", "d1 4"]);
        assert_eq!(reader.latest(77).unwrap(), []);
    }
}

#[test]
fn a_page_that_takes_the_id_of_anothers_connection_speaks_for_itself_only() {
    for backend in Backend::each() {
        let collector = backend.collector();
        for step in 0..4 {
            collector.sender().send_and_wait(of_page("c", "alice", 2 * step, &[("a", step)])).unwrap();
            let forged = of_page("c", "mallory", 2 * step + 1, &[("a", 1_000 + step), ("m", 1)]);
            collector.sender().send_and_wait(forged).unwrap();
        }
        // What is compared is each one's own, also after a start.
        collector.close();
        let collector = backend.collector();
        let stored = collector.sender().send_and_wait(of_page("c", "alice", 8, &[("a", 3)])).unwrap();
        assert_eq!((stored.objects, stored.unchanged), (0, 1));
        collector.close();
        let reader = backend.reader();
        let alice = all(&reader).into_iter().find(|one| one.client_id == "alice").unwrap();
        assert_eq!((alice.reports, alice.stored), (5, 4));
        assert_eq!(told(&reader.latest(alice.number).unwrap()), ["codeca 6"]);
        let series = reader.series(alice.number, "codec", "a", (0, i64::MAX as u64), 10).unwrap();
        assert_eq!(told(&series), ["codeca 0", "codeca 2", "codeca 4", "codeca 6"]);
        assert_eq!(reader.series(alice.number, "codec", "m", (0, i64::MAX as u64), 10).unwrap(), []);
    }
}

#[test]
fn nothing_is_there_before_somebody_reports() {
    for backend in Backend::each() {
        let reader = backend.reader();
        assert_eq!(all(&reader), []);
        assert_eq!(reader.latest(1).unwrap(), []);
        let whose = ClientConnection { source: "browser".to_owned(), ..ClientConnection::default() };
        assert_eq!(reader.sides(backend.dir(), &whose).unwrap(), None);
        let collector = backend.collector();
        collector.sender().send_and_wait(report("c", 0, &[("a", 1)])).unwrap();
        collector.close();
        assert_eq!(all(&reader).len(), 1);
    }
}

fn reader_of(cluster: &Cluster, uri: &str) -> ClientsReader {
    assert!(cluster.port() > 0);
    ClientsReader::postgres(&PostgresSettings::new(uri.to_owned())).unwrap()
}

#[test]
fn a_server_that_is_away_is_said_and_taken_again() {
    let mut cluster = Cluster::start();
    let uri = cluster.database("d");
    let dir = tempfile::tempdir().unwrap();
    let collector = cluster::collector(dir.path(), &uri);
    collector.sender().send_and_wait(report("c", 0, &[("a", 1)])).unwrap();
    collector.close();
    let reader = reader_of(&cluster, &uri);
    assert_eq!(all(&reader).len(), 1);
    cluster.end("INT");
    let error = reader.connections(&ClientQuery::default()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("PostgreSQL at 127.0.0.1:{}/d: ", cluster.port())), "{error}");
    cluster.go_on();
    assert_eq!(all(&reader).len(), 1);

    // Writing waits for nobody who reads, reading for nobody who writes.
    cluster.sql(
        "d",
        "CREATE ROLE looker LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker; CREATE ROLE stranger LOGIN",
    );
    let looker = reader_of(&cluster, &uri.replace("postgres@", "looker@"));
    let mut holder = cluster.psql("d");
    let mut holder = holder.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut typed = holder.stdin.take().unwrap();
    std::io::Write::write_all(&mut typed, b"BEGIN; LOCK TABLE fanlight_connection IN EXCLUSIVE MODE;\n")
        .unwrap();
    wait_for("the lock", || {
        !cluster
            .sql("d", "SELECT 1 FROM pg_locks WHERE mode = 'ExclusiveLock' AND relation IS NOT NULL")
            .is_empty()
    });
    assert_eq!(all(&looker).len(), 1);
    drop(typed);
    assert!(holder.wait().unwrap().success());
    // Who may not read is told so, and gets no empty list.
    let stranger = reader_of(&cluster, &uri.replace("postgres@", "stranger@"));
    let error = stranger.connections(&ClientQuery::default()).unwrap_err().to_string();
    assert!(error.contains("permission denied for table fanlight_connection [42501]"), "{error}");
}

#[test]
fn a_database_of_an_earlier_version_gets_what_it_lacks() {
    let cluster = Cluster::start();
    let uri = cluster.database("d");
    cluster.sql(
        "d",
        "CREATE TABLE fanlight_report (connection_id text NOT NULL, session_id text NOT NULL, channel_id text NOT NULL,
           client_id text NOT NULL, at_ns bigint NOT NULL, created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
           PRIMARY KEY (connection_id, session_id, channel_id, client_id, at_ns))",
    );
    let earlier = format!("INSERT INTO fanlight_report VALUES ('c', 'session', 'sora', 'client', {})", at(0));
    cluster.sql("d", &earlier);
    let dir = tempfile::tempdir().unwrap();
    let collector = cluster::collector(dir.path(), &uri);
    assert!(collector.sender().send_and_wait(report("c", 0, &[("a", 1)])).unwrap().duplicate);
    collector.sender().send_and_wait(report("c", 1, &[("a", 1)])).unwrap();
    let reader = reader_of(&cluster, &uri);
    let one = named(&reader, "c");
    assert_eq!((one.reports, one.stored), (1, 1));
    let extra: Vec<String> =
        reader.reports(one.number, (0, u64::MAX), 9).unwrap().into_iter().map(|said| said.extra).collect();
    assert_eq!(extra, ["{}", "{}"]);
    // Another server deletes it while this one thinks that it is there.
    cluster.sql("d", "DELETE FROM fanlight_connection; DELETE FROM sora_connection");
    collector.sender().send_and_wait(report("c", 2, &[("a", 2)])).unwrap();
    assert_eq!(named(&reader, "c").reports, 1);
    assert_eq!(cluster.count("d", "sora_connection"), 1);
    assert_eq!(collector.health().spooled_reports, 0);
    collector.close();
}

/// So many connections with 40 reports and 120 objects each, of which one is asked for.
const MANY: &str = "
    INSERT INTO fanlight_connection (source, connection_id, session_id, channel_id, client_id, room_sid, participant_sid, label,
      version, node_name, first_ns, last_ns)
    SELECT 'browser', 'c' || n, 's' || n, 'room' || n % 500, 'user' || n % 3000, 'RM_' || n % 600, 'PA_' || n, '', '', '',
      1795000000000000000 + n * 60000000000, 1795000000000000000 + (n + 39) * 60000000000 FROM generate_series(1, 6000) AS n;
    INSERT INTO fanlight_report (connection_id, session_id, channel_id, client_id, at_ns)
    SELECT 'browser:c' || n, 's' || n, 'room' || n % 500, 'user' || n % 3000, 1795000000000000000 + (n + step) * 60000000000
    FROM generate_series(1, 6000) AS n, generate_series(0, 39) AS step;
    INSERT INTO sora_user_agent_stats (timestamp, channel_id, connection_id, rtc_stats_timestamp, rtc_stats_type, rtc_stats_id, rtc_stats_data)
    SELECT to_timestamp(1795000000 + (n + step) * 60), 'room' || n % 500, 'browser:c' || n, step, kind, 'id',
      jsonb_build_object('packetsSent', step)
    FROM generate_series(1, 2000) AS n, generate_series(0, 39) AS step,
      unnest(ARRAY['codec', 'outbound-rtp', 'inbound-rtp']) AS kind;
    ANALYZE";

#[test]
fn what_is_read_is_found_by_indexes() {
    let cluster = Cluster::start();
    let uri = cluster.database("d");
    let dir = tempfile::tempdir().unwrap();
    let collector = cluster::collector(dir.path(), &uri);
    collector.sender().send_and_wait(of_page("mine", "anna", 0, &[("a", 1)])).unwrap();
    collector.close();
    cluster.sql("d", MANY);
    let scans =
        || cluster.sql("d", "SELECT sum(seq_scan) FROM pg_stat_user_tables").concat().parse::<u64>().unwrap();
    // Those of the filling are told when its session ends.
    wait_for("the filling's statistics", || {
        cluster
            .sql(
                "d",
                "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'fanlight_report' AND n_live_tup > 200000",
            )
            .concat()
            == "1"
    });
    let before = scans();
    let reader = reader_of(&cluster, &uri);
    let hour_ns = 60 * STEP_NS;
    for (wish, rows) in [
        (ClientQuery { connection_id: Some("c7".into()), ..Default::default() }, 1),
        (ClientQuery { channel_id: Some("room7".into()), ..Default::default() }, 12),
        (ClientQuery { client_id: Some("user7".into()), ..Default::default() }, 2),
        (ClientQuery { room_sid: Some("RM_7".into()), ..Default::default() }, 10),
        (ClientQuery { participant_sid: Some("PA_7".into()), ..Default::default() }, 1),
        (ClientQuery { from_ns: Some(at(6_000)), ..Default::default() }, 40),
        (ClientQuery { to_ns: Some(at(0) + hour_ns), from_ns: Some(0), ..Default::default() }, 60),
        (ClientQuery { number: Some(100), ..Default::default() }, 1),
    ] {
        let found = reader.connections(&ClientQuery { limit: 100, ..wish.clone() }).unwrap();
        assert_eq!((found.total, found.rows.len()), (rows as u64, rows), "{wish:?}");
    }
    let one = named(&reader, "c77");
    assert_eq!(reader.latest(one.number).unwrap().len(), 3);
    let range = (at(100), at(200));
    // One of them held when the time began.
    assert_eq!(reader.series(one.number, "codec", "id", range, 100).unwrap().len(), 18);
    assert_eq!(reader.reports(one.number, range, 100).unwrap().len(), 17);
    let mut report = fanlight_telemetry::Report::default();
    reader.put_beside(&mut report).unwrap();
    drop(reader);
    // A session tells what it did when it ends.
    wait_for("the reader's end", || {
        cluster
            .sql("d", "SELECT 1 FROM pg_stat_activity WHERE application_name = 'fanlight-reader'")
            .is_empty()
    });
    assert_eq!(scans(), before, "a table was read from its beginning to its end");
}
