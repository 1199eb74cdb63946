-- The last message of the log whose events this file has had from its own node. Up to a position from it on, the file has
-- exactly what the log has.
ALTER TABLE log ADD COLUMN own_position INTEGER NOT NULL DEFAULT 0;
