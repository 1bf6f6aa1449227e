//! Putting what was accounted for elsewhere into the record.

use crate::DATABASE_FILE;
use crate::sqlite::Database;
use crate::store::{Settings, StoreError};
use crate::writer::now;
use fanlight_telemetry::Batch;
use fanlight_telemetry::turn_account::{AllocationRecord, SessionRecord};
use std::path::{Path, PathBuf};

/// A record that no server uses meanwhile, open for TURN sessions of another source.
#[derive(Debug)]
pub struct TurnImport {
    database: Database,
    path: PathBuf,
    next_number: u64,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The record cannot be opened or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was imported before, or heard.
    #[error(
        "{path}: an allocation of {user:?} that began at {started} is on record already; nothing was imported"
    )]
    Known {
        /// The database.
        path: PathBuf,
        /// User name of the allocation.
        user: String,
        /// When it began, UTC.
        started: String,
    },
}

impl TurnImport {
    /// Opens the record in `dir`, made if need be.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let settings = Settings { node: "import".into(), retention_days: 0, turn: Default::default() };
        let (database, resumed) = Database::open(dir, &settings, now())?;
        Ok(Self { database, path: dir.join(DATABASE_FILE), next_number: resumed.resume.next_turn })
    }

    /// The first number that is free for a session or an allocation.
    pub const fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Writes all or nothing.
    pub fn write(
        &mut self,
        sessions: Vec<SessionRecord>,
        allocations: Vec<AllocationRecord>,
    ) -> Result<(), ImportError> {
        let known = self.database.known_allocation(&allocations).map_err(|error| self.sqlite(error))?;
        if let Some(known) = known {
            return Err(ImportError::Known {
                path: self.path.clone(),
                user: known.name.user.to_string(),
                started: fanlight_telemetry::turn_account::table::utc(known.started_ms),
            });
        }
        let batch = Batch {
            seen_ms: now().unix_ms(),
            turn_sessions: sessions,
            turn_allocations: allocations,
            ..Batch::default()
        };
        self.database.write(&batch).map_err(|error| self.sqlite(error.into()))?;
        Ok(())
    }

    fn sqlite(&self, error: rusqlite::Error) -> StoreError {
        StoreError::Sqlite { path: self.path.clone(), error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{turn_allocations, turn_sessions, turn_usage};
    use fanlight_telemetry::decode::recording::{Reading, Tables};
    use fanlight_telemetry::turn_account::usage::{By, Price};
    use fanlight_telemetry::turn_account::{Settings, TurnAccount};
    use fanlight_telemetry::turn_query::{Filter, Slice, Sort};

    const LINES: &str = "2026-11-21T10:00:00.000Z\tturn/realm/r/user/1:a/allocation/000000000000000001/status\tnew lifetime=600, type=UDP, local=10.0.0.1:3478, remote=10.0.0.2:5\n\
        2026-11-21T10:01:00.000Z\tturn/realm/r/user/1:a/allocation/000000000000000001/traffic/peer\trcvp=1, rcvb=70000, sentp=1, sentb=30000\n\
        2026-11-21T10:02:00.000Z\tturn/realm/r/user/2:b/allocation/000000000000000002/status\tnew lifetime=600, type=TCP, local=10.0.0.1:3478, remote=10.0.0.3:5\n\
        2026-11-21T10:03:00.000Z\tturn/realm/r/user/1:a/allocation/000000000000000001/status\tdeleted\n";

    fn account(next: u64) -> Tables {
        let mut account = TurnAccount::new(Settings::default(), next);
        let (mut reading, mut tables) = (Reading::default(), Tables::default());
        for line in LINES.lines() {
            reading.line(&mut account, line);
            tables.drain(&mut account);
        }
        account.handle_timeout(reading.latest_ms + 86_400_000);
        tables.drain(&mut account);
        assert_eq!(reading.unreadable, 0);
        tables
    }

    #[test]
    fn what_is_imported_is_found_by_filter_order_and_part_and_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut import = TurnImport::open(dir.path()).unwrap();
        let tables = account(import.next_number());
        import.write(tables.sessions.clone(), tables.allocations.clone()).unwrap();
        let again = import.write(tables.sessions.clone(), tables.allocations.clone()).unwrap_err();
        assert!(again.to_string().contains("\"1:a\" that began at 2026-11-21T10:00:00.000Z"), "{again}");
        drop(import);
        let people = |filter: &Filter, slice| {
            let page = turn_sessions(dir.path(), filter, slice).unwrap();
            let names: Vec<_> = page.rows.iter().map(|row| row.who.person.to_string()).collect();
            (names, page.total)
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(people(&Filter::default(), Slice::ALL), (names(&["a", "b"]), 2));
        let dearest = Slice { sort: Sort::Bytes, descending: true, offset: 0, limit: 1 };
        assert_eq!(people(&Filter::default(), dearest), (names(&["a"]), 2));
        assert_eq!(people(&Filter::default(), Slice { offset: 1, ..dearest }), (names(&["b"]), 2));
        let of_b = Filter { user: Some("b".into()), ..Filter::default() };
        assert_eq!(people(&of_b, Slice::ALL), (names(&["b"]), 1));
        let usage = turn_usage(dir.path(), &Filter::default(), By::Day, Price::default()).unwrap();
        let [day] = usage.as_slice() else { panic!("{usage:?}") };
        assert_eq!((day.key.as_str(), day.sessions, day.peer.rx_bytes), ("2026-11-21", 2, 70_000));
        assert_eq!(turn_allocations(dir.path(), &Filter::default(), Slice::ALL).unwrap().total, 0);
        let session = Filter { session: Some(tables.sessions[0].number), ..Filter::default() };
        assert_eq!(turn_allocations(dir.path(), &session, Slice::ALL).unwrap().total, 1);
    }
}
