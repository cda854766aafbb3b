//! The only SQL.

mod audit_log;
mod campaigns;
mod coupons;
mod failures;
mod ledger;
mod outbox;
mod redemptions;
mod rounds;
mod schema;
mod sinks;
mod vendors;

use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;
use sqlx::PgPool;
use sqlx::error::ErrorKind;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode};
use tokio::time::Instant;

use crate::telemetry::STORE_SECONDS;

pub use audit_log::{Entry, Record};
pub use campaigns::{CampaignRow, Change, Deleted};
pub use coupons::{Commit, Coupon, Cursor, Outcome, Reservation};
pub use failures::{Failure, FailureFilter};
pub use ledger::{Ledger, Row};
pub use outbox::{Due, FailedDelivery, Fresh, Outbox, Settlement};
pub use redemptions::{Life, LockedCoupon, Redemption, Voiding};
pub use rounds::{Opened, RecentRound};
pub use schema::SchemaError;
pub use sinks::{Backlog, DeadLetter};
pub use vendors::{LedgerEntry, LockedVendor, Payout, Vendor};

/// A transaction that nobody continues holds locks; PostgreSQL ends it after this.
const IDLE_IN_TRANSACTION: &str = "5s";

/// PostgreSQL said no, or nothing. Where the outcome of a commit is unknown, this is the answer too.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// An error of the connection or the server.
    #[error("PostgreSQL: {0}")]
    Failed(#[from] sqlx::Error),
    /// No answer within the deadline, milliseconds.
    #[error("PostgreSQL did not answer within {0} ms")]
    Late(u128),
    /// A row holds what this program did not write.
    #[error("PostgreSQL: unreadable {0}")]
    Unreadable(&'static str),
}

/// What is at fault when a statement fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// What was sent: sent again, it would fail again.
    Row,
    /// PostgreSQL refused, for a reason that may or may not pass, such as an exception that a trigger raises.
    Unclear,
    /// The server's condition, or a schema that does not fit: other rows would have failed as well.
    Server,
}

impl DatabaseError {
    /// What is at fault, by the class of the SQLSTATE (PostgreSQL's manual, appendix A).
    #[must_use]
    pub fn fault(&self) -> Fault {
        let Self::Failed(sqlx::Error::Database(error)) = self else { return Fault::Server };
        let code = error.code().unwrap_or_default();
        match code.get(..2) {
            // Data, constraints.
            Some("22" | "23") => Fault::Row,
            // Connection, transaction state, authorization, catalog and schema, rollback, syntax and access, resources,
            // object state, operator intervention, system. And whatever is no SQLSTATE.
            Some("08" | "25" | "28" | "3D" | "3F" | "40" | "42" | "53" | "55" | "57" | "58") | None => Fault::Server,
            Some(_) => Fault::Unclear,
        }
    }

    /// What PostgreSQL said, with its SQLSTATE.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Failed(sqlx::Error::Database(error)) => {
                format!("{}: {}", error.code().unwrap_or_default(), error.message())
            }
            error => error.to_string(),
        }
    }

    /// Whether a number above the round's largest quota was refused.
    #[must_use]
    pub fn is_above_quota(&self) -> bool {
        matches!(self, Self::Failed(sqlx::Error::Database(error))
            if error.kind() == ErrorKind::CheckViolation && error.constraint() == Some("coupons_within_quota"))
    }
}

/// The connections to PostgreSQL.
#[derive(Debug, Clone)]
pub struct Postgres {
    pool: PgPool,
    deadline: Duration,
    latency: Histogram,
}

impl Postgres {
    /// Whether a text is the address of a PostgreSQL database.
    #[must_use]
    pub fn is_url(text: &str) -> bool {
        let known = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        known && text.parse::<PgConnectOptions>().is_ok()
    }

    /// Prepares connections, which are made when needed. `ca`: certificates in PEM, one of which must have signed the
    /// server's; the server must then prove who it is, whatever the URL's `sslmode`.
    ///
    /// # Errors
    /// If the URL makes no sense.
    pub fn new(url: &str, ca: Option<&[u8]>, connections: u32, deadline: Duration) -> Result<Self, DatabaseError> {
        let mut options: PgConnectOptions = url.parse()?;
        if let Some(ca) = ca {
            options = options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert_from_pem(ca.to_vec());
        }
        let options = options.application_name("doorbuster").options([
            ("statement_timeout", deadline.as_millis().to_string().as_str()),
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION),
        ]);
        let pool =
            PgPoolOptions::new().max_connections(connections).acquire_timeout(deadline).connect_lazy_with(options);
        Ok(Self { pool, deadline, latency: Histogram::new(STORE_SECONDS) })
    }

    /// Whether PostgreSQL answers.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        self.within(async { sqlx::query("SELECT 1").execute(&self.pool).await }).await?;
        Ok(())
    }

    /// A connection that hears of changed campaigns.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn listen(&self) -> Result<PgListener, DatabaseError> {
        self.within(async {
            let mut listener = PgListener::connect_with(&self.pool).await?;
            listener.listen("doorbuster_campaigns").await?;
            Ok(listener)
        })
        .await
    }

    /// How long exchanges take, the wait for a connection included, seconds.
    #[must_use]
    pub fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// How many connections there are, and how many of them nobody uses.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        (usize::try_from(self.pool.size()).unwrap_or(usize::MAX), self.pool.num_idle())
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, DatabaseError> {
        let began = Instant::now();
        let outcome = within(self.deadline, work).await;
        self.latency.observe(began.elapsed().as_secs_f64());
        outcome
    }
}

async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, DatabaseError> {
    match tokio::time::timeout(deadline, work).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(DatabaseError::Late(deadline.as_millis())),
    }
}

/// Counts and numbers are never negative, and PostgreSQL has no unsigned integers.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
