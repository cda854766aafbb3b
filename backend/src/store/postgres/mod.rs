//! The only SQL.

mod audit_log;
mod campaigns;
mod coupons;
mod failures;
mod fault;
mod history;
mod installation;
mod ledger;
mod outbox;
mod redemptions;
mod rounds;
mod schema;
mod session;
mod sinks;
mod vendors;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode};
use tokio::time::Instant;

use crate::telemetry::STORE_SECONDS;

pub use audit_log::{Entry, Record};
pub use campaigns::{CampaignRow, Change, Deleted};
pub use coupons::{Commit, Coupon, Cursor, Outcome, Reservation};
pub use failures::{Failure, FailureFilter};
pub use fault::{DatabaseError, Fault};
pub use history::PastRound;
pub use installation::{Installation, Standing};
pub use ledger::{Ledger, Row};
pub use outbox::{Due, FailedDelivery, Fresh, Outbox, Settlement};
pub use redemptions::{Life, LockedCoupon, Redemption, Voiding};
pub use rounds::{Mark, Opened, RecentRound};
pub use schema::SchemaError;
pub use sinks::{Backlog, DeadLetter};
pub use vendors::{LedgerEntry, LockedVendor, Payout, Vendor};

/// What backends are called in `pg_stat_activity`.
const APPLICATION_NAME: &str = "doorbuster";

/// A transaction that nobody continues holds locks; PostgreSQL ends it after this.
const IDLE_IN_TRANSACTION: &str = "5s";

/// The connections to PostgreSQL.
#[derive(Debug, Clone)]
pub struct Postgres {
    pool: PgPool,
    address: Arc<str>,
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
        let options = options.application_name(APPLICATION_NAME).options([
            ("statement_timeout", deadline.as_millis().to_string().as_str()),
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION),
        ]);
        let (host, port) = (options.get_host(), options.get_port());
        let address = format!("{host}:{port}/{}", options.get_database().unwrap_or_default()).into();
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(deadline)
            .after_connect(|connection, _| Box::pin(session::prepare(connection)))
            .connect_lazy_with(options);
        Ok(Self { pool, address, deadline, latency: Histogram::new(STORE_SECONDS) })
    }

    /// Where the database is, for people: host, port and name.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
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
