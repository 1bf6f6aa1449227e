//! The tables: what is missing is made, what is there is left as it is.

use tokio_postgres::{Client, Error};

/// How the objects' table keeps its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A table as any other.
    Plain,
    /// In TimescaleDB's chunks.
    Hypertable,
}

/// Any number that nobody else locks: the schema, and new connections, are made by one server at a time.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(4607175300589650284)";
/// The same lock, beyond a transaction. PostgreSQL looks at what others have made when a transaction begins, so the lock has to
/// be there before.
const HOLD: &str = "SELECT pg_advisory_lock(4607175300589650284)";
const RELEASE: &str = "SELECT pg_advisory_unlock(4607175300589650284)";

/// A table or an index, and how it is made. Existing ones are recognised by their name, so that a role that may only write is
/// enough when all of them are there.
const PARTS: [(&str, &str); 16] = [
    (
        "to_regtype('sora_connection_role')",
        "CREATE TYPE sora_connection_role AS ENUM ('sendrecv', 'sendonly', 'recvonly')",
    ),
    (
        "to_regclass('sora_connection')",
        "CREATE TABLE sora_connection (
           pk            bigserial            PRIMARY KEY,
           timestamp     timestamptz          NOT NULL,
           label         text                 NOT NULL,
           version       text                 NOT NULL,
           node_name     text                 NOT NULL,
           multistream   boolean              NOT NULL,
           simulcast     boolean              NOT NULL,
           spotlight     boolean              NOT NULL,
           role          sora_connection_role NOT NULL,
           channel_id    text                 NOT NULL,
           session_id    text                 NOT NULL,
           client_id     text                 NOT NULL,
           connection_id text                 NOT NULL,
           created_at    timestamptz          NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    ),
    (
        "to_regclass('sora_connection_connection_id_idx')",
        "CREATE INDEX sora_connection_connection_id_idx ON sora_connection (connection_id)",
    ),
    (
        STATS,
        "CREATE TABLE sora_user_agent_stats (
           timestamp           timestamptz      NOT NULL,
           channel_id          text             NOT NULL,
           connection_id       text             NOT NULL,
           rtc_stats_timestamp double precision NOT NULL,
           rtc_stats_type      text             NOT NULL,
           rtc_stats_id        text             NOT NULL,
           rtc_stats_data      jsonb            NOT NULL,
           created_at          timestamptz      NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    ),
    (
        "to_regclass('sora_user_agent_stats_series_idx')",
        "CREATE INDEX sora_user_agent_stats_series_idx
         ON sora_user_agent_stats (connection_id, rtc_stats_type, rtc_stats_id, timestamp DESC)",
    ),
    (ARRIVAL, "CREATE INDEX sora_user_agent_stats_created_at_idx ON sora_user_agent_stats (created_at)"),
    (
        "to_regclass('fanlight_report')",
        "CREATE TABLE fanlight_report (
           connection_id text        NOT NULL,
           session_id    text        NOT NULL,
           channel_id    text        NOT NULL,
           client_id     text        NOT NULL,
           at_ns         bigint      NOT NULL,
           created_at    timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
           stored        integer     NOT NULL DEFAULT 0,
           unchanged     integer     NOT NULL DEFAULT 0,
           rejected      integer     NOT NULL DEFAULT 0,
           extra         text        NOT NULL DEFAULT '{}',
           PRIMARY KEY (connection_id, session_id, channel_id, client_id, at_ns))",
    ),
    // It has been made without them.
    (
        "(SELECT attname FROM pg_attribute
          WHERE attrelid = to_regclass('fanlight_report') AND attname = 'extra' AND NOT attisdropped)",
        "ALTER TABLE fanlight_report
           ADD COLUMN stored    integer NOT NULL DEFAULT 0,
           ADD COLUMN unchanged integer NOT NULL DEFAULT 0,
           ADD COLUMN rejected  integer NOT NULL DEFAULT 0,
           ADD COLUMN extra     text    NOT NULL DEFAULT '{}'",
    ),
    (
        "to_regclass('fanlight_report_created_at_idx')",
        "CREATE INDEX fanlight_report_created_at_idx ON fanlight_report (created_at)",
    ),
    // Each report changes its connection's row: pages have room for that, and no index has a column that each report changes.
    (
        "to_regclass('fanlight_connection')",
        "CREATE TABLE fanlight_connection (
           number          bigserial   PRIMARY KEY,
           source          text        NOT NULL,
           connection_id   text        NOT NULL,
           session_id      text        NOT NULL,
           channel_id      text        NOT NULL,
           client_id       text        NOT NULL,
           role            text,
           multistream     boolean,
           simulcast       boolean,
           spotlight       boolean,
           room_sid        text        NOT NULL,
           participant_sid text        NOT NULL,
           label           text        NOT NULL,
           version         text        NOT NULL,
           node_name       text        NOT NULL,
           first_ns        bigint      NOT NULL,
           last_ns         bigint      NOT NULL,
           last_hour       bigint      GENERATED ALWAYS AS (last_ns / 3600000000000) STORED,
           received_at     timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
           reports         bigint      NOT NULL DEFAULT 0,
           stored          bigint      NOT NULL DEFAULT 0,
           unchanged       bigint      NOT NULL DEFAULT 0,
           rejected        bigint      NOT NULL DEFAULT 0) WITH (fillfactor = 70)",
    ),
    (
        "to_regclass('fanlight_connection_key')",
        "CREATE UNIQUE INDEX fanlight_connection_key
         ON fanlight_connection (connection_id, source, session_id, channel_id, client_id)",
    ),
    (
        "to_regclass('fanlight_connection_channel_idx')",
        "CREATE INDEX fanlight_connection_channel_idx ON fanlight_connection (channel_id)",
    ),
    (
        "to_regclass('fanlight_connection_client_idx')",
        "CREATE INDEX fanlight_connection_client_idx ON fanlight_connection (client_id)",
    ),
    (
        "to_regclass('fanlight_connection_room_idx')",
        "CREATE INDEX fanlight_connection_room_idx ON fanlight_connection (room_sid) WHERE room_sid <> ''",
    ),
    (
        "to_regclass('fanlight_connection_participant_idx')",
        "CREATE INDEX fanlight_connection_participant_idx ON fanlight_connection (participant_sid)
         WHERE participant_sid <> ''",
    ),
    (
        "to_regclass('fanlight_connection_time_idx')",
        "CREATE INDEX fanlight_connection_time_idx ON fanlight_connection (last_hour, first_ns)",
    ),
];
const STATS: &str = "to_regclass('sora_user_agent_stats')";
/// Deletion by age uses it; TimescaleDB drops chunks instead.
const ARRIVAL: &str = "to_regclass('sora_user_agent_stats_created_at_idx')";

/// Makes what is missing, and says what is there. After an error the session must be given up: it may hold the lock.
pub(super) async fn prepare(client: &mut Client, compress_after_days: u32) -> Result<Shape, Error> {
    let timescale: bool = client
        .query_one("SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'timescaledb')", &[])
        .await?
        .try_get(0)?;
    let shape = shape(client, timescale).await?;
    if missing(client, shape).await?.is_empty() {
        return Ok(shape);
    }
    client.batch_execute(HOLD).await?;
    let made = make(client, shape, timescale, compress_after_days).await?;
    client.batch_execute(RELEASE).await?;
    Ok(made)
}

async fn make(
    client: &mut Client,
    shape: Shape,
    timescale: bool,
    compress_after_days: u32,
) -> Result<Shape, Error> {
    let transaction = client.transaction().await?;
    let mut now = shape;
    for (name, statement) in PARTS {
        if !is_missing(&transaction, name, now).await? {
            continue;
        }
        tracing::info!(statement = statement.split('(').next().unwrap_or(statement), "made in PostgreSQL");
        transaction.batch_execute(statement).await?;
        if name == STATS && timescale {
            hypertable(&transaction, compress_after_days).await?;
            now = Shape::Hypertable;
        }
    }
    transaction.commit().await?;
    Ok(now)
}

async fn shape(client: &Client, timescale: bool) -> Result<Shape, Error> {
    if !timescale {
        return Ok(Shape::Plain);
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM timescaledb_information.hypertables
               WHERE hypertable_name = 'sora_user_agent_stats'
               AND to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) = to_regclass('sora_user_agent_stats'))";
    let is_hypertable: bool = client.query_one(sql, &[]).await?.try_get(0)?;
    Ok(if is_hypertable { Shape::Hypertable } else { Shape::Plain })
}

async fn missing(client: &mut Client, shape: Shape) -> Result<Vec<&'static str>, Error> {
    let transaction = client.transaction().await?;
    let mut missing = Vec::new();
    for (name, _) in PARTS {
        if is_missing(&transaction, name, shape).await? {
            missing.push(name);
        }
    }
    Ok(missing)
}

async fn is_missing(
    transaction: &tokio_postgres::Transaction<'_>,
    name: &str,
    shape: Shape,
) -> Result<bool, Error> {
    if name == ARRIVAL && shape == Shape::Hypertable {
        return Ok(false);
    }
    transaction.query_one(&format!("SELECT {name} IS NULL"), &[]).await?.try_get(0)
}

/// As Kohaku has it; chunks are dropped by us, so that the configured time holds.
async fn hypertable(
    transaction: &tokio_postgres::Transaction<'_>,
    compress_after_days: u32,
) -> Result<(), Error> {
    transaction.batch_execute("SELECT create_hypertable('sora_user_agent_stats', 'timestamp')").await?;
    if compress_after_days == 0 {
        return Ok(());
    }
    transaction
        .batch_execute(&format!(
            "ALTER TABLE sora_user_agent_stats SET (timescaledb.compress,
             timescaledb.compress_segmentby = 'channel_id, connection_id');
             SELECT add_compression_policy('sora_user_agent_stats', INTERVAL '{compress_after_days} days')"
        ))
        .await
}
