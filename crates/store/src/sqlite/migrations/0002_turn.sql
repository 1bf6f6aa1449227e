-- TURN: allocations and user sessions, ours and coturn's. `ended_low_ms` is null while one is open; the end lies between
-- `ended_low_ms` and `ended_high_ms`. `rx` is into the TURN server.
CREATE TABLE turn_sessions (
    number INTEGER PRIMARY KEY,
    realm TEXT NOT NULL,
    person TEXT NOT NULL,
    room TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    start_known INTEGER NOT NULL,
    ended_low_ms INTEGER,
    ended_high_ms INTEGER,
    reason TEXT,
    -- Of the allocations that have ended, as all that follows.
    low_ms INTEGER NOT NULL,
    high_ms INTEGER NOT NULL,
    effective_end_ms INTEGER NOT NULL,
    allocations INTEGER NOT NULL,
    max_concurrent INTEGER NOT NULL,
    leftovers INTEGER NOT NULL,
    client_rx_packets INTEGER NOT NULL,
    client_rx_bytes INTEGER NOT NULL,
    client_tx_packets INTEGER NOT NULL,
    client_tx_bytes INTEGER NOT NULL,
    peer_rx_packets INTEGER NOT NULL,
    peer_rx_bytes INTEGER NOT NULL,
    peer_tx_packets INTEGER NOT NULL,
    peer_tx_bytes INTEGER NOT NULL,
    quality TEXT NOT NULL,
    peak_bps INTEGER NOT NULL,
    class TEXT NOT NULL
) STRICT;
CREATE INDEX turn_sessions_by_start ON turn_sessions (started_ms);
CREATE INDEX turn_sessions_by_person ON turn_sessions (person, started_ms);
CREATE INDEX turn_sessions_by_room ON turn_sessions (room, started_ms) WHERE room <> '';
CREATE INDEX turn_sessions_open ON turn_sessions (number) WHERE ended_low_ms IS NULL;

CREATE TABLE turn_allocations (
    number INTEGER PRIMARY KEY,
    session INTEGER NOT NULL, -- turn_sessions.number
    node TEXT NOT NULL,
    realm TEXT NOT NULL,
    user TEXT NOT NULL,
    id TEXT NOT NULL, -- the TURN server's, up to 64 bits without sign
    person TEXT NOT NULL,
    room TEXT NOT NULL,
    transport TEXT NOT NULL,
    local TEXT NOT NULL,
    remote TEXT NOT NULL,
    tls TEXT NOT NULL,
    cipher TEXT NOT NULL,
    moved_from TEXT NOT NULL, -- JSON array
    started_ms INTEGER NOT NULL,
    start_known INTEGER NOT NULL,
    last_status_ms INTEGER NOT NULL,
    lifetime_s INTEGER NOT NULL,
    released_ms INTEGER,
    ended_low_ms INTEGER,
    ended_high_ms INTEGER,
    reason TEXT,
    active_until_ms INTEGER NOT NULL,
    refreshes INTEGER NOT NULL,
    client_rx_packets INTEGER NOT NULL,
    client_rx_bytes INTEGER NOT NULL,
    client_tx_packets INTEGER NOT NULL,
    client_tx_bytes INTEGER NOT NULL,
    peer_rx_packets INTEGER NOT NULL,
    peer_rx_bytes INTEGER NOT NULL,
    peer_tx_packets INTEGER NOT NULL,
    peer_tx_bytes INTEGER NOT NULL,
    deltas_match INTEGER,
    quality TEXT NOT NULL,
    peak_bps INTEGER NOT NULL,
    leftover INTEGER NOT NULL,
    class TEXT NOT NULL
) STRICT;
CREATE INDEX turn_allocations_by_session ON turn_allocations (session);
CREATE INDEX turn_allocations_by_start ON turn_allocations (started_ms);
CREATE INDEX turn_allocations_open ON turn_allocations (number) WHERE ended_low_ms IS NULL;
