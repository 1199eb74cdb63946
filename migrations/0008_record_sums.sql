-- Sums of records, by which two nodes compare their histories.

-- The sum modulo 2^128 of the hashes of the month's records, of its tables and its archive; big-endian.
ALTER TABLE months ADD COLUMN record_sum BLOB NOT NULL DEFAULT X'00000000000000000000000000000000';

-- Which records the sum has. NULL: all. Else a byte for a kind (0 page views, 1 watch sessions, 2 presence samples) and
-- an id: all records of kinds before it, and of this kind those with a smaller id.
ALTER TABLE months ADD COLUMN record_sum_before BLOB;

-- Maintenance sums up the records of an older version.
UPDATE months SET record_sum_before = zeroblob(17);
