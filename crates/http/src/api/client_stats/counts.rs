//! What is counted of requests to `/api/v1/client-stats`.

use fanlight_telemetry::collector::ClientReport;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Since the process began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientStatsCounts {
    /// Requests by what they were answered with.
    pub requests: BTreeMap<u16, u64>,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// Reports in those that were answered with 204.
    pub reports: u64,
    /// Objects of these reports.
    pub objects: u64,
    /// Objects left out of them, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
}

impl ClientStatsCounts {
    /// Of reports that are not stored yet.
    pub(super) fn of(reports: &[ClientReport]) -> Self {
        let mut counts = Self { reports: reports.len() as u64, ..Self::default() };
        for report in reports {
            counts.objects += report.objects.len() as u64;
            for (reason, objects) in &report.rejected {
                *counts.rejected.entry(reason.name()).or_default() += objects;
            }
        }
        counts
    }
}

/// Counts. A lock taken twice a request.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<ClientStatsCounts>);

impl Meter {
    pub(super) fn answered(&self, status: u16, body_bytes: usize) {
        self.with(|counts| {
            *counts.requests.entry(status).or_default() += 1;
            counts.body_bytes += body_bytes as u64;
        });
    }

    pub(super) fn stored(&self, more: &ClientStatsCounts) {
        self.with(|counts| {
            counts.reports += more.reports;
            counts.objects += more.objects;
            for (reason, objects) in &more.rejected {
                *counts.rejected.entry(reason).or_default() += objects;
            }
        });
    }

    pub(super) fn snapshot(&self) -> ClientStatsCounts {
        self.with(|counts| counts.clone())
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut ClientStatsCounts) -> T) -> T {
        // Counters are whole whatever happened to the thread that held them.
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
