//! `clients.db`: the connection that writes.
//!
//! A file of its own beside `fanlight.db`: a flood of reports makes no fact of a call wait, and either can be deleted.

mod read;

pub(super) use read::SqliteLook;

use super::CLIENTS_FILE;
use super::sink::{Sink, SinkError};
use crate::sqlite::{int, place, version};
use crate::store::StoreError;
use fanlight_telemetry::collector::limits::CONNECTION_OBJECTS_MAX;
use fanlight_telemetry::collector::{ConnectionKey, LastValue, LastValues, Planned};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Version of the schema, in `user_version`.
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;
/// Each brings the schema from its index to the next version. They are never edited, only added to.
const MIGRATIONS: &[&str] = &[include_str!("sqlite/0001_clients.sql")];
/// Waiting for another writer (a person's `sqlite3`); after that reports go to the spool.
const BUSY_TIMEOUT: Duration = Duration::from_millis(200);
/// The log file is cut back to this after a checkpoint.
const WAL_BYTES_MAX: i64 = 64 << 20;
/// Pages between two checkpoints, 32 MiB of log: index pages that many transactions change are then copied once.
const CHECKPOINT_PAGES: i64 = 4_096;
/// Most objects have 0.3 to 1.5 kB, so that several fit a page.
const PAGE_BYTES: i64 = 8_192;
/// The ends of the indexes of some thousand connections, in KiB.
const CACHE_KIB: i64 = 65_536;
const STATEMENTS_MAX: usize = 32;
/// Numbers of connections that are remembered; past it they are looked up anew.
const NUMBERS_MAX: usize = 65_536;
/// Objects deleted at a time: some 100 ms.
const PRUNE_OBJECTS: i64 = 4_096;
/// Reports and connections deleted at a time.
const PRUNE_ROWS: i64 = 1_024;

/// The SQLite database of reports.
#[derive(Debug)]
pub struct SqliteSink {
    path: PathBuf,
    connection: Connection,
    /// Device and inode of the file that was opened.
    opened: (u64, u64),
    /// Whether the connection is made anew before the next use: after an I/O error its state is not to be trusted.
    reopen: bool,
    /// What is committed, by key.
    numbers: BTreeMap<ConnectionKey, i64>,
}

impl SqliteSink {
    /// Opens `dir/clients.db`, made if need be, and brings its schema up to date.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(CLIENTS_FILE);
        let sqlite = |error| StoreError::Sqlite { path: path.clone(), error };
        let mut connection = connect(&path).map_err(sqlite)?;
        let found = version(&connection).map_err(sqlite)?;
        if found > VERSION {
            return Err(StoreError::Newer { path, found, known: VERSION });
        }
        migrate(&mut connection).map_err(sqlite)?;
        let opened = place(&path).map_err(|error| StoreError::Io { path: path.clone(), error })?;
        Ok(Self { path, connection, opened, reopen: false, numbers: BTreeMap::new() })
    }

    /// Runs `work`, after an error of the disk, and on another file that was put in place, with a new connection.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, rusqlite::Error>,
    ) -> Result<T, SinkError> {
        let found = place(&self.path).ok();
        if !self.reopen && found != Some(self.opened) {
            // The error tells the thread that it knows nothing of what is stored.
            self.reopen = true;
            self.numbers.clear();
            return Err(self.gone());
        }
        if self.reopen {
            // Opening would make an empty one.
            let Some(found) = found else { return Err(self.gone()) };
            let mut connection = connect(&self.path).map_err(away)?;
            migrate(&mut connection).map_err(away)?;
            self.connection = connection;
            self.opened = found;
            self.reopen = false;
        }
        work(self).map_err(|error| {
            self.numbers.clear();
            self.reopen = !matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull)
            );
            match error.sqlite_error_code() {
                Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
                    SinkError::Refused(error.to_string())
                }
                _ => away(error),
            }
        })
    }

    fn gone(&self) -> SinkError {
        let path = self.path.display();
        SinkError::Away(format!(
            "{path} was moved, deleted or replaced; put it back, or start the server anew"
        ))
    }

    fn write_all(&mut self, now_ms: u64, reports: &[Planned]) -> Result<Vec<bool>, rusqlite::Error> {
        let transaction = immediate(&mut self.connection)?;
        let mut next_stat: i64 = transaction
            .prepare_cached("SELECT coalesce(max(number), 0) + 1 FROM stats")?
            .query_row([], |row| row.get(0))?;
        let mut numbers = Vec::with_capacity(reports.len());
        let mut new = Vec::with_capacity(reports.len());
        for planned in reports {
            let number = match self.numbers.get(&planned.key) {
                Some(number) => *number,
                None => connection_number(&transaction, planned, now_ms)?,
            };
            numbers.push(number);
            new.push(report(&transaction, number, planned, now_ms, &mut next_stat)?);
        }
        transaction.commit()?;
        if self.numbers.len() > NUMBERS_MAX {
            self.numbers.clear();
        }
        for (planned, number) in reports.iter().zip(numbers) {
            if !self.numbers.contains_key(&planned.key) {
                self.numbers.insert(planned.key.clone(), number);
            }
        }
        Ok(new)
    }
}

impl Sink for SqliteSink {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn write(&mut self, now_ms: u64, reports: &[Planned]) -> Result<Vec<bool>, SinkError> {
        self.with(|sink| sink.write_all(now_ms, reports))
    }

    fn last_values(&mut self, key: &ConnectionKey) -> Result<LastValues, SinkError> {
        self.with(|sink| last_values(&sink.connection, key))
    }

    fn look(&mut self) -> Result<(), SinkError> {
        self.with(|_| Ok(()))
    }

    fn prune(&mut self, before_ms: u64) -> Result<(u64, bool), SinkError> {
        self.with(|sink| {
            let pruned = prune(&mut sink.connection, int(before_ms))?;
            // A number may be of a connection that is gone.
            sink.numbers.clear();
            Ok(pruned)
        })
    }

    fn used_bytes(&mut self) -> Result<u64, SinkError> {
        self.with(|sink| {
            let pragma = |name| sink.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            let pages = pragma("page_count")? - pragma("freelist_count")?;
            Ok(u64::try_from(pages * pragma("page_size")?).unwrap_or(0))
        })
    }
}

fn away(error: rusqlite::Error) -> SinkError {
    SinkError::Away(error.to_string())
}

/// WAL with `synchronous=FULL`: a commit is synced, because what is answered must outlive a loss of power. Many reports share
/// one.
fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

fn immediate(connection: &mut Connection) -> Result<Transaction<'_>, rusqlite::Error> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Brings the schema up to date; all or nothing.
fn migrate(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    let transaction = immediate(connection)?;
    let found = usize::try_from(version(&transaction)?).unwrap_or(usize::MAX);
    if found < MIGRATIONS.len() {
        for migration in MIGRATIONS.iter().skip(found) {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

const FIND: &str = "SELECT number FROM connections WHERE connection_id = ?1 AND source = ?2
                    AND session_id = ?3 AND channel_id = ?4 AND client_id = ?5";

fn find(connection: &Connection, key: &ConnectionKey) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .prepare_cached(FIND)?
        .query_row(
            params![
                key.connection_id.as_str(),
                key.family,
                key.session_id.as_str(),
                key.channel_id.as_str(),
                key.client_id.as_str()
            ],
            |row| row.get(0),
        )
        .optional()
}

/// The number of a report's connection, which is made when it is new.
fn connection_number(
    transaction: &Transaction<'_>,
    planned: &Planned,
    now_ms: u64,
) -> Result<i64, rusqlite::Error> {
    let key = &planned.key;
    if let Some(number) = find(transaction, key)? {
        return Ok(number);
    }
    let report = &planned.report;
    let envelope = report.connection.as_ref();
    transaction
        .prepare_cached(
            "INSERT INTO connections
             (source, connection_id, session_id, channel_id, client_id, role, multistream, simulcast, spotlight, room_sid,
              participant_sid, label, version, node_name, first_ns, last_ns, received_ms, reports, stored, unchanged,
              rejected)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?15, ?16, 0, 0, 0, 0)",
        )?
        .execute(params![
            key.family,
            key.connection_id.as_str(),
            key.session_id.as_str(),
            key.channel_id.as_str(),
            key.client_id.as_str(),
            envelope.and_then(|envelope| envelope.role).map(|role| role.name()),
            envelope.and_then(|envelope| envelope.multistream),
            envelope.and_then(|envelope| envelope.simulcast),
            envelope.and_then(|envelope| envelope.spotlight),
            envelope.map_or("", |envelope| envelope.room_sid.as_str()),
            envelope.map_or("", |envelope| envelope.participant_sid.as_str()),
            report.label.as_str(),
            report.version.as_str(),
            report.node_name.as_str(),
            int(report.at_ns),
            int(now_ms),
        ])?;
    Ok(transaction.last_insert_rowid())
}

/// Stores a report and its objects; `false` when it is stored already.
fn report(
    transaction: &Transaction<'_>,
    connection: i64,
    planned: &Planned,
    now_ms: u64,
    next_stat: &mut i64,
) -> Result<bool, rusqlite::Error> {
    let report = &planned.report;
    let (at_ns, received_ms) = (int(report.at_ns), int(now_ms));
    let stored = i64::try_from(planned.fresh.len()).unwrap_or(i64::MAX);
    let unchanged = i64::try_from(planned.unchanged()).unwrap_or(i64::MAX);
    let rejected = int(report.rejected_objects());
    let inserted = transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO reports
             (connection, at_ns, received_ms, first_stat, stored, unchanged, rejected, extra)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            connection,
            at_ns,
            received_ms,
            *next_stat,
            stored,
            unchanged,
            rejected,
            report.extra
        ])?;
    if inserted == 0 {
        return Ok(false);
    }
    let mut statement = transaction.prepare_cached(
        "INSERT INTO stats (number, connection, type, id, at_ns, stats_ms, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for object in planned.objects() {
        statement.execute(params![
            *next_stat,
            connection,
            object.kind.as_str(),
            object.id.as_str(),
            at_ns,
            object.stats_ms,
            object.json
        ])?;
        *next_stat = next_stat.saturating_add(1);
    }
    transaction
        .prepare_cached(
            "UPDATE connections SET first_ns = min(first_ns, ?2), last_ns = max(last_ns, ?2), received_ms = ?3,
             reports = reports + 1, stored = stored + ?4, unchanged = unchanged + ?5, rejected = rejected + ?6,
             label = ?7, version = ?8, node_name = ?9 WHERE number = ?1",
        )?
        .execute(params![
            connection,
            at_ns,
            received_ms,
            stored,
            unchanged,
            rejected,
            report.label.as_str(),
            report.version.as_str(),
            report.node_name.as_str()
        ])?;
    Ok(true)
}

/// The newest object of each type and id. From the end of the connection's part of the index it steps to the id before, then to
/// the type before: as many steps as there are ids, however many rows each has.
const LATEST: &str = "WITH RECURSIVE latest(number) AS (
        SELECT number FROM (SELECT number FROM stats WHERE connection = ?1
                            ORDER BY type DESC, id DESC, at_ns DESC, number DESC LIMIT 1)
        UNION ALL
        SELECT coalesce(
            (SELECT number FROM stats WHERE connection = ?1 AND type = later.type AND id < later.id
             ORDER BY id DESC, at_ns DESC, number DESC LIMIT 1),
            (SELECT number FROM stats WHERE connection = ?1 AND type < later.type
             ORDER BY type DESC, id DESC, at_ns DESC, number DESC LIMIT 1))
        FROM latest JOIN stats AS later ON later.number = latest.number LIMIT ?2)
    SELECT type, id, at_ns, stats_ms, data FROM stats WHERE number IN (SELECT number FROM latest) ORDER BY type, id";

fn last_values(connection: &Connection, key: &ConnectionKey) -> Result<LastValues, rusqlite::Error> {
    let Some(number) = find(connection, key)? else { return Ok(LastValues::default()) };
    let at_ns: Option<i64> = connection
        .prepare_cached("SELECT max(at_ns) FROM reports WHERE connection = ?1")?
        .query_row([number], |row| row.get(0))?;
    let most = i64::try_from(CONNECTION_OBJECTS_MAX).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(LATEST)?;
    let objects = statement.query_map([number, most], |row| {
        Ok(LastValue {
            kind: row.get(0)?,
            id: row.get(1)?,
            at_ns: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
            json: row.get(4)?,
        })
    })?;
    let at_ns = at_ns.and_then(|at_ns| u64::try_from(at_ns).ok());
    Ok(LastValues { at_ns, objects: objects.collect::<Result<_, _>>()? })
}

/// The oldest reports go with their objects, which are the first rows of `stats`; then connections without reports. SQLite uses
/// the freed pages again; the file does not shrink.
fn prune(connection: &mut Connection, before_ms: i64) -> Result<(u64, bool), rusqlite::Error> {
    let transaction = immediate(connection)?;
    // Reports are numbered as they came, so that the old ones are the first.
    let end: Option<(i64, i64)> = transaction
        .prepare_cached(
            "SELECT number, first_stat + stored FROM
             (SELECT number, received_ms, first_stat, stored, sum(stored) OVER (ORDER BY number) AS objects
              FROM (SELECT * FROM reports ORDER BY number LIMIT ?2))
             WHERE received_ms < ?1 AND (objects <= ?3 OR objects = stored) ORDER BY number DESC LIMIT 1",
        )?
        .query_row([before_ms, PRUNE_ROWS, PRUNE_OBJECTS], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (mut objects, mut more) = (0, false);
    if let Some((last, end_stat)) = end {
        objects = transaction.prepare_cached("DELETE FROM stats WHERE number < ?1")?.execute([end_stat])?;
        transaction.prepare_cached("DELETE FROM reports WHERE number <= ?1")?.execute([last])?;
        more = true;
    }
    if !more {
        let deleted = transaction
            .prepare_cached(
                "DELETE FROM connections WHERE number IN (SELECT number FROM connections WHERE received_ms < ?1
                 AND NOT EXISTS (SELECT 1 FROM reports WHERE connection = connections.number) LIMIT ?2)",
            )?
            .execute([before_ms, PRUNE_ROWS])?;
        more = deleted > 0;
    }
    transaction.commit()?;
    Ok((objects as u64, more))
}
