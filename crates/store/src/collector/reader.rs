//! Reading clients' reports wherever they are kept, also while a collector writes them.

use super::CLIENTS_FILE;
use super::postgres::{PostgresError, PostgresReader, PostgresSettings};
use super::sqlite::{SqliteLook, VERSION};
use crate::read::{ReportError, read_file};
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery, StoredObject, StoredReport};
use fanlight_telemetry::turn_query::Page;
use std::path::{Path, PathBuf};
use tokio_postgres::error::SqlState;

/// Reads what clients have reported. A store that nothing has been written to yet has nothing; one that cannot be read is an error.
#[derive(Debug)]
pub struct ClientsReader {
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// `clients.db` in this folder.
    Sqlite(PathBuf),
    Postgres(Box<PostgresReader>),
}

/// One look at the reports: all answers are as of one moment. Connections are named by the number that the store gave them; one that it
/// does not know has nothing.
pub(super) trait Look {
    /// See [`ClientsReader::connections`].
    fn connections(&self, query: &ClientQuery) -> Result<Page<ClientConnection>, LookError>;

    /// See [`ClientsReader::latest`].
    fn latest(&self, connection: u64) -> Result<Vec<StoredObject>, LookError>;

    /// See [`ClientsReader::series`].
    fn series(
        &self,
        connection: u64,
        kind: &str,
        id: &str,
        range_ns: (u64, u64),
        limit: u64,
    ) -> Result<Vec<StoredObject>, LookError>;

    /// See [`ClientsReader::reports`].
    fn reports(
        &self,
        connection: u64,
        range_ns: (u64, u64),
        limit: u64,
    ) -> Result<Vec<StoredReport>, LookError>;

    /// The last object of each id, of the types that count tracks, of reports before this time.
    fn counting(&self, connection: u64, before_ns: u64) -> Result<Vec<StoredObject>, LookError>;

    /// [`StoredReport::extra`] of the last report.
    fn last_extra(&self, connection: u64) -> Result<Option<String>, LookError>;
}

/// Why a look failed.
#[derive(Debug)]
pub(super) enum LookError {
    Sqlite(rusqlite::Error),
    /// PostgreSQL is away, or refused; with what it says.
    Away(String),
    /// Nobody has made the tables yet.
    NoTables,
}

impl From<rusqlite::Error> for LookError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<tokio_postgres::Error> for LookError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(code) if *code == SqlState::UNDEFINED_TABLE => Self::NoTables,
            _ => Self::Away(super::postgres::explain(&error)),
        }
    }
}

impl ClientsReader {
    /// Of `dir/clients.db`.
    pub fn sqlite(dir: &Path) -> Self {
        Self { place: Place::Sqlite(dir.to_owned()) }
    }

    /// Of the tables of a [`PostgresSink`](super::PostgresSink). The server is not asked yet. What writes is never waited for, and never
    /// waits for this: it has a few connections of its own, which may only read.
    pub fn postgres(settings: &PostgresSettings) -> Result<Self, PostgresError> {
        Ok(Self { place: Place::Postgres(Box::new(PostgresReader::new(settings)?)) })
    }

    /// Connections that have reported, the newest first.
    pub fn connections(&self, query: &ClientQuery) -> Result<Page<ClientConnection>, ReportError> {
        let page = self.look(|look| look.connections(query))?;
        Ok(page.unwrap_or(Page { rows: Vec::new(), total: 0 }))
    }

    /// The last object of each type and id of a connection, by the number that the store gave it.
    pub fn latest(&self, connection: u64) -> Result<Vec<StoredObject>, ReportError> {
        Ok(self.look(|look| look.latest(connection))?.unwrap_or_default())
    }

    /// Objects of one type and id of a connection, by the number that the store gave it: those of `from_ns..to_ns`, and the one that
    /// held when that began; times are the reports', in nanoseconds since the Unix epoch. At most `limit` of them, the first ones.
    pub fn series(
        &self,
        connection: u64,
        kind: &str,
        id: &str,
        range_ns: (u64, u64),
        limit: u64,
    ) -> Result<Vec<StoredObject>, ReportError> {
        Ok(self.look(|look| look.series(connection, kind, id, range_ns, limit))?.unwrap_or_default())
    }

    /// Reports of a connection in `from_ns..to_ns`, by the number that the store gave it: when it said anything at all. At most
    /// `limit` of them, the first ones.
    pub fn reports(
        &self,
        connection: u64,
        range_ns: (u64, u64),
        limit: u64,
    ) -> Result<Vec<StoredReport>, ReportError> {
        Ok(self.look(|look| look.reports(connection, range_ns, limit))?.unwrap_or_default())
    }

    /// Asks as of one moment; `None` when nothing has been written yet.
    pub(super) fn look<T>(
        &self,
        ask: impl FnOnce(&dyn Look) -> Result<T, LookError>,
    ) -> Result<Option<T>, ReportError> {
        let (place, outcome) = match &self.place {
            Place::Sqlite(dir) => {
                let path = dir.join(CLIENTS_FILE);
                if !path.is_file() {
                    return Ok(None);
                }
                let looked =
                    read_file(dir, CLIENTS_FILE, VERSION, |database| Ok(ask(&SqliteLook(database))))?;
                (path, looked)
            }
            Place::Postgres(reader) => (PathBuf::from(reader.name()), reader.look(ask)),
        };
        match outcome {
            Ok(answer) => Ok(Some(answer)),
            Err(LookError::NoTables) => Ok(None),
            Err(LookError::Sqlite(error)) => Err(ReportError::Sqlite { path: place, error }),
            Err(LookError::Away(detail)) => {
                Err(ReportError::Away { place: place.display().to_string(), detail })
            }
        }
    }
}
