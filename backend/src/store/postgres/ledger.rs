//! What PostgreSQL holds of a round, for an audit.

use doorbuster_domain::id::{CampaignId, RoundId};
use sqlx::{Executor, FromRow};

use super::{DatabaseError, Postgres, unsigned};

/// Rows read at a time: each page is well within one statement's deadline.
const PAGE: i64 = 5_000;

/// A coupon's row as it is written, not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Row {
    /// Whose it is.
    #[sqlx(rename = "user_id")]
    pub user: String,
    /// The order of reservation.
    pub number: i64,
    /// Its code.
    pub code: String,
}

/// A round's rows, all read at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    /// The coupons, by number.
    pub coupons: Vec<Row>,
    /// How many there are as the round's row has it; none without such a row.
    pub counted: Option<u64>,
    /// The largest quota the round has had; none without a row, or where there once was no limit.
    pub largest_quota: Option<u64>,
}

impl Postgres {
    /// A round's rows.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn ledger(&self, campaign: &CampaignId, round: RoundId) -> Result<Ledger, DatabaseError> {
        let mut connection = self.within(self.pool.acquire()).await?;
        // One snapshot for all that follows: counts and rows fit each other, however busy the round is.
        self.within(connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")).await?;
        let counts: Option<(i64, i64)> = self
            .within(
                sqlx::query_as("SELECT issued, max_number FROM rounds WHERE campaign = $1 AND round = $2")
                    .bind(campaign.as_str())
                    .bind(round.0)
                    .fetch_optional(&mut *connection),
            )
            .await?;
        let mut coupons: Vec<Row> = Vec::new();
        loop {
            let (number, code) = coupons.last().map_or((i64::MIN, ""), |row| (row.number, row.code.as_str()));
            let page: Vec<Row> = self
                .within(
                    sqlx::query_as(
                        "SELECT user_id, number, code FROM issued_coupons
                          WHERE campaign = $1 AND round = $2 AND number >= $3 AND (number, code) > ($3, $4)
                          ORDER BY number, code LIMIT $5",
                    )
                    .bind(campaign.as_str())
                    .bind(round.0)
                    .bind(number)
                    .bind(code)
                    .bind(PAGE)
                    .fetch_all(&mut *connection),
                )
                .await?;
            if page.is_empty() {
                break;
            }
            coupons.extend(page);
        }
        self.within(connection.execute("COMMIT")).await?;
        Ok(Ledger {
            coupons,
            counted: counts.map(|(issued, _)| unsigned(issued)),
            largest_quota: counts.filter(|(_, largest)| *largest < i64::MAX).map(|(_, largest)| unsigned(largest)),
        })
    }
}
