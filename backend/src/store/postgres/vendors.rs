//! Vendors, what they are owed, and paying them.

use chrono::{DateTime, Utc};
use doorbuster_domain::id::IdempotencyKey;
use serde_json::json;
use sqlx::{FromRow, Postgres as Db, Transaction};

use super::audit_log::{self, Record};
use super::{DatabaseError, Postgres, signed, unsigned};
use crate::operators::Operator;

/// Who is owed for the discounts of campaigns.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Vendor {
    /// Its name in campaigns.
    pub id: String,
    /// Three capital letters.
    pub currency: String,
    /// In the currency's minor unit; positive when owed to the vendor.
    pub balance: i64,
}

/// A change of a vendor's balance.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct LedgerEntry {
    /// Its ledger transaction. Later ones of the vendor have larger numbers.
    pub id: i64,
    /// `redemption`, `reversal` or `payout`.
    pub kind: String,
    /// By how much what is owed grew.
    pub amount: i64,
    /// The coupon; none in a payout.
    pub code: Option<String>,
    /// The order that redeemed it; none in a payout.
    pub order_id: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
}

/// A payment to a vendor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payout {
    /// Its ledger transaction.
    pub id: i64,
    /// The amount that was asked for; none where it was the whole balance.
    pub asked: Option<u64>,
    /// The amount, in the currency's minor unit.
    pub amount: u64,
    /// The vendor's balance after it.
    pub balance: i64,
    /// When.
    pub paid_at: DateTime<Utc>,
}

#[derive(FromRow)]
struct PayoutRow {
    id: i64,
    asked: Option<i64>,
    amount: i64,
    balance: i64,
    paid_at: DateTime<Utc>,
}

#[derive(FromRow)]
struct VendorRow {
    #[sqlx(flatten)]
    vendor: Vendor,
    #[sqlx(rename = "transaction")]
    id: Option<i64>,
    kind: Option<String>,
    amount: Option<i64>,
    code: Option<String>,
    order_id: Option<String>,
    at: Option<DateTime<Utc>>,
}

impl VendorRow {
    fn into_entry(self) -> Option<LedgerEntry> {
        let Self { id, kind, amount, code, order_id, at, .. } = self;
        Some(LedgerEntry { id: id?, kind: kind?, amount: amount?, code, order_id, at: at? })
    }
}

/// A vendor whose balance nobody else changes meanwhile.
#[derive(Debug)]
pub struct LockedVendor {
    postgres: Postgres,
    transaction: Transaction<'static, Db>,
    vendor: Vendor,
}

impl Postgres {
    /// Up to `limit` vendors whose names come after `after`, by name.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn vendors(&self, after: &str, limit: u32) -> Result<Vec<Vendor>, DatabaseError> {
        let query = sqlx::query_as("SELECT id, currency, balance FROM vendors WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after)
            .bind(i64::from(limit));
        self.within(query.fetch_all(&self.pool)).await
    }

    /// A vendor and up to `limit` of its entries, newest first, from before the transaction `before` on. Balance and
    /// entries are of one moment.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn vendor(
        &self,
        id: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Option<(Vendor, Vec<LedgerEntry>)>, DatabaseError> {
        let query = sqlx::query_as(
            "SELECT vendors.id, currency, balance, page.id AS transaction, kind, amount, code, order_id, at
               FROM vendors
               LEFT JOIN LATERAL (
                   SELECT ledger_transactions.id, kind, amount, ledger_transactions.code, order_id, at
                     FROM ledger_transactions
                     JOIN ledger_entries ON transaction = ledger_transactions.id AND account = 'owed'
                     LEFT JOIN redemptions ON redemptions.code = ledger_transactions.code
                    WHERE ledger_transactions.vendor = vendors.id AND ledger_transactions.id < $2
                    ORDER BY ledger_transactions.id DESC LIMIT $3
               ) page ON true
              WHERE vendors.id = $1 ORDER BY page.id DESC",
        )
        .bind(id)
        .bind(before.unwrap_or(i64::MAX))
        .bind(i64::from(limit));
        let rows: Vec<VendorRow> = self.within(query.fetch_all(&self.pool)).await?;
        let Some(vendor) = rows.first().map(|row| row.vendor.clone()) else { return Ok(None) };
        Ok(Some((vendor, rows.into_iter().filter_map(VendorRow::into_entry).collect())))
    }

    /// Takes a vendor for a payout.
    ///
    /// # Errors
    /// If PostgreSQL does not answer, or the lock cannot be had in time.
    pub async fn lock_vendor(&self, id: &str) -> Result<Option<LockedVendor>, DatabaseError> {
        let locked = self
            .within(async {
                let mut transaction = self.pool.begin().await?;
                let vendor: Option<Vendor> =
                    sqlx::query_as("SELECT id, currency, balance FROM vendors WHERE id = $1 FOR NO KEY UPDATE")
                        .bind(id)
                        .fetch_optional(&mut *transaction)
                        .await?;
                Ok(vendor.map(|vendor| (transaction, vendor)))
            })
            .await?;
        Ok(locked.map(|(transaction, vendor)| LockedVendor { postgres: self.clone(), transaction, vendor }))
    }
}

impl LockedVendor {
    /// The vendor.
    #[must_use]
    pub fn vendor(&self) -> &Vendor {
        &self.vendor
    }

    /// The payout that was asked for under this key before.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn payout(&mut self, key: &IdempotencyKey) -> Result<Option<Payout>, DatabaseError> {
        let query = sqlx::query_as(
            "SELECT transaction AS id, asked, amount, balance, at AS paid_at
               FROM payouts JOIN ledger_transactions ON ledger_transactions.id = payouts.transaction
              WHERE payouts.vendor = $1 AND key = $2",
        )
        .bind(&self.vendor.id)
        .bind(key.as_str());
        let row: Option<PayoutRow> = self.postgres.within(query.fetch_optional(&mut *self.transaction)).await?;
        Ok(row.map(|row| Payout {
            id: row.id,
            asked: row.asked.map(unsigned),
            amount: unsigned(row.amount),
            balance: row.balance,
            paid_at: row.paid_at,
        }))
    }

    /// Pays out `amount`, and enters it into the audit log.
    ///
    /// # Errors
    /// If PostgreSQL does not answer; it may be paid out all the same.
    pub async fn pay_out(
        mut self,
        by: &Operator,
        key: &IdempotencyKey,
        asked: Option<u64>,
        amount: u64,
        paid_at: DateTime<Utc>,
    ) -> Result<Payout, DatabaseError> {
        let writing = sqlx::query_as(
            "INSERT INTO payouts (transaction, vendor, key, asked, amount, balance)
             SELECT id, $1, $2, $3, $4, balance FROM post_to_ledger($1, $5, 'payout', NULL, -$4, $6)
             RETURNING transaction, balance",
        )
        .bind(&self.vendor.id)
        .bind(key.as_str())
        .bind(asked.map(signed))
        .bind(signed(amount))
        .bind(&self.vendor.currency)
        .bind(paid_at);
        let (id, balance): (i64, i64) = self.postgres.within(writing.fetch_one(&mut *self.transaction)).await?;
        let record = Record {
            by,
            action: "vendor.paid",
            subject: format!("vendor/{}", self.vendor.id),
            before: Some(json!({"balance": self.vendor.balance})),
            after: Some(json!({"balance": balance, "payout": {"id": id, "amount": amount, "idempotency_key": key}})),
        };
        self.postgres.within(audit_log::record(&mut self.transaction, &record)).await?;
        self.postgres.within(self.transaction.commit()).await?;
        Ok(Payout { id, asked, amount, balance, paid_at })
    }
}
