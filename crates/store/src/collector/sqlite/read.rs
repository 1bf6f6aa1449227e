//! `clients.db`: a look at it.

use super::LATEST;
use crate::collector::reader::{Look, LookError};
use crate::collector::rows::{self, COLUMNS, Cells, Parameter};
use crate::sqlite::int;
use fanlight_telemetry::collector::limits::CONNECTION_OBJECTS_MAX;
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery, StoredObject, StoredReport};
use fanlight_telemetry::collector::sides::KINDS;
use fanlight_telemetry::turn_query::Page;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

/// A database that is open, and in a transaction.
pub(in crate::collector) struct SqliteLook<'a>(pub(in crate::collector) &'a Connection);

impl Look for SqliteLook<'_> {
    fn connections(&self, query: &ClientQuery) -> Result<Page<ClientConnection>, LookError> {
        let (condition, parameters) = rows::condition(query, '?');
        let parameters: Vec<Value> = parameters.into_iter().map(Value::from).collect();
        let total = self
            .0
            .prepare(&format!("SELECT count(*) FROM connections WHERE {condition}"))?
            .query_row(params_from_iter(&parameters), |row| row.number(0))?;
        let (limit, offset) = (int(query.limit), int(query.offset));
        let mut statement = self.0.prepare(&format!(
            "SELECT {COLUMNS} FROM connections WHERE {condition} ORDER BY number DESC LIMIT {limit} OFFSET {offset}"
        ))?;
        let found = statement.query_map(params_from_iter(&parameters), |row| rows::connection(row))?;
        Ok(Page { total, rows: found.collect::<Result<_, _>>()? })
    }

    fn latest(&self, connection: u64) -> Result<Vec<StoredObject>, LookError> {
        let mut statement = self.0.prepare(LATEST)?;
        let found = statement.query_map((int(connection), most()), |row| rows::object(row))?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    fn series(
        &self,
        connection: u64,
        kind: &str,
        id: &str,
        (from_ns, to_ns): (u64, u64),
        limit: u64,
    ) -> Result<Vec<StoredObject>, LookError> {
        let mut statement = self.0.prepare(
            "SELECT type, id, at_ns, stats_ms, data FROM stats
             WHERE connection = ?1 AND type = ?2 AND id = ?3 AND at_ns < ?5 AND at_ns >=
             coalesce((SELECT max(at_ns) FROM stats WHERE connection = ?1 AND type = ?2 AND id = ?3 AND at_ns < ?4), ?4)
             ORDER BY at_ns, number LIMIT ?6",
        )?;
        let wanted = (int(connection), kind, id, int(from_ns), int(to_ns), int(limit));
        let found = statement.query_map(wanted, |row| rows::object(row))?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    fn reports(
        &self,
        connection: u64,
        (from_ns, to_ns): (u64, u64),
        limit: u64,
    ) -> Result<Vec<StoredReport>, LookError> {
        let mut statement = self.0.prepare(
            "SELECT at_ns, received_ms, stored, unchanged, rejected, extra FROM reports
             WHERE connection = ?1 AND at_ns >= ?2 AND at_ns < ?3 ORDER BY at_ns LIMIT ?4",
        )?;
        let wanted = (int(connection), int(from_ns), int(to_ns), int(limit));
        let found = statement.query_map(wanted, |row| rows::report(row))?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    fn counting(&self, connection: u64, before_ns: u64) -> Result<Vec<StoredObject>, LookError> {
        let kinds = KINDS.map(|kind| format!("'{kind}'")).join(", ");
        let mut statement = self.0.prepare_cached(&format!(
            "SELECT type, id, at_ns, stats_ms, data FROM stats WHERE number IN
             (SELECT (SELECT number FROM stats INDEXED BY stats_series
                      WHERE connection = ?1 AND type = series.type AND id = series.id AND at_ns < ?2
                      ORDER BY at_ns DESC, number DESC LIMIT 1)
              FROM (SELECT DISTINCT type, id FROM stats INDEXED BY stats_series
                    WHERE connection = ?1 AND type IN ({kinds}) LIMIT ?3) AS series)"
        ))?;
        let found =
            statement.query_map((int(connection), int(before_ns), most()), |row| rows::object(row))?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    fn last_extra(&self, connection: u64) -> Result<Option<String>, LookError> {
        let mut statement = self
            .0
            .prepare_cached("SELECT extra FROM reports WHERE connection = ?1 ORDER BY at_ns DESC LIMIT 1")?;
        Ok(statement.query_row([int(connection)], |row| row.get(0)).optional()?)
    }
}

fn most() -> i64 {
    i64::try_from(CONNECTION_OBJECTS_MAX).unwrap_or(i64::MAX)
}

impl From<Parameter> for Value {
    fn from(parameter: Parameter) -> Self {
        match parameter {
            Parameter::Text(text) => Self::Text(text),
            Parameter::Number(number) => Self::Integer(number),
        }
    }
}

impl Cells for Row<'_> {
    type Error = rusqlite::Error;

    fn text(&self, place: usize) -> Result<String, Self::Error> {
        self.get(place)
    }

    fn text_if_any(&self, place: usize) -> Result<Option<String>, Self::Error> {
        self.get(place)
    }

    fn flag_if_any(&self, place: usize) -> Result<Option<bool>, Self::Error> {
        self.get(place)
    }

    fn integer(&self, place: usize) -> Result<i64, Self::Error> {
        self.get(place)
    }

    fn real(&self, place: usize) -> Result<f64, Self::Error> {
        self.get(place)
    }
}
