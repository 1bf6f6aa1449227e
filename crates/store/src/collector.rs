//! Reports of clients on disk: a database of their own, on a thread of its own, behind a bounded queue.
//!
//! Who sends a report is answered when it is committed, or written to the spool and synced: after that nothing but the disk can
//! lose it. The thread gathers what comes, asks [`telemetry::Dedup`](fanlight_telemetry::collector::Dedup) what of it is new,
//! and hands all of it to a [`Sink`] as one transaction. When the sink is away, reports go to the spool, and from there to the
//! sink in their order as soon as it is back; a report that comes twice is stored once. What finds no room anywhere is refused, and
//! the sender may come again.

mod health;
mod postgres;
mod queue;
mod reader;
mod rows;
mod sides;
mod sink;
mod spool;
mod sqlite;
mod writer;

pub use health::CollectorHealth;
pub use postgres::{COMPRESS_AFTER_DAYS_DEFAULT, PostgresError, PostgresSettings, PostgresSink};
pub use queue::{CollectError, CollectorSender, Stored};
pub use reader::ClientsReader;
pub use sink::{Sink, SinkError};
pub use sqlite::SqliteSink;

use crate::sqlite::lock;
use crate::store::{StoreError, finish};
use fanlight_telemetry::collector::DedupSettings;
use health::Monitor;
use spool::Spool;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Name of the database of clients' reports in the data directory.
pub const CLIENTS_FILE: &str = "clients.db";
/// Reports are kept so many days unless configured otherwise, as Kohaku keeps them.
pub const CLIENTS_RETENTION_DAYS_DEFAULT: u32 = 14;
/// And so many bytes of them in SQLite: two weeks of 100 connections that are always there and report 1 kB of news a second
/// would be 120 GB, and a small server's disk has 20 to 40.
pub const CLIENTS_RETENTION_BYTES_DEFAULT: u64 = 16 << 30;
/// Held as long as a collector runs, so that a second one does not write to the same spool.
const LOCK_FILE: &str = "clients.lock";

/// How reports are taken and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorSettings {
    /// Reports that came so many days ago are deleted; 0 keeps all.
    pub retention_days: u32,
    /// The oldest reports are deleted when SQLite's file has more in use; 0 is no limit.
    pub retention_bytes: u64,
    /// What counts as new.
    pub dedup: DedupSettings,
    /// Bytes of reports that wait for the database on disk; 0 means none may.
    pub spool_bytes_max: u64,
    /// Reports that wait in memory.
    pub queue_reports_max: usize,
    /// Bytes of reports that wait in memory.
    pub queue_bytes_max: usize,
    /// Objects that make a transaction full.
    pub batch_objects: usize,
    /// A report waits at most so long for others to share its transaction.
    pub gather: Duration,
    /// A transaction is not held open for others when none came for so long.
    pub quiet: Duration,
}

impl Default for CollectorSettings {
    fn default() -> Self {
        Self {
            retention_days: CLIENTS_RETENTION_DAYS_DEFAULT,
            retention_bytes: CLIENTS_RETENTION_BYTES_DEFAULT,
            dedup: DedupSettings::default(),
            // A day of 500 connections that report 20 kB a minute is 14 GB: this is an hour and a half of them.
            spool_bytes_max: 1 << 30,
            // Four times what may be under way in 1,000 streams.
            queue_reports_max: 4_096,
            // 640 reports of the usual 100 kB.
            queue_bytes_max: 64 << 20,
            batch_objects: 5_000,
            gather: Duration::from_millis(200),
            quiet: Duration::from_millis(3),
        }
    }
}

/// The collector's store.
#[derive(Debug)]
pub struct Collector {
    sender: CollectorSender,
    monitor: Monitor,
    place: String,
    turns: Weak<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Collector {
    /// Opens `dir/clients.db`, made if need be, and starts the thread that writes to it.
    pub fn open(dir: &Path, settings: CollectorSettings) -> Result<Self, StoreError> {
        Self::start(dir, settings, |dir| Ok(Box::new(SqliteSink::open(dir)?)))
    }

    /// The same with another database; the spool is in `dir`.
    pub fn with_sink(
        dir: &Path,
        settings: CollectorSettings,
        sink: Box<dyn Sink>,
    ) -> Result<Self, StoreError> {
        Self::start(dir, settings, |_| Ok(sink))
    }

    fn start(
        dir: &Path,
        settings: CollectorSettings,
        sink: impl FnOnce(&Path) -> Result<Box<dyn Sink>, StoreError>,
    ) -> Result<Self, StoreError> {
        let lock = lock(dir, LOCK_FILE)?;
        let sink = sink(dir)?;
        let place = sink.name();
        let io = |error| StoreError::Io { path: dir.to_owned(), error };
        let spool = Spool::open(dir, settings.spool_bytes_max).map_err(io)?;
        let monitor = Monitor::default();
        monitor.change(|health| {
            health.spool_reports_now = spool.reports();
            health.spool_bytes_now = spool.bytes();
        });
        let (sender, receiver) = queue::channel(&settings, monitor.clone());
        let watched = monitor.clone();
        let turns = Arc::new(AtomicU64::new(0));
        let seen = Arc::downgrade(&turns);
        let thread = thread::Builder::new()
            .name("collector".to_owned())
            .spawn(move || {
                writer::run(settings, sink, spool, &receiver, watched, turns);
                drop(lock);
            })
            .map_err(io)?;
        Ok(Self { sender, monitor, place, turns: seen, thread })
    }

    /// A way to hand reports in; clones of it may outlive the collector, their reports are then refused.
    pub fn sender(&self) -> CollectorSender {
        self.sender.clone()
    }

    /// How many turns its thread has made, at least one in half a second unless the database keeps it; gone when the thread
    /// has ended.
    pub fn turns(&self) -> Weak<AtomicU64> {
        self.turns.clone()
    }

    /// Where reports are kept, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// How it fares.
    pub fn health(&self) -> CollectorHealth {
        self.monitor.snapshot()
    }

    /// Writes or spools what has been sent, answers it, and ends.
    pub fn close(self) {
        self.sender.close();
        if finish(self.thread).is_none() {
            tracing::error!("the collector's thread had panicked, or does not end");
        }
    }
}
