//! The way of clients' reports to the store.

use fanlight_telemetry::collector::ClientReport;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// What became of a report that is safe: committed, or in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stored {
    /// Objects that are in the database now; 0 when the report is in the spool.
    pub stored: u64,
    /// Objects that were left out, because they are as before.
    pub unchanged: u64,
}

/// Why a report is not stored. All but [`NotStored::Unfit`] are passing: 503.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotStored {
    /// Its queue is full.
    #[error("too many reports wait to be stored; send it again later")]
    Busy,
    /// Neither database nor spool takes it.
    #[error("{0}")]
    Full(String),
    /// The database does not take it as it is: 400.
    #[error("{0}")]
    Unfit(String),
    /// The process is ending.
    #[error("the server is shutting down")]
    Gone,
}

/// A future of the store.
pub type Storing = Pin<Box<dyn Future<Output = Result<Stored, NotStored>> + Send>>;

/// Takes clients' reports. Answers once a report is safe, or says why it is not.
pub trait ClientReports: Send + Sync {
    /// Stores a report. Must not wait before it gives the future.
    fn store(&self, report: ClientReport) -> Storing;

    /// Whether reports can be taken just now. Does not wait.
    fn ready(&self) -> Result<(), NotStored>;
}

/// The way of clients' reports to the store. Cheap to clone.
#[derive(Clone)]
pub struct ReportSink(Arc<dyn ClientReports>);

impl fmt::Debug for ReportSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReportSink")
    }
}

impl ReportSink {
    /// A way to this store.
    pub fn new(reports: impl ClientReports + 'static) -> Self {
        Self(Arc::new(reports))
    }

    /// Stores a report.
    pub async fn store(&self, report: ClientReport) -> Result<Stored, NotStored> {
        self.0.store(report).await
    }

    /// Stores several reports; an error when one of them is not stored. All are queued at once.
    pub async fn store_all(&self, reports: Vec<ClientReport>) -> Result<(), NotStored> {
        let storing: Vec<Storing> = reports.into_iter().map(|report| self.0.store(report)).collect();
        let mut outcome = Ok(());
        for storing in storing {
            let stored = storing.await.map(|_| ());
            // What is passing is told first, so that the sender comes again.
            if !matches!(stored, Ok(()) | Err(NotStored::Unfit(_))) || outcome.is_ok() {
                outcome = stored;
            }
        }
        outcome
    }

    /// Whether reports can be taken just now.
    pub fn ready(&self) -> Result<(), NotStored> {
        self.0.ready()
    }
}
