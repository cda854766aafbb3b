-- Which installation this database belongs to, and which history it has. One row.
CREATE TABLE installation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- Random. Names the database together with its backends, its keys in Redis and its gateways. A
    -- copied database has the id of its original until `doorbuster installation new` draws another
    -- one.
    id       text    NOT NULL,
    -- Random. Replaced when this database is found to be behind Redis or a gateway, as after a
    -- restore: what they have seen of the earlier lineage may not exist here.
    lineage  text    NOT NULL,
    -- Earlier lineages, oldest first. A lineage that is neither the current one nor here is of a
    -- history that this database does not have.
    former   text[]  NOT NULL DEFAULT '{}'
);

INSERT INTO installation (id, lineage) VALUES (gen_random_uuid(), gen_random_uuid());

-- Tells a database from its copies: the server's identifier and the database's number there. A
-- replica that is promoted keeps both.
CREATE FUNCTION database_place() RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_server text;
BEGIN
    BEGIN
        SELECT system_identifier::text INTO v_server FROM pg_control_system();
    EXCEPTION WHEN insufficient_privilege THEN
        v_server := 'unknown';
    END;
    RETURN concat_ws('/', v_server,
                     (SELECT oid FROM pg_database WHERE datname = current_database()));
END
$$;

-- Raises the sequence of versions above a number that was seen elsewhere, at once: the gap may be
-- too long to be drawn one by one. By the owner's right, since a role that may draw from a sequence
-- may not set it.
CREATE FUNCTION raise_campaign_version(p_seen bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    -- One at a time, so that the later does not lower what the earlier has set. Those who draw
    -- meanwhile do not wait; the margin is far more than they can draw between these two
    -- statements.
    PERFORM pg_advisory_xact_lock(hashtextextended('campaign_version', 0));
    IF nextval('campaign_version') <= p_seen THEN
        PERFORM setval('campaign_version', p_seen + 1000);
    END IF;
END
$$;
