//! What a database must be able to do to keep clients' reports.

use fanlight_telemetry::collector::{ConnectionKey, LastValues, Planned};
use std::collections::BTreeMap;

/// A database of reports. All is called on the collector's thread, which may wait for it.
pub trait Sink: Send + std::fmt::Debug {
    /// For messages, such as `clients.db`.
    fn name(&self) -> String;

    /// Stores these reports, all or none, and gives back for each whether it was new. A report whose connection and time are
    /// stored already is not stored again, also when both are among these. When it returns, the reports are as safe as
    /// they will be. Without reports it says whether it could store some.
    fn write(&mut self, now_ms: u64, reports: &[Planned]) -> Result<Vec<bool>, SinkError>;

    /// Objects that were left out of reports written since this was asked last, because the database cannot hold them, by reason.
    fn take_unfit(&mut self) -> BTreeMap<&'static str, u64> {
        BTreeMap::new()
    }

    /// What is stored last of each object of a connection, by the reports' time; nothing when it is not known. At most
    /// [`CONNECTION_OBJECTS_MAX`](fanlight_telemetry::collector::limits::CONNECTION_OBJECTS_MAX) objects.
    fn last_values(&mut self, key: &ConnectionKey) -> Result<LastValues, SinkError>;

    /// Whether what it writes to is still in its place, as far as that can be told at once; asked every second.
    fn look(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Deletes a portion of what came before this time, in milliseconds since the Unix epoch; gives back how many objects that
    /// were, and whether there is more.
    fn prune(&mut self, before_ms: u64) -> Result<(u64, bool), SinkError>;

    /// Bytes that are in use, of what is bounded in bytes; a server's disk is its administrator's, and has 0.
    fn used_bytes(&mut self) -> Result<u64, SinkError> {
        Ok(0)
    }
}

/// Why a sink did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The disk, the lock or the connection is the matter: the same may be tried again.
    #[error("{0}")]
    Away(String),
    /// What was to be written is the matter: it will not be taken later either.
    #[error("{0}")]
    Refused(String),
}
