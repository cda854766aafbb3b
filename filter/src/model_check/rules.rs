//! What must hold, said from outside: by the origin's books and by what the gateway has been told.

use std::hash::{DefaultHasher, Hash, Hasher};

use doorbuster_domain::id::RoundId;
use doorbuster_domain::schedule::Phase;

use super::origin::{Drop, User, campaign_id, open_round, timetable};
use super::search::{Rule, System, Violation};
use super::worker::{Flight, Kind, Step};
use super::world::World;
use crate::credits::{CreditAccount, PROBE_EVERY_MS};
use crate::reply::Reply;
use crate::state;

/// Far enough from an opening for every clock to agree, milliseconds.
const WELL_INSIDE_MS: i64 = 10_000;

impl World {
    /// The account of each campaign, and those of campaigns that are not known, without slots that have run out.
    pub(super) fn accounts(&self) -> Vec<Option<CreditAccount>> {
        let Some(worker) = self.workers.first() else { return Vec::new() };
        let gate = &worker.subject.gate;
        let keys = state::account_keys(&self.shared, gate.namespace());
        let own = (0..self.origins.len()).map(|drop| {
            let id = campaign_id(drop);
            let key = keys.get(id.as_str())?;
            state::account(&self.shared, key, gate.process().hash_key.campaign(&id))
        });
        let blind = [gate.namespace().unconfirmed(), gate.namespace().confirmed()];
        let blind = blind.into_iter().map(|key| state::account(&self.shared, &key, 0));
        own.chain(blind)
            .map(|account| account.map(|account| account.without_the_past(gate.slot_layout(), self.now_ms)))
            .collect()
    }

    fn in_flight(&self, account: &Option<CreditAccount>) -> u64 {
        let layout = self.workers.first().map(|worker| *worker.subject.gate.slot_layout());
        account.as_ref().zip(layout).map_or(0, |(account, layout)| account.in_flight(&layout, self.now_ms))
    }

    /// Requests that must hold a credit, by account.
    fn must_hold(&self) -> Vec<u64> {
        let mut held: Vec<usize> = self
            .records
            .iter()
            .map(|record| &record.owed)
            .chain(&self.owed_blind)
            .map(|owed| owed.count(self.now_ms))
            .collect();
        for flight in self.workers.iter().flat_map(|worker| &worker.flights) {
            held[self.account_of(flight)] += 1;
        }
        held.into_iter().map(|count| count as u64).collect()
    }

    /// The place of a request's account in [`World::accounts`].
    fn account_of(&self, flight: &Flight) -> usize {
        match flight.kind {
            Kind::Unconfirmed => self.origins.len(),
            Kind::Confirmed => self.origins.len() + 1,
            Kind::Ordinary | Kind::Probe | Kind::Unclear => flight.drop,
        }
    }

    /// No credit is given back before its time, or twice.
    pub(super) fn judge_credits(&self) -> Result<(), Violation> {
        for (account, owed) in self.accounts().iter().zip(self.must_hold()) {
            let counted = self.in_flight(account);
            if counted < owed {
                return Err(Violation::new(Rule::Credits, format!("{owed} hold a credit, {counted} are counted")));
            }
        }
        Ok(())
    }

    /// A request has been admitted, and is not among the flights yet.
    pub(super) fn judge_admission(&self, flight: &Flight) -> Result<(), Violation> {
        let kind = flight.kind;
        let record = &self.records[flight.drop];
        let held = self.must_hold()[self.account_of(flight)];
        let credits = &self.scenario.config.credits;
        let (used, limit) = match kind {
            Kind::Ordinary => (held, self.credit_limit(flight.drop)),
            Kind::Unconfirmed | Kind::Confirmed => (held, u64::from(credits.warming)),
            Kind::Unclear => {
                let used = record.unclear.get(&self.nearest_boundary(flight.drop)).copied().unwrap_or_default();
                (u64::from(used), u64::from(self.scenario.config.boundary.grey_cap))
            }
            Kind::Probe => {
                let recent = record.probed_ms.is_some_and(|probed_ms| self.now_ms - probed_ms < PROBE_EVERY_MS);
                (u64::from(recent), 1)
            }
        };
        let same = |other: &&Flight| {
            other.user == flight.user && self.account_of(other) == self.account_of(flight) && other.drop == flight.drop
        };
        if let Some(other) = self.workers.iter().flat_map(|worker| &worker.flights).find(same) {
            return Err(Violation::new(Rule::OnePerUser, format!("user {} has two requests in flight", other.user)));
        }
        if used < limit {
            return Ok(());
        }
        Err(Violation::new(Rule::Credits, format!("{kind:?} admitted with {used} of {limit} credits in use")))
    }

    /// What the design's formula allows, for the most generous version that the account may know.
    fn credit_limit(&self, drop: Drop) -> u64 {
        let (origin, record) = (&self.origins[drop], &self.records[drop]);
        let Some(round) = open_round(self.rounds(drop), self.origin_ms()) else { return 0 };
        let issued = record.heard_issued.get(&round.id).copied().unwrap_or_default();
        let versions = record.heard.any.max(1)..=origin.version();
        let remaining = versions.map(|version| origin.edition(version).quota.saturating_sub(issued)).max();
        remaining.unwrap_or_default().div_ceil(u64::from(self.scenario.gateways))
    }

    /// A request has been refused.
    pub(super) fn judge_refusal(&self, worker: usize, drop: Drop, user: User, reply: &Reply) -> Result<(), Violation> {
        let now_ms = self.origin_ms();
        let (origin, rounds) = (&self.origins[drop], self.rounds(drop));
        let phase = timetable(rounds, now_ms).phase(now_ms);
        let open = open_round(rounds, now_ms).map(|round| round.id);
        let obliged = self.workers[worker].obliged[drop];
        let issued = |round: RoundId| origin.book(round).issued();
        let sold_out_since = |version: u64| {
            let mut versions = version.max(1)..=origin.version();
            open.is_some_and(|round| versions.any(|version| issued(round) >= origin.edition(version).quota))
        };
        let paused_since =
            |version: u64| (version.max(1)..=origin.version()).any(|version| origin.edition(version).paused);
        let code = code(reply);
        let (rule, justified) = match code.as_str() {
            "busy" => return Ok(()),
            "sold_out" if sold_out_since(0) => (Rule::Latch, sold_out_since(obliged.any)),
            "paused" if paused_since(0) => (Rule::Latch, paused_since(obliged.synced)),
            "already_issued" => {
                let has_one = open.is_some_and(|round| origin.book(round).committed.contains(&user));
                (Rule::ForGood, has_one)
            }
            "not_started" => (Rule::ForGood, matches!(phase, Some(Phase::NotStarted { .. }))),
            "outside_hours" => (Rule::ForGood, matches!(phase, Some(Phase::OutsideHours { .. }))),
            "ended" => (Rule::ForGood, matches!(phase, Some(Phase::Ended { .. }))),
            _ => (Rule::ForGood, false),
        };
        if justified {
            return Ok(());
        }
        Err(Violation::new(rule, format!("worker {worker} refuses user {user} of {drop} with {code}, {obliged:?}")))
    }

    /// All that is under way now is lost. Once credits have aged and a sync has been answered, the accounts are empty, and
    /// of each campaign that has a coupon left, every worker admits a user.
    pub(super) fn judge_aftermath(&self) -> Result<(), Violation> {
        let mut after = self.clone();
        for worker in 0..after.workers.len() {
            after.lose(worker);
        }
        for origin in &mut after.origins {
            origin.books.values_mut().for_each(|book| book.pending.clear());
        }
        // Many states come to the same.
        let mut hasher = DefaultHasher::new();
        after.fingerprint().hash(&mut hasher);
        if !self.scenario.aftermaths.borrow_mut().insert(hasher.finish()) {
            return Ok(());
        }
        let slot_ms = self.scenario.ttl_ms / 15 + 1;
        after.pass(self.scenario.ttl_ms + slot_ms + 2 * self.scenario.config.credits.hold_ms);
        for drop in 0..after.origins.len() {
            let mut after = after.clone();
            let Some(round) = after.go_well_inside(drop) else { continue };
            after.tick_all()?;
            if self.scenario.config.sync.is_some() {
                after.sync()?;
            }
            for account in after.accounts() {
                let counted = after.in_flight(&account);
                if counted > 0 {
                    return Err(Violation::new(Rule::Heals, format!("{counted} credits are counted for ever")));
                }
            }
            if after.origins[drop].has_coupon(round) {
                after.judge_stranded(drop)?;
            }
        }
        Ok(())
    }

    /// Every worker admits a user who has not asked before.
    fn judge_stranded(&self, drop: Drop) -> Result<(), Violation> {
        (0..self.workers.len()).try_for_each(|worker| {
            let mut asking = self.clone();
            asking.step_whole(worker, Step::Request(drop, self.scenario.users))?;
            let admitted = asking.workers[worker].flights.len();
            let stranded = || Violation::new(Rule::Stranded, format!("worker {worker} admits no user of {drop}"));
            (admitted == 1).then_some(()).ok_or_else(stranded)
        })
    }

    /// Waits until a round is well open; none if none follows.
    fn go_well_inside(&mut self, drop: Drop) -> Option<RoundId> {
        let now_ms = self.now_ms + self.suspended_ms;
        let timetable = timetable(self.rounds(drop), now_ms);
        let open = |round: &&doorbuster_domain::schedule::Round| round.closes_ms() - WELL_INSIDE_MS > now_ms;
        let round = *timetable.rounds.iter().find(open)?;
        self.pass((round.opens_ms() + WELL_INSIDE_MS - now_ms).max(0));
        Some(round.id)
    }
}

fn code(reply: &Reply) -> String {
    let body = String::from_utf8_lossy(&reply.body);
    let code = body.split_once(r#""code":""#).and_then(|(_, rest)| rest.split_once('"'));
    code.map(|(code, _)| code.to_owned()).unwrap_or_default()
}
