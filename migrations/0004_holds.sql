-- Holds: why somebody is in the table of seats. While a hub runs, those are in it who count as present without a
-- socket ('grace': it was lost a moment ago; 'restart': they were here when the hub stopped), as of its last flush
-- interval; after a stop, everybody who was present. The next start reads them and leaves them in it, and each
-- keeps its first held_until, however often the hub is started.

ALTER TABLE seats ADD COLUMN reason TEXT NOT NULL DEFAULT 'restart';
