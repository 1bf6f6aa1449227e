//! PostgreSQL with Kohaku's two tables, named and typed as Kohaku 2023.1 has them, so that dashboards made for it go on working.
//!
//! `sora_connection` has a row for each connection, `sora_user_agent_stats` one for each object that says something new. Two more
//! tables are ours: `fanlight_report` has the key of every report, so that one that comes twice is stored once, also when two servers
//! write, and what else it says; `fanlight_connection` has the connections as SQLite has them, with their counts.
//! Connections that Sora does not know of have the name of their source before their id, so that nobody can speak for one of
//! Sora's; what Kohaku's tables demand and such a client does not say is `sendrecv` and `false`. What a node of Sora says of itself has no
//! row among the connections.
//!
//! A batch is one transaction, its objects are sent by binary COPY. The thread waits for the database for a while; then the
//! connection is given up, and reports go to the spool.

mod json;
mod prune;
mod read;
mod schema;
mod tls;
mod uri;
mod write;

use super::sink::{Sink, SinkError};
use fanlight_telemetry::collector::query::StoredObject;
use fanlight_telemetry::collector::{ConnectionKey, LastValue, LastValues, Planned, Source};
use prune::prune;
pub(super) use read::PostgresReader;
use read::{Ids, is_unique, latest};
use schema::Shape;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};
use tls::Tls;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
pub use uri::PostgresError;
use uri::Target;
use write::Batch;

/// Chunks of TimescaleDB are compressed after so many days unless configured otherwise, as Kohaku has it.
pub const COMPRESS_AFTER_DAYS_DEFAULT: u32 = 3;
/// A server that answers at all has let us in by then.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A batch takes some 100 ms; a server that needs longer than this is as good as away.
const WORK_LIMIT_DEFAULT: Duration = Duration::from_secs(20);
/// Indexes on a table that is full take minutes, once.
const SCHEMA_LIMIT: Duration = Duration::from_secs(3_600);
/// What is answered must outlive the server's death, however it is configured.
const SESSION: &str = "SET client_min_messages = warning;
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";
/// Connections that are remembered as stored; past it they are looked up anew.
const KNOWN_MAX: usize = 65_536;

/// Where the tables are.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database?sslmode=…`, as Kohaku takes it.
    pub uri: String,
    /// Certificates of who may have signed the server's, in PEM.
    pub ca_cert_file: Option<PathBuf>,
    /// Chunks are compressed after so many days, where TimescaleDB is and the table is made by us; 0 compresses nothing.
    pub compress_after_days: u32,
    /// A transaction that takes longer is given up, and so is the connection.
    pub work_limit: Duration,
}

impl PostgresSettings {
    /// The usual ones.
    pub fn new(uri: String) -> Self {
        Self {
            uri,
            ca_cert_file: None,
            compress_after_days: COMPRESS_AFTER_DAYS_DEFAULT,
            work_limit: WORK_LIMIT_DEFAULT,
        }
    }
}

/// PostgreSQL as a place for reports. It connects when it is used first, and again when the connection is lost.
#[derive(Debug)]
pub struct PostgresSink {
    target: Target,
    compress_after_days: u32,
    work_limit: Duration,
    runtime: Option<Runtime>,
    session: Option<Session>,
    known: Known,
    unfit: BTreeMap<&'static str, u64>,
}

/// Connections that are committed, with their numbers in `fanlight_connection`.
type Known = BTreeMap<ConnectionKey, i64>;

/// A connection that is ready for work.
#[derive(Debug)]
struct Session {
    client: Client,
    driver: JoinHandle<()>,
    shape: Shape,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl PostgresSink {
    /// Reads the settings; the server is not asked yet.
    pub fn new(settings: &PostgresSettings) -> Result<Self, PostgresError> {
        Ok(Self {
            target: Target::parse(&settings.uri, settings.ca_cert_file.as_deref())?
                .named("fanlight-collector"),
            compress_after_days: settings.compress_after_days,
            work_limit: settings.work_limit,
            runtime: None,
            session: None,
            known: Known::new(),
            unfit: BTreeMap::new(),
        })
    }

    /// Runs `work` on a connection, made if need be. After an error that is not of the data the connection is given up.
    fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Client, Shape, &mut Known) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, SinkError> {
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| SinkError::Away(error.to_string()))?,
        };
        let outcome = runtime.block_on(async {
            if self.session.as_ref().is_none_or(|session| session.client.is_closed()) {
                self.known.clear();
                self.session = Some(connect(&self.target, self.compress_after_days, self.work_limit).await?);
            }
            let Some(session) = &mut self.session else {
                return Err(SinkError::Away("there is no connection".to_owned()));
            };
            match timeout(self.work_limit, work(&mut session.client, session.shape, &mut self.known)).await {
                Ok(done) => done.map_err(|error| classify(&error)),
                Err(_) => Err(too_slow("answered", self.work_limit)),
            }
        });
        if let Err(SinkError::Away(_)) = outcome {
            self.known.clear();
            self.session = None;
        }
        self.runtime = Some(runtime);
        outcome
    }
}

impl Sink for PostgresSink {
    fn name(&self) -> String {
        self.target.to_string()
    }

    fn write(&mut self, _now_ms: u64, reports: &[Planned]) -> Result<Vec<bool>, SinkError> {
        let (new, unfit) = self.run(async |client, _, known| {
            if reports.is_empty() {
                client.batch_execute("SELECT 1").await?;
                return Ok((Vec::new(), BTreeMap::new()));
            }
            Batch::new(reports).write(client, known).await
        })?;
        for (reason, count) in unfit {
            tracing::debug!(reason, count, "objects that the database cannot hold are left out");
            *self.unfit.entry(reason).or_default() += count;
        }
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        Ok(new)
    }

    fn take_unfit(&mut self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.unfit)
    }

    fn last_values(&mut self, key: &ConnectionKey) -> Result<LastValues, SinkError> {
        match self.run(async |client, _, _| last_values(client, key).await) {
            // What cannot be named to the database is not in it; storing it is refused as well, and said there.
            Err(SinkError::Refused(_)) => Ok(LastValues::default()),
            outcome => outcome,
        }
    }

    fn prune(&mut self, before_ms: u64) -> Result<(u64, bool), SinkError> {
        self.run(async |client, shape, known| {
            let before = UNIX_EPOCH + Duration::from_millis(before_ms);
            let pruned = prune(client, shape, before).await?;
            // A connection may be gone.
            known.clear();
            Ok(pruned)
        })
    }
}

async fn connect(
    target: &Target,
    compress_after_days: u32,
    work_limit: Duration,
) -> Result<Session, SinkError> {
    let mut opened = open_session(target, SESSION).await?;
    // The server ends by itself what we have given up, and before we do.
    let most = work_limit.as_millis();
    let (statement, lock) = (most * 3 / 4, most / 2);
    let limits = format!(
        "SET statement_timeout = {statement}; SET lock_timeout = {lock};
         SET idle_in_transaction_session_timeout = {most}"
    );
    let preparing = async {
        // An index on a full table takes longer than any statement after it may.
        opened.client.batch_execute("SET statement_timeout = 0; SET lock_timeout = 0").await?;
        let shape = schema::prepare(&mut opened.client, compress_after_days).await?;
        opened.client.batch_execute(&limits).await.map(|()| shape)
    };
    match timeout(SCHEMA_LIMIT, preparing).await {
        Ok(shape) => opened.shape = shape.map_err(|error| SinkError::Away(explain(&error)))?,
        Err(_) => return Err(too_slow("made its tables ready", SCHEMA_LIMIT)),
    }
    Ok(opened)
}

/// A connection on which these settings are made.
async fn open_session(target: &Target, settings: &str) -> Result<Session, SinkError> {
    let connecting = async {
        let session = match &target.tls {
            Some(tls) => open(target.config.connect(tls.clone()).await?),
            None => open(target.config.connect(NoTls).await?),
        };
        session.client.batch_execute(settings).await.map(|()| session)
    };
    match timeout(CONNECT_LIMIT, connecting).await {
        Ok(opened) => opened.map_err(|error| SinkError::Away(explain(&error))),
        Err(_) => Err(too_slow("let us in", CONNECT_LIMIT)),
    }
}

fn open<S>((client, connection): (Client, tokio_postgres::Connection<tokio_postgres::Socket, S>)) -> Session
where
    S: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
{
    let driver = tokio::spawn(async move {
        // Whoever waits for an answer hears of it too.
        if let Err(error) = connection.await {
            tracing::debug!(error = explain(&error), "the connection to PostgreSQL ended");
        }
    });
    Session { client, driver, shape: Shape::Plain }
}

fn too_slow(what: &str, limit: Duration) -> SinkError {
    SinkError::Away(format!("the server has not {what} in {} s", limit.as_secs()))
}

/// With what the server says, and what its operator may do about it.
pub(super) fn explain(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        let hint = said.hint().or_else(|| said.detail()).map_or(String::new(), |hint| format!(" ({hint})"));
        return format!("{} [{}]{hint}", said.message(), said.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Whether the server says that what was sent cannot be stored as it is.
fn is_of_data(code: &SqlState) -> bool {
    // Data exception, integrity constraint, a limit of the program.
    ["22", "23", "54"].contains(&code.code().get(..2).unwrap_or_default())
}

fn classify(error: &tokio_postgres::Error) -> SinkError {
    match error.code() {
        Some(code) if is_of_data(code) => SinkError::Refused(explain(error)),
        _ => SinkError::Away(explain(error)),
    }
}

/// The names of a connection as Kohaku's tables have them.
fn ids(key: &ConnectionKey) -> [Cow<'_, str>; 4] {
    let connection_id = stored_id(key.family, storable(&key.connection_id));
    [connection_id, storable(&key.session_id), storable(&key.channel_id), storable(&key.client_id)]
}

/// The id of a connection as Kohaku's tables have it.
fn stored_id<'a>(family: &str, connection_id: Cow<'a, str>) -> Cow<'a, str> {
    if family == Source::SoraUserAgent.family() {
        return connection_id;
    }
    Cow::Owned(format!("{family}:{connection_id}"))
}

/// PostgreSQL's texts have no NUL.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

async fn last_values(client: &Client, key: &ConnectionKey) -> Result<LastValues, tokio_postgres::Error> {
    let [connection_id, session_id, channel_id, client_id] = ids(key).map(Cow::into_owned);
    let at_ns: Option<i64> = client
        .query_one(
            "SELECT max(at_ns) FROM fanlight_report
             WHERE connection_id = $1 AND session_id = $2 AND channel_id = $3 AND client_id = $4",
            &[&connection_id, &session_id, &channel_id, &client_id],
        )
        .await?
        .try_get(0)?;
    let is_unique = is_unique(key.family);
    let objects =
        latest(client, &Ids { connection_id, session_id, channel_id, client_id, is_unique }).await?;
    let value = |object: StoredObject| LastValue {
        kind: object.kind,
        id: object.id,
        at_ns: object.at_ns,
        json: object.json,
    };
    let objects: Vec<LastValue> = objects.into_iter().map(value).collect();
    let at_ns = at_ns.and_then(|at_ns| u64::try_from(at_ns).ok());
    Ok(LastValues { at_ns: objects.iter().map(|object| object.at_ns).max().max(at_ns), objects })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sora_speaks_for_soras_connections() {
        let key = |family, connection_id: &str| ConnectionKey {
            family,
            connection_id: connection_id.into(),
            session_id: "s\0".into(),
            channel_id: "c".into(),
            client_id: "u".into(),
        };
        assert_eq!(ids(&key("sora", "JCGRX9W"))[..2], ["JCGRX9W", "s\u{fffd}"]);
        assert_eq!(ids(&key("browser", "JCGRX9W"))[0], "browser:JCGRX9W");
        assert_eq!(ids(&key("sora-node", "sora@a\0"))[0], "sora-node:sora@a\u{fffd}");
    }

    #[test]
    fn what_the_server_says_of_the_data_is_told_from_its_troubles() {
        for (code, of_data) in [
            ("22P05", true),
            ("22P02", true),
            ("54000", true),
            ("53100", false),
            ("57P01", false),
            ("42P01", false),
        ] {
            assert_eq!(is_of_data(&SqlState::from_code(code)), of_data, "{code}");
        }
    }
}
