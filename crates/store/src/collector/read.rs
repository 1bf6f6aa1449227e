//! Reading clients' reports, also while a collector writes them.

use super::CLIENTS_FILE;
use super::sqlite::{LATEST, VERSION};
use crate::read::{ReportError, read_file};
use crate::sqlite::int;
use fanlight_telemetry::collector::limits::CONNECTION_OBJECTS_MAX;
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery, StoredObject, StoredReport};
use fanlight_telemetry::turn_query::Page;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};
use std::path::Path;

/// Connections that have reported, the newest first.
pub fn client_connections(dir: &Path, query: &ClientQuery) -> Result<Page<ClientConnection>, ReportError> {
    read_file(dir, CLIENTS_FILE, VERSION, |connection| connections(connection, query))
}

/// The same in a database that is open.
pub(super) fn connections(
    connection: &Connection,
    query: &ClientQuery,
) -> Result<Page<ClientConnection>, rusqlite::Error> {
    let (condition, parameters) = wishes(query);
    let total = connection
        .prepare(&format!("SELECT count(*) FROM connections WHERE {condition}"))?
        .query_row(params_from_iter(&parameters), |row| unsigned(row, 0))?;
    let (limit, offset) = (int(query.limit), int(query.offset));
    let mut statement = connection.prepare(&format!(
        "SELECT number, source, connection_id, session_id, channel_id, client_id, role, multistream, simulcast,
         spotlight, room_sid, participant_sid, label, version, node_name, first_ns, last_ns, reports, stored, unchanged,
         rejected FROM connections WHERE {condition} ORDER BY number DESC LIMIT {limit} OFFSET {offset}"
    ))?;
    let rows = statement.query_map(params_from_iter(&parameters), client)?;
    Ok(Page { total, rows: rows.collect::<Result<_, _>>()? })
}

/// Objects of one type and id of a connection, by the number that the store gave it: those of `from_ns..to_ns`, and the one that
/// held when that began; times are the reports', in nanoseconds since the Unix epoch. At most `limit` of them, the first ones.
pub fn client_series(
    dir: &Path,
    connection: u64,
    kind: &str,
    id: &str,
    (from_ns, to_ns): (u64, u64),
    limit: u64,
) -> Result<Vec<StoredObject>, ReportError> {
    read_file(dir, CLIENTS_FILE, VERSION, |database| {
        let mut statement = database.prepare(
            "SELECT type, id, at_ns, stats_ms, data FROM stats
             WHERE connection = ?1 AND type = ?2 AND id = ?3 AND at_ns < ?5 AND at_ns >=
             coalesce((SELECT max(at_ns) FROM stats WHERE connection = ?1 AND type = ?2 AND id = ?3 AND at_ns < ?4), ?4)
             ORDER BY at_ns, number LIMIT ?6",
        )?;
        let rows = statement
            .query_map((int(connection), kind, id, int(from_ns), int(to_ns), int(limit)), stored_object)?;
        rows.collect()
    })
}

/// The last object of each type and id of a connection, by the number that the store gave it.
pub fn client_latest(dir: &Path, connection: u64) -> Result<Vec<StoredObject>, ReportError> {
    read_file(dir, CLIENTS_FILE, VERSION, |database| {
        let most = i64::try_from(CONNECTION_OBJECTS_MAX).unwrap_or(i64::MAX);
        let mut statement = database.prepare(LATEST)?;
        let rows = statement.query_map((int(connection), most), stored_object)?;
        rows.collect()
    })
}

/// Reports of a connection in `from_ns..to_ns`, by the number that the store gave it: when it said anything at all. At most
/// `limit` of them, the first ones.
pub fn client_reports(
    dir: &Path,
    connection: u64,
    (from_ns, to_ns): (u64, u64),
    limit: u64,
) -> Result<Vec<StoredReport>, ReportError> {
    read_file(dir, CLIENTS_FILE, VERSION, |database| {
        let mut statement = database.prepare(
            "SELECT at_ns, received_ms, stored, unchanged, rejected, extra FROM reports
             WHERE connection = ?1 AND at_ns >= ?2 AND at_ns < ?3 ORDER BY at_ns LIMIT ?4",
        )?;
        let rows = statement.query_map((int(connection), int(from_ns), int(to_ns), int(limit)), |row| {
            Ok(StoredReport {
                at_ns: unsigned(row, 0)?,
                received_ms: unsigned(row, 1)?,
                stored: unsigned(row, 2)?,
                unchanged: unsigned(row, 3)?,
                rejected: unsigned(row, 4)?,
                extra: row.get(5)?,
            })
        })?;
        rows.collect()
    })
}

fn wishes(query: &ClientQuery) -> (String, Vec<Value>) {
    let mut condition = "1".to_owned();
    let mut parameters = Vec::new();
    let mut wish = |term: &str, value: Option<Value>| {
        if let Some(value) = value {
            parameters.push(value);
            condition.push_str(&format!(" AND {term} ?{}", parameters.len()));
        }
    };
    let text = |value: &Option<String>| value.clone().map(Value::Text);
    let number = |value: Option<u64>| value.map(|value| Value::Integer(int(value)));
    wish("number =", number(query.number));
    wish("connection_id =", text(&query.connection_id));
    wish("channel_id =", text(&query.channel_id));
    wish("client_id =", text(&query.client_id));
    // The indexes of sids are of those that are there, and SQLite has to be told.
    wish("room_sid <> '' AND room_sid =", text(&query.room_sid));
    wish("participant_sid <> '' AND participant_sid =", text(&query.participant_sid));
    wish("source =", text(&query.source));
    wish("last_ns >=", number(query.from_ns));
    wish("first_ns <", number(query.to_ns));
    (condition, parameters)
}

fn client(row: &Row<'_>) -> Result<ClientConnection, rusqlite::Error> {
    Ok(ClientConnection {
        number: unsigned(row, 0)?,
        source: row.get(1)?,
        connection_id: row.get(2)?,
        session_id: row.get(3)?,
        channel_id: row.get(4)?,
        client_id: row.get(5)?,
        role: row.get(6)?,
        multistream: row.get(7)?,
        simulcast: row.get(8)?,
        spotlight: row.get(9)?,
        room_sid: row.get(10)?,
        participant_sid: row.get(11)?,
        label: row.get(12)?,
        version: row.get(13)?,
        node_name: row.get(14)?,
        first_ns: unsigned(row, 15)?,
        last_ns: unsigned(row, 16)?,
        reports: unsigned(row, 17)?,
        stored: unsigned(row, 18)?,
        unchanged: unsigned(row, 19)?,
        rejected: unsigned(row, 20)?,
    })
}

pub(super) fn stored_object(row: &Row<'_>) -> Result<StoredObject, rusqlite::Error> {
    Ok(StoredObject {
        kind: row.get(0)?,
        id: row.get(1)?,
        at_ns: unsigned(row, 2)?,
        stats_ms: row.get(3)?,
        json: row.get(4)?,
    })
}

fn unsigned(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}
