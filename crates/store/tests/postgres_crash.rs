//! What was answered is in PostgreSQL, once: after its stop, after its `kill -9` under load, and after ours. This test program starts
//! itself as a child that takes reports.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "the child tells its parent what was answered")]

mod cluster;
mod reports;

use cluster::{Cluster, collector};
use reports::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const CHILD_DIR: &str = "FANLIGHT_TEST_POSTGRES_DIR";
const CHILD_URI: &str = "FANLIGHT_TEST_POSTGRES_URI";
/// Connections that report at a time.
const SENDERS: u64 = 8;
/// Objects of a report, and how many of them each report changes.
const OBJECTS: u64 = 20;
const CHANGED: u64 = 4;

fn numbered(connection: &str, step: u64) -> fanlight_telemetry::collector::ClientReport {
    let ids: Vec<String> = (0..OBJECTS).map(|n| format!("{n}-{}", "x".repeat(200))).collect();
    let objects: Vec<(&str, u64)> =
        ids.iter().zip(0..).map(|(id, n)| (id.as_str(), if n < CHANGED { step } else { 0 })).collect();
    report(connection, step, &objects)
}

/// Not a test when run as one: the child of the test below. It says each report that was answered.
#[test]
fn child() {
    let (Some(dir), Ok(uri)) = (std::env::var_os(CHILD_DIR), std::env::var(CHILD_URI)) else { return };
    let collector = collector(Path::new(&dir), &uri);
    std::thread::scope(|scope| {
        for number in 0..SENDERS {
            let sender = collector.sender();
            scope.spawn(move || {
                let connection = format!("c{number}-{}", std::process::id());
                for step in 0.. {
                    // What is not answered is sent again, as a client does.
                    while let Err(error) = sender.send_and_wait(numbered(&connection, step)) {
                        println!("refused {error}");
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    let mut line = std::io::stdout().lock();
                    writeln!(line, "answered {connection} {step}").unwrap();
                    line.flush().unwrap();
                }
            });
        }
    });
}

/// A collector in a process of its own, and what it has answered.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

#[derive(Default)]
struct Said {
    answered: BTreeMap<String, BTreeSet<u64>>,
    reports: usize,
}

impl Running {
    fn start(dir: &Path, uri: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
            .env(CHILD_DIR, dir)
            .env(CHILD_URI, uri)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            // A line that a kill cut off is of a report that nobody was told of.
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Listens until so many more reports have been answered.
    fn hear(&self, said: &mut Said, more: usize) {
        let wanted = said.reports + more;
        let limit = Instant::now() + Duration::from_secs(60);
        while said.reports < wanted {
            let left = limit.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap();
            said.hear(&line);
        }
    }

    fn kill(mut self, said: &mut Said) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for line in self.lines {
            said.hear(&line);
        }
    }
}

impl Said {
    fn hear(&mut self, line: &str) {
        if let [.., "answered", connection, step] = line.split_whitespace().collect::<Vec<_>>().as_slice() {
            let steps = self.answered.entry((*connection).to_owned()).or_default();
            assert!(steps.insert(step.parse().unwrap()));
            self.reports += 1;
        }
    }
}

/// Lets what waits in the spool in, and compares.
fn check(cluster: &Cluster, dir: &Path, uri: &str, said: &Said) {
    let collector = collector(dir, uri);
    wait_for("the replay", || {
        let health = collector.health();
        health.spool_reports_now == 0 && health.failing.is_none()
    });
    let (connection, steps) = said.answered.iter().next().unwrap();
    let again = numbered(connection, *steps.first().unwrap());
    assert!(collector.sender().send_and_wait(again).unwrap().duplicate);
    assert_eq!(collector.health().spool_lost_bytes, 0);
    collector.close();

    let step = |column: &str| format!("({column} - {}) / {STEP_NS}", at(0));
    let stored = cluster.sql(
        "d",
        &format!(
            "SELECT connection_id, {}, objects, distinct_objects, changed FROM fanlight_report LEFT JOIN (
               SELECT connection_id, timestamp, count(*) AS objects, count(DISTINCT rtc_stats_id) AS distinct_objects,
                      count(*) FILTER (WHERE (rtc_stats_data->>'value')::bigint > 0 OR rtc_stats_id < '{CHANGED}') AS changed
               FROM sora_user_agent_stats GROUP BY 1, 2) AS stats USING (connection_id)
             WHERE stats.timestamp = 'epoch'::timestamptz + at_ns / 1000 * interval '1 microsecond'",
            step("at_ns")
        ),
    );
    let mut found: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for row in &stored {
        let [connection, step, objects, distinct, changed] = row.split('|').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        assert_eq!(objects, distinct, "{row}: an object is there twice");
        assert!(changed.parse::<u64>().unwrap() >= CHANGED, "{row}: a part of the report is missing");
        assert!(
            found.entry(connection.to_owned()).or_default().insert(step.parse().unwrap()),
            "{row} is there twice"
        );
    }
    for (connection, answered) in &said.answered {
        let missing: Vec<_> = answered.difference(&found[connection]).collect();
        assert!(missing.is_empty(), "{connection}: {missing:?} were answered and are not there");
    }
    let connections =
        cluster.sql("d", "SELECT count(*) = count(DISTINCT connection_id) FROM sora_connection");
    assert_eq!(connections, ["t"], "a connection is there twice");
}

#[test]
fn a_stop_and_a_kill_of_the_database_and_of_ourselves_lose_and_double_nothing() {
    let mut cluster = Cluster::start();
    let uri = cluster.database("d");
    let dir = tempfile::tempdir().unwrap();
    let mut said = Said::default();

    let running = Running::start(dir.path(), &uri);
    running.hear(&mut said, 200);
    // Stopped as its operator does, while reports come; they are answered from the spool.
    cluster.end("INT");
    running.hear(&mut said, 400);
    cluster.go_on();
    running.hear(&mut said, 400);
    // Killed under load, and started after its recovery.
    cluster.end("KILL");
    running.hear(&mut said, 200);
    cluster.go_on();
    running.hear(&mut said, 200);
    running.kill(&mut said);
    check(&cluster, dir.path(), &uri, &said);

    // Our own death under load, with the database there and without it.
    for round in 0..3 {
        let running = Running::start(dir.path(), &uri);
        running.hear(&mut said, 150);
        if round == 1 {
            cluster.end("KILL");
            running.hear(&mut said, 150);
        }
        running.kill(&mut said);
        if round == 1 {
            cluster.go_on();
        }
        check(&cluster, dir.path(), &uri, &said);
    }
}
