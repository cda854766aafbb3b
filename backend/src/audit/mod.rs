//! The audit of a round: whether what PostgreSQL, Redis, the gateways and the clients know fits together.
//!
//! [`judge`] is a pure function over what was read. A round may be at work while it is read, piece by piece: what is
//! wrong only because of that is gone at the next look, so only what several looks agree on is a defect.

mod command;
mod defect;
mod judge;
mod seen;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use doorbuster_domain::id::{CampaignId, RoundId};
use serde::Serialize;

pub use command::{Arguments, run};
pub use defect::Defect;
pub use judge::judge;
pub use seen::{Sighting, read_sightings};

use crate::campaign::Stored;
use crate::store::postgres::{DatabaseError, Ledger, Postgres};
use crate::store::redis::{Clock, Places, Redis, RedisError};

/// Looks before something is called a defect, and the pause between them.
const LOOKS: usize = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// One side does not answer.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// PostgreSQL.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Redis.
    #[error(transparent)]
    Redis(#[from] RedisError),
}

/// Everything that is known of a round.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    /// The round's quota; none: no limit.
    pub quota: Option<u64>,
    /// What PostgreSQL holds.
    pub ledger: Ledger,
    /// Issuances given up for good, with their cause.
    pub failed: u64,
    /// What Redis holds; none if it does not know the round.
    pub places: Option<Places>,
    /// Redis's clock, Unix milliseconds.
    pub now_ms: i64,
    /// What gateways have told: requests `admitted`, or refused with a code.
    pub edge: BTreeMap<String, u64>,
    /// What clients were told.
    pub seen: Vec<Sighting>,
}

/// What an audit says of a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The round's quota; null: no limit.
    pub quota: Option<u64>,
    /// What adds up.
    pub sums: Sums,
    /// What nobody can know any more, as sentences.
    pub unknown: Vec<String>,
    /// What is wrong.
    pub defects: Vec<Defect>,
}

/// Where each admitted request went, and each number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Sums {
    /// Requests that gateways have told of.
    pub requests: u64,
    /// Of these, refused by the gateways, by code.
    pub refused_by_gateways: BTreeMap<String, u64>,
    /// Of these, admitted.
    pub admitted: u64,
    /// Coupons in PostgreSQL.
    pub issued: u64,
    /// Issuances given up for good.
    pub failed: u64,
    /// Places held in Redis without a row; null where Redis does not know the round.
    pub pending: Option<u64>,
    /// Admitted requests that became none of these: refused by the backend (a second request of one user is), or
    /// without an answer. Null where fewer admissions were told than there must have been.
    pub refused_or_lost: Option<u64>,
    /// Users whose coupon Redis has as committed; null where Redis does not know the round.
    pub committed_in_redis: Option<u64>,
    /// Of the rows, those that Redis still has as pending.
    pub unsettled: u64,
    /// The highest number given so far.
    pub highest_number: u64,
    /// Numbers given back, for the next users.
    pub free: u64,
    /// Coupons that clients were told of.
    pub seen: u64,
}

/// Audits a round.
///
/// # Errors
/// If PostgreSQL or Redis does not answer.
pub async fn audit(
    postgres: &Postgres,
    redis: &Redis,
    campaign: &CampaignId,
    round: RoundId,
    seen: Vec<Sighting>,
) -> Result<Report, AuditError> {
    let mut evidence = Evidence { seen, ..Evidence::default() };
    read(postgres, redis, campaign, round, &mut evidence).await?;
    let mut report = judge(&evidence);
    for _ in 1..LOOKS {
        if report.defects.is_empty() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        read(postgres, redis, campaign, round, &mut evidence).await?;
        let mut again = judge(&evidence);
        again.defects.retain(|defect| report.defects.contains(defect));
        report = again;
    }
    Ok(report)
}

async fn read(
    postgres: &Postgres,
    redis: &Redis,
    campaign: &CampaignId,
    round: RoundId,
    evidence: &mut Evidence,
) -> Result<(), AuditError> {
    evidence.quota = match postgres.past_round(campaign, round).await? {
        Some(past) => past.quota,
        None => {
            let stored = postgres.campaign(campaign).await?;
            stored.as_ref().and_then(Stored::readable).and_then(|campaign| campaign.spec.quota)
        }
    };
    evidence.places = redis.places(campaign, round).await?;
    evidence.ledger = postgres.ledger(campaign, round).await?;
    evidence.failed = postgres.failed(campaign, round).await?;
    evidence.now_ms = Clock::default().sample(redis).await?.now_ms;
    // Gateways tell of an admission after it has happened: read last, they have had the most time.
    evidence.edge = redis.edge_totals(campaign, round).await?;
    Ok(())
}
