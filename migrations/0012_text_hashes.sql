-- Two tables find a text by its hash, instead of one index.

-- New texts are in the small table. They move to the large one in runs, in the order of the hashes, so that a commit does not
-- change a page of the large one for each new text.
CREATE TABLE text_hashes (
    hash   INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (hash, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE new_text_hashes (
    hash   INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (hash, number)
) STRICT, WITHOUT ROWID;

INSERT INTO text_hashes SELECT hash, number FROM texts WHERE hash IS NOT NULL ORDER BY hash, number;

DROP INDEX texts_by_hash;
