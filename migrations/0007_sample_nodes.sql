-- The nodes of a cluster whose visitors a presence sample has, as a JSON array in the row of the whole hub.

DROP VIEW presence;

CREATE VIEW presence AS
SELECT at, (SELECT text FROM texts WHERE number = value ->> 0) AS room, value ->> 1 AS present_ms,
       value ->> 2 AS peak, ifnull(value ->> 3, 0) AS joins, ifnull(value ->> 4, '{}') AS moods_ms,
       ifnull(value ->> 5, 0) AS held_ms, ifnull(value ->> 6, 0) AS sits_begun,
       ifnull(value ->> 7, 0) AS sits_completed, ifnull(value ->> 8, 0) AS sat_ms, ifnull(value ->> 9, '[]') AS nodes
FROM raw_presence, json_each(samples);
