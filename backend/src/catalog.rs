//! All campaigns, in memory: kept fresh by PostgreSQL's notifications, and by polling behind them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use doorbuster_domain::id::CampaignId;
use doorbuster_domain::refusal::Refusal;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::campaign::{Campaign, Stored, Unreadable};
use crate::lineage::Lineage;
use crate::store::postgres::{DatabaseError, Postgres};

/// Every other backend acts by a change within a second, also when its notification is lost.
const POLL: Duration = Duration::from_millis(500);

/// Beyond this age a snapshot cannot say that a campaign does not exist.
const STALE: Duration = Duration::from_secs(5);

/// After a listener broke, the pause before the next.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// A campaign that cannot be read is logged again after so long.
const LOG_AGAIN: Duration = Duration::from_secs(600);

/// Every campaign there was at a moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// By id. The same map for as long as nothing changes.
    pub campaigns: Arc<HashMap<CampaignId, Arc<Campaign>>>,
    /// Those that this release cannot read, by id.
    pub unreadable: Arc<HashMap<String, Arc<Unreadable>>>,
    taken: Option<Instant>,
}

impl Snapshot {
    /// Whether a campaign that is not in it may be said not to exist.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.taken.is_some_and(|taken| taken.elapsed() < STALE)
    }

    /// Whether it has every campaign there is.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_fresh() && self.unreadable.is_empty()
    }

    /// The refusal of a request for a campaign that this process cannot serve.
    #[must_use]
    pub fn absence(&self, id: &CampaignId) -> Refusal {
        let is_known_not_to_be = self.is_fresh() && !self.unreadable.contains_key(id.as_str());
        if is_known_not_to_be { Refusal::UnknownCampaign } else { Refusal::Unavailable }
    }

    fn has(&self, id: &str, version: i64) -> bool {
        self.campaigns.get(id).is_some_and(|held| held.version == version)
            || self.unreadable.get(id).is_some_and(|held| held.version == version)
    }

    /// A map in which nothing changes stays the same.
    fn remove(&mut self, id: &str) {
        if self.campaigns.contains_key(id) {
            Arc::make_mut(&mut self.campaigns).remove(id);
        }
        if self.unreadable.contains_key(id) {
            Arc::make_mut(&mut self.unreadable).remove(id);
        }
    }

    fn insert(&mut self, stored: Stored) {
        self.remove(stored.id());
        match stored {
            Stored::Readable(campaign) => {
                Arc::make_mut(&mut self.campaigns).insert(campaign.id.clone(), campaign);
            }
            Stored::Unreadable(campaign) => {
                Arc::make_mut(&mut self.unreadable).insert(campaign.id.clone(), campaign);
            }
        }
    }
}

/// The campaigns, as this process knows them.
#[derive(Debug)]
pub struct Catalog {
    postgres: Postgres,
    lineage: Arc<Lineage>,
    snapshot: ArcSwap<Snapshot>,
    /// Held from before PostgreSQL is asked until the answer is in place: an older answer never replaces a newer one.
    /// When each campaign that cannot be read was logged, with its version.
    writing: Mutex<HashMap<String, (i64, Instant)>>,
    changed: Notify,
}

impl Catalog {
    /// An empty catalog.
    #[must_use]
    pub fn new(postgres: Postgres, lineage: Arc<Lineage>) -> Self {
        Self { postgres, lineage, snapshot: ArcSwap::default(), writing: Mutex::default(), changed: Notify::new() }
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
        let mut logged = self.writing.lock().await;
        self.read().await?;
        self.log_unreadable(&mut logged);
        Ok(())
    }

    /// Takes over a campaign that PostgreSQL is known to hold.
    pub async fn put(&self, stored: Stored) {
        let _writing = self.writing.lock().await;
        // As in `read`. Without an answer, the next refresh does so.
        if let Ok(installation) = self.postgres.installation().await {
            self.lineage.adopt(installation);
        }
        self.replace(None, |snapshot| snapshot.insert(stored));
    }

    /// Forgets a campaign that PostgreSQL is known not to hold any more.
    pub async fn remove(&self, id: &CampaignId) {
        let _writing = self.writing.lock().await;
        self.replace(None, |snapshot| snapshot.remove(id.as_str()));
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
        let wanted: Vec<String> =
            versions.iter().filter(|(id, version)| !known.has(id, **version)).map(|(id, _)| id.clone()).collect();
        let loaded = if wanted.is_empty() { Vec::new() } else { self.postgres.campaigns(&wanted).await? };
        // Asked last and taken over first: no version of a lineage is acted by before the lineage
        // itself.
        self.lineage.adopt(self.postgres.installation().await?);
        let ids = known.campaigns.keys().map(CampaignId::as_str).chain(known.unreadable.keys().map(String::as_str));
        let gone = ids.filter(|id| !versions.contains_key(*id));
        self.replace(Some(asked), |snapshot| {
            gone.for_each(|id| snapshot.remove(id));
            loaded.into_iter().for_each(|stored| snapshot.insert(stored));
        });
        Ok(())
    }

    /// The caller holds `writing`.
    fn replace(&self, taken: Option<Instant>, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        snapshot.taken = taken.or(snapshot.taken);
        change(&mut snapshot);
        self.snapshot.store(Arc::new(snapshot));
    }

    fn log_unreadable(&self, logged: &mut HashMap<String, (i64, Instant)>) {
        let unreadable = Arc::clone(&self.snapshot.load().unreadable);
        logged.retain(|id, (version, at)| {
            at.elapsed() < LOG_AGAIN && unreadable.get(id).is_some_and(|campaign| campaign.version == *version)
        });
        for (id, campaign) in unreadable.iter().filter(|(id, _)| !logged.contains_key(*id)) {
            let Unreadable { version, reason, .. } = campaign.as_ref();
            tracing::error!(campaign = id, version, reason, "a campaign is not served: it cannot be read");
        }
        for (id, campaign) in unreadable.iter() {
            logged.entry(id.clone()).or_insert_with(|| (campaign.version, Instant::now()));
        }
    }
}
