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

use arc_swap::ArcSwap;
use tokio::sync::Notify;

pub use watch::{Watch, WatchError};

use crate::store::postgres::Installation;

/// A gateway that names a version so far above the highest one drawn is not believed: no restore
/// loses as many, and the sequence of versions has an end.
const IMPLAUSIBLE: i64 = 1 << 40;

/// The installation and lineage that this process goes by.
#[derive(Debug)]
pub struct Lineage {
    current: ArcSwap<Installation>,
    /// The highest version that the database was last known to have drawn.
    drawn: AtomicI64,
    /// The highest version above it that a gateway of the current lineage has seen.
    seen_by_gateways: Mutex<i64>,
    /// Wakes the watch.
    suspicion: Notify,
}

impl Lineage {
    /// The lineage of a database.
    #[must_use]
    pub fn new(installation: Installation) -> Self {
        Self {
            current: ArcSwap::from_pointee(installation),
            drawn: AtomicI64::new(0),
            seen_by_gateways: Mutex::default(),
            suspicion: Notify::new(),
        }
    }

    /// The installation's id and the lineage, from memory.
    #[must_use]
    pub fn current(&self) -> Arc<Installation> {
        self.current.load_full()
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
        if version <= drawn || version - drawn > IMPLAUSIBLE || self.current.load().lineage != lineage {
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

    /// Goes by what the database says from now on.
    pub(crate) fn adopt(&self, installation: Installation) {
        if **self.current.load() == installation {
            return;
        }
        tracing::warn!(
            installation = installation.id,
            lineage = installation.lineage,
            "the database has another lineage: gateways drop what they hold of the earlier one"
        );
        let mut seen = self.seen_by_gateways.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = 0;
        self.current.store(Arc::new(installation));
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
        lineage.adopt(installation("b"));
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
