-- A round keeps the window and the quota that it had when it was last open, whatever becomes of its
-- campaign's schedule: `rounds` is the history that operators see. opens_at and closes_at are the
-- window. Adding columns takes a moment, however large the table is.
ALTER TABLE rounds
    -- The quota. Null where there was no limit, and in rows of releases that did not write it:
    -- there max_number tells.
    ADD COLUMN quota bigint,
    -- How many of the round's coupons were voided. Changed only by count_void.
    ADD COLUMN void  bigint NOT NULL DEFAULT 0;
