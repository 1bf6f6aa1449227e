//! Reading what is on record about TURN.

use crate::read::{ReportError, read};
use crate::sqlite::{int, turn};
use fanlight_telemetry::turn_account::usage::{Adding, By, Price, Usage};
use fanlight_telemetry::turn_account::{AllocationRecord, SessionRecord};
use fanlight_telemetry::turn_query::{Filter, Page, Slice, Sort};
use rusqlite::OptionalExtension;
use rusqlite::types::Value;
use std::path::Path;

/// Users' sessions on record, open ones included.
pub fn turn_sessions(dir: &Path, filter: &Filter, slice: Slice) -> Result<Page<SessionRecord>, ReportError> {
    let (condition, parameters) = wishes(filter);
    let held = "max(low_ms - started_ms, 0)";
    let order = order(slice, held);
    read(dir, |connection| {
        Ok(Page {
            total: turn::count(connection, "turn_sessions", &condition, &parameters)?,
            rows: turn::sessions(connection, &format!("{condition} {order}"), &parameters)?,
        })
    })
}

/// Allocations on record: those that are open now, or all of one session.
pub fn turn_allocations(
    dir: &Path,
    filter: &Filter,
    slice: Slice,
) -> Result<Page<AllocationRecord>, ReportError> {
    let (mut condition, mut parameters) = wishes(filter);
    match filter.session {
        Some(session) => {
            parameters.push(Value::Integer(int(session)));
            condition.push_str(&format!(" AND session = ?{}", parameters.len()));
        }
        None => condition.push_str(" AND ended_low_ms IS NULL"),
    }
    let held = "max(coalesce(ended_low_ms, last_status_ms) - started_ms, 0)";
    let order = order(slice, held);
    read(dir, |connection| {
        Ok(Page {
            total: turn::count(connection, "turn_allocations", &condition, &parameters)?,
            rows: turn::allocations(connection, &format!("{condition} {order}"), &parameters)?,
        })
    })
}

/// Sessions added up, with a price.
pub fn turn_usage(dir: &Path, filter: &Filter, by: By, price: Price) -> Result<Vec<Usage>, ReportError> {
    let (condition, parameters) = wishes(filter);
    read(dir, |connection| {
        let mut adding = Adding::new(by);
        turn::each_session(connection, &condition, &parameters, |session| adding.add(&session))?;
        Ok(adding.lines(price))
    })
}

/// How TURN and its inputs fared when a server last said so: when, in milliseconds since the Unix epoch, and a JSON object;
/// `None` when no server with TURN has written this record.
pub fn turn_status(dir: &Path) -> Result<Option<(u64, String)>, ReportError> {
    read(dir, |connection| {
        connection
            .query_row("SELECT t_ms, status FROM turn_status", [], |row| {
                Ok((u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0), row.get(1)?))
            })
            .optional()
    })
}

fn wishes(filter: &Filter) -> (String, Vec<Value>) {
    let mut condition = "1".to_owned();
    let mut parameters = Vec::new();
    let mut wish = |term: &str, value: Option<Value>| {
        if let Some(value) = value {
            parameters.push(value);
            condition.push_str(" AND ");
            condition.push_str(&term.replace('?', &format!("?{}", parameters.len())));
        }
    };
    let text = |value: &Option<String>| value.clone().map(Value::Text);
    wish("started_ms >= ?", filter.from_ms.map(|ms| Value::Integer(int(ms))));
    wish("started_ms < ?", filter.to_ms.map(|ms| Value::Integer(int(ms))));
    // The indexes of identities and rooms are of those that are there, and SQLite has to be told.
    wish("(person = ? OR (identity = ? AND identity <> ''))", text(&filter.user));
    let nowhere = filter.room.as_deref() == Some("");
    wish(if nowhere { "room = ?" } else { "(room = ? AND room <> '')" }, text(&filter.room));
    wish("realm = ?", text(&filter.realm));
    (condition, parameters)
}

/// `held` is how the time is computed that a row of the table was held.
fn order(slice: Slice, held: &str) -> String {
    let by = match slice.sort {
        Sort::Started => "started_ms",
        Sort::User => "iif(identity <> '', identity, person)",
        Sort::Room => "room",
        Sort::Held => held,
        Sort::Bytes => "peer_rx_bytes + peer_tx_bytes",
    };
    let way = if slice.descending { "DESC" } else { "ASC" };
    let (limit, offset) = (int(slice.limit), int(slice.offset));
    format!("ORDER BY {by} {way}, started_ms {way}, number {way} LIMIT {limit} OFFSET {offset}")
}
