//! Credits as they must be kept.

/// What the filter owes to know of its credits, counted from outside and to the millisecond.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Owed {
    /// Lost with a VM, or pending where no sync tells: kept until.
    pub(super) leaked: Vec<i64>,
    /// Of failures: kept until.
    pub(super) held: Vec<i64>,
    /// Of pending requests; whether a sync has been sent since.
    pub(super) pending: Vec<bool>,
}

impl Owed {
    pub(super) fn count(&self, now_ms: i64) -> usize {
        let kept = |until_ms: &&i64| **until_ms > now_ms;
        self.leaked.iter().filter(kept).count() + self.held.iter().filter(kept).count() + self.pending.len()
    }

    /// A sync is answered: what was pending before it was sent is in its numbers.
    pub(super) fn is_told(&mut self) {
        self.pending.retain(|asked| !*asked);
    }

    pub(super) fn forget(&mut self, now_ms: i64) {
        self.leaked.retain(|until_ms| *until_ms > now_ms);
        self.held.retain(|until_ms| *until_ms > now_ms);
        self.leaked.sort_unstable();
        self.held.sort_unstable();
        self.pending.sort_unstable();
    }
}
