//! `fanlight.db`: the connection that writes.

mod counters;
mod prune;
mod recover;
mod schema;
pub(crate) mod turn;
mod write;

pub(crate) use counters::read_counters;
pub(crate) use schema::{VERSION, version};

use crate::DATABASE_FILE;
use crate::store::{Settings, StoreError};
use fanlight_base::Now;
use fanlight_telemetry::turn_account::{AllocationRecord, SessionRecord};
use fanlight_telemetry::{Batch, Resume};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A second server on the same directory would take the first one's open sessions for those of a crash.
const LOCK_FILE: &str = "fanlight.lock";
/// Waiting for another writer (a person's `sqlite3`) happens in the pipeline, which goes on taking events meanwhile.
const BUSY_TIMEOUT: Duration = Duration::from_millis(50);
/// The log file is cut back to this after a checkpoint.
const WAL_BYTES_MAX: i64 = 64 << 20;
/// More statements than there are.
const STATEMENTS_MAX: usize = 32;

/// The database of one data directory, locked for this process.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    connection: Connection,
    /// Device and inode of the file that was opened.
    opened: (u64, u64),
    /// Whether the connection is made anew before the next use: after an I/O error its state is not to be trusted.
    reopen: bool,
    /// How TURN fares, to be written with the next batch.
    turn_status: Option<String>,
    /// Held, not read: the lock goes with the process, however it ends.
    _lock: File,
}

/// Where an earlier process stopped.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) resume: Resume,
    pub(crate) turn_sessions: Vec<SessionRecord>,
    pub(crate) turn_allocations: Vec<AllocationRecord>,
}

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct WriteError(#[from] rusqlite::Error);

impl From<WriteError> for rusqlite::Error {
    fn from(WriteError(error): WriteError) -> Self {
        error
    }
}

impl Database {
    /// Opens and locks the database of `dir`, brings its schema up to date and closes what a crash left open.
    pub(crate) fn open(dir: &Path, settings: &Settings, now: Now) -> Result<(Self, Resumed), StoreError> {
        let lock = lock(dir, LOCK_FILE)?;
        let path = dir.join(DATABASE_FILE);
        let sqlite = |error| StoreError::Sqlite { path: path.clone(), error };
        let mut connection = connect(&path).map_err(sqlite)?;
        let found = version(&connection).map_err(sqlite)?;
        if found > VERSION {
            return Err(StoreError::Newer { path, found, known: VERSION });
        }
        schema::migrate(&mut connection).map_err(sqlite)?;
        let resume = recover::recover(&mut connection, settings, now).map_err(sqlite)?;
        let (turn_sessions, turn_allocations) = turn::open_rows(&connection).map_err(sqlite)?;
        let resumed = Resumed { resume, turn_sessions, turn_allocations };
        let opened = place(&path).map_err(|error| StoreError::Io { path: path.clone(), error })?;
        Ok((Self { path, connection, opened, reopen: false, turn_status: None, _lock: lock }, resumed))
    }

    /// Writes all rows and *last seen* in one transaction.
    pub(crate) fn write(&mut self, batch: &Batch) -> Result<(), WriteError> {
        // What is written into a file that nobody finds any more is lost.
        if !self.is_in_place() {
            let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
            let text = format!(
                "{} was moved, deleted or replaced; put it back, or start the server anew for a new record",
                self.path.display()
            );
            return Err(rusqlite::Error::SqliteFailure(error, Some(text)).into());
        }
        if std::mem::take(&mut self.reopen) {
            self.connection = connect(&self.path).inspect_err(|_| self.reopen = true)?;
        }
        let written = write::write(&mut self.connection, batch, self.turn_status.as_deref());
        if written.is_ok() {
            self.turn_status = None;
        }
        if let Err(error) = &written {
            self.reopen = !matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull)
            );
        }
        Ok(written?)
    }

    /// Whether the file that was opened is still found under its name: SQLite goes on writing into one that is not.
    pub(crate) fn is_in_place(&self) -> bool {
        place(&self.path).is_ok_and(|place| place == self.opened)
    }

    /// Says how TURN fares, a JSON object; it is written with the next batch.
    pub(crate) fn set_turn_status(&mut self, status: String) {
        self.turn_status = Some(status);
    }

    /// The first of these allocations that is on record already, whatever its number.
    pub(crate) fn known_allocation<'a>(
        &self,
        allocations: &'a [AllocationRecord],
    ) -> Result<Option<&'a AllocationRecord>, rusqlite::Error> {
        turn::known(&self.connection, allocations)
    }

    /// Deletes a portion of what ended before `before_ms`; `true` when more is left.
    pub(crate) fn prune(&mut self, before_ms: u64) -> Result<bool, rusqlite::Error> {
        prune::prune(&mut self.connection, before_ms)
    }
}

impl WriteError {
    /// Whether the same rows may be taken later: the disk or the lock is the matter, not the rows.
    pub(crate) fn is_passing(&self) -> bool {
        use ErrorCode as Code;
        !matches!(
            self.0.sqlite_error_code(),
            None | Some(
                Code::ConstraintViolation
                    | Code::TypeMismatch
                    | Code::TooBig
                    | Code::ApiMisuse
                    | Code::ParameterOutOfRange
                    | Code::Unknown
            )
        )
    }
}

/// WAL with `synchronous=NORMAL`: a commit is a write into the log file without a sync. A killed process loses nothing
/// of it, because the pages are the kernel's by then; when the machine loses power the last commits may be missing, but
/// the database stays whole. A sync per batch would make every batch as slow as the disk.
fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// Device and inode.
pub(crate) fn place(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn immediate(connection: &mut Connection) -> Result<rusqlite::Transaction<'_>, rusqlite::Error> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// SQLite's integers are signed; nothing here comes near their end.
pub(crate) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Makes a data directory, and locks a file in it for this process.
pub(crate) fn lock(dir: &Path, file: &str) -> Result<File, StoreError> {
    let path = dir.join(file);
    let io = |error| StoreError::Io { path: path.clone(), error };
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    // Identities and addresses are nobody else's business.
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|error| StoreError::Io { path: dir.to_owned(), error })?;
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_telemetry::{Batch, TimelineRow};

    const NOW: Now = Now { mono_ns: 0, unix_ns: 1_700_000_000_000_000_000 };

    fn open(dir: &Path) -> Database {
        let settings = Settings { node: "ND_test".into(), retention_days: 0, turn: Default::default() };
        Database::open(dir, &settings, NOW).unwrap().0
    }

    fn batch(rows: u64) -> Batch {
        let row = |id| TimelineRow {
            id,
            t_ms: id,
            room: "RM_1".into(),
            participant: Default::default(),
            track: Default::default(),
            event: "track_muted",
            fields: format!("{{\"filler\":\"{}\"}}", "x".repeat(1_000)),
        };
        Batch { timeline: (1..=rows).map(row).collect(), ..Batch::default() }
    }

    fn rows(database: &Database) -> i64 {
        database.connection.query_row("SELECT count(*) FROM timeline", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_full_disk_leaves_nothing_half_written_and_is_worth_another_try() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = open(dir.path());
        let pages: i64 =
            database.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        database.connection.pragma_update(None, "max_page_count", pages + 10).unwrap();
        let error = database.write(&batch(500)).unwrap_err();
        assert!(error.is_passing(), "{error}");
        assert_eq!(rows(&database), 0);
        database.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
        database.write(&batch(500)).unwrap();
        assert_eq!(rows(&database), 500);
    }

    #[test]
    fn writing_a_batch_twice_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = open(dir.path());
        database.write(&batch(5)).unwrap();
        database.write(&batch(5)).unwrap();
        assert_eq!(rows(&database), 5);
    }

    #[test]
    fn a_table_that_somebody_dropped_is_not_worth_another_try() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = open(dir.path());
        database.connection.execute_batch("DROP TABLE timeline").unwrap();
        assert!(!database.write(&batch(1)).unwrap_err().is_passing());
        assert!(database.write(&batch(0)).is_ok());
    }

    #[test]
    fn what_is_read_often_is_found_by_an_index() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(dir.path());
        for sql in [
            "SELECT * FROM rooms WHERE name = '' OR sid = ''",
            "SELECT * FROM participants WHERE room_sid = ''",
            "SELECT * FROM participants WHERE left_ms IS NULL",
            "SELECT * FROM tracks WHERE room_sid = ''",
            "SELECT * FROM tracks WHERE ended_ms IS NULL",
            "SELECT * FROM counters WHERE track_id = 1",
            "SELECT * FROM timeline WHERE room_sid = '' AND t_ms BETWEEN 1 AND 2",
            "SELECT * FROM turn_sessions WHERE 1 AND started_ms >= 1 AND started_ms < 2 ORDER BY started_ms DESC",
            "SELECT * FROM turn_sessions WHERE 1 AND (person = 'p' OR (identity = 'p' AND identity <> ''))",
            "SELECT * FROM turn_sessions WHERE 1 AND (room = 'r' AND room <> '') AND started_ms >= 1",
            "SELECT * FROM turn_allocations WHERE 1 AND session = 1",
            "SELECT * FROM turn_allocations WHERE 1 AND ended_low_ms IS NULL",
        ] {
            let plan: Vec<String> = database
                .connection
                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                .unwrap()
                .query_map([], |row| row.get(3))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            let scans = plan.iter().any(|step| step.starts_with("SCAN") && !step.contains("_open"));
            assert!(!scans, "{sql}: {plan:?}");
        }
    }
}
