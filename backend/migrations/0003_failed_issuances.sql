-- Reservations that PostgreSQL did not take although it answered: one row for each user of a round, however often the
-- user asks.
CREATE TABLE failed_issuances (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign        text        NOT NULL,
    round           date        NOT NULL,
    user_id         text        NOT NULL,
    -- The user's last reservation that was refused, and how often it was.
    code            text        NOT NULL,
    number          bigint      NOT NULL,
    attempts        integer     NOT NULL,
    -- What PostgreSQL said last.
    cause           text        NOT NULL,
    first_failed_at timestamptz NOT NULL DEFAULT now(),
    last_failed_at  timestamptz NOT NULL DEFAULT now(),
    -- When a reservation of this user was given up for the first time; null while the first one is still tried.
    given_up_at     timestamptz,
    -- When an operator last had it tried again.
    retried_at      timestamptz,
    CONSTRAINT failed_issuances_round FOREIGN KEY (campaign, round) REFERENCES rounds ON DELETE CASCADE,
    CONSTRAINT failed_issuances_one_per_user UNIQUE (campaign, round, user_id)
);

-- The sweeper looks after rounds in which something was tried again lately, however long ago they closed.
CREATE INDEX failed_issuances_by_retry ON failed_issuances (retried_at) WHERE retried_at IS NOT NULL;

-- Users whose reservation was given up and who have no coupon. Whoever gets one later, by asking again or by an
-- operator's retry, leaves the view without anybody having to think of it.
CREATE VIEW open_failures AS
SELECT failed.*
  FROM failed_issuances failed
 WHERE failed.given_up_at IS NOT NULL
   AND NOT EXISTS (SELECT FROM coupons
                    WHERE coupons.user_id = failed.user_id
                      AND coupons.campaign = failed.campaign AND coupons.round = failed.round);

-- Notes that a reservation was refused; tells whether it is to be given up. It is after p_bound refusals, which may come
-- from several backends and requests at about the same time: within a second they count as one.
CREATE FUNCTION note_refused_issuance(
    p_campaign text,
    p_round    date,
    p_user     text,
    p_code     text,
    p_number   bigint,
    p_cause    text,
    p_bound    integer
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_held     failed_issuances;
    v_attempts integer := 1;
    v_counts   boolean := true;
BEGIN
    INSERT INTO failed_issuances (campaign, round, user_id, code, number, attempts, cause)
    VALUES (p_campaign, p_round, p_user, p_code, p_number, 0, p_cause)
        ON CONFLICT ON CONSTRAINT failed_issuances_one_per_user DO NOTHING;
    SELECT * INTO STRICT v_held
      FROM failed_issuances
     WHERE campaign = p_campaign AND round = p_round AND user_id = p_user
       FOR UPDATE;
    IF v_held.code = p_code THEN
        -- A hair under a second: sweepers come once a second.
        v_counts := v_held.attempts = 0 OR v_held.last_failed_at <= now() - interval '0.9 seconds';
        v_attempts := v_held.attempts + v_counts::integer;
    END IF;
    UPDATE failed_issuances
       SET code = p_code,
           number = p_number,
           attempts = v_attempts,
           cause = p_cause,
           last_failed_at = CASE WHEN v_counts THEN now() ELSE last_failed_at END,
           given_up_at = CASE WHEN v_attempts >= p_bound THEN coalesce(given_up_at, now()) ELSE given_up_at END
     WHERE id = v_held.id;
    RETURN v_attempts >= p_bound;
END
$$;
