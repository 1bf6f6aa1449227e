//! The record on disk: SQLite on a thread of its own, behind a bounded queue.
//!
//! A sender never waits: what does not fit is refused and counted, samples before facts, and the record says so as soon
//! as it can. What the rows are and when they are written is `telemetry::Pipeline`'s business; here are the file, the
//! thread and the clock.

pub mod collector;
pub mod coturn;
mod import;
mod monitor;
mod read;
mod read_turn;
mod sender;
mod sqlite;
mod store;
mod writer;

pub use import::{ImportError, TurnImport};
pub use monitor::{TurnHealth, TurnMonitor};
pub use read::{ReportError, report};
pub use read_turn::{turn_allocations, turn_sessions, turn_status, turn_usage};
pub use sender::{EventSender, QUEUE_FACTS, QUEUE_SAMPLES};
pub use store::{Closed, RETENTION_DAYS_DEFAULT, Settings, Store, StoreError};

/// Name of the database file in the data directory.
pub const DATABASE_FILE: &str = "fanlight.db";
