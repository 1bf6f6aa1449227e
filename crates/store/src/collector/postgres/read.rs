//! A look at the tables, on connections of its own that may only read.

use super::uri::Target;
use super::{PostgresError, PostgresSettings, Session, explain, open_session, storable, stored_id, too_slow};
use crate::collector::reader::{Look, LookError};
use crate::collector::rows::{self, COLUMNS, Cells, Parameter};
use crate::collector::sink::SinkError;
use crate::sqlite::int;
use fanlight_telemetry::collector::limits::CONNECTION_OBJECTS_MAX;
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery, StoredObject, StoredReport};
use fanlight_telemetry::collector::sides::KINDS;
use fanlight_telemetry::turn_query::Page;
use futures_util::TryStreamExt;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, GenericClient, Row};

/// Connections to the server: as many as HTTP lets read at a time.
const SESSIONS_MAX: usize = 4;
/// Who asks is told after this that it takes too long.
const LOOK_LIMIT: Duration = Duration::from_secs(20);
/// The server ends by itself what we have given up, and before we do.
const SESSION: &str = "SET client_min_messages = warning; SET default_transaction_read_only = on; SET statement_timeout = 15000;
    SET lock_timeout = 5000; SET idle_in_transaction_session_timeout = 20000";
/// All of a look is as of one moment.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Bytes of objects that are read of one connection; what is beyond is left out.
const OBJECTS_BYTES_MAX: usize = 32 << 20;

/// Reads the tables.
#[derive(Debug)]
pub(in crate::collector) struct PostgresReader {
    target: Target,
    handle: Handle,
    runtime: Option<Runtime>,
    places: Semaphore,
    idle: Mutex<Vec<Session>>,
}

impl Drop for PostgresReader {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // May be called where nothing may wait.
            runtime.shutdown_background();
        }
    }
}

impl PostgresReader {
    pub(in crate::collector) fn new(settings: &PostgresSettings) -> Result<Self, PostgresError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("clients-reader")
            .enable_all()
            .build()
            .map_err(|error| PostgresError::Thread(error.to_string()))?;
        Ok(Self {
            target: Target::parse(&settings.uri, settings.ca_cert_file.as_deref())?.named("fanlight-reader"),
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            places: Semaphore::new(SESSIONS_MAX),
            idle: Mutex::new(Vec::new()),
        })
    }

    pub(in crate::collector) fn name(&self) -> String {
        self.target.to_string()
    }

    /// Asks as of one moment. After an error the connection is given up.
    pub(in crate::collector) fn look<T>(
        &self,
        ask: impl FnOnce(&dyn Look) -> Result<T, LookError>,
    ) -> Result<T, LookError> {
        let until = Instant::now() + LOOK_LIMIT;
        let (_place, session) = self.handle.block_on(async {
            let ready = async {
                let place = self.places.acquire().await.map_err(|error| error.to_string())?;
                let session = self.session().await.map_err(|error| error.to_string())?;
                Ok::<_, String>((place, session))
            };
            let ready = timeout_at(until.into(), ready).await;
            ready.map_err(|_| too_slow("answered", LOOK_LIMIT).to_string()).and_then(|ready| ready)
        })?;
        let look = PostgresLook { client: &session.client, handle: &self.handle, until };
        let answer = ask(&look)?;
        look.wait(session.client.batch_execute("COMMIT"))?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        Ok(answer)
    }

    /// A connection in a new transaction: one that has been used before, if it still works.
    async fn session(&self) -> Result<Session, SinkError> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(session) = idle else { break };
            if session.client.batch_execute(BEGIN).await.is_ok() {
                return Ok(session);
            }
        }
        let session = open_session(&self.target, SESSION).await?;
        session.client.batch_execute(BEGIN).await.map_err(|error| SinkError::Away(explain(&error)))?;
        Ok(session)
    }
}

impl From<String> for LookError {
    fn from(detail: String) -> Self {
        Self::Away(detail)
    }
}

/// In a transaction.
struct PostgresLook<'a> {
    client: &'a tokio_postgres::Client,
    handle: &'a Handle,
    until: Instant,
}

impl PostgresLook<'_> {
    fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, LookError> {
        match self.handle.block_on(async { timeout_at(self.until.into(), work).await }) {
            Ok(done) => Ok(done?),
            Err(_) => Err(LookError::Away(too_slow("answered", LOOK_LIMIT).to_string())),
        }
    }

    fn rows(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, LookError> {
        self.wait(self.client.query(sql, parameters))
    }

    /// By which names the tables know a connection.
    fn ids(&self, connection: u64) -> Result<Option<Ids>, LookError> {
        let sql = "SELECT source, connection_id, session_id, channel_id, client_id FROM fanlight_connection WHERE number = $1";
        let rows = self.rows(sql, &[&int(connection)])?;
        let Some(row) = rows.first() else { return Ok(None) };
        let source = row.text(0)?;
        Ok(Some(Ids {
            connection_id: stored_id(&source, row.text(1)?.into()).into_owned(),
            session_id: row.text(2)?,
            channel_id: row.text(3)?,
            client_id: row.text(4)?,
            is_unique: is_unique(&source),
        }))
    }
}

impl Look for PostgresLook<'_> {
    fn connections(&self, query: &ClientQuery) -> Result<Page<ClientConnection>, LookError> {
        let (mut condition, parameters) = rows::condition(query, '$');
        if let Some(from_ns) = query.from_ns {
            // What the index has of that time.
            condition.push_str(&format!(" AND last_hour >= {}", int(from_ns) / HOUR_NS));
        }
        let parameters: Vec<Parameter> = parameters.into_iter().map(Parameter::storable).collect();
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(Parameter::as_sql).collect();
        let total =
            self.rows(&format!("SELECT count(*) FROM fanlight_connection WHERE {condition}"), &parameters)?;
        let total = total.first().map_or(Ok(0), |row| row.number(0))?;
        let (limit, offset) = (int(query.limit), int(query.offset));
        let sql = format!(
            "SELECT {COLUMNS} FROM fanlight_connection WHERE {condition} ORDER BY number DESC LIMIT {limit} OFFSET {offset}"
        );
        let found = self.rows(&sql, &parameters)?;
        Ok(Page { total, rows: found.iter().map(rows::connection).collect::<Result<_, _>>()? })
    }

    fn latest(&self, connection: u64) -> Result<Vec<StoredObject>, LookError> {
        let Some(ids) = self.ids(connection)? else { return Ok(Vec::new()) };
        let mut objects = self.wait(latest(self.client, &ids))?;
        // Not as the database sorts texts.
        objects.sort_by(|a, b| (&a.kind, &a.id).cmp(&(&b.kind, &b.id)));
        Ok(objects)
    }

    fn series(
        &self,
        connection: u64,
        kind: &str,
        id: &str,
        (from_ns, to_ns): (u64, u64),
        limit: u64,
    ) -> Result<Vec<StoredObject>, LookError> {
        let Some(ids) = self.ids(connection)? else { return Ok(Vec::new()) };
        let its = format!("{OF} AND rtc_stats_type = $6 AND rtc_stats_id = $7");
        let sql = format!(
            "SELECT {OBJECT} {its} AND timestamp < $9 AND timestamp >=
             coalesce((SELECT timestamp {its} AND timestamp < $8 ORDER BY timestamp DESC LIMIT 1), $8)
             ORDER BY timestamp LIMIT $10"
        );
        let (kind, id) = (storable(kind), storable(id));
        let (from, to, limit) = (time(from_ns), time(to_ns), int(limit));
        self.wait(objects(self.client, &sql, ids.of(&[&kind, &id, &from, &to, &limit])))
    }

    fn reports(
        &self,
        connection: u64,
        (from_ns, to_ns): (u64, u64),
        limit: u64,
    ) -> Result<Vec<StoredReport>, LookError> {
        let Some(ids) = self.ids(connection)? else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT at_ns, (extract(epoch FROM created_at) * 1000)::bigint, stored::bigint, unchanged::bigint, rejected::bigint, extra
             {REPORTS} AND at_ns >= $5 AND at_ns < $6 ORDER BY at_ns LIMIT $7"
        );
        let found = self.rows(&sql, &ids.with(&[&int(from_ns), &int(to_ns), &int(limit)]))?;
        Ok(found.iter().map(rows::report).collect::<Result<_, _>>()?)
    }

    fn counting(&self, connection: u64, before_ns: u64) -> Result<Vec<StoredObject>, LookError> {
        let Some(ids) = self.ids(connection)? else { return Ok(Vec::new()) };
        let before = time(before_ns);
        let of_kind =
            |kind: &str| format!("SELECT {OBJECT} {OF} AND timestamp < $7 AND rtc_stats_type = {kind}");
        let order = "ORDER BY rtc_stats_id, timestamp DESC LIMIT 1";
        // All types at once, each by one step down the index for each id.
        let sql = format!(
            "WITH RECURSIVE series AS (
               SELECT first.* FROM unnest($6::text[]) AS wanted (kind), LATERAL ({} {order}) AS first
               UNION ALL
               SELECT next.* FROM series, LATERAL ({} AND rtc_stats_id > series.id {order}) AS next)
             SELECT kind, id, at_ns, stats_ms, data FROM series LIMIT $8",
            of_kind("wanted.kind"),
            of_kind("series.kind")
        );
        let (kinds, most) = (KINDS.to_vec(), most());
        self.wait(objects(self.client, &sql, ids.of(&[&kinds, &before, &most])))
    }

    fn last_extra(&self, connection: u64) -> Result<Option<String>, LookError> {
        let Some(ids) = self.ids(connection)? else { return Ok(None) };
        let sql = format!("SELECT extra {REPORTS} ORDER BY at_ns DESC LIMIT 1");
        let found = self.rows(&sql, &ids.with(&[]))?;
        Ok(found.first().map(|row| row.text(0)).transpose()?)
    }
}

/// Nanoseconds of an hour, of which `last_hour` counts.
const HOUR_NS: i64 = 3_600_000_000_000;
/// Reports of a connection.
const REPORTS: &str = "FROM fanlight_report
    WHERE connection_id = $1 AND session_id = $2 AND channel_id = $3 AND client_id = $4";
/// An object, as [`rows::object`] reads it.
const OBJECT: &str = "rtc_stats_type AS kind, rtc_stats_id AS id,
    (extract(epoch FROM timestamp) * 1000000)::bigint * 1000 AS at_ns, rtc_stats_timestamp AS stats_ms,
    rtc_stats_data::text AS data";
/// Objects of a connection. Kohaku's table does not say whose: where somebody could take another's id ($5 is false), they are told
/// apart by the times of the connection's own reports.
const OF: &str = "FROM sora_user_agent_stats AS stats WHERE connection_id = $1 AND channel_id = $3
    AND ($5 OR EXISTS (SELECT 1 FROM fanlight_report AS own
      WHERE own.connection_id = $1 AND own.session_id = $2 AND own.channel_id = $3 AND own.client_id = $4
      AND own.at_ns BETWEEN (extract(epoch FROM stats.timestamp) * 1000000)::bigint * 1000 - 999
                        AND (extract(epoch FROM stats.timestamp) * 1000000)::bigint * 1000 + 999))";

/// By which names the tables know a connection.
pub(super) struct Ids {
    pub(super) connection_id: String,
    pub(super) session_id: String,
    pub(super) channel_id: String,
    pub(super) client_id: String,
    /// See [`is_unique`].
    pub(super) is_unique: bool,
}

impl Ids {
    /// The parameters of [`REPORTS`], and more.
    fn with<'a>(&'a self, more: &[&'a (dyn ToSql + Sync)]) -> Vec<&'a (dyn ToSql + Sync)> {
        let own: [&(dyn ToSql + Sync); 4] =
            [&self.connection_id, &self.session_id, &self.channel_id, &self.client_id];
        [&own, more].concat()
    }

    /// The parameters of [`OF`], and more.
    fn of<'a>(&'a self, more: &[&'a (dyn ToSql + Sync)]) -> Vec<&'a (dyn ToSql + Sync)> {
        let is_unique: &(dyn ToSql + Sync) = &self.is_unique;
        self.with(&[&[is_unique], more].concat())
    }
}

/// Sora gives out the ids of its connections; others are chosen by whoever reports.
pub(super) fn is_unique(source: &str) -> bool {
    source.starts_with("sora")
}

/// The last object of each type and id: one step down the index for each, however many rows they have.
pub(super) async fn latest(client: &impl GenericClient, ids: &Ids) -> Result<Vec<StoredObject>, Error> {
    let sql = format!(
        "WITH RECURSIVE series AS (
           (SELECT {OBJECT} {OF} ORDER BY rtc_stats_type, rtc_stats_id, timestamp DESC LIMIT 1)
           UNION ALL
           SELECT next.* FROM series, LATERAL
           (SELECT {OBJECT} {OF} AND (rtc_stats_type, rtc_stats_id) > (series.kind, series.id)
            ORDER BY rtc_stats_type, rtc_stats_id, timestamp DESC LIMIT 1) AS next)
         SELECT kind, id, at_ns, stats_ms, data FROM series LIMIT $6"
    );
    let most = most();
    objects(client, &sql, ids.of(&[&most])).await
}

async fn objects(
    client: &impl GenericClient,
    sql: &str,
    parameters: Vec<&(dyn ToSql + Sync)>,
) -> Result<Vec<StoredObject>, Error> {
    let mut rows = pin!(client.query_raw(sql, parameters).await?);
    let mut objects: Vec<StoredObject> = Vec::new();
    let mut bytes = 0usize;
    while let Some(row) = rows.try_next().await? {
        let object = rows::object(&row)?;
        bytes = bytes.saturating_add(object.json.len());
        if bytes > OBJECTS_BYTES_MAX {
            break;
        }
        objects.push(object);
    }
    Ok(objects)
}

fn most() -> i64 {
    i64::try_from(CONNECTION_OBJECTS_MAX).unwrap_or(i64::MAX)
}

fn time(ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(ns)
}

impl Parameter {
    fn storable(self) -> Self {
        match self {
            Self::Text(text) => Self::Text(storable(&text).into_owned()),
            number @ Self::Number(_) => number,
        }
    }

    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number,
        }
    }
}

impl Cells for Row {
    type Error = Error;

    fn text(&self, place: usize) -> Result<String, Error> {
        self.try_get(place)
    }

    fn text_if_any(&self, place: usize) -> Result<Option<String>, Error> {
        self.try_get(place)
    }

    fn flag_if_any(&self, place: usize) -> Result<Option<bool>, Error> {
        self.try_get(place)
    }

    fn integer(&self, place: usize) -> Result<i64, Error> {
        self.try_get(place)
    }

    fn real(&self, place: usize) -> Result<f64, Error> {
        self.try_get(place)
    }
}
