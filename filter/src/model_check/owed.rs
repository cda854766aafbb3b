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
    /// Whether a sync has been sent since.
    pub(super) asked: bool,
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
    pub(super) fn is_told(&mut self) {
        self.pending.retain(|pending| !pending.asked);
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
