-- The log that the nodes of a cluster share: how far this file has it, and what is not in it yet.

-- One row, or none before the first log.
CREATE TABLE log (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    name        TEXT    NOT NULL, -- which log: one that was made again has another name
    position    INTEGER NOT NULL, -- the last message that is in this file
    resend_from INTEGER           -- events from this time on are to be published again; NULL: none
) STRICT;

-- Messages with events that are in this file and not in the log yet, in the order of their commits.
CREATE TABLE outbox (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    id      TEXT NOT NULL, -- by which the log removes repeats
    message BLOB NOT NULL
) STRICT;
