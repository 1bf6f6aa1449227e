//! What the collector counts.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How the collector fares. Counts only grow, but those that say `now`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CollectorHealth {
    /// Reports that wait in memory now.
    pub queued_reports_now: u64,
    /// Bytes of them.
    pub queued_bytes_now: u64,
    /// Reports committed, those from the spool included.
    pub stored_reports: u64,
    /// Objects committed.
    pub stored_objects: u64,
    /// Objects that were left out, because they are as before.
    pub unchanged_objects: u64,
    /// Reports that had been stored before.
    pub duplicate_reports: u64,
    /// Objects that were not fit to be stored.
    pub rejected_objects: u64,
    /// Objects of stored reports that the database cannot hold, by reason.
    pub unfit_objects: BTreeMap<&'static str, u64>,
    /// Transactions.
    pub batches: u64,
    /// Reports that were written to the spool.
    pub spooled_reports: u64,
    /// Reports that went from the spool to the database.
    pub replayed_reports: u64,
    /// Reports that wait in the spool now.
    pub spool_reports_now: u64,
    /// Bytes of the spool now.
    pub spool_bytes_now: u64,
    /// Reports refused because the queue was full.
    pub refused_busy: u64,
    /// Reports refused because the database was away and the spool or its disk full.
    pub refused_full: u64,
    /// Reports that the database does not take as they are.
    pub refused_data: u64,
    /// Bytes of the spool that could not be read.
    pub spool_lost_bytes: u64,
    /// Objects deleted because of their age.
    pub pruned_objects: u64,
    /// Connections that are remembered now, to tell what is new.
    pub known_connections_now: u64,
    /// Objects of them.
    pub known_objects_now: u64,
    /// Why the database takes nothing now; `None` when it does.
    pub failing: Option<String>,
    /// Why the spool would take nothing now; `None` when nothing is known to be wrong with it.
    pub spool_failing: Option<String>,
}

/// Counts shared by the thread and those who ask.
#[derive(Debug, Clone, Default)]
pub(super) struct Monitor(Arc<Mutex<CollectorHealth>>);

impl Monitor {
    pub(super) fn change(&self, change: impl FnOnce(&mut CollectorHealth)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn snapshot(&self) -> CollectorHealth {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
