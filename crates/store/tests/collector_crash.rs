//! What was answered is there: after `kill -9` under load, and after a disk had no more room. This test program starts itself as
//! a child that takes reports.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "the child tells its parent what was answered")]

mod reports;

use fanlight_store::collector::{CLIENTS_FILE, Collector, CollectorSettings};
use reports::*;
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const CHILD_DIR: &str = "FANLIGHT_TEST_COLLECTOR_DIR";
/// Connections that report at a time.
const SENDERS: u64 = 8;
const OBJECTS: u64 = 20;

/// Each step changes one of its objects in five, and all of them stay long.
fn numbered(connection: &str, step: u64) -> fanlight_telemetry::collector::ClientReport {
    let filler = "x".repeat(400);
    let ids: Vec<String> = (0..OBJECTS).map(|n| format!("{n}-{filler:.200}")).collect();
    let objects: Vec<(&str, u64)> =
        ids.iter().zip(0u64..).map(|(id, n)| (id.as_str(), if n % 5 == 0 { step } else { 0 })).collect();
    report(connection, step, &objects)
}

/// Not a test when run as one: the child of the tests below. It says each report that was answered.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let dir = Path::new(&dir);
    let collector = Collector::open(dir, CollectorSettings::default()).unwrap();
    std::thread::scope(|scope| {
        for number in 0..SENDERS {
            let sender = collector.sender();
            scope.spawn(move || {
                let connection = format!("c{number}-{}", std::process::id());
                let mut refused = 0;
                for step in 0.. {
                    match sender.send_and_wait(numbered(&connection, step)) {
                        Ok(stored) => {
                            let how = if stored.spooled { "spooled" } else { "stored" };
                            let mut line = std::io::stdout().lock();
                            writeln!(line, "answered {how} {connection} {step}").unwrap();
                            line.flush().unwrap();
                        }
                        Err(error) => {
                            println!("refused {connection} {step} {error}");
                            refused += 1;
                            if refused == 5 {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
    println!("over");
}

/// A child whose files may have at most so many KiB each.
fn start_child(dir: &Path, file_kib_max: Option<u64>) -> Child {
    let limit = file_kib_max.map_or(String::new(), |kib| format!("trap '' XFSZ; ulimit -f {};", kib * 2));
    Command::new("sh")
        .args(["-c", &format!("{limit} exec \"$0\" --exact child --nocapture --test-threads 1")])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Answered reports by connection, how many of them went to the spool, and how many were refused.
#[derive(Default)]
struct Said {
    answered: BTreeMap<String, BTreeSet<u64>>,
    spooled: usize,
    refused: usize,
    over: bool,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [.., "answered", how, connection, step] => {
                self.spooled += usize::from(*how == "spooled");
                let steps = self.answered.entry((*connection).to_owned()).or_default();
                assert!(steps.insert(step.parse().unwrap()));
            }
            ["refused", ..] => self.refused += 1,
            ["over"] => self.over = true,
            _ => {}
        }
    }

    fn reports(&self) -> usize {
        self.answered.values().map(BTreeSet::len).sum()
    }
}

/// Opens what a child left, lets it replay, and compares.
fn check(dir: &Path, said: &Said) {
    let collector = Collector::open(dir, CollectorSettings::default()).unwrap();
    wait_for("the replay", || collector.health().spool_reports_now == 0);
    // What a client sends again because it was not answered adds nothing that is there.
    let (connection, steps) = said.answered.iter().next().unwrap();
    let again = numbered(connection, *steps.first().unwrap());
    assert!(collector.sender().send_and_wait(again).unwrap().duplicate);
    assert_eq!(collector.health().spool_lost_bytes, 0);
    collector.close();
    let database = Connection::open(dir.join(CLIENTS_FILE)).unwrap();
    let mut statement = database
        .prepare(
            "SELECT connection_id, (reports.at_ns - ?1) / ?2, count(*), sum(reports.stored), min(reports.unchanged)
             FROM reports JOIN connections ON connections.number = connection GROUP BY 1, 2",
        )
        .unwrap();
    let mut stored: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    let mut objects = 0;
    let mut rows = statement.query([i64::try_from(at(0)).unwrap(), i64::try_from(STEP_NS).unwrap()]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (connection, step): (String, u64) = (row.get(0).unwrap(), row.get::<_, u32>(1).unwrap().into());
        assert_eq!(row.get::<_, u32>(2).unwrap(), 1, "{connection} {step} is there twice");
        objects += row.get::<_, i64>(3).unwrap();
        stored.entry(connection).or_default().insert(step);
    }
    let in_table: i64 = database.query_row("SELECT count(*) FROM stats", [], |row| row.get(0)).unwrap();
    assert_eq!(in_table, objects, "objects belong to reports, all or none");
    for (connection, answered) in &said.answered {
        let missing: Vec<_> = answered.difference(&stored[connection]).collect();
        assert!(missing.is_empty(), "{connection}: {missing:?} were answered and are not there");
    }
    // Each step changes a fifth of the objects; the others are stored at first, and with each heartbeat.
    let steps: usize = stored.values().map(BTreeSet::len).sum();
    let changed = i64::try_from(steps).unwrap() * 4;
    let others: i64 =
        stored.values().map(|steps| i64::try_from(steps.last().unwrap() / 10 + 1).unwrap() * 16).sum();
    assert!(in_table <= changed + others, "{in_table} objects of {steps} reports");
}

#[test]
fn a_kill_under_load_loses_nothing_that_was_answered_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = Said::default();
    for round in 1..=4 {
        let mut child = start_child(dir.path(), None);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = said.reports() + 150 * round;
        let mut killed = false;
        for line in lines {
            // A line that the kill cut off is of a report that nobody was told of.
            let Ok(line) = line else { break };
            said.hear(&line);
            if said.reports() >= wanted && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed);
        check(dir.path(), &said);
    }
}

#[test]
fn a_disk_without_room_refuses_and_what_was_answered_is_there_when_it_has_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start_child(dir.path(), Some(1_500));
    let mut said = Said::default();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        said.hear(&line.unwrap());
    }
    assert!(child.wait().unwrap().success() && said.over);
    println!("{} answered, {} of them spooled, {} refused", said.reports(), said.spooled, said.refused);
    assert!(
        said.reports() > 20 && said.spooled > 5 && said.refused >= 5 * 8,
        "{} {} {}",
        said.reports(),
        said.spooled,
        said.refused
    );
    check(dir.path(), &said);
}
