-- Sits: visitors who stay present while their phone is locked, and what they add to the history of presence.

-- The end of a sit of a visitor in `seats`, and the latest end over all restarts. NULL: no sit. A hold with the reason
-- `sit` is the sit itself.
ALTER TABLE seats ADD COLUMN sit_until INTEGER;
ALTER TABLE seats ADD COLUMN sit_latest INTEGER;

ALTER TABLE presence_rollups ADD COLUMN held_ms        INTEGER NOT NULL DEFAULT 0; -- present without a socket, added up
ALTER TABLE presence_rollups ADD COLUMN sits_begun     INTEGER NOT NULL DEFAULT 0;
ALTER TABLE presence_rollups ADD COLUMN sits_completed INTEGER NOT NULL DEFAULT 0; -- that reached their end
ALTER TABLE presence_rollups ADD COLUMN sat_ms         INTEGER NOT NULL DEFAULT 0; -- how long each person sat, added up

DROP VIEW presence;

CREATE VIEW presence AS
SELECT at, (SELECT text FROM texts WHERE number = value ->> 0) AS room, value ->> 1 AS present_ms,
       value ->> 2 AS peak, ifnull(value ->> 3, 0) AS joins, ifnull(value ->> 4, '{}') AS moods_ms,
       ifnull(value ->> 5, 0) AS held_ms, ifnull(value ->> 6, 0) AS sits_begun,
       ifnull(value ->> 7, 0) AS sits_completed, ifnull(value ->> 8, 0) AS sat_ms
FROM raw_presence, json_each(samples);
