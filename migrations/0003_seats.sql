-- Seats: who was present when the hub stopped, so that the next start can hold their places until they
-- are back. Written at the end, read and deleted at the start: while a hub runs, nobody is in it.
-- held_until is a moment of the wall clock, in milliseconds since the Unix epoch, UTC.

CREATE TABLE seats (
    room       TEXT    NOT NULL,
    visitor    TEXT    NOT NULL,
    mood       TEXT,
    held_until INTEGER NOT NULL,
    PRIMARY KEY (room, visitor)
) STRICT, WITHOUT ROWID;
