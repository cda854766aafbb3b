-- A schema as a later release may leave it behind: everything that an expanding migration may do. A
-- release and its tests have to work with it unchanged.
ALTER TABLE campaigns         ADD COLUMN next_note text;
ALTER TABLE rounds            ADD COLUMN next_note text;
ALTER TABLE coupons           ADD COLUMN next_note text NOT NULL DEFAULT 'none';
ALTER TABLE failed_issuances  ADD COLUMN next_note text;
ALTER TABLE vendors           ADD COLUMN next_note text;
ALTER TABLE campaign_vendors  ADD COLUMN next_note text;
ALTER TABLE redemptions       ADD COLUMN next_note text;
ALTER TABLE voids             ADD COLUMN next_note text;
ALTER TABLE ledger_entries    ADD COLUMN next_note text;
ALTER TABLE payouts           ADD COLUMN next_note text;
ALTER TABLE audit_log         ADD COLUMN next_note text;
ALTER TABLE event_sinks       ADD COLUMN next_note text;
ALTER TABLE outbox            ADD COLUMN next_note text;
ALTER TABLE parked_events     ADD COLUMN next_note text;
ALTER TABLE installation      ADD COLUMN next_note text;

-- A kind of ledger transaction, and a state of a coupon, that releases before it do not know.
ALTER TABLE ledger_transactions
    ADD COLUMN next_note text,
    DROP CONSTRAINT ledger_transactions_kind_check,
    ADD CONSTRAINT ledger_transactions_kind_check
        CHECK (kind IN ('redemption', 'reversal', 'payout', 'adjustment'));
CREATE TABLE next_holds (code text PRIMARY KEY REFERENCES coupons, until timestamptz NOT NULL);

CREATE FUNCTION emit_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM emit_event('coupon.held', 'held-' || NEW.code, NEW.code, now(),
                       jsonb_build_object('code', NEW.code));
    RETURN NULL;
END
$$;
CREATE TRIGGER holds_event AFTER INSERT ON next_holds FOR EACH ROW EXECUTE FUNCTION emit_hold();

INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
VALUES (9001, 'next release', true, '\x00', 0);
