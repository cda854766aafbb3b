//! One pass over a sink's events: what is to be sent in which order, and what is to be written down afterwards. Pure.

use std::collections::HashMap;

use super::pace::Tally;
use super::sink::Undelivered;
use crate::store::postgres::{Due, FailedDelivery, Fresh, Settlement};

/// The one type whose data is not in the outbox but in the coupons.
const COUPON_ISSUED: &str = "coupon.issued";

/// What came of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The sink has it.
    Sent,
    /// The sink did not say that it has it.
    Failed(Undelivered),
    /// An earlier event of its subject stands in its way.
    Behind,
    /// The pass ended before its turn.
    NotTried,
}

/// Parked events whose time has come, and new ones. The places of the latter follow those of the former.
#[derive(Debug, Default)]
pub(super) struct Pass {
    due: Vec<Due>,
    fresh: Vec<Fresh>,
}

impl Pass {
    pub(super) fn new(due: Vec<Due>, fresh: Vec<Fresh>) -> Self {
        Self { due, fresh }
    }

    /// The events at these places.
    pub(super) fn event(&self, place: usize) -> Option<&super::Event> {
        match self.due.get(place) {
            Some(due) => Some(&due.event),
            None => self.fresh.get(place.checked_sub(self.due.len())?).map(|fresh| &fresh.event),
        }
    }

    /// The type of the first new event that this release cannot send: one of a later release, whose
    /// data has to be looked up in a way that only that release knows.
    pub(super) fn unknown(&self) -> Option<&str> {
        self.fresh.iter().find(|fresh| is_unknown(fresh)).map(|fresh| fresh.event.kind.as_str())
    }

    /// Places to send, each chain one after another and different chains at once: of a subject there is one event under
    /// way at a time.
    pub(super) fn chains(&self) -> Vec<Vec<usize>> {
        let mut chains: Vec<Vec<usize>> = (0..self.due.len()).map(|place| vec![place]).collect();
        let mut of_subject = HashMap::new();
        for (place, fresh) in (self.due.len()..).zip(&self.fresh) {
            if fresh.behind || fresh.event.data.is_null() {
                continue;
            }
            let chain = *of_subject.entry(fresh.event.subject.as_str()).or_insert_with(|| {
                chains.push(Vec::new());
                chains.len() - 1
            });
            if let Some(chain) = chains.get_mut(chain) {
                chain.push(place);
            }
        }
        chains
    }

    /// What to write down, given what came of each place in a chain. `failure`: what follows from so many failed attempts.
    pub(super) fn settle(
        self,
        mut outcomes: HashMap<usize, Outcome>,
        mut failure: impl FnMut(Undelivered, u32) -> FailedDelivery,
    ) -> (Settlement, Tally) {
        let mut settlement = Settlement::default();
        let mut tally = Tally::default();
        for outcome in outcomes.values() {
            match outcome {
                Outcome::Sent => tally.sent += 1,
                Outcome::Failed(_) => tally.failed += 1,
                Outcome::Behind => {}
                Outcome::NotTried => tally.more = true,
            }
        }
        let first_fresh = self.due.len();
        for (place, due) in self.due.into_iter().enumerate() {
            match outcomes.remove(&place) {
                Some(Outcome::Sent) => {
                    settlement.delivered.push(due.id);
                    settlement.touched.push(due.event.subject);
                }
                Some(Outcome::Failed(error)) => settlement.failed.push((due.id, failure(error, due.attempts + 1))),
                Some(Outcome::Behind | Outcome::NotTried) | None => {}
            }
        }
        for (place, fresh) in (first_fresh..).zip(self.fresh) {
            let outcome = match outcomes.remove(&place) {
                Some(outcome) => outcome,
                None if is_unknown(&fresh) => Outcome::NotTried,
                None if fresh.behind => Outcome::Behind,
                // A coupon that was deleted by hand leaves nothing to tell.
                None => Outcome::Sent,
            };
            match outcome {
                Outcome::Sent => {}
                Outcome::Failed(error) => settlement.parked.push((fresh.event, Some(failure(error, 1)))),
                Outcome::Behind => {
                    settlement.touched.push(fresh.event.subject.clone());
                    settlement.parked.push((fresh.event, None));
                }
                // The outbox has no holes: what comes after it stays too, and what of that was sent is sent again.
                Outcome::NotTried => break,
            }
            settlement.begun = (fresh.place < fresh.size).then_some((fresh.row, fresh.place));
            if settlement.begun.is_none() {
                settlement.emptied.push(fresh.row);
            }
        }
        (settlement, tally)
    }
}

fn is_unknown(fresh: &Fresh) -> bool {
    fresh.event.data.is_null() && fresh.event.kind != COUPON_ISSUED
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::super::Event;
    use super::*;

    fn event(subject: &str, data: Value) -> Event {
        Event { id: format!("x-{subject}"), kind: "x".into(), subject: subject.into(), time: Default::default(), data }
    }

    fn fresh(row: i64, place: i64, size: i64, subject: &str) -> Fresh {
        Fresh { row, place, size, event: event(subject, json!({})), behind: false }
    }

    fn settle(pass: Pass, outcomes: &[(usize, Outcome)]) -> (Settlement, Tally) {
        let failure = |error: Undelivered, failed: u32| FailedDelivery {
            error: error.to_string(),
            wait: (failed < 3).then_some(Duration::from_secs(failed.into())),
        };
        pass.settle(outcomes.iter().cloned().collect(), failure)
    }

    fn failed() -> Outcome {
        Outcome::Failed(Undelivered::new("no"))
    }

    #[test]
    fn events_of_a_subject_are_sent_one_after_another() {
        let due = Due { id: 9, attempts: 1, event: event("z", json!({})) };
        let mut waiting = fresh(3, 1, 1, "z");
        waiting.behind = true;
        let pass = Pass::new(vec![due], vec![fresh(1, 1, 2, "a"), fresh(1, 2, 2, "b"), fresh(2, 1, 1, "a"), waiting]);
        assert_eq!(pass.chains(), [vec![0], vec![1, 3], vec![2]]);
        assert_eq!(pass.event(3).map(|event| event.subject.as_str()), Some("a"));

        let outcomes = [(0, Outcome::Sent), (1, failed()), (2, Outcome::Sent), (3, Outcome::Behind)];
        let (settlement, tally) = settle(pass, &outcomes);
        assert_eq!(
            (settlement.delivered.as_slice(), settlement.emptied.as_slice()),
            ([9].as_slice(), [1, 2, 3].as_slice())
        );
        let parked: Vec<_> =
            settlement.parked.iter().map(|(event, failure)| (event.subject.as_str(), failure.is_some())).collect();
        assert_eq!(parked, [("a", true), ("a", false), ("z", false)]);
        assert_eq!(settlement.touched, ["z", "a", "z"]);
        assert_eq!(tally, Tally { sent: 2, failed: 1, more: false });
    }

    #[test]
    fn what_was_not_tried_stays_and_all_that_follows_it() {
        let pass = || Pass::new(Vec::new(), (1..=4).map(|n| fresh(7, n, 9, &n.to_string())).collect());
        let outcomes = [(0, Outcome::Sent), (1, failed()), (2, Outcome::NotTried), (3, failed())];
        let (settlement, tally) = settle(pass(), &outcomes);
        assert_eq!((settlement.begun, settlement.emptied.len(), settlement.parked.len()), (Some((7, 2)), 0, 1));
        assert_eq!(tally, Tally { sent: 1, failed: 2, more: true });
        let (settlement, _) = settle(pass(), &[(0, Outcome::NotTried), (1, Outcome::Sent)]);
        assert_eq!((settlement.begun, settlement.emptied.len()), (None, 0));
    }

    #[test]
    fn the_last_attempt_makes_a_dead_letter() {
        let due = |attempts| Due { id: 9, attempts, event: event("z", json!({})) };
        for (attempts, wait) in [(1, Some(Duration::from_secs(2))), (2, None)] {
            let (settlement, _) = settle(Pass::new(vec![due(attempts)], Vec::new()), &[(0, failed())]);
            assert_eq!(settlement.failed, [(9, FailedDelivery { error: "no".into(), wait })]);
        }
    }

    #[test]
    fn an_event_of_a_coupon_that_is_gone_holds_nothing_up() {
        let mut gone = Fresh { event: event("a", Value::Null), ..fresh(1, 1, 1, "a") };
        gone.event.kind = COUPON_ISSUED.into();
        let pass = Pass::new(Vec::new(), vec![gone]);
        assert!(pass.chains().is_empty() && pass.unknown().is_none());
        assert_eq!(settle(pass, &[]).0.emptied, [1]);
    }

    #[test]
    fn an_event_that_only_a_later_release_can_send_is_kept_for_it() {
        let later = Fresh { event: event("b", Value::Null), ..fresh(2, 1, 1, "b") };
        let pass = Pass::new(Vec::new(), vec![fresh(1, 1, 1, "a"), later, fresh(3, 1, 1, "c")]);
        assert_eq!((pass.chains(), pass.unknown()), (vec![vec![0], vec![2]], Some("x")));
        let (settlement, _) = settle(pass, &[(0, Outcome::Sent), (2, Outcome::Sent)]);
        assert_eq!((settlement.emptied, settlement.begun), (vec![1], None));
    }
}
