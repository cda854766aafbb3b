-- Who bears the discounts of a campaign, and is owed them. A vendor comes into being with the first campaign that names
-- it, and that campaign gives it its currency.
CREATE TABLE vendors (
    -- Compared by bytes, so that pages of vendors have one order everywhere.
    id       text   COLLATE "C" PRIMARY KEY,
    currency text   NOT NULL,
    -- The sum of its entries under `owed`, kept by a trigger: positive when owed to the vendor. Negative only where a
    -- coupon was reversed after its discount had been paid out.
    balance  bigint NOT NULL DEFAULT 0,
    -- For those who refer to both: nobody can speak of a vendor in another currency.
    CONSTRAINT vendors_currency UNIQUE (id, currency)
);

-- Every vendor that a campaign has named. Coupons keep the vendor under which they were issued, so one that was named
-- once stays as long as the campaign does.
CREATE TABLE campaign_vendors (
    campaign text             NOT NULL REFERENCES campaigns ON DELETE CASCADE,
    vendor   text COLLATE "C" NOT NULL REFERENCES vendors,
    PRIMARY KEY (campaign, vendor)
);

CREATE INDEX campaign_vendors_by_vendor ON campaign_vendors (vendor);

INSERT INTO vendors (id, currency) SELECT DISTINCT vendor, currency FROM campaigns;
INSERT INTO campaign_vendors (campaign, vendor) SELECT id, vendor FROM campaigns;

ALTER TABLE campaigns ADD CONSTRAINT campaigns_vendor_currency
    FOREIGN KEY (vendor, currency) REFERENCES vendors (id, currency);

CREATE FUNCTION enter_vendor() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO vendors (id, currency) VALUES (NEW.spec ->> 'vendor', NEW.spec ->> 'currency') ON CONFLICT DO NOTHING;
    RETURN NEW;
END
$$;

-- Before the row: its reference to the vendor is checked.
CREATE TRIGGER campaigns_enter_vendor
    BEFORE INSERT OR UPDATE ON campaigns
    FOR EACH ROW EXECUTE FUNCTION enter_vendor();

CREATE FUNCTION note_vendor() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO campaign_vendors (campaign, vendor) VALUES (NEW.id, NEW.vendor) ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE TRIGGER campaigns_note_vendor
    AFTER INSERT OR UPDATE ON campaigns
    FOR EACH ROW EXECUTE FUNCTION note_vendor();

-- A campaign without coupons can be deleted, and a vendor that nobody else ever named goes with it.
CREATE FUNCTION forget_vendor() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM vendors
     WHERE id = OLD.vendor AND NOT EXISTS (SELECT FROM campaign_vendors WHERE vendor = OLD.vendor);
    RETURN NULL;
END
$$;

CREATE TRIGGER campaign_vendors_forget_vendor
    AFTER DELETE ON campaign_vendors
    FOR EACH ROW EXECUTE FUNCTION forget_vendor();

-- A coupon that was redeemed, once and for good: the order for which, and what it was worth.
CREATE TABLE redemptions (
    code            text        PRIMARY KEY REFERENCES coupons,
    order_id        text        NOT NULL,
    -- In the currency's minor unit.
    order_amount    bigint      NOT NULL,
    discount_amount bigint      NOT NULL,
    -- Redis's clock.
    redeemed_at     timestamptz NOT NULL,
    CONSTRAINT redemptions_discount CHECK (discount_amount BETWEEN 0 AND order_amount)
);

-- A coupon that an operator took back. Its row in `coupons` stays: the number is used, and the user has had one.
CREATE TABLE voids (
    code      text        PRIMARY KEY REFERENCES coupons,
    reason    text        NOT NULL,
    -- Whether it had been redeemed, so that the vendor's credit was taken back too.
    reversed  boolean     NOT NULL,
    -- Redis's clock.
    voided_at timestamptz NOT NULL
);

-- The ledger: each transaction moves an amount between two accounts of one vendor.
--   redemption  discounts -> owed       a coupon was redeemed
--   reversal    owed -> discounts       a redeemed coupon was voided
--   payout      owed -> paid            the vendor was paid
CREATE TABLE ledger_transactions (
    -- Drawn under the vendor's lock: a vendor's transactions are committed in the order of their ids.
    id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    vendor   text        COLLATE "C" NOT NULL,
    currency text        NOT NULL,
    kind     text        NOT NULL CHECK (kind IN ('redemption', 'reversal', 'payout')),
    -- The coupon; none in a payout.
    code     text        REFERENCES coupons,
    at       timestamptz NOT NULL,
    CONSTRAINT ledger_coupon CHECK ((kind = 'payout') = (code IS NULL)),
    CONSTRAINT ledger_once_per_coupon UNIQUE (code, kind),
    CONSTRAINT ledger_vendor_currency FOREIGN KEY (vendor, currency) REFERENCES vendors (id, currency)
);

-- A vendor's transactions, newest first.
CREATE INDEX ledger_by_vendor ON ledger_transactions (vendor, id);

CREATE TABLE ledger_entries (
    transaction bigint NOT NULL REFERENCES ledger_transactions,
    account     text   NOT NULL CHECK (account IN ('owed', 'discounts', 'paid')),
    amount      bigint NOT NULL,
    PRIMARY KEY (transaction, account)
);

-- Keeps the vendor's balance, and lets no payout bring it below zero.
CREATE FUNCTION apply_ledger_entry() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    v_kind    text;
    v_balance bigint;
BEGIN
    UPDATE vendors SET balance = vendors.balance + NEW.amount
      FROM ledger_transactions
     WHERE ledger_transactions.id = NEW.transaction AND vendors.id = ledger_transactions.vendor
    RETURNING ledger_transactions.kind, vendors.balance INTO v_kind, v_balance;
    IF v_kind = 'payout' AND v_balance < 0 THEN
        RAISE check_violation USING
            CONSTRAINT = 'ledger_payout_covered',
            MESSAGE = format('ledger transaction %s pays out more than is owed', NEW.transaction);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER ledger_entries_apply
    AFTER INSERT ON ledger_entries
    FOR EACH ROW WHEN (NEW.account = 'owed') EXECUTE FUNCTION apply_ledger_entry();

-- Double entry, and PostgreSQL says so last: whoever writes, a transaction that does not sum to zero is not committed.
CREATE FUNCTION check_ledger_transaction() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    v_id      bigint;
    v_entries bigint;
    v_sum     numeric;
BEGIN
    IF TG_TABLE_NAME = 'ledger_entries' THEN
        v_id := NEW.transaction;
    ELSE
        v_id := NEW.id;
    END IF;
    SELECT count(*), sum(amount) INTO v_entries, v_sum FROM ledger_entries WHERE transaction = v_id;
    IF v_entries <> 2 OR v_sum <> 0 THEN
        RAISE check_violation USING
            CONSTRAINT = 'ledger_balanced',
            MESSAGE = format('ledger transaction %s has %s entries that sum to %s', v_id, v_entries, v_sum);
    END IF;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER ledger_transactions_balanced
    AFTER INSERT ON ledger_transactions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION check_ledger_transaction();

CREATE CONSTRAINT TRIGGER ledger_entries_balanced
    AFTER INSERT ON ledger_entries DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION check_ledger_transaction();

-- What is written stays: a mistake is set right by another transaction.
CREATE FUNCTION forbid_ledger_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE integrity_constraint_violation USING
        CONSTRAINT = 'ledger_append_only',
        MESSAGE = format('%s takes no %s', TG_TABLE_NAME, TG_OP);
END
$$;

CREATE TRIGGER ledger_transactions_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION forbid_ledger_change();

CREATE TRIGGER ledger_entries_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION forbid_ledger_change();

-- Writes one transaction: p_amount is what is added to what the vendor is owed. Gives its id, and the balance after it.
CREATE FUNCTION post_to_ledger(
    p_vendor   text,
    p_currency text,
    p_kind     text,
    p_code     text,
    p_amount   bigint,
    p_at       timestamptz,
    OUT id      bigint,
    OUT balance bigint
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_id bigint;
BEGIN
    PERFORM FROM vendors WHERE vendors.id = p_vendor FOR NO KEY UPDATE;
    INSERT INTO ledger_transactions (vendor, currency, kind, code, at)
    VALUES (p_vendor, p_currency, p_kind, p_code, p_at)
    RETURNING ledger_transactions.id INTO v_id;
    INSERT INTO ledger_entries (transaction, account, amount)
    VALUES (v_id, 'owed', p_amount),
           (v_id, CASE p_kind WHEN 'payout' THEN 'paid' ELSE 'discounts' END, -p_amount);
    SELECT v_id, vendors.balance INTO id, balance FROM vendors WHERE vendors.id = p_vendor;
END
$$;

-- Payouts, by the key under which an operator asked for each: asked for again it is the same payout.
CREATE TABLE payouts (
    transaction bigint PRIMARY KEY REFERENCES ledger_transactions,
    vendor      text   COLLATE "C" NOT NULL REFERENCES vendors,
    key         text   NOT NULL,
    -- The amount asked for; null where it was the whole balance.
    asked       bigint,
    amount      bigint NOT NULL CHECK (amount > 0),
    -- The vendor's balance after it.
    balance     bigint NOT NULL CHECK (balance >= 0),
    CONSTRAINT payouts_one_per_key UNIQUE (vendor, key)
);
