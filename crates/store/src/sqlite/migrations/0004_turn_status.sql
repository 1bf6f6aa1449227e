-- How TURN and its inputs fared when the server was last seen, for `fanlight turn live`: one row, a JSON object.
CREATE TABLE turn_status (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    t_ms INTEGER NOT NULL,
    status TEXT NOT NULL
) STRICT;

CREATE INDEX turn_sessions_by_identity ON turn_sessions (identity, started_ms) WHERE identity <> '';
