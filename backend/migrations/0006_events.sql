-- Events out: what happens to coupons and campaigns is written down in the transaction in which it happens, and relayed
-- to sinks (a webhook, Kafka) behind it. Triggers write, so that no writer can forget to.

-- The sinks that backends are configured with. Without one no event is kept. One that no backend has been configured
-- with for a week is forgotten, and what waited for it too: an outbox that nobody empties must not grow for ever.
CREATE TABLE event_sinks (
    name    text        PRIMARY KEY,
    -- When a backend last said that it has this sink.
    seen_at timestamptz NOT NULL DEFAULT now()
);

-- What waits for a sink, in order. A row is deleted when all its events were delivered or parked.
--
-- Ids are drawn while the coupon's (or campaign's) row is locked, so those of one coupon rise in the order in which its
-- changes are committed, and whoever sees one sees the earlier ones too. Between coupons nothing is promised.
--
-- One row holds a whole batch of issued coupons, by their codes alone: the rest is read from `coupons` when it is sent.
-- That is what keeps events out of the way of issuing. No foreign key to event_sinks: its row would be locked by every
-- commit.
CREATE TABLE outbox (
    sink     text        NOT NULL,
    id       bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    type     text        NOT NULL,
    -- The events' subjects: codes of coupons, or the id of a campaign.
    subjects text[]      NOT NULL,
    -- How many they are.
    size     bigint      NOT NULL,
    -- The event's id and data; null for coupon.issued.
    event_id text,
    data     jsonb,
    -- When it happened.
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sink, id)
)
-- Rows live for a moment; the head of the queue must not be searched among dead ones.
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Events that a sink did not take, and later ones of the same subject, which wait behind them: an order is kept also
-- when a delivery fails.
CREATE TABLE parked_events (
    id         bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    sink       text        NOT NULL,
    subject    text        NOT NULL,
    event      jsonb       NOT NULL,
    -- Deliveries that failed.
    attempts   integer     NOT NULL,
    last_error text,
    -- When it is tried again; null while it waits behind an earlier event, and when it is dead.
    next_at    timestamptz,
    -- When it was given up: a dead letter, which only an operator sends again.
    dead_at    timestamptz,
    CONSTRAINT parked_events_dead_or_due CHECK (next_at IS NULL OR dead_at IS NULL)
);
CREATE INDEX parked_events_by_subject ON parked_events (sink, subject, id);
CREATE INDEX parked_events_due ON parked_events (sink, next_at) WHERE next_at IS NOT NULL;
CREATE INDEX parked_events_dead ON parked_events (id) WHERE dead_at IS NOT NULL;

-- Lets the first events of these subjects go on, where they waited behind others that are gone now.
CREATE FUNCTION advance_parked_events(p_sink text, p_subjects text[]) RETURNS void
LANGUAGE sql AS $$
    UPDATE parked_events AS first SET next_at = now()
     WHERE first.sink = p_sink AND first.subject = ANY (p_subjects) AND first.next_at IS NULL AND first.dead_at IS NULL
       AND NOT EXISTS (SELECT FROM parked_events earlier
                        WHERE earlier.sink = first.sink AND earlier.subject = first.subject AND earlier.id < first.id);
$$;

-- Writes an event down for every sink.
CREATE FUNCTION emit_event(p_type text, p_event_id text, p_subject text, p_at timestamptz, p_data jsonb) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO outbox (sink, type, subjects, size, event_id, at, data)
    SELECT name, p_type, ARRAY[p_subject], 1, p_event_id, p_at, p_data FROM event_sinks;
$$;

CREATE FUNCTION emit_coupons_issued() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (sink, type, subjects, size)
    SELECT event_sinks.name, 'coupon.issued', batch.codes, cardinality(batch.codes)
      FROM event_sinks, (SELECT array_agg(code) AS codes FROM inserted) batch
     WHERE batch.codes IS NOT NULL;
    RETURN NULL;
END
$$;

CREATE TRIGGER coupons_issued
    AFTER INSERT ON coupons REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION emit_coupons_issued();

CREATE FUNCTION emit_coupon_redeemed() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM emit_event(
        'coupon.redeemed', 'redeemed-' || NEW.code, NEW.code, NEW.redeemed_at,
        jsonb_build_object(
            'code', NEW.code, 'campaign', campaign, 'round', round, 'user', user_id, 'order_id', NEW.order_id,
            'order_amount', NEW.order_amount, 'discount_amount', NEW.discount_amount, 'currency', terms ->> 'currency',
            'redeemed_at', NEW.redeemed_at))
       FROM coupons WHERE coupons.code = NEW.code;
    RETURN NULL;
END
$$;

CREATE TRIGGER redemptions_event
    AFTER INSERT ON redemptions
    FOR EACH ROW EXECUTE FUNCTION emit_coupon_redeemed();

CREATE FUNCTION emit_coupon_voided() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM emit_event(
        'coupon.voided', 'voided-' || NEW.code, NEW.code, NEW.voided_at,
        jsonb_build_object(
            'code', NEW.code, 'campaign', campaign, 'round', round, 'user', user_id, 'reason', NEW.reason,
            'reversed', NEW.reversed, 'voided_at', NEW.voided_at))
       FROM coupons WHERE coupons.code = NEW.code;
    RETURN NULL;
END
$$;

CREATE TRIGGER voids_event
    AFTER INSERT ON voids
    FOR EACH ROW EXECUTE FUNCTION emit_coupon_voided();

CREATE FUNCTION emit_campaign_changed() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    v_campaign campaigns := coalesce(NEW, OLD);
    v_change   text := CASE WHEN TG_OP = 'INSERT' THEN 'created'
                            WHEN TG_OP = 'DELETE' THEN 'deleted'
                            WHEN NEW.paused AND NOT OLD.paused THEN 'paused'
                            WHEN OLD.paused AND NOT NEW.paused THEN 'resumed'
                            ELSE 'replaced' END;
BEGIN
    PERFORM emit_event(
        'campaign.changed',
        -- A deletion is no version of its own.
        concat_ws('-', 'campaign', v_campaign.id, v_campaign.version, CASE WHEN TG_OP = 'DELETE' THEN 'deleted' END),
        v_campaign.id,
        now(),
        jsonb_build_object('campaign', v_campaign.id, 'change', v_change, 'version', v_campaign.version,
                           'paused', v_campaign.paused, 'spec', v_campaign.spec));
    RETURN NULL;
END
$$;

CREATE TRIGGER campaigns_changed_event
    AFTER INSERT OR UPDATE OR DELETE ON campaigns
    FOR EACH ROW EXECUTE FUNCTION emit_campaign_changed();
