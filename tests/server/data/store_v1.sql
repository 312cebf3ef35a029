-- Times are microseconds since 1970, UTC. Names of clients are lower case.

CREATE TABLE secrets (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE clients (
    name          TEXT PRIMARY KEY,
    salt          BLOB NOT NULL,
    verifier      BLOB NOT NULL,
    registered_us INTEGER NOT NULL,
    registered_by TEXT NOT NULL
) STRICT;

CREATE TABLE client_states (
    name         TEXT PRIMARY KEY,
    status       TEXT NOT NULL,
    instance     BLOB,
    last_seen_us INTEGER,
    address      TEXT,
    is_overdue   INTEGER NOT NULL,
    latest       TEXT NOT NULL          -- JSON: status -> time
) STRICT;

-- AUTOINCREMENT wherever a number is told to people or clients: it never means something else later.
CREATE TABLE commands (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    client          TEXT NOT NULL,
    verb            TEXT NOT NULL,
    user            TEXT NOT NULL,
    queued_us       INTEGER NOT NULL,
    expires_us      INTEGER,
    delivered_us    INTEGER,
    acknowledged_us INTEGER,
    outcome         TEXT,
    detail          TEXT
) STRICT;
CREATE INDEX commands_pending ON commands (client) WHERE acknowledged_us IS NULL;

CREATE TABLE proposals (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    client      TEXT NOT NULL UNIQUE,
    path        TEXT NOT NULL,
    size_bytes  INTEGER NOT NULL,
    sha256      BLOB NOT NULL,
    received_us INTEGER NOT NULL
) STRICT;

-- What has come of each stream: everything up to last_sequence, but for what stream_gaps names.
CREATE TABLE streams (
    client        TEXT NOT NULL,
    stream        BLOB NOT NULL,
    last_sequence INTEGER NOT NULL,
    PRIMARY KEY (client, stream)
) STRICT, WITHOUT ROWID;

CREATE TABLE stream_gaps (
    client         TEXT NOT NULL,
    stream         BLOB NOT NULL,
    first_sequence INTEGER NOT NULL,
    last_sequence  INTEGER NOT NULL,
    PRIMARY KEY (client, stream, first_sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    row_id      INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL,
    time_us     INTEGER NOT NULL,
    received_us INTEGER,                -- NULL for the server's own
    client      TEXT,                   -- NULL for the server's own
    about       TEXT,                   -- whom a question for one client finds: client, or the field
    class       TEXT NOT NULL,
    severity    INTEGER NOT NULL,
    code        TEXT NOT NULL,
    msg         TEXT NOT NULL,
    fields      TEXT NOT NULL           -- JSON
) STRICT;
-- An index on one column is ordered by row_id within it, which is the order of every answer.
CREATE INDEX events_about ON events (about) WHERE about IS NOT NULL;
CREATE INDEX events_code ON events (code);
CREATE INDEX events_class ON events (class);
CREATE INDEX events_time ON events (time_us);
CREATE INDEX events_received ON events (received_us) WHERE received_us IS NOT NULL;

CREATE TABLE unusable_reports (
    row_id      INTEGER PRIMARY KEY AUTOINCREMENT,
    client      TEXT NOT NULL,
    stream      BLOB NOT NULL,
    sequence    INTEGER NOT NULL,
    received_us INTEGER NOT NULL,
    body        BLOB NOT NULL,
    problem     TEXT NOT NULL
) STRICT;
