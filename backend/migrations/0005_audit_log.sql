-- What operators changed: who (by the name of their token), when, what, and how it was before and after. Written in the
-- transaction of the change itself: there is no change without its entry, and no entry without its change.
CREATE TABLE audit_log (
    id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    operator text        NOT NULL,
    -- Such as campaign.paused.
    action   text        NOT NULL,
    -- Such as campaign/spring.
    subject  text        NOT NULL,
    -- Null where there was nothing, or is nothing any more.
    before   jsonb,
    after    jsonb
);

-- What happened to one thing, newest first.
CREATE INDEX audit_log_by_subject ON audit_log (subject, id DESC);

-- Entries are added and never touched again, not even by whoever has a bug.
CREATE FUNCTION refuse_audit_log_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is only ever added to' USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER audit_log_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_log_change();
