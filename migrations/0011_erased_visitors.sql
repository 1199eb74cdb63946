-- Erasures over all nodes of a cluster.

-- The visitors that the log has erased. Their events up to until_at are dropped, however late they arrive. Rows are deleted
-- after 30 days.
CREATE TABLE erased_visitors (
    hash        BLOB    NOT NULL PRIMARY KEY, -- keyed hash of the visitor's id
    until_at    INTEGER NOT NULL, -- the time of the last event that is erased
    position    INTEGER,          -- of the command in the log; NULL: this node has asked for it
    is_done     INTEGER NOT NULL, -- whether this file has none of the events any more
    clean_after INTEGER,          -- messages of the log after this position may have their events, and this node removes
                                  -- them; NULL: another node does that, or there are none
    cleaning    INTEGER           -- how far that is, where it has begun
) STRICT, WITHOUT ROWID;

-- The time of the last event that an erasure in progress deletes; NULL: it deletes all of the visitor.
ALTER TABLE erasures ADD COLUMN until_at INTEGER;
