-- History that is bounded, exact and forgettable.

-- How the rows of a month are identified: 0 by id, 1 by id, visitor and room.
ALTER TABLE months ADD COLUMN row_key INTEGER NOT NULL DEFAULT 0;

-- The number of changes when the month was settled: its dimension rollups do not depend on the order of arrival.
ALTER TABLE months ADD COLUMN settled INTEGER;

-- Whether dimension rollups of the month have a row for `(other)`; commits then leave them alone.
ALTER TABLE months ADD COLUMN folded INTEGER NOT NULL DEFAULT 0;

-- Which rows of the month its dimension rollups count. NULL: all. X'00': all, as an older version counted them, so
-- they are rebuilt. Empty: none; they are being deleted. X'01' and an id: page views with a smaller id. X'02' and an
-- id: all page views, and watch sessions with a smaller id.
ALTER TABLE months ADD COLUMN counted BLOB;

UPDATE months SET counted = X'00';

-- Rollups of dimensions leave the JSON of activity_rollups. Maintenance converts the old rows and drops their table.
ALTER TABLE activity_rollups RENAME TO old_activity_rollups;

CREATE TABLE activity_rollups (
    level          TEXT    NOT NULL CHECK (level IN ('quarter', 'day', 'month')),
    room           INTEGER NOT NULL,
    at             INTEGER NOT NULL,
    page_views     INTEGER NOT NULL,
    watch_sessions INTEGER NOT NULL,
    watched_ms     INTEGER NOT NULL,
    visitors       INTEGER NOT NULL, -- how many are in visitor_set
    visitor_set    BLOB    NOT NULL, -- a Roaring bitmap of visitors' numbers, in its portable format
    PRIMARY KEY (level, room, at)
) STRICT; -- with rowids, because rows are long: https://www.sqlite.org/withoutrowid.html

INSERT INTO activity_rollups
SELECT level, room, at, page_views, watch_sessions, watched_ms, visitors, visitor_set FROM old_activity_rollups;

-- Counts by path, content, host of the referrer or listed property: one row for each value in a room and period.
-- Small integers, because there are many rows.
CREATE TABLE dimension_rollups (
    level      INTEGER NOT NULL, -- 0 month, 1 day, 2 quarter of an hour
    at         INTEGER NOT NULL, -- the start, in quarter hours since 1970
    room       INTEGER NOT NULL, -- 0 is all rooms
    dimension  INTEGER NOT NULL, -- 1 path, 2 content, 3 host, from 16 on the id in rollup_props
    value      INTEGER NOT NULL, -- the text's number; 0 is (other): what has no row of its own
    count      INTEGER NOT NULL, -- page views; of contents watch sessions
    watched_ms INTEGER NOT NULL, -- 0 but of contents
    PRIMARY KEY (level, at, room, dimension, value)
) STRICT, WITHOUT ROWID;

-- The properties of page views with rollups, as ROLLUP_PROPS and PUBLIC_PROPS list them. Page views count from
-- from_at on. One that is no longer listed stays until its rollups are deleted; ids are never used again.
CREATE TABLE rollup_props (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    name      TEXT    NOT NULL,
    from_at   INTEGER NOT NULL,
    is_listed INTEGER NOT NULL DEFAULT 1
) STRICT;

INSERT INTO sqlite_sequence (name, seq) VALUES ('rollup_props', 15);

-- The last run of a hub on this file: the boot of the system, and whether the run ended in order.
CREATE TABLE last_run (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    boot_id  TEXT,
    is_clean INTEGER NOT NULL
) STRICT;

-- When the hub stopped that saved the hold, if it stopped in order: the hold then lasts as much longer as the hub is
-- away. Without it, held_until is final.
ALTER TABLE seats ADD COLUMN stopped_at INTEGER;

-- The latest deadline, however often the hub is started. Rows of an older version have none: held_until is final.
ALTER TABLE seats ADD COLUMN latest INTEGER;

-- Whether rows with properties were erased, so that the month's tables are rewritten: a page that was reorganized may
-- have copies of deleted rows.
ALTER TABLE months ADD COLUMN rewrite INTEGER NOT NULL DEFAULT 0;

-- Whether the month's rollups may count rows that an erasure has deleted from its archive: the database was restored
-- from an older backup.
ALTER TABLE months ADD COLUMN recount INTEGER NOT NULL DEFAULT 0;

-- The visitors in the month's archive: a Roaring bitmap of their numbers. NULL: unknown.
ALTER TABLE months ADD COLUMN archived_visitors BLOB;

-- Erasures that have begun. The visitor's id is here until all of their rows are gone.
CREATE TABLE erasures (
    number  INTEGER PRIMARY KEY, -- the visitor's
    id      TEXT NOT NULL,       -- the erasure's in the ledger, which is beside the archives
    visitor TEXT NOT NULL
) STRICT;

-- The erasures of the ledger that this database has applied.
CREATE TABLE applied_erasures (id TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;

-- Whether some texts may be unused. An older version left those that only erased or archived rows had.
CREATE TABLE text_sweep (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    state    TEXT    NOT NULL CHECK (state IN ('due', 'running', 'done'))
) STRICT;

INSERT INTO text_sweep VALUES (1, 'due');

-- The texts that commits have used since the sweep began to run.
CREATE TABLE used_texts (number INTEGER PRIMARY KEY) STRICT;
