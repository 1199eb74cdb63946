-- Facts, as they were told. Every table is STRICT and has the fact's own id as its key, so that a
-- fact that is told twice is stored once. Ids are 16-byte blobs below; the views show them as text.
-- Times are integer milliseconds since the Unix epoch, UTC.

CREATE TABLE raw_page_views (
    id       BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    room     TEXT    NOT NULL,
    visitor  TEXT    NOT NULL,
    path     TEXT    NOT NULL,
    title    TEXT,
    referrer TEXT,
    at       INTEGER NOT NULL,
    props    TEXT    CHECK (props IS NULL OR json_valid(props))
) STRICT, WITHOUT ROWID;

CREATE INDEX raw_page_views_by_time ON raw_page_views (at, visitor);

-- One row per watch session, merged from all messages about it. Each column is merged on its own, by
-- a rule that does not care for order or repetition:
--   watched_ms                      the largest that was claimed or measured
--   started_at                      the earliest
--   seen_at                         the latest moment at which it was known to go on
--   updated_at                      the latest "at" of a message
--   room, visitor, content, state   those of the message with the latest "at"; "ended" is final
--   position_ms, props              those of the latest message that had them, with that message's "at"
--   duration_ms                     the largest
CREATE TABLE raw_watch_sessions (
    id          BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    room        TEXT    NOT NULL,
    visitor     TEXT    NOT NULL,
    content     TEXT    NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('playing', 'paused', 'ended')),
    watched_ms  INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    position_ms INTEGER,
    position_at INTEGER,
    duration_ms INTEGER,
    props       TEXT    CHECK (props IS NULL OR json_valid(props)),
    props_at    INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX raw_watch_sessions_by_time ON raw_watch_sessions (started_at);

-- What people look at with the sqlite3 shell.

CREATE VIEW page_views AS
SELECT lower(substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-' || substr(hex(id), 13, 4)
         || '-' || substr(hex(id), 17, 4) || '-' || substr(hex(id), 21)) AS id,
       room, visitor, path, title, referrer, at, props
FROM raw_page_views;

-- The time watched is never more than the time that has passed since the start.
CREATE VIEW watch_sessions AS
SELECT lower(substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-' || substr(hex(id), 13, 4)
         || '-' || substr(hex(id), 17, 4) || '-' || substr(hex(id), 21)) AS id,
       room, visitor, content, state,
       max(0, min(watched_ms, seen_at - started_at)) AS watched_ms,
       position_ms, duration_ms, started_at, updated_at, props
FROM raw_watch_sessions;
