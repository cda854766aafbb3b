-- The oldest release that can work with this schema.
--
-- Releases change the schema in two steps, expand and then contract, so that two of them can run
-- side by side during an upgrade, and the older one can start again after a rollback. A migration
-- that only adds (expands) leaves this row as it is. A migration that takes something away that an
-- older release uses (contracts) raises it, in the same file. A release reads the row when it
-- starts, and refuses to work with a schema whose floor it does not reach.
CREATE TABLE release_floor (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- A release reaches the floor if it contains this migration.
    migration bigint  NOT NULL,
    -- The first release that does, for the error message.
    release   text    NOT NULL
);

INSERT INTO release_floor (migration, release) VALUES (7, '0.1.0');
