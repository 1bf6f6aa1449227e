//! Opening and closing the record.

use crate::monitor::TurnMonitor;
use crate::sender::{EventSender, channel};
use crate::sqlite::Database;
use crate::writer;
use fanlight_base::NodeId;
use fanlight_telemetry::turn_account;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Rooms are kept so many days unless configured otherwise.
pub const RETENTION_DAYS_DEFAULT: u32 = 90;

/// The record of this node.
#[derive(Debug)]
pub struct Store {
    sender: EventSender,
    monitor: TurnMonitor,
    turns: Weak<AtomicU64>,
    thread: JoinHandle<Closed>,
}

/// What a store is opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// This node, for the heartbeat.
    pub node: NodeId,
    /// Rooms that ended so many days ago are deleted; 0 keeps all.
    pub retention_days: u32,
    /// How TURN is accounted for.
    pub turn: turn_account::Settings,
}

/// How closing went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Rows that could not be written in time.
    pub unwritten_rows: usize,
    /// All that was sent is on record.
    pub whole: bool,
}

/// A thread that was told to end is waited for this long: longer than the writer's own limit.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// What a thread that was told to end gives back; `None` when it had panicked or does not end.
pub(crate) fn finish<T>(thread: JoinHandle<T>) -> Option<T> {
    let until = Instant::now() + FINISH_WITHIN;
    while !thread.is_finished() && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    if thread.is_finished() { thread.join().ok() } else { None }
}

/// Why the record could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or the lock file cannot be made.
    #[error("{path}: {error}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// Another process has it open.
    #[error("{0}: in use by another fanlight server")]
    InUse(PathBuf),
    /// It was written by a later version.
    #[error("{path}: schema version {found}, this program knows up to {known}; use a newer fanlight")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Newest version known.
        known: u32,
    },
    /// SQLite refused.
    #[error("{path}: {error}")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        error: rusqlite::Error,
    },
}

impl Store {
    /// Opens `dir/fanlight.db`, made if need be, and starts the thread that writes to it. Sessions that an earlier process
    /// left open are closed with reason `crash` at the moment when that process was last seen.
    pub fn open(dir: &Path, settings: Settings) -> Result<Self, StoreError> {
        let (sender, receiver) = channel();
        let (database, resumed) = Database::open(dir, &settings, writer::now())?;
        let monitor = TurnMonitor::default();
        let watched = monitor.clone();
        let turns = Arc::new(AtomicU64::new(0));
        let seen = Arc::downgrade(&turns);
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer::run(database, resumed, &settings, &receiver, watched, turns))
            .map_err(|error| StoreError::Io { path: dir.to_owned(), error })?;
        Ok(Self { sender, monitor, turns: seen, thread })
    }

    /// A way to hand events in; clones of it may outlive the store, their events are then refused.
    pub fn sender(&self) -> EventSender {
        self.sender.clone()
    }

    /// How TURN fares, and where its inputs say how they do; clones may outlive the store.
    pub fn turn_monitor(&self) -> TurnMonitor {
        self.monitor.clone()
    }

    /// How many turns its thread has made, at least one in half a second unless the disk keeps it; gone when the thread has
    /// ended.
    pub fn turns(&self) -> Weak<AtomicU64> {
        self.turns.clone()
    }

    /// Writes what has been sent and waits until that is done, or for three seconds when the disk does not answer; a thread
    /// that is stuck is left behind after some more.
    pub fn close(self) -> Closed {
        self.sender.close();
        finish(self.thread).unwrap_or_else(|| {
            tracing::error!("the store's thread had panicked, or does not end");
            Closed { unwritten_rows: 0, whole: false }
        })
    }
}
