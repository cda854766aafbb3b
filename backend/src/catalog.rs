//! All campaigns, in memory: kept fresh by PostgreSQL's notifications, and by polling behind them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use doorbuster_domain::id::CampaignId;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::campaign::Campaign;
use crate::lineage::Lineage;
use crate::store::postgres::{DatabaseError, Postgres};

/// Every other backend acts by a change within a second, also when its notification is lost.
const POLL: Duration = Duration::from_millis(500);

/// Beyond this age a snapshot cannot say that a campaign does not exist.
const STALE: Duration = Duration::from_secs(5);

/// After a listener broke, the pause before the next.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Every campaign there was at a moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// By id. The same map for as long as nothing changes.
    pub campaigns: Arc<HashMap<CampaignId, Arc<Campaign>>>,
    taken: Option<Instant>,
}

impl Snapshot {
    /// Whether a campaign that is not in it may be said not to exist.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.taken.is_some_and(|taken| taken.elapsed() < STALE)
    }
}

/// The campaigns, as this process knows them.
#[derive(Debug)]
pub struct Catalog {
    postgres: Postgres,
    lineage: Arc<Lineage>,
    snapshot: ArcSwap<Snapshot>,
    /// Held from before PostgreSQL is asked until the answer is in place: an older answer never replaces a newer one.
    writing: Mutex<()>,
    changed: Notify,
}

impl Catalog {
    /// An empty catalog.
    #[must_use]
    pub fn new(postgres: Postgres, lineage: Arc<Lineage>) -> Self {
        Self { postgres, lineage, snapshot: ArcSwap::default(), writing: Mutex::new(()), changed: Notify::new() }
    }

    /// The campaigns now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// One campaign.
    #[must_use]
    pub fn get(&self, id: &CampaignId) -> Option<Arc<Campaign>> {
        self.snapshot.load().campaigns.get(id).cloned()
    }

    /// Asks PostgreSQL.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn refresh(&self) -> Result<(), DatabaseError> {
        let _writing = self.writing.lock().await;
        self.read().await
    }

    /// Takes over a campaign that PostgreSQL is known to hold.
    pub async fn put(&self, campaign: Arc<Campaign>) {
        let _writing = self.writing.lock().await;
        self.replace(None, |campaigns| {
            campaigns.insert(campaign.id.clone(), campaign);
        });
    }

    /// Forgets a campaign that PostgreSQL is known not to hold any more.
    pub async fn remove(&self, id: &CampaignId) {
        let _writing = self.writing.lock().await;
        self.replace(None, |campaigns| {
            campaigns.remove(id);
        });
    }

    /// Keeps the catalog fresh until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let listening = stop.run_until_cancelled(self.listen());
        let polling = stop.run_until_cancelled(async {
            loop {
                let _ = tokio::time::timeout(POLL, self.changed.notified()).await;
                if let Err(error) = self.refresh().await {
                    tracing::warn!(%error, "campaigns cannot be refreshed");
                }
            }
        });
        tokio::join!(listening, polling);
    }

    async fn listen(&self) {
        loop {
            match self.postgres.listen().await {
                Ok(mut listener) => {
                    while listener.recv().await.is_ok() {
                        self.changed.notify_one();
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot listen for changed campaigns; polling goes on"),
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    async fn read(&self) -> Result<(), DatabaseError> {
        let asked = Instant::now();
        let versions = self.postgres.campaign_versions().await?;
        let known = self.snapshot.load_full();
        let is_known = |id: &str, version: i64| known.campaigns.get(id).is_some_and(|held| held.version == version);
        let wanted: Vec<String> =
            versions.iter().filter(|(id, version)| !is_known(id, **version)).map(|(id, _)| id.clone()).collect();
        let loaded = if wanted.is_empty() { Vec::new() } else { self.postgres.campaigns(&wanted).await? };
        // Asked last and taken over first: no version of a lineage is acted by before the lineage
        // itself.
        self.lineage.adopt(self.postgres.installation().await?);
        if loaded.is_empty() && known.campaigns.keys().all(|id| versions.contains_key(id.as_str())) {
            let campaigns = Arc::clone(&known.campaigns);
            self.snapshot.store(Arc::new(Snapshot { campaigns, taken: Some(asked) }));
            return Ok(());
        }
        self.replace(Some(asked), |campaigns| {
            campaigns.retain(|id, _| versions.contains_key(id.as_str()));
            campaigns.extend(loaded.into_iter().map(|campaign| (campaign.id.clone(), Arc::new(campaign))));
        });
        Ok(())
    }

    /// The caller holds `writing`.
    fn replace(&self, taken: Option<Instant>, change: impl FnOnce(&mut HashMap<CampaignId, Arc<Campaign>>)) {
        let known = self.snapshot.load();
        let mut campaigns = HashMap::clone(&known.campaigns);
        change(&mut campaigns);
        let campaigns = Arc::new(campaigns);
        self.snapshot.store(Arc::new(Snapshot { campaigns, taken: taken.or(known.taken) }));
    }
}
