//! Reports of clients: answered when they are safe, stored once, and read back as they came.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod reports;

use fanlight_store::collector::{
    CLIENTS_FILE, ClientsReader, CollectError, Collector, CollectorSettings, Sink, SinkError, SqliteSink,
    Stored,
};
use fanlight_telemetry::collector::{ConnectionKey, LastValues, Planned};
use reports::*;
use rusqlite::Connection;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

fn open(dir: &Path) -> Collector {
    Collector::open(dir, CollectorSettings::default()).unwrap()
}

fn count(dir: &Path, table: &str) -> i64 {
    let database = Connection::open(dir.join(CLIENTS_FILE)).unwrap();
    database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn a_report_is_on_disk_when_it_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let collector = open(dir.path());
    let sender = collector.sender();
    for step in 0..20 {
        let stored = sender.send_and_wait(report("c1", step, &[("a", step), ("b", 1)])).unwrap();
        let wanted = match step {
            0 | 10 => Stored { objects: 2, ..Stored::default() },
            _ => Stored { objects: 1, unchanged: 1, ..Stored::default() },
        };
        assert_eq!(stored, wanted, "{step}");
        assert_eq!(count(dir.path(), "reports"), i64::try_from(step).unwrap() + 1);
    }
    let health = collector.health();
    assert_eq!((health.stored_reports, health.stored_objects, health.unchanged_objects), (20, 22, 18));
    collector.close();
    assert_eq!(sender.send_and_wait(report("c1", 99, &[])), Err(CollectError::Closed));
}

#[test]
fn the_same_report_again_adds_nothing_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let one = report("c1", 1, &[("a", 1)]);
    let first = open(dir.path());
    first.sender().send_and_wait(one.clone()).unwrap();
    let again = first.sender().send_and_wait(one.clone()).unwrap();
    assert!(again.duplicate);
    first.close();
    let second = open(dir.path());
    let sender = second.sender();
    assert!(sender.send_and_wait(one.clone()).unwrap().duplicate);
    // What is unchanged since before the restart is known to be.
    let next = sender.send_and_wait(report("c1", 2, &[("a", 1), ("b", 1)])).unwrap();
    assert_eq!((next.objects, next.unchanged), (1, 1));
    assert_eq!((count(dir.path(), "reports"), count(dir.path(), "stats")), (2, 2));
    assert_eq!((second.health().duplicate_reports, count(dir.path(), "connections")), (1, 1));
    // A second of these beside it would write to the same spool.
    assert!(Collector::open(dir.path(), CollectorSettings::default()).is_err());
    second.close();
}

#[test]
fn the_same_report_twice_at_once_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let collector = open(dir.path());
    let outcomes: Vec<Stored> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| collector.sender().send_and_wait(report("c", 1, &[("a", 1)])).unwrap()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|stored| !stored.duplicate).count(), 1);
    assert_eq!((count(dir.path(), "reports"), count(dir.path(), "stats")), (1, 1));
    collector.close();
}

#[test]
fn many_reports_share_a_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let collector = open(dir.path());
    std::thread::scope(|scope| {
        for n in 0..64 {
            let sender = collector.sender();
            scope.spawn(move || {
                for step in 0..5 {
                    sender.send_and_wait(report(&format!("c{n}"), step, &[("a", step)])).unwrap();
                }
            });
        }
    });
    let health = collector.health();
    assert_eq!(health.stored_reports, 320);
    assert!(health.batches < 200, "{health:?}");
    collector.close();
}

#[test]
fn texts_are_kept_byte_by_byte() {
    let dir = tempfile::tempdir().unwrap();
    let collector = open(dir.path());
    let json = "{ \"id\":\"a\\u0000b\", \"type\":\"x'; DROP TABLE stats; --\",\n\"timestamp\":1.25,\"n\":\"\\ud800\",\"u\":18446744073709551615,\"big\":1e400}";
    let mut said = report("c1", 1, &[]);
    said.take(fanlight_telemetry::collector::StatsObject::parse(json));
    assert_eq!(collector.sender().send_and_wait(said).unwrap().objects, 1);
    let stored = ClientsReader::sqlite(dir.path()).latest(1).unwrap().remove(0);
    assert_eq!((stored.json.as_str(), stored.id.as_str(), stored.stats_ms), (json, "a\0b", 1.25));
    collector.close();
    let again = open(dir.path());
    let mut later = report("c1", 2, &[]);
    later.take(fanlight_telemetry::collector::StatsObject::parse(&json.replace("1.25", "2.5")));
    assert_eq!(again.sender().send_and_wait(later).unwrap().unchanged, 1);
    again.close();
}

#[test]
fn old_reports_are_deleted_in_portions_and_new_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let collector = open(dir.path());
    for step in 0..30 {
        let ids: Vec<String> = (0..400).map(|n| format!("i{n}")).collect();
        let objects: Vec<(&str, u64)> = ids.iter().map(|id| (id.as_str(), step)).collect();
        collector.sender().send_and_wait(report(&format!("c{}", step % 7), step, &objects)).unwrap();
    }
    collector.sender().send_and_wait(report("new", 1, &[("a", 1)])).unwrap();
    collector.close();
    let database = Connection::open(dir.path().join(CLIENTS_FILE)).unwrap();
    database.execute("UPDATE reports SET received_ms = 1000 WHERE number <= 30", []).unwrap();
    database.execute("UPDATE connections SET received_ms = 1000 WHERE connection_id <> 'new'", []).unwrap();
    drop(database);
    let collector = open(dir.path());
    wait_for("the deletion", || count(dir.path(), "connections") == 1);
    assert_eq!((count(dir.path(), "reports"), count(dir.path(), "stats")), (1, 1));
    assert_eq!(collector.health().pruned_objects, 12_000);
    collector.close();
}

#[test]
fn the_oldest_reports_go_when_the_database_has_more_bytes_than_it_may() {
    const BYTES_MAX: u64 = 2 << 20;
    let dir = tempfile::tempdir().unwrap();
    let settings = CollectorSettings { retention_bytes: BYTES_MAX, ..CollectorSettings::default() };
    let collector = Collector::open(dir.path(), settings).unwrap();
    let ids: Vec<String> = (0..2_000).map(|n| format!("i{n:04}")).collect();
    for step in 0..40 {
        let objects: Vec<(&str, u64)> = ids.iter().map(|id| (id.as_str(), step)).collect();
        collector.sender().send_and_wait(report("c", step, &objects)).unwrap();
    }
    wait_for("the deletion", || in_use(dir.path()) <= BYTES_MAX);
    let database = Connection::open(dir.path().join(CLIENTS_FILE)).unwrap();
    let kept: (i64, i64) = database
        .query_row("SELECT min(number), max(number) FROM reports", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert!(kept.0 > 10 && kept.1 == 40, "the oldest are gone, the newest is there: {kept:?}");
    assert!(collector.health().pruned_objects > 20_000);
    // Freed pages are used again, so that the file itself has a limit too: a batch more, and what SQLite copies into it late.
    let file = std::fs::metadata(dir.path().join(CLIENTS_FILE)).unwrap().len();
    assert!(file < 4 * BYTES_MAX, "{file} bytes");
    collector.close();
}

fn in_use(dir: &Path) -> u64 {
    let database = Connection::open(dir.join(CLIENTS_FILE)).unwrap();
    let pragma = |name: &str| -> i64 { database.pragma_query_value(None, name, |row| row.get(0)).unwrap() };
    ((pragma("page_count") - pragma("freelist_count")) * pragma("page_size")) as u64
}

#[test]
fn a_locked_database_delays_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let collector = open(dir.path());
    let sender = collector.sender();
    sender.send_and_wait(report("c1", 0, &[("a", 0)])).unwrap();
    let lock = Connection::open(dir.path().join(CLIENTS_FILE)).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for step in 1..29 {
        let stored = sender.send_and_wait(report("c1", step, &[("a", step / 10), ("b", 1)])).unwrap();
        assert!(stored.spooled, "{step}: {stored:?}");
    }
    // The same again, while the first one waits in the spool.
    assert!(sender.send_and_wait(report("c1", 5, &[("a", 0), ("b", 1)])).unwrap().spooled);
    assert!(collector.health().failing.is_some());
    lock.execute_batch("ROLLBACK").unwrap();
    wait_for("the replay", || collector.health().spool_reports_now == 0);
    // And what comes after it is compared with it.
    let next = sender.send_and_wait(report("c1", 29, &[("a", 2), ("b", 1)])).unwrap();
    assert_eq!((next.objects, next.unchanged, next.spooled), (0, 2, false));
    assert_eq!(count(dir.path(), "reports"), 30);
    let health = collector.health();
    assert_eq!((health.spooled_reports, health.replayed_reports, health.duplicate_reports), (29, 29, 1));
    assert_eq!(health.failing, None);
    // a changes at 0, 10 and 20; b's heartbeats are at 11 and 21.
    assert_eq!(count(dir.path(), "stats WHERE id = 'a'"), 3);
    assert_eq!(count(dir.path(), "stats WHERE id = 'b'"), 3);
    collector.close();
}

#[test]
fn what_waits_in_the_spool_is_stored_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let collector = open(dir.path());
    let lock = Connection::open(dir.path().join(CLIENTS_FILE)).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for step in 0..10 {
        assert!(collector.sender().send_and_wait(report("c1", step, &[("a", step)])).unwrap().spooled);
    }
    collector.close();
    drop(lock);
    let collector = open(dir.path());
    wait_for("the replay", || count(dir.path(), "reports") == 10);
    assert_eq!(count(dir.path(), "stats"), 10);
    collector.close();
}

#[test]
fn a_data_directory_that_vanishes_is_told_at_once_and_no_report_is_answered_for_until_it_is_back() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, elsewhere) = (parent.path().join("data"), parent.path().join("elsewhere"));
    let collector = open(&dir);
    let sender = collector.sender();
    sender.send_and_wait(report("c1", 0, &[("a", 0)])).unwrap();
    // Some are in the spool, in a file that is open.
    let lock = Connection::open(dir.join(CLIENTS_FILE)).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert!(sender.send_and_wait(report("c1", 1, &[("a", 1)])).unwrap().spooled);
    std::fs::rename(&dir, &elsewhere).unwrap();
    drop(lock);
    // Also while nobody sends anything.
    wait_for("the trouble told", || {
        let health = collector.health();
        health.failing.is_some() && health.spool_failing.is_some()
    });
    for step in 2..5 {
        let refused = sender.send_and_wait(report("c1", step, &[("a", step)])).unwrap_err();
        assert!(matches!(refused, CollectError::Full(_)), "{refused:?}");
    }
    std::fs::rename(&elsewhere, &dir).unwrap();
    wait_for("the replay", || collector.health().spool_reports_now == 0);
    wait_for("the trouble over", || {
        let health = collector.health();
        health.failing.is_none() && health.spool_failing.is_none()
    });
    sender.send_and_wait(report("c1", 6, &[("a", 6)])).unwrap();
    assert_eq!((count(&dir, "reports"), collector.health().spool_lost_bytes), (3, 0));
    collector.close();
}

#[test]
fn a_database_that_was_deleted_is_told_and_not_made_anew_and_an_older_one_in_its_place_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (path, older) = (dir.path().join(CLIENTS_FILE), dir.path().join("older.db"));
    let collector = open(dir.path());
    let sender = collector.sender();
    sender.send_and_wait(report("c1", 0, &[("a", 0)])).unwrap();
    Connection::open(&path).unwrap().execute_batch(&format!("VACUUM INTO '{}'", older.display())).unwrap();
    sender.send_and_wait(report("c1", 1, &[("a", 1)])).unwrap();
    for file in ["clients.db", "clients.db-wal", "clients.db-shm"] {
        std::fs::remove_file(dir.path().join(file)).unwrap();
    }
    // It is as before, but the file in which it was is gone.
    assert!(sender.send_and_wait(report("c1", 2, &[("a", 1)])).unwrap().spooled);
    assert!(collector.health().failing.is_some_and(|error| error.contains("moved, deleted or replaced")));
    assert!(!path.exists());
    std::fs::rename(&older, &path).unwrap();
    wait_for("the replay", || collector.health().spool_reports_now == 0);
    let latest = ClientsReader::sqlite(dir.path()).latest(1).unwrap().remove(0);
    assert!(latest.json.contains("\"value\":1"), "{}", latest.json);
    collector.close();
}

#[test]
fn a_damaged_database_costs_nothing_that_was_answered_when_it_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CLIENTS_FILE);
    let collector = open(dir.path());
    let sender = collector.sender();
    sender.send_and_wait(report("c1", 0, &[("a", 0)])).unwrap();
    let other = Connection::open(&path).unwrap();
    other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let sound = std::fs::read(&path).unwrap();
    // All pages but the first, as if a disk had lost them; a change by somebody else makes the collector read them again.
    let mut damaged = sound.clone();
    damaged[8_192..].fill(0xff);
    std::fs::write(&path, &damaged).unwrap();
    other.execute_batch("PRAGMA application_id = 1").unwrap();
    drop(other);
    for step in 1..5 {
        let stored = sender.send_and_wait(report("c1", step, &[("a", step)])).unwrap();
        assert!(stored.spooled, "{step}: {stored:?}");
    }
    assert!(collector.health().failing.is_some());
    std::fs::write(&path, &sound).unwrap();
    wait_for("the replay", || collector.health().spool_reports_now == 0);
    assert_eq!((count(dir.path(), "reports"), count(dir.path(), "stats")), (5, 5));
    collector.close();
}

/// SQLite that is away, slow or picky when it is told to be.
#[derive(Debug)]
struct Moody {
    inner: SqliteSink,
    away: Arc<AtomicBool>,
    /// Held by a test to stop the sink.
    gate: Arc<Mutex<()>>,
}

impl Sink for Moody {
    fn name(&self) -> String {
        "moody".to_owned()
    }

    fn write(&mut self, now_ms: u64, reports: &[Planned]) -> Result<Vec<bool>, SinkError> {
        drop(self.gate.lock().unwrap());
        if self.away.load(Ordering::SeqCst) {
            return Err(SinkError::Away("stopped".to_owned()));
        }
        if reports.iter().any(|planned| planned.key.connection_id == "poison") {
            return Err(SinkError::Refused("invalid byte sequence".to_owned()));
        }
        self.inner.write(now_ms, reports)
    }

    fn last_values(&mut self, key: &ConnectionKey) -> Result<LastValues, SinkError> {
        self.inner.last_values(key)
    }

    fn prune(&mut self, before_ms: u64) -> Result<(u64, bool), SinkError> {
        self.inner.prune(before_ms)
    }
}

struct Mood {
    collector: Collector,
    away: Arc<AtomicBool>,
    gate: Arc<Mutex<()>>,
}

fn moody(dir: &Path, settings: CollectorSettings) -> Mood {
    let (away, gate) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(())));
    let inner = SqliteSink::open(dir).unwrap();
    let sink = Moody { inner, away: Arc::clone(&away), gate: Arc::clone(&gate) };
    Mood { collector: Collector::with_sink(dir, settings, Box::new(sink)).unwrap(), away, gate }
}

#[test]
fn a_full_queue_refuses_and_a_full_spool_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let settings =
        CollectorSettings { queue_reports_max: 8, spool_bytes_max: 4_000, ..CollectorSettings::default() };
    let mood = moody(dir.path(), settings);
    let sender = mood.collector.sender();
    let held = mood.gate.lock().unwrap();
    let answers: Vec<_> = (0..20).map(|step| sender.send(report("c1", step, &[("a", step)]))).collect();
    assert!(!sender.is_ready());
    assert_eq!(sender.health().queued_reports_now, 8);
    drop(held);
    let outcomes: Vec<_> = answers.into_iter().map(block_on).collect();
    let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let busy = outcomes.iter().filter(|outcome| **outcome == Err(CollectError::Busy)).count();
    assert_eq!((stored, busy, count(dir.path(), "reports")), (8, 12, 8));
    assert!(sender.is_ready() && sender.health().refused_busy == 12);

    mood.away.store(true, Ordering::SeqCst);
    let outcomes: Vec<_> =
        (20..60).map(|step| sender.send_and_wait(report("c1", step, &[("a", step)]))).collect();
    let spooled = outcomes.iter().filter(|outcome| outcome.as_ref().is_ok_and(|it| it.spooled)).count();
    let full = outcomes.iter().filter(|outcome| matches!(outcome, Err(CollectError::Full(_)))).count();
    assert!(spooled > 3 && full > 3 && spooled + full == 40, "{spooled} {full}");
    assert!(!sender.is_ready());
    mood.away.store(false, Ordering::SeqCst);
    wait_for("the replay", || sender.is_ready() && sender.health().spool_reports_now == 0);
    assert_eq!(count(dir.path(), "reports"), 8 + i64::try_from(spooled).unwrap());
    mood.collector.close();
}

#[test]
fn without_a_spool_a_database_that_is_away_refuses_and_comes_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mood = moody(dir.path(), CollectorSettings { spool_bytes_max: 0, ..CollectorSettings::default() });
    let sender = mood.collector.sender();
    mood.away.store(true, Ordering::SeqCst);
    assert!(matches!(sender.send_and_wait(report("c1", 1, &[("a", 1)])), Err(CollectError::Full(_))));
    assert!(!sender.is_ready());
    mood.away.store(false, Ordering::SeqCst);
    wait_for("the sink's return", || sender.is_ready());
    assert_eq!(sender.send_and_wait(report("c1", 1, &[("a", 1)])).unwrap().objects, 1);
    mood.collector.close();
}

#[test]
fn a_report_that_the_database_refuses_costs_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mood = moody(dir.path(), CollectorSettings::default());
    let sender = mood.collector.sender();
    let send = |step| {
        let held = mood.gate.lock().unwrap();
        let names = ["c1", "poison", "c2"];
        let answers: Vec<_> =
            names.iter().map(|name| sender.send(report(name, step, &[("a", step)]))).collect();
        drop(held);
        answers.into_iter().map(block_on).collect::<Vec<_>>()
    };
    let outcomes = send(1);
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    assert_eq!(outcomes[1], Err(CollectError::Refused("invalid byte sequence".to_owned())));
    mood.away.store(true, Ordering::SeqCst);
    assert!(send(2).iter().all(|outcome| outcome.as_ref().is_ok_and(|stored| stored.spooled)));
    mood.away.store(false, Ordering::SeqCst);
    wait_for("the replay", || sender.health().spool_reports_now == 0);
    assert_eq!((count(dir.path(), "reports"), count(dir.path(), "stats")), (4, 4));
    let aside = std::fs::metadata(dir.path().join("clients-spool/refused.seg")).unwrap();
    assert!(aside.len() > 100 && sender.health().refused_data == 2);
    mood.collector.close();
}

#[test]
fn what_is_read_often_is_found_by_an_index() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close();
    let database = Connection::open(dir.path().join(CLIENTS_FILE)).unwrap();
    for sql in [
        "SELECT * FROM connections WHERE TRUE AND connection_id = ''",
        "SELECT * FROM connections WHERE TRUE AND channel_id = ''",
        "SELECT * FROM connections WHERE TRUE AND client_id = ''",
        "SELECT * FROM connections WHERE TRUE AND room_sid <> '' AND room_sid = ''",
        "SELECT * FROM connections WHERE TRUE AND participant_sid <> '' AND participant_sid = ''",
        "SELECT * FROM reports WHERE connection = '' AND at_ns >= '' AND at_ns < '' ORDER BY at_ns",
        "SELECT max(at_ns) FROM reports WHERE connection = ''",
        "SELECT * FROM stats WHERE connection = '' AND type = '' AND id = '' AND at_ns >= '' ORDER BY at_ns, number",
        "DELETE FROM stats WHERE number < ''",
    ] {
        let mut statement = database.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let plan: Vec<String> =
            statement.query_map([], |row| row.get(3)).unwrap().collect::<Result<_, _>>().unwrap();
        assert!(plan.iter().all(|step| step.starts_with("SEARCH")), "{sql}: {plan:?}");
    }
}

#[test]
fn a_file_that_is_no_database_is_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(CLIENTS_FILE), "x".repeat(20_000)).unwrap();
    let error = Collector::open(dir.path(), CollectorSettings::default()).unwrap_err();
    assert!(error.to_string().contains("clients.db: file is not a database"), "{error}");
    let unreadable = ClientsReader::sqlite(dir.path()).latest(1).unwrap_err();
    assert!(unreadable.to_string().contains("clients.db: file is not a database"), "{unreadable}");
}
