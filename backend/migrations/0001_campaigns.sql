-- Versions name configurations: equal versions mean equal configuration, on every backend and every edge, also after a
-- campaign was deleted and made again. So all campaigns draw from one sequence.
CREATE SEQUENCE campaign_version;

-- Sequences may repeat numbers that were drawn just before a crash, or fall behind when a backup is restored, and Redis
-- may have seen later ones. Whoever draws therefore says what Redis shows, and gets a number above it.
CREATE FUNCTION next_above(p_sequence regclass, p_shown bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_next bigint;
BEGIN
    LOOP
        v_next := nextval(p_sequence);
        EXIT WHEN v_next > p_shown;
    END LOOP;
    RETURN v_next;
END
$$;

CREATE TABLE campaigns (
    id       text    PRIMARY KEY,
    version  bigint  NOT NULL CONSTRAINT campaigns_version UNIQUE,
    paused   boolean NOT NULL DEFAULT false,
    -- What the operator wrote, after validation. Its readers are in Rust; SQL looks at two fields only.
    spec     jsonb   NOT NULL,
    vendor   text    NOT NULL GENERATED ALWAYS AS (spec ->> 'vendor') STORED,
    currency text    NOT NULL GENERATED ALWAYS AS (spec ->> 'currency') STORED
);

-- For the rule that a vendor has one currency.
CREATE INDEX campaigns_by_vendor ON campaigns (vendor);

-- Backends keep all campaigns in memory. The trigger tells them of a change, so that no writer can forget to.
CREATE FUNCTION notify_campaign_changed() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('doorbuster_campaigns', coalesce(NEW.id, OLD.id));
    RETURN NULL;
END
$$;

CREATE TRIGGER campaigns_changed
    AFTER INSERT OR UPDATE OR DELETE ON campaigns
    FOR EACH ROW EXECUTE FUNCTION notify_campaign_changed();
