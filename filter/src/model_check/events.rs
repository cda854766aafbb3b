//! What may happen in a state.

use std::collections::BTreeSet;

use super::origin::{Drop, User, open_round};
use super::worker::{Flight, Worker};
use super::world::World;

/// What may happen. Workers and flights by their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Request {
        worker: usize,
        user: User,
        drop: Drop,
    },
    /// The worker's step makes its next call of shared data.
    GoOn {
        worker: usize,
    },
    /// The origin decides a request; its answer is on its way.
    Decide {
        worker: usize,
        flight: usize,
        committing: bool,
    },
    /// That answer arrives.
    Settle {
        worker: usize,
        flight: usize,
    },
    /// A timeout, or an answer that says nothing.
    Fail {
        worker: usize,
        flight: usize,
    },
    /// The client resets it.
    Abandon {
        worker: usize,
        flight: usize,
    },
    Trap {
        worker: usize,
    },
    Tick {
        worker: usize,
    },
    Ask {
        worker: usize,
    },
    /// A backend that knows this version of the first campaign, and the newest of the others, answers a sync; its answer
    /// is on its way.
    Answer {
        worker: usize,
        sync: usize,
        version: u64,
    },
    Accept {
        worker: usize,
        sync: usize,
    },
    /// No answer comes.
    LoseSync {
        worker: usize,
        sync: usize,
    },
    /// An operator's change.
    Change {
        drop: Drop,
        to: usize,
    },
    Commit {
        drop: Drop,
        user: User,
    },
    GiveBack {
        drop: Drop,
        user: User,
    },
    /// Another gateway's request is issued a coupon.
    IssueElsewhere {
        drop: Drop,
        user: User,
    },
    /// The process is stopped for a while, and requests come before its next tick.
    Stop {
        ms: i64,
    },
    /// The machine is suspended: the same, but that its monotonic clock stands still.
    Suspend {
        ms: i64,
    },
    /// The gateway's wall clock is set.
    SetClock {
        by_ms: i64,
    },
    /// Time passes, and at the end of it every worker ticks.
    Wait {
        ms: i64,
    },
}

impl World {
    /// Everything that may happen now.
    pub(super) fn possible_events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (at, worker) in self.workers.iter().enumerate() {
            self.worker_events(at, worker, &mut events);
        }
        for drop in 0..self.origins.len() {
            self.origin_events(drop, &mut events);
        }
        let next_instant = self.scenario.instants_ms.iter().find(|at_ms| **at_ms > self.now_ms);
        let waits = self.scenario.waits_ms.iter().copied().chain(next_instant.map(|at_ms| at_ms - self.now_ms));
        events.extend(waits.filter(|ms| self.may_wait(*ms)).map(|ms| Event::Wait { ms }));
        let stops = self.scenario.stops_ms.iter().copied().filter(|ms| self.may_wait(*ms));
        for ms in stops {
            events.push(Event::Stop { ms });
            // A suspension and a clock that is set the other way between two syncs look like less
            // of either: no reading of the clocks tells them apart.
            if self.set_ms == 0 {
                events.push(Event::Suspend { ms });
            }
        }
        if self.set_ms == 0 && self.suspended_ms == 0 {
            events.extend(self.scenario.sets_ms.iter().map(|by_ms| Event::SetClock { by_ms: *by_ms }));
        }
        events.retain(|event| (self.scenario.may)(event));
        events
    }

    /// Users that can be told apart from somebody who has never asked.
    fn known_users(&self) -> BTreeSet<User> {
        let mut known: BTreeSet<User> = self.origins.iter().flat_map(|origin| origin.users()).collect();
        known.extend(self.workers.iter().flat_map(|worker| worker.flights.iter().map(|flight| flight.user)));
        known.extend(self.workers.iter().filter_map(|worker| worker.asking()));
        known
    }

    /// The users worth trying: those who are known, and one who is not.
    fn users(&self) -> Vec<User> {
        let known = self.known_users();
        let stranger = (0..self.scenario.users).find(|user| !known.contains(user));
        known.into_iter().chain(stranger).collect()
    }

    fn worker_events(&self, at: usize, worker: &Worker, events: &mut Vec<Event>) {
        events.push(Event::Trap { worker: at });
        for (flight, asked) in worker.flights.iter().enumerate() {
            if asked.answer.is_none() {
                events.push(Event::Decide { worker: at, flight, committing: true });
                events.push(Event::Decide { worker: at, flight, committing: false });
            }
        }
        if worker.is_running() {
            events.push(Event::GoOn { worker: at });
            return;
        }
        for drop in 0..self.origins.len() {
            events.extend(self.users().into_iter().map(|user| Event::Request { worker: at, user, drop }));
        }
        for (flight, asked) in worker.flights.iter().enumerate() {
            if asked.answer.is_some() {
                events.push(Event::Settle { worker: at, flight });
            }
            events.extend([Event::Fail { worker: at, flight }, Event::Abandon { worker: at, flight }]);
        }
        events.push(Event::Tick { worker: at });
        let under_way: usize = self.workers.iter().map(|worker| worker.syncs.len()).sum();
        if under_way < self.scenario.most_syncs {
            events.push(Event::Ask { worker: at });
        }
        for (sync, under_way) in worker.syncs.iter().enumerate() {
            if under_way.answer.is_some() {
                events.push(Event::Accept { worker: at, sync });
            } else {
                let newest = self.origins.first().map_or(0, |origin| origin.version());
                events.extend((1..=newest).map(|version| Event::Answer { worker: at, sync, version }));
                events.push(Event::LoseSync { worker: at, sync });
            }
        }
    }

    fn may_wait(&self, ms: i64) -> bool {
        let timeout_ms = self.scenario.config.credits.request_timeout_ms;
        self.workers.iter().all(|worker| {
            let in_time = |flight: &Flight| self.now_ms + ms - flight.since_ms <= timeout_ms;
            !worker.is_running() && worker.flights.iter().all(in_time)
        })
    }

    fn origin_events(&self, drop: Drop, events: &mut Vec<Event>) {
        let origin = &self.origins[drop];
        if origin.editions.len() < self.scenario.most_versions {
            let current = origin.current();
            let others = self.scenario.editions.iter().enumerate().filter(|(_, edition)| **edition != current);
            events.extend(others.map(|(to, _)| Event::Change { drop, to }));
        }
        let Some(round) = open_round(self.rounds(drop), self.origin_ms()) else { return };
        let book = origin.book(round.id);
        for user in &book.pending {
            events.extend([Event::Commit { drop, user: *user }, Event::GiveBack { drop, user: *user }]);
        }
        if origin.has_coupon(round.id) {
            let known = self.known_users();
            let stranger = (0..self.scenario.users).find(|user| !known.contains(user));
            events.extend(stranger.map(|user| Event::IssueElsewhere { drop, user }));
        }
    }
}
