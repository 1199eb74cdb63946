-- History that is bounded, exact and forgettable.

-- How the rows of a month are identified: 0 by id, 1 by id, visitor and room.
ALTER TABLE months ADD COLUMN row_key INTEGER NOT NULL DEFAULT 0;

-- The number of changes when the month was settled: its dimension rollups do not depend on the order of arrival.
ALTER TABLE months ADD COLUMN settled INTEGER;

-- Whether dimension rollups of the month have a row for `(other)`; commits then leave them alone.
ALTER TABLE months ADD COLUMN folded INTEGER NOT NULL DEFAULT 0;
