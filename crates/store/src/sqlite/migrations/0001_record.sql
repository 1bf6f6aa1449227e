-- Stamps (…_ms) are milliseconds since the Unix epoch. Empty texts and zeros stand for what was not told.
-- No foreign keys: a fact may be lost, and what came without it is kept all the same.

CREATE TABLE rooms (
    sid TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    reason TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX rooms_by_name ON rooms (name, started_ms);
CREATE INDEX rooms_by_end ON rooms (ended_ms);

CREATE TABLE participants (
    sid TEXT PRIMARY KEY,
    room_sid TEXT NOT NULL,
    identity TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    hidden INTEGER NOT NULL,
    signal_version INTEGER NOT NULL,
    client TEXT NOT NULL, -- JSON object
    joined_ms INTEGER NOT NULL,
    active_ms INTEGER,
    connect_ms INTEGER,
    connection_type TEXT NOT NULL,
    srtp_profile TEXT NOT NULL,
    remote TEXT NOT NULL,
    left_ms INTEGER,
    reason TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX participants_by_room ON participants (room_sid, joined_ms);
CREATE INDEX participants_open ON participants (sid) WHERE left_ms IS NULL;

-- One row for each publication and each subscription, from its begin to its end; the counters are the latest ones.
CREATE TABLE tracks (
    id INTEGER PRIMARY KEY,
    sid TEXT NOT NULL,
    room_sid TEXT NOT NULL,
    participant_sid TEXT NOT NULL,
    direction TEXT NOT NULL, -- publish, subscribe
    publisher_sid TEXT NOT NULL,
    kind TEXT NOT NULL, -- audio, video
    source TEXT NOT NULL,
    codec TEXT NOT NULL,
    name TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    simulcast INTEGER NOT NULL,
    layers_seen TEXT NOT NULL, -- JSON array
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    reason TEXT,
    counters_ms INTEGER,
    peak_bps INTEGER NOT NULL,
    packets INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    header_bytes INTEGER NOT NULL,
    retransmitted INTEGER NOT NULL,
    retransmitted_bytes INTEGER NOT NULL,
    padding INTEGER NOT NULL,
    padding_bytes INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    out_of_order INTEGER NOT NULL,
    duplicates INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    nacks INTEGER NOT NULL,
    plis INTEGER NOT NULL,
    firs INTEGER NOT NULL,
    frames INTEGER NOT NULL,
    key_frames INTEGER NOT NULL,
    jitter_us INTEGER NOT NULL,
    rtt_us INTEGER NOT NULL,
    layers TEXT -- JSON array
) STRICT;
CREATE INDEX tracks_by_room ON tracks (room_sid);
CREATE INDEX tracks_by_sid ON tracks (sid);
CREATE INDEX tracks_open ON tracks (id) WHERE ended_ms IS NULL;

-- Cumulative counters, one row for each sample.
CREATE TABLE counters (
    track_id INTEGER NOT NULL, -- tracks.id
    number INTEGER NOT NULL, -- of the sample, from 1; gaps are samples that were refused
    t_ms INTEGER NOT NULL,
    packets INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    header_bytes INTEGER NOT NULL,
    retransmitted INTEGER NOT NULL,
    retransmitted_bytes INTEGER NOT NULL,
    padding INTEGER NOT NULL,
    padding_bytes INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    out_of_order INTEGER NOT NULL,
    duplicates INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    nacks INTEGER NOT NULL,
    plis INTEGER NOT NULL,
    firs INTEGER NOT NULL,
    frames INTEGER NOT NULL,
    key_frames INTEGER NOT NULL,
    jitter_us INTEGER NOT NULL,
    rtt_us INTEGER NOT NULL,
    layers TEXT, -- JSON array
    PRIMARY KEY (track_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE timeline (
    id INTEGER PRIMARY KEY, -- order of arrival
    t_ms INTEGER NOT NULL,
    room_sid TEXT NOT NULL, -- empty for events of the whole node
    participant_sid TEXT NOT NULL,
    track_sid TEXT NOT NULL,
    event TEXT NOT NULL, -- docs/events.md
    fields TEXT NOT NULL -- JSON object
) STRICT;
CREATE INDEX timeline_by_room ON timeline (room_sid, t_ms);

-- One row: the process that writes, and when it last did.
CREATE TABLE heartbeat (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    node TEXT NOT NULL,
    boot_ms INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL
) STRICT;
