//! Which installation this process serves, and by which lineage of its database.
//!
//! PostgreSQL is authoritative. When it was restored to an earlier moment, or failed over with lost
//! commits, Redis and gateways have seen what does not exist any more. Whoever notices has
//! PostgreSQL draw a new lineage: campaigns get versions above those seen, gateways drop what they
//! hold of the earlier lineage, and [`watch`] takes care that every backend goes by the new one.

pub mod command;
mod watch;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use watch::{Watch, WatchError};

use crate::store::postgres::{DatabaseError, Installation, Postgres};

/// At start the installation is asked for during this time, however often PostgreSQL breaks off.
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// Between two attempts to read it.
const READ_AGAIN: Duration = Duration::from_millis(250);

/// A gateway that names a version so far above the highest one drawn is not believed: no restore
/// loses as many, and the sequence of versions has an end.
const IMPLAUSIBLE: i64 = 1 << 40;

/// Counts the lineages that this process has gone by. What was learnt of the database under an
/// earlier one says nothing about it as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Generation(u64);

#[derive(Debug)]
struct Current {
    installation: Arc<Installation>,
    generation: Generation,
}

/// The installation and lineage that this process goes by.
#[derive(Debug)]
pub struct Lineage {
    current: ArcSwap<Current>,
    /// The highest version that the database was last known to have drawn.
    drawn: AtomicI64,
    /// The highest version above it that a gateway of the current lineage has seen.
    seen_by_gateways: Mutex<i64>,
    /// The lineage under which PostgreSQL was found to have lost something.
    lost: Mutex<Option<String>>,
    /// Wakes the watch.
    suspicion: Notify,
    changes: Counter,
}

impl Lineage {
    /// The lineage of a database.
    #[must_use]
    pub fn new(installation: Installation) -> Self {
        Self {
            current: ArcSwap::from_pointee(Current {
                installation: Arc::new(installation),
                generation: Generation::default(),
            }),
            drawn: AtomicI64::new(0),
            seen_by_gateways: Mutex::default(),
            lost: Mutex::default(),
            suspicion: Notify::new(),
            changes: Counter::default(),
        }
    }

    /// The lineage of a database that was just reachable.
    ///
    /// # Errors
    /// If it does not answer any more.
    pub async fn read(postgres: &Postgres) -> Result<Self, DatabaseError> {
        let until = Instant::now() + READ_DEADLINE;
        loop {
            match postgres.installation().await {
                Ok(installation) => return Ok(Self::new(installation)),
                Err(error) if Instant::now() > until => return Err(error),
                Err(error) => tracing::warn!(%error, "the installation cannot be read yet"),
            }
            tokio::time::sleep(READ_AGAIN).await;
        }
    }

    /// The installation's id and the lineage, from memory. Whoever tells others of it together with
    /// counts asks for it first: counts of a later lineage do no harm under an earlier one.
    #[must_use]
    pub fn current(&self) -> Arc<Installation> {
        Arc::clone(&self.current.load().installation)
    }

    /// How many lineages this process has gone by before the current one.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.current.load().generation
    }

    /// How often the lineage has changed since the start.
    #[must_use]
    pub fn changes(&self) -> &Counter {
        &self.changes
    }

    /// Takes note of what a gateway has seen: the lineage that it goes by, and the highest version
    /// of a campaign under that lineage. From memory, so it may be called for every sync. Where it
    /// turns out that the database never drew that version, a new lineage is drawn within a second
    /// or two, and [`Lineage::current`] returns it from then on.
    ///
    /// What a gateway reports of another lineage changes nothing: the answer to its sync names the
    /// current one, for which it drops everything.
    pub fn observe_edge(&self, lineage: &str, highest_version: u64) {
        let drawn = self.drawn.load(Ordering::Relaxed);
        let Ok(version) = i64::try_from(highest_version) else { return };
        // Mostly not above: then nothing more is looked at.
        if version <= drawn || version - drawn > IMPLAUSIBLE || self.current.load().installation.lineage != lineage {
            return;
        }
        let mut seen = self.seen_by_gateways.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = version.max(*seen);
        self.suspicion.notify_one();
    }

    /// The highest version that a gateway of the current lineage has seen, if it is above the one
    /// drawn.
    fn seen_above(&self, drawn: i64) -> Option<i64> {
        self.drawn.store(drawn, Ordering::Relaxed);
        let seen = *self.seen_by_gateways.lock().unwrap_or_else(PoisonError::into_inner);
        (seen > drawn).then_some(seen)
    }

    /// Reports that PostgreSQL lacks what it was known to have under this lineage. The watch draws
    /// another one at once.
    pub fn report_loss(&self, lineage: &str) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(lineage.to_owned());
        self.suspicion.notify_one();
    }

    /// The lineage that [`Lineage::report_loss`] named last.
    fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes by what the database says from now on.
    pub(crate) fn adopt(&self, installation: Installation) {
        // Held while the lineage is exchanged, so that two that adopt count one after the other.
        let mut seen = self.seen_by_gateways.lock().unwrap_or_else(PoisonError::into_inner);
        let Current { installation: known, generation: Generation(generation) } = &**self.current.load();
        if **known == installation {
            return;
        }
        tracing::warn!(
            installation = installation.id,
            lineage = installation.lineage,
            former = known.lineage,
            "the database has another lineage: what was learnt under the earlier one is dropped"
        );
        *seen = 0;
        self.changes.inc();
        let generation = Generation(generation + 1);
        self.current.store(Arc::new(Current { installation: Arc::new(installation), generation }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(lineage: &str) -> Installation {
        Installation { id: "i".to_owned(), lineage: lineage.to_owned() }
    }

    #[test]
    fn only_gateways_of_the_current_lineage_are_believed() {
        let lineage = Lineage::new(installation("a"));
        lineage.observe_edge("b", 90);
        assert_eq!(lineage.seen_above(10), None);
        lineage.observe_edge("a", 90);
        lineage.observe_edge("a", 80);
        assert_eq!((lineage.seen_above(89), lineage.seen_above(90)), (Some(90), None));
        let before = lineage.generation();
        lineage.adopt(installation("b"));
        assert_ne!(lineage.generation(), before);
        assert_eq!((lineage.current().lineage.as_str(), lineage.seen_above(10)), ("b", None));
    }

    #[test]
    fn a_gateway_cannot_use_up_the_versions() {
        let lineage = Lineage::new(installation("a"));
        lineage.observe_edge("a", u64::MAX);
        lineage.observe_edge("a", i64::MAX.unsigned_abs());
        assert_eq!(lineage.seen_above(10), None);
        lineage.observe_edge("a", 90);
        assert_eq!(lineage.seen_above(10), Some(90));
    }
}
