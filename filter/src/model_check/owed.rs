//! Credits as they must be kept.

/// What the filter owes to know of its credits, counted from outside and to the millisecond.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Owed {
    /// Lost with a VM, or pending where no sync tells: kept until.
    pub(super) leaked: Vec<i64>,
    /// Of failures: kept until.
    pub(super) held: Vec<i64>,
    /// Of pending requests.
    pub(super) pending: Vec<Pending>,
}

/// A pending request's credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Pending {
    /// The first sync that was sent since.
    pub(super) asked: Option<u64>,
    /// Kept until then if no sync is answered.
    pub(super) until_ms: i64,
}

impl Owed {
    pub(super) fn count(&self, now_ms: i64) -> usize {
        let kept = |until_ms: &&i64| **until_ms > now_ms;
        self.leaked.iter().filter(kept).count()
            + self.held.iter().filter(kept).count()
            + self.pending.iter().filter(|pending| pending.until_ms > now_ms).count()
    }

    /// A sync is answered: what was pending before it was sent is in its numbers.
    pub(super) fn is_told(&mut self, number: u64) {
        self.pending.retain(|pending| pending.asked.is_none_or(|asked| asked > number));
    }

    /// Counts the numbers of syncs from the newest one.
    pub(super) fn count_from(&mut self, newest: u64) {
        for pending in &mut self.pending {
            pending.asked = pending.asked.map(|asked| newest - asked);
        }
        self.pending.sort_unstable();
    }

    pub(super) fn forget(&mut self, now_ms: i64) {
        self.leaked.retain(|until_ms| *until_ms > now_ms);
        self.held.retain(|until_ms| *until_ms > now_ms);
        self.pending.retain(|pending| pending.until_ms > now_ms);
        self.leaked.sort_unstable();
        self.held.sort_unstable();
        self.pending.sort_unstable();
    }
}
