-- Facts by month, texts by number, and rollups beside them.
--
-- The tables of the first migration are renamed; at its next start the hub tells their rows to the new
-- ones, which merge like all others, and then drops them.

DROP VIEW page_views;
DROP VIEW watch_sessions;
DROP INDEX raw_page_views_by_time;
DROP INDEX raw_watch_sessions_by_time;
ALTER TABLE raw_page_views RENAME TO old_page_views;
ALTER TABLE raw_watch_sessions RENAME TO old_watch_sessions;

-- Every text that rows share stands here once; rows have its number. Rows are only added. The index is on a
-- hash, so that a text that is overwritten leaves no copy behind.
CREATE TABLE texts (
    number INTEGER PRIMARY KEY,
    hash   INTEGER,
    text   TEXT
) STRICT;

CREATE INDEX texts_by_hash ON texts (hash);

-- The same for visitors, whose numbers are dense, for the sets below. An erased visitor's text is null.
CREATE TABLE visitors (
    number INTEGER PRIMARY KEY,
    hash   INTEGER,
    text   TEXT
) STRICT;

CREATE INDEX visitors_by_hash ON visitors (hash);

-- One row per month of UTC of which there is something. The facts of a month are in tables of their own,
-- page_views_2026_11 and so on, made on demand, so that dropping a month is dropping them.
CREATE TABLE months (
    month    TEXT    NOT NULL PRIMARY KEY,       -- 2026-11
    is_live  INTEGER NOT NULL DEFAULT 1,         -- whether its tables exist
    changes  INTEGER NOT NULL DEFAULT 0,         -- rises with every transaction that changes them
    summed   TEXT    NOT NULL DEFAULT 'no'       -- whether it has rollups of level 'month'; 'partly' while
             CHECK (summed IN ('no', 'partly', 'yes')), -- they are being made
    archive  TEXT,                               -- the archive's file name, where its rows were moved there
    checksum TEXT,                               -- SHA-256 of that file, in hexadecimal
    restored INTEGER NOT NULL DEFAULT 0          -- how many of its lines are back, while they are being restored
) STRICT, WITHOUT ROWID;

-- From when on rollups of level 'quarter' are kept, in milliseconds; older stretches have days and months only.
CREATE TABLE horizon (
    only_row      INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    quarters_from INTEGER NOT NULL
) STRICT;

INSERT INTO horizon VALUES (1, 0);

-- Page views and watch sessions of a quarter of an hour, a day or a month of UTC, in one room or (0) in all:
-- equal to a recount of the facts, bots left out. A watch session counts to the moment of its start.
CREATE TABLE activity_rollups (
    level          TEXT    NOT NULL CHECK (level IN ('quarter', 'day', 'month')),
    room           INTEGER NOT NULL,
    at             INTEGER NOT NULL,
    page_views     INTEGER NOT NULL,
    watch_sessions INTEGER NOT NULL,
    watched_ms     INTEGER NOT NULL,
    visitors       INTEGER NOT NULL, -- how many are in visitor_set
    pages          TEXT    NOT NULL, -- {"path": page views}, paths by number; the same below
    contents       TEXT    NOT NULL, -- {"content": [watch sessions, watched ms]}
    referrers      TEXT    NOT NULL, -- {"host": page views}
    props          TEXT    NOT NULL, -- {"property": {"value": page views}}
    visitor_set    BLOB    NOT NULL, -- a Roaring bitmap of visitors' numbers, in its portable format
    PRIMARY KEY (level, room, at)
) STRICT; -- with rowids, because rows are long: https://www.sqlite.org/withoutrowid.html

-- Who was present in the same stretches, from a census of every minute.
CREATE TABLE presence_rollups (
    level      TEXT    NOT NULL CHECK (level IN ('quarter', 'day', 'month')),
    room       INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    joins      INTEGER NOT NULL,
    peak       INTEGER NOT NULL,
    present_ms INTEGER NOT NULL, -- how long each person was present, added up
    moods_ms   TEXT    NOT NULL, -- {"mood": ms}
    PRIMARY KEY (level, room, at)
) STRICT, WITHOUT ROWID;

-- All facts, whatever their month. The hub makes these anew when a month comes or goes.
CREATE VIEW raw_page_views AS
SELECT NULL AS id, NULL AS at, NULL AS room, NULL AS visitor, NULL AS path, NULL AS title, NULL AS referrer,
       NULL AS props, NULL AS is_bot
WHERE false;

CREATE VIEW raw_watch_sessions AS
SELECT NULL AS id, NULL AS room, NULL AS visitor, NULL AS content, NULL AS state, NULL AS at,
       NULL AS watched_ms, NULL AS started_at, NULL AS seen_at, NULL AS position_ms, NULL AS position_at,
       NULL AS duration_ms, NULL AS props, NULL AS props_at, NULL AS is_bot
WHERE false;

CREATE VIEW raw_presence AS
SELECT NULL AS id, NULL AS at, NULL AS samples
WHERE false;

-- What people look at with the sqlite3 shell.

CREATE VIEW page_views AS
SELECT lower(substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-' || substr(hex(id), 13, 4)
         || '-' || substr(hex(id), 17, 4) || '-' || substr(hex(id), 21)) AS id,
       (SELECT text FROM texts WHERE number = room) AS room,
       (SELECT text FROM visitors WHERE number = visitor) AS visitor,
       (SELECT text FROM texts WHERE number = path) AS path,
       (SELECT text FROM texts WHERE number = title) AS title,
       (SELECT text FROM texts WHERE number = referrer) AS referrer,
       at, props, is_bot
FROM raw_page_views;

-- The time watched is never more than the time that has passed since the start.
CREATE VIEW watch_sessions AS
SELECT lower(substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-' || substr(hex(id), 13, 4)
         || '-' || substr(hex(id), 17, 4) || '-' || substr(hex(id), 21)) AS id,
       (SELECT text FROM texts WHERE number = room) AS room,
       (SELECT text FROM visitors WHERE number = visitor) AS visitor,
       (SELECT text FROM texts WHERE number = content) AS content,
       state,
       max(0, min(watched_ms, seen_at - started_at)) AS watched_ms,
       position_ms, duration_ms, started_at, at AS updated_at, props, is_bot
FROM raw_watch_sessions;

-- Samples of at most a minute each; no room means the whole hub.
CREATE VIEW presence AS
SELECT at, (SELECT text FROM texts WHERE number = value ->> 0) AS room, value ->> 1 AS present_ms,
       value ->> 2 AS peak, ifnull(value ->> 3, 0) AS joins, ifnull(value ->> 4, '{}') AS moods_ms
FROM raw_presence, json_each(samples);
