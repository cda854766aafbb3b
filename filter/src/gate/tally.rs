//! Counts of decisions, kept in the worker and flushed by the tick: a refusal pays for no hostcall to be counted.

use doorbuster_domain::refusal::Refusal;

/// Decisions about one campaign since the last flush.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Requests that went to the origin.
    pub(super) admitted: u64,
    refused: Vec<(Refusal, u64)>,
}

impl Tally {
    /// Counts a refusal.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        match self.refused.iter_mut().find(|(known, _)| *known == refusal) {
            Some((_, count)) => *count += 1,
            None => self.refused.push((refusal, 1)),
        }
    }

    /// Takes each count that is not zero, and starts again.
    pub(super) fn drain(&mut self) -> Vec<(&'static str, u64)> {
        let admitted = std::mem::take(&mut self.admitted);
        let refused = self.refused.iter_mut().map(|(refusal, count)| (refusal.code(), std::mem::take(count)));
        std::iter::once(("admitted", admitted)).chain(refused).filter(|(_, count)| *count > 0).collect()
    }
}
