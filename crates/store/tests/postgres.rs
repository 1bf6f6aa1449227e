//! PostgreSQL in Kohaku's place: its tables, filled by batches, read back by SQL.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod reports;

use cluster::{Cluster, collector, collector_with};
use fanlight_store::collector::{
    CollectError, CollectorSettings, PostgresSettings, PostgresSink, Sink, SinkError,
};
use fanlight_telemetry::collector::{ClientReport, Source, StatsObject};
use reports::*;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

/// A report with these objects.
fn said(connection: &str, step: u64, objects: &[&str]) -> ClientReport {
    let mut said = report(connection, step, &[]);
    for object in objects {
        said.take(StatsObject::parse(object));
    }
    assert_eq!(said.rejected_objects(), 0);
    said
}

/// Kohaku 2023.1's tables as its schema says, without TimescaleDB.
const KOHAKU: &str = "
CREATE TYPE sora_connection_role AS ENUM ('sendrecv', 'sendonly', 'recvonly');
CREATE TABLE sora_connection (
  pk bigserial PRIMARY KEY, timestamp timestamptz NOT NULL, label text NOT NULL, version text NOT NULL, node_name text NOT NULL,
  multistream boolean NOT NULL, simulcast boolean NOT NULL, spotlight boolean NOT NULL, role sora_connection_role NOT NULL,
  channel_id text NOT NULL, session_id text NOT NULL, client_id text NOT NULL, connection_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE sora_user_agent_stats (
  timestamp timestamptz NOT NULL, channel_id text NOT NULL, connection_id text NOT NULL, rtc_stats_timestamp float8 NOT NULL,
  rtc_stats_type text NOT NULL, rtc_stats_id text NOT NULL, rtc_stats_data jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP);";

const COLUMNS: &str =
    "SELECT table_name, column_name, udt_name, is_nullable, column_default FROM information_schema.columns
  WHERE table_schema = 'public' AND table_name LIKE 'sora%' ORDER BY table_name, ordinal_position";

/// `value` at each step that has a row, of one object.
fn kept(cluster: &Cluster, database: &str, connection: &str, kind: &str, member: &str) -> Vec<String> {
    cluster.sql(
        database,
        &format!(
            "SELECT round((extract(epoch FROM timestamp) - {}) / 60), rtc_stats_data->>'{member}' FROM sora_user_agent_stats
             WHERE connection_id = '{connection}' AND rtc_stats_type = '{kind}' ORDER BY timestamp",
            at(0) / 1_000_000_000
        ),
    )
}

#[test]
fn the_tables_are_kohakus() {
    let cluster = Cluster::start();
    let ours = cluster.database("ours");
    cluster.database("kohakus");
    cluster.sql("kohakus", KOHAKU);
    let dir = tempfile::tempdir().unwrap();
    let collector = collector(dir.path(), &ours);
    let mut one = report("c1", 3, &[("a", 7)]);
    one.connection.as_mut().unwrap().channel_id = "it's 日本\0".into();
    one.at_ns += 123_456_789;
    assert_eq!(collector.sender().send_and_wait(one).unwrap().objects, 1);
    collector.close();
    assert_eq!(cluster.sql("ours", COLUMNS), cluster.sql("kohakus", COLUMNS));
    let labels = "SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum";
    assert_eq!(cluster.sql("ours", labels), cluster.sql("kohakus", labels));
    let row = "SELECT label, version, node_name, multistream, simulcast, spotlight, role, channel_id, session_id, client_id,
               connection_id, timestamp AT TIME ZONE 'UTC', created_at > now() - interval '1 hour' FROM sora_connection";
    assert_eq!(
        cluster.sql("ours", row),
        ["WebRTC SFU Sora|2023.1.0|sora@127.0.0.1|t|f|f|sendrecv|it's 日本\u{fffd}|session|client|c1|2026-11-18 14:09:40.123456|t"
            .replace("2026-11-18 14:09:40", &seconds(3))]
    );
    let row = "SELECT channel_id, connection_id, rtc_stats_timestamp, rtc_stats_type, rtc_stats_id, rtc_stats_data->'value'
               FROM sora_user_agent_stats";
    assert_eq!(cluster.sql("ours", row), ["it's 日本\u{fffd}|c1|3.5|codec|a|7"]);
    // The way to one connection's objects, and to its last ones.
    let plan = cluster.sql(
        "ours",
        "SET enable_seqscan = off; EXPLAIN SELECT * FROM sora_user_agent_stats WHERE connection_id = 'c1'
         AND rtc_stats_type = 'codec' AND rtc_stats_id = 'a' ORDER BY timestamp DESC LIMIT 1",
    );
    assert!(
        plan.concat().contains("sora_user_agent_stats_series_idx") && !plan.concat().contains("Sort"),
        "{plan:?}"
    );
}

/// A step's time, to the second, as PostgreSQL writes it.
fn seconds(step: u64) -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "+%Y-%m-%d %H:%M:%S", "-d", &format!("@{}", at(step) / 1_000_000_000)])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn each_object_is_compared_with_its_last_value_also_after_a_restart() {
    let cluster = Cluster::start();
    let uri = cluster.database("d");
    let dir = tempfile::tempdir().unwrap();
    let width =
        |width: u64| format!(r#"{{"id":"V","type":"outbound-rtp","timestamp":1.5,"frameWidth":{width}}}"#);
    let codec = r#"{"id":"V","type":"codec","timestamp":1,"clockRate":90000}"#;
    let codec_again = r#"{"clockRate":9.0e4,"timestamp":2,"type":"codec","id":"\u0056"}"#;
    // A value that returns is kept; the same id of another type is another object; spelling and order do not matter.
    let steps: [&[&str]; 8] = [
        &[&width(1280), codec],
        &[&width(1280), codec_again],
        &[&width(640), codec],
        &[&width(1280)],
        &[],
        &[&width(1280), codec],
        &[&width(640)],
        &[&width(640), codec],
    ];
    for (step, objects) in steps.iter().enumerate() {
        // Each report by a server that has just been started.
        let collector = collector(dir.path(), &uri);
        let one = said("c1", step as u64, objects);
        assert!(!collector.sender().send_and_wait(one.clone()).unwrap().duplicate);
        assert!(collector.sender().send_and_wait(one).unwrap().duplicate);
        // What came earlier comes again.
        let first = said("c1", 0, steps[0]);
        assert!(collector.sender().send_and_wait(first).unwrap().duplicate);
        assert_eq!(collector.health().failing, None);
        collector.close();
    }
    assert_eq!(
        kept(&cluster, "d", "c1", "outbound-rtp", "frameWidth"),
        ["0|1280", "2|640", "3|1280", "6|640"]
    );
    assert_eq!(kept(&cluster, "d", "c1", "codec", "clockRate"), ["0|90000"]);
    // Unchanged for long is said again.
    let collector = collector(dir.path(), &uri);
    let later = collector.sender().send_and_wait(said("c1", 13, &[&width(640), codec])).unwrap();
    assert_eq!((later.objects, later.unchanged), (1, 1));
    collector.close();
    assert_eq!((cluster.count("d", "sora_connection"), cluster.count("d", "fanlight_report")), (1, 9));
}

#[test]
fn what_kohaku_stored_goes_on_and_a_role_that_may_only_write_is_enough() {
    let cluster = Cluster::start();
    cluster.database("d");
    cluster.sql("d", KOHAKU);
    let (first, second) = (seconds(0), seconds(1));
    cluster.sql(
        "d",
        &format!(
            "INSERT INTO sora_connection (timestamp, label, version, node_name, multistream, simulcast, spotlight, role, channel_id,
             session_id, client_id, connection_id)
             SELECT '{first}+00', 'WebRTC SFU Sora', '2023.1.0', 'sora@127.0.0.1', true, false, false, 'sendrecv', 'sora', 'session',
             'client', 'c1' FROM generate_series(1, 2);
             INSERT INTO sora_user_agent_stats (timestamp, channel_id, connection_id, rtc_stats_timestamp, rtc_stats_type, rtc_stats_id,
             rtc_stats_data) VALUES
             ('{first}+00', 'sora', 'c1', 0.5, 'codec', 'a', '{{\"id\":\"a\",\"type\":\"codec\",\"value\":1,\"timestamp\":0.5}}'),
             ('{second}+00', 'sora', 'c1', 1.5, 'codec', 'a', '{{\"id\":\"a\",\"type\":\"codec\",\"value\":2,\"timestamp\":1.5}}')"
        ),
    );
    let dir = tempfile::tempdir().unwrap();
    let owner = collector(dir.path(), &cluster.uri("d"));
    let sender = owner.sender();
    assert_eq!(sender.send_and_wait(report("c1", 2, &[("a", 2)])).unwrap().unchanged, 1);
    assert_eq!(sender.send_and_wait(report("c1", 3, &[("a", 1)])).unwrap().objects, 1);
    owner.close();
    assert_eq!(kept(&cluster, "d", "c1", "codec", "value"), ["0|1", "1|2", "3|1"]);
    assert_eq!(
        cluster.count("d", "sora_connection"),
        2,
        "what Kohaku has twice stays, and there is no third"
    );
    cluster.sql(
        "d",
        "CREATE ROLE writer LOGIN; GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA public TO writer;
         GRANT UPDATE ON fanlight_connection TO writer; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO writer",
    );
    let uri = cluster.uri("d").replace("postgres@", "writer@");
    let writer = collector(dir.path(), &uri);
    assert_eq!(writer.sender().send_and_wait(report("c2", 3, &[("a", 1)])).unwrap().objects, 1);
    writer.close();
    assert_eq!(cluster.count("d", "sora_connection"), 3);
}

#[test]
fn clients_that_sora_does_not_know_stand_beside_its_own() {
    let cluster = Cluster::start();
    let uri = cluster.database("d");
    let dir = tempfile::tempdir().unwrap();
    let collector = collector(dir.path(), &uri);
    let sender = collector.sender();
    for source in [
        Source::SoraUserAgent,
        Source::SoraWebhook,
        Source::Browser,
        Source::LiveKitMetrics,
        Source::RtcStats,
    ] {
        let mut one = report("c1", source as u64, &[("a", source as u64)]);
        one.source = source;
        let envelope = one.connection.as_mut().unwrap();
        if source.family() != "sora" {
            (envelope.role, envelope.multistream) = (None, None);
        }
        assert_eq!(sender.send_and_wait(one).unwrap().objects, 1);
    }
    let mut node = report("", 9, &[]);
    (node.source, node.connection) = (Source::SoraNode, None);
    node.take(StatsObject::parse_of_node(r#"{"type":"erlang-vm-memory","total":18446744073709551615}"#, 9.0));
    sender.send_and_wait(node).unwrap();
    collector.close();
    assert_eq!(
        cluster.sql("d", "SELECT connection_id, role, multistream FROM sora_connection ORDER BY 1"),
        ["browser:c1|sendrecv|f", "c1|sendrecv|t", "livekit:c1|sendrecv|f", "rtcstats:c1|sendrecv|f"]
    );
    assert_eq!(
        cluster.sql("d", "SELECT connection_id, count(*), max(rtc_stats_data->>'total') FROM sora_user_agent_stats GROUP BY 1 ORDER BY 1"),
        ["browser:c1|1|", "c1|2|", "livekit:c1|1|", "rtcstats:c1|1|", "sora-node:sora@127.0.0.1|1|18446744073709551615"]
    );
}

#[test]
fn an_object_that_the_database_cannot_hold_costs_no_other() {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    let dir = tempfile::tempdir().unwrap();
    let collector = collector(dir.path(), &cluster.uri("latin"));
    let sender = collector.sender();
    let object =
        |id: &str, rest: &str| format!(r#"{{"id":"{id}","type":"codec","timestamp":1,"value":{rest}}}"#);
    let bad = [
        object("nul", r#""\u0000""#),
        object("half", r#""\ud800""#),
        object("number", "1e999999"),
        object("control", "\"\t\""),
        // Only the server knows that its encoding has no such character.
        object("kana", "\"カ\""),
    ];
    let good: Vec<String> = (0..40).map(|n| object(&format!("g{n}"), &format!("\"é{n}\""))).collect();
    let mut all: Vec<&str> = good.iter().map(String::as_str).collect();
    for (place, bad) in bad.iter().enumerate() {
        all.insert(place * 7, bad);
    }
    std::thread::scope(|scope| {
        for connection in ["c1", "c2", "c3"] {
            let (sender, all) = (sender.clone(), &all);
            scope.spawn(move || sender.send_and_wait(said(connection, 1, all)).unwrap());
        }
    });
    // Large numbers that doubles have are held to the last digit.
    let large = object("large", "179616219446525440.25");
    let max = object("max", "1.7976931348623157e308");
    sender.send_and_wait(said("c1", 2, &[&large, &max])).unwrap();
    let health = collector.health();
    assert_eq!(health.failing, None);
    let reasons: Vec<_> = health.unfit_objects.iter().map(|(reason, count)| (*reason, *count)).collect();
    assert_eq!(
        reasons,
        [
            ("half-surrogate", 3),
            ("not-json", 3),
            ("nul-character", 3),
            ("number-range", 3),
            ("refused-by-database", 3)
        ]
    );
    assert_eq!(health.stored_objects, 122);
    assert_eq!(cluster.count("latin", "sora_user_agent_stats"), 122);
    assert_eq!(
        cluster.sql(
            "latin",
            "SELECT rtc_stats_data->>'value' FROM sora_user_agent_stats WHERE rtc_stats_id = 'large'"
        ),
        ["179616219446525440.25"]
    );
    // A connection that it cannot hold is refused, and only that one.
    let mut foreign = report("c4", 1, &[("a", 1)]);
    foreign.connection.as_mut().unwrap().client_id = "カ".into();
    assert!(matches!(sender.send_and_wait(foreign), Err(CollectError::Refused(_))));
    assert_eq!(sender.send_and_wait(report("c5", 1, &[("a", 1)])).unwrap().objects, 1);
    collector.close();
}

#[test]
fn a_server_that_waited_while_another_made_the_tables_takes_them() {
    let cluster = Cluster::start();
    let uri = cluster.database("d");
    let mut sink = PostgresSink::new(&PostgresSettings::new(uri)).unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            // Holds the schema's lock until somebody waits for it.
            cluster.sql(
                "d",
                &format!(
                    "BEGIN; SELECT pg_advisory_xact_lock(4607175300589650284);
                     DO $$ BEGIN
                       WHILE NOT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted) LOOP
                         PERFORM pg_sleep(0.01);
                       END LOOP;
                     END $$; {KOHAKU} COMMIT"
                ),
            )
        });
        while cluster.sql("d", "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'").is_empty() {}
        assert_eq!(sink.write(0, &[]), Ok(Vec::new()));
        other.join().unwrap();
    });
}

#[test]
fn two_servers_store_a_report_once_and_old_ones_are_deleted_in_portions() {
    let cluster = Cluster::start();
    let uri = cluster.database("d");
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let collectors = dirs.each_ref().map(|dir| collector(dir.path(), &uri));
    std::thread::scope(|scope| {
        for collector in &collectors {
            for connection in 0..6 {
                let sender = collector.sender();
                scope.spawn(move || {
                    for step in 0..25 {
                        let ids: Vec<String> = (0..60).map(|n| format!("i{n}")).collect();
                        let objects: Vec<(&str, u64)> = ids.iter().map(|id| (id.as_str(), step)).collect();
                        sender.send_and_wait(report(&format!("c{connection}"), step, &objects)).unwrap();
                    }
                });
            }
        }
    });
    let stored: u64 = collectors.iter().map(|collector| collector.health().stored_reports).sum();
    let spooled: u64 = collectors.iter().map(|collector| collector.health().spooled_reports).sum();
    assert_eq!((stored, spooled), (150, 0));
    for collector in &collectors {
        assert_eq!(collector.health().failing, None);
    }
    let tables = ["sora_connection", "fanlight_connection", "fanlight_report", "sora_user_agent_stats"];
    assert_eq!(tables.map(|table| cluster.count("d", table)), [6, 6, 150, 9_000]);
    let counts = "SELECT sum(reports), sum(stored), sum(unchanged), min(last_ns) FROM fanlight_connection";
    assert_eq!(cluster.sql("d", counts), [format!("150|9000|0|{}", at(24))]);
    collectors.into_iter().for_each(fanlight_store::collector::Collector::close);

    cluster.sql(
        "d",
        "UPDATE sora_user_agent_stats SET created_at = now() - interval '15 days' WHERE connection_id <> 'c0';
         UPDATE fanlight_report SET created_at = now() - interval '15 days' WHERE connection_id <> 'c0';
         UPDATE fanlight_connection SET received_at = now() - interval '15 days' WHERE connection_id <> 'c0';
         UPDATE sora_connection SET created_at = now() - interval '15 days'",
    );
    let collector = collector(dirs[0].path(), &uri);
    wait_for("the deletion", || cluster.count("d", "sora_connection") == 1);
    wait_for("the rest of it", || tables.map(|table| cluster.count("d", table)) == [1, 1, 25, 1_500]);
    assert_eq!(collector.health().pruned_objects, 7_500);
    collector.close();
}

#[test]
fn a_database_that_hangs_delays_within_bounds_and_loses_nothing() {
    let cluster = Cluster::start();
    let uri = cluster.database("d");
    let dir = tempfile::tempdir().unwrap();
    let settings = CollectorSettings { queue_reports_max: 16, ..CollectorSettings::default() };
    let postgres = PostgresSettings { work_limit: Duration::from_secs(2), ..PostgresSettings::new(uri) };
    let collector = collector_with(dir.path(), settings, postgres);
    let sender = collector.sender();
    sender.send_and_wait(report("c1", 0, &[("a", 0)])).unwrap();
    // Somebody's session holds the table.
    let mut holder = cluster.psql("d").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut typed = holder.stdin.take().unwrap();
    writeln!(typed, "BEGIN; LOCK TABLE sora_user_agent_stats;").unwrap();
    wait_for("the lock", || {
        cluster.count(
            "d",
            "pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'sora_user_agent_stats'::regclass",
        ) == 1
    });
    // What is under way and waits is bounded, whatever comes.
    let answers: Vec<_> = (1..=64).map(|step| sender.send(report("c1", step, &[("a", step)]))).collect();
    let outcomes: Vec<_> = answers.into_iter().map(block_on).collect();
    let spooled =
        outcomes.iter().filter(|outcome| outcome.as_ref().is_ok_and(|stored| stored.spooled)).count();
    let busy = outcomes.iter().filter(|outcome| **outcome == Err(CollectError::Busy)).count();
    assert!((16..=32).contains(&spooled) && spooled + busy == 64, "{spooled} {busy}");
    assert!(collector.health().failing.unwrap().contains("lock timeout"));
    writeln!(typed, "ROLLBACK;").unwrap();
    drop(typed);
    assert!(holder.wait().unwrap().success());
    wait_for("the replay", || collector.health().spool_reports_now == 0);
    assert_eq!(cluster.count("d", "fanlight_report"), spooled as u64 + 1);
    assert_eq!(cluster.count("d", "sora_user_agent_stats"), spooled as u64 + 1);

    // The server itself stands still: it is given up, and taken again.
    let stop = |signal: &str| {
        let pid = cluster
            .sql("d", "SELECT pid FROM pg_stat_activity WHERE application_name = 'fanlight-collector'");
        (pid.concat(), signal.to_owned())
    };
    let (pid, _) = stop("STOP");
    let signal = |signal: &str| {
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    assert!(sender.send_and_wait(report("c1", 65, &[("a", 65)])).unwrap().spooled);
    let failing = collector.health().failing.unwrap();
    assert!(failing.contains("has not answered in 2 s"), "{failing}");
    signal("-CONT");
    wait_for("the replay", || collector.health().spool_reports_now == 0);
    assert_eq!(cluster.count("d", "fanlight_report"), spooled as u64 + 2);
    collector.close();
}

#[test]
fn the_server_is_believed_as_far_as_its_certificate_says() {
    let mut authority = String::new();
    let cluster = Cluster::with(|folder| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        authority = made.cert.pem();
        std::fs::write(folder.join("server.crt"), &authority).unwrap();
        std::fs::write(folder.join("server.key"), made.signing_key.serialize_pem()).unwrap();
        vec!["ssl=on".to_owned()]
    });
    let dir = tempfile::tempdir().unwrap();
    let right = dir.path().join("right.pem");
    std::fs::write(&right, &authority).unwrap();
    let wrong = dir.path().join("wrong.pem");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&wrong, other.cert.pem()).unwrap();
    cluster.sql("postgres", "CREATE ROLE u LOGIN PASSWORD 'p%=w'");
    cluster.sql("postgres", "CREATE DATABASE d OWNER u");
    let outcome = |host: &str, mode: &str, ca: Option<&std::path::PathBuf>| {
        let uri = format!("postgres://u:p%25%3Dw@{host}:{}/d{mode}", cluster.port());
        let settings = PostgresSettings { ca_cert_file: ca.cloned(), ..PostgresSettings::new(uri) };
        PostgresSink::new(&settings).unwrap().write(0, &[]).map(drop)
    };
    for (host, mode, ca) in [
        ("localhost", "?sslmode=verify-full", Some(&right)),
        ("localhost", "", Some(&right)),
        ("127.0.0.1", "?sslmode=verify-ca", Some(&right)),
        ("127.0.0.1", "?sslmode=require", None),
        ("127.0.0.1", "", None),
        ("127.0.0.1", "?sslmode=disable", None),
    ] {
        assert_eq!(outcome(host, mode, ca), Ok(()), "{host} {mode} {ca:?}");
    }
    for (host, mode, ca) in [
        ("127.0.0.1", "?sslmode=verify-full", Some(&right)),
        ("localhost", "", Some(&wrong)),
        ("localhost", "?sslmode=verify-ca", Some(&wrong)),
        ("localhost", "?sslmode=require", Some(&wrong)),
    ] {
        let error = outcome(host, mode, ca).unwrap_err();
        assert!(
            matches!(&error, SinkError::Away(text) if text.contains("certificate")),
            "{host} {mode}: {error}"
        );
    }
}
