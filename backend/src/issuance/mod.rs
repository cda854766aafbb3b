//! Issuing: reserve in Redis, commit in PostgreSQL, then say yes; settle in Redis behind the reply.

mod comparison;
mod conflicts;
mod counts;
mod hydration;
mod lanes;
mod progress;
mod rebuild;
mod request;
mod retry;
mod standing;
mod sweeper;

use std::sync::Arc;
use std::time::Duration;

use doorbuster_domain::id::{CampaignId, RoundId};
use tokio::sync::{Mutex, OwnedSemaphorePermit};
use tokio_util::task::TaskTracker;

pub use rebuild::RebuildError;
pub use request::{Answer, Reply};
pub use retry::Retried;
pub use standing::StandingError;

use crate::agenda::Agenda;
use crate::catalog::Catalog;
use crate::changes::Changes;
use crate::lineage::Lineage;
use crate::store::postgres::Postgres;
use crate::store::redis::{Clock, Redis};
use crate::telemetry::Metrics;
use counts::Counts;
use hydration::Hydrations;
use lanes::Lanes;
use progress::Progress;

/// One round of one campaign.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoundKey {
    /// The campaign.
    pub campaign: CampaignId,
    /// Its round.
    pub round: RoundId,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// A request's wait for its commit, or for a cold round.
    pub commit: Duration,
    /// Age at which a pending reservation is taken for abandoned.
    pub sweep_after: Duration,
}

/// A place among the requests served at once. Everything that works for a request holds a copy; it is free again when the
/// last of them is dropped.
#[derive(Debug, Clone)]
pub struct Place(#[expect(dead_code, reason = "held, never looked at")] Arc<OwnedSemaphorePermit>);

impl Place {
    /// Wraps what was taken from the bound.
    #[must_use]
    pub fn new(permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(permit))
    }
}

/// Everything that issuing needs. Holds no state that could not be lost.
#[derive(Debug)]
pub struct Issuance {
    redis: Arc<Redis>,
    postgres: Postgres,
    clock: Arc<Clock>,
    catalog: Arc<Catalog>,
    lineage: Arc<Lineage>,
    agenda: Agenda,
    changes: Arc<Changes>,
    metrics: Arc<Metrics>,
    deadlines: Deadlines,
    counts: Arc<Counts>,
    progress: Arc<Progress>,
    /// Held while what Redis and PostgreSQL say of a round is compared for a request.
    comparing: Mutex<()>,
    lanes: Arc<Lanes>,
    hydrations: Arc<Hydrations>,
    tasks: TaskTracker,
}

/// What [`Issuance`] works with.
#[derive(Debug)]
pub struct Parts {
    /// Redis.
    pub redis: Arc<Redis>,
    /// PostgreSQL.
    pub postgres: Postgres,
    /// Redis's clock.
    pub clock: Arc<Clock>,
    /// The campaigns.
    pub catalog: Arc<Catalog>,
    /// The lineage of the database.
    pub lineage: Arc<Lineage>,
    /// For repairs.
    pub changes: Arc<Changes>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How long things may take.
    pub deadlines: Deadlines,
    /// Keeps the process alive until commits under way are settled.
    pub tasks: TaskTracker,
}

impl Issuance {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { redis, postgres, clock, catalog, lineage, changes, metrics, deadlines, tasks } = parts;
        let progress = Arc::new(Progress::new(Arc::clone(&lineage)));
        let counts = Arc::new(Counts::new(Arc::clone(&redis), Arc::clone(&lineage)));
        let lanes = Lanes::new(
            postgres.clone(),
            Arc::clone(&redis),
            Arc::clone(&lineage),
            Arc::clone(&progress),
            Arc::clone(&counts),
            Arc::clone(&metrics),
            tasks.clone(),
        );
        let hydrations = Hydrations::new(postgres.clone(), Arc::clone(&redis), Arc::clone(&metrics), tasks.clone());
        Self {
            redis,
            postgres,
            clock,
            agenda: Agenda::new(Arc::clone(&catalog)),
            catalog,
            lineage,
            changes,
            metrics,
            deadlines,
            counts,
            progress,
            comparing: Mutex::new(()),
            lanes: Arc::new(lanes),
            hydrations: Arc::new(hydrations),
            tasks,
        }
    }
}
