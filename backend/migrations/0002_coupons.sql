-- An epoch names one filling of a round's keys in Redis from this database. They come from a sequence and not from the
-- round's row: a campaign deleted and made again must not meet, in Redis, an epoch of its former life.
CREATE SEQUENCE round_epoch;

-- A round appears here when it is first hydrated, shortly before it opens.
CREATE TABLE rounds (
    campaign   text        NOT NULL REFERENCES campaigns ON DELETE CASCADE,
    round      date        NOT NULL,
    opens_at   timestamptz NOT NULL,
    closes_at  timestamptz NOT NULL,
    -- Commits carry the epoch under which they were reserved; one of an older epoch is refused.
    epoch      bigint      NOT NULL DEFAULT 0,
    -- How many coupons of the round exist. Changed only by commit_coupons, under the row's lock.
    issued     bigint      NOT NULL DEFAULT 0,
    -- The largest quota the round has had; the largest bigint where it once had none.
    max_number bigint      NOT NULL,
    PRIMARY KEY (campaign, round)
);

-- The sweeper looks for rounds that closed lately or not yet.
CREATE INDEX rounds_by_closing ON rounds (closes_at);

CREATE TABLE coupons (
    code             text        PRIMARY KEY,
    campaign         text        NOT NULL,
    round            date        NOT NULL,
    user_id          text        NOT NULL,
    -- The order of reservation within the round.
    number           bigint      NOT NULL CHECK (number > 0),
    -- Redis's clock when the place was reserved. Whoever commits the coupon, and however late, writes the same row.
    issued_at        timestamptz NOT NULL,
    redeemable_from  timestamptz NOT NULL,
    redeemable_until timestamptz NOT NULL,
    -- Discount, least order amount and currency as they were: a later change of the campaign changes no coupon.
    terms            jsonb       NOT NULL,
    -- The campaign's version that set these terms.
    version          bigint      NOT NULL,
    -- A campaign with coupons cannot be deleted.
    CONSTRAINT coupons_round FOREIGN KEY (campaign, round) REFERENCES rounds ON DELETE RESTRICT,
    -- Led by the user: so no two indexes begin alike, and whatever the planner knows of a table that grows by
    -- thousands a second, it cannot mistake one for the other.
    CONSTRAINT coupons_one_per_user UNIQUE (user_id, campaign, round),
    CONSTRAINT coupons_one_per_number UNIQUE (campaign, round, number)
);

-- A user's own coupons, newest first.
CREATE INDEX coupons_by_user ON coupons (user_id, issued_at DESC, code DESC);

-- PostgreSQL says last that a quota is kept: numbers are unique, and none is above the largest quota.
-- Once per statement and not per row: the largest number of a batch is all that matters.
CREATE FUNCTION check_coupon_numbers() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    v_above record;
BEGIN
    SELECT largest.campaign, largest.round, largest.number, rounds.max_number INTO v_above
      FROM (SELECT campaign, round, max(number) AS number FROM inserted GROUP BY campaign, round) largest
      JOIN rounds USING (campaign, round)
     WHERE largest.number > rounds.max_number
     LIMIT 1;
    IF FOUND THEN
        RAISE check_violation USING
            CONSTRAINT = 'coupons_within_quota',
            MESSAGE = format('number %s of %s %s is above %s, the largest quota the round has had',
                             v_above.number, v_above.campaign, v_above.round, v_above.max_number);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER coupons_within_quota
    AFTER INSERT ON coupons REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION check_coupon_numbers();

-- Commits a batch of reservations of one round: one round trip, one transaction.
--
-- The arrays hold one reservation per place. One row comes back for each, numbered from 1 in their order:
--   issued        a coupon with this code is this user's, whoever wrote it and when
--   user_taken    the user has another coupon of the round; the columns describe that one
--   number_taken  another coupon has the number: Redis is behind
--   code_taken    the code was drawn before, for somebody else
--   stale         reserved under another epoch than the round's
--   gone          there is no such round (its campaign was deleted)
-- coupon columns are null in the last four; round_issued is the count of the round's coupons after this batch.
--
-- The round's row is taken exclusively. So commits and hydrations of a round happen one after another, and
-- round_issued counts exactly the coupons committed so far, in the order of the commits.
CREATE FUNCTION commit_coupons(
    p_campaign text,
    p_round    date,
    p_codes    text[],
    p_users    text[],
    p_numbers  bigint[],
    p_epochs   bigint[],
    p_issued   timestamptz[],
    p_from     timestamptz[],
    p_until    timestamptz[],
    p_terms    jsonb[],
    p_versions bigint[]
) RETURNS TABLE (
    place            bigint,
    outcome          text,
    code             text,
    number           bigint,
    issued_at        timestamptz,
    redeemable_from  timestamptz,
    redeemable_until timestamptz,
    terms            jsonb,
    round_issued     bigint
)
LANGUAGE plpgsql
-- A plan made while the table was small must not outlive that: every look-up here is by a unique index.
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_epoch    bigint;
    v_issued   bigint;
    v_inserted bigint;
BEGIN
    SELECT rounds.epoch, rounds.issued INTO v_epoch, v_issued
      FROM rounds
     WHERE rounds.campaign = p_campaign AND rounds.round = p_round
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY
        SELECT asked.place, 'gone'::text, NULL::text, NULL::bigint, NULL::timestamptz, NULL::timestamptz,
               NULL::timestamptz, NULL::jsonb, 0::bigint
          FROM unnest(p_codes) WITH ORDINALITY AS asked (code, place);
        RETURN;
    END IF;

    INSERT INTO coupons (code, campaign, round, user_id, number, issued_at, redeemable_from, redeemable_until, terms, version)
    SELECT asked.code, p_campaign, p_round, asked.user_id, asked.number, asked.issued_at, asked.redeemable_from,
           asked.redeemable_until, asked.terms, asked.version
      FROM unnest(p_codes, p_users, p_numbers, p_epochs, p_issued, p_from, p_until, p_terms, p_versions)
           AS asked (code, user_id, number, epoch, issued_at, redeemable_from, redeemable_until, terms, version)
     WHERE asked.epoch = v_epoch
     ORDER BY asked.number
        ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_inserted = ROW_COUNT;

    IF v_inserted > 0 THEN
        UPDATE rounds SET issued = rounds.issued + v_inserted
         WHERE rounds.campaign = p_campaign AND rounds.round = p_round
        RETURNING rounds.issued INTO v_issued;
    END IF;

    RETURN QUERY
    SELECT asked.place,
           CASE WHEN held.code = asked.code THEN 'issued'
                WHEN held.code IS NOT NULL THEN 'user_taken'
                WHEN asked.epoch <> v_epoch THEN 'stale'
                WHEN EXISTS (SELECT FROM coupons other WHERE other.code = asked.code) THEN 'code_taken'
                ELSE 'number_taken'
           END,
           held.code, held.number, held.issued_at, held.redeemable_from, held.redeemable_until, held.terms, v_issued
      FROM unnest(p_codes, p_users, p_epochs) WITH ORDINALITY AS asked (code, user_id, epoch, place)
      -- OFFSET 0 keeps the planner from looking through the round for the user: a user has few coupons, a round many.
      LEFT JOIN LATERAL (SELECT * FROM coupons WHERE coupons.user_id = asked.user_id OFFSET 0) held
        ON held.campaign = p_campaign AND held.round = p_round;
END
$$;

-- For audits: one row per committed coupon.
CREATE VIEW issued_coupons AS
SELECT campaign, round, user_id, number, code, issued_at FROM coupons;
