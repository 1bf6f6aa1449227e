-- Reports of clients. Rows are appended: a row's number grows with its time of arrival, and what is read is found by indexes
-- whose new entries stand beside those of the same connection, so that a row costs the same however many are stored.

CREATE TABLE connections (
    number          INTEGER PRIMARY KEY,
    source          TEXT    NOT NULL,
    connection_id   TEXT    NOT NULL,
    session_id      TEXT    NOT NULL,
    channel_id      TEXT    NOT NULL,
    client_id       TEXT    NOT NULL,
    role            TEXT,
    multistream     INTEGER,
    simulcast       INTEGER,
    spotlight       INTEGER,
    room_sid        TEXT    NOT NULL,
    participant_sid TEXT    NOT NULL,
    label           TEXT    NOT NULL,
    version         TEXT    NOT NULL,
    node_name       TEXT    NOT NULL,
    -- Of reports, by their own time, in nanoseconds since the Unix epoch.
    first_ns        INTEGER NOT NULL,
    last_ns         INTEGER NOT NULL,
    -- When the last one came, in milliseconds since the Unix epoch.
    received_ms     INTEGER NOT NULL,
    reports         INTEGER NOT NULL,
    stored          INTEGER NOT NULL,
    unchanged       INTEGER NOT NULL,
    rejected        INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX connections_key ON connections (connection_id, source, session_id, channel_id, client_id);
CREATE INDEX connections_channel ON connections (channel_id);
CREATE INDEX connections_client ON connections (client_id);
CREATE INDEX connections_room ON connections (room_sid) WHERE room_sid <> '';
CREATE INDEX connections_participant ON connections (participant_sid) WHERE participant_sid <> '';

CREATE TABLE reports (
    number      INTEGER PRIMARY KEY,
    connection  INTEGER NOT NULL,
    at_ns       INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    -- Its objects are the rows of stats from this number on.
    first_stat  INTEGER NOT NULL,
    stored      INTEGER NOT NULL,
    unchanged   INTEGER NOT NULL,
    rejected    INTEGER NOT NULL,
    extra       TEXT    NOT NULL
) STRICT;

-- A report is stored once.
CREATE UNIQUE INDEX reports_key ON reports (connection, at_ns);

CREATE TABLE stats (
    number     INTEGER PRIMARY KEY,
    connection INTEGER NOT NULL,
    type       TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    at_ns      INTEGER NOT NULL,
    stats_ms   REAL    NOT NULL,
    -- The object as it came.
    data       TEXT    NOT NULL
) STRICT;

CREATE INDEX stats_series ON stats (connection, type, id, at_ns);
