//! What must hold, said from outside: by the origin's books and by what the gateway has been told.

use std::hash::{DefaultHasher, Hash, Hasher};

use doorbuster_domain::id::RoundId;
use doorbuster_domain::schedule::Phase;

use super::origin::{User, open_round, spring, timetable};
use super::search::{Rule, System, Violation};
use super::worker::{Kind, Step};
use super::world::World;
use crate::credits::{CreditAccount, PROBE_EVERY_MS};
use crate::reply::Reply;
use crate::state::{self, AccountKey};

/// Far enough from an opening for every clock to agree, milliseconds.
const WELL_INSIDE_MS: i64 = 10_000;

impl World {
    /// The campaign's account and the one of campaigns that are not known, without slots that have run out.
    pub(super) fn accounts(&self) -> [Option<CreditAccount>; 2] {
        let Some(worker) = self.workers.first() else { return [None, None] };
        let tag = worker.subject.gate.process().hash_key.campaign(&spring());
        let own = state::account_keys(&self.shared).get(spring().as_str()).cloned();
        [
            own.and_then(|key| state::account(&self.shared, &key, tag)),
            state::account(&self.shared, &AccountKey::unknown(), 0),
        ]
        .map(|account| account.map(|account| account.without_the_past(worker.subject.gate.slot_layout(), self.now_ms)))
    }

    fn in_flight(&self, account: &Option<CreditAccount>) -> u64 {
        let layout = self.workers.first().map(|worker| *worker.subject.gate.slot_layout());
        account.as_ref().zip(layout).map_or(0, |(account, layout)| account.in_flight(&layout, self.now_ms))
    }

    /// Requests that must hold a credit of the campaign's account, and of the other one.
    fn must_hold(&self) -> [u64; 2] {
        let flights = || self.workers.iter().flat_map(|worker| &worker.flights);
        let unknown = flights().filter(|flight| flight.kind == Kind::Unknown).count();
        let own = flights().count() - unknown;
        [(own + self.owed.count(self.now_ms)) as u64, (unknown + self.owed_unknown.count(self.now_ms)) as u64]
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

    /// A request has been admitted.
    pub(super) fn judge_admission(&self, kind: Kind) -> Result<(), Violation> {
        let [own, unknown] = self.must_hold();
        let credits = &self.scenario.config.credits;
        let (used, limit) = match kind {
            Kind::Ordinary => (own, self.credit_limit()),
            Kind::Unknown => (unknown, u64::from(credits.warming)),
            Kind::Unclear => {
                let used = self.unclear.get(&self.nearest_boundary()).copied().unwrap_or_default();
                (u64::from(used), u64::from(self.scenario.config.boundary.grey_cap))
            }
            Kind::Probe => {
                let recent = self.probed_ms.is_some_and(|probed_ms| self.now_ms - probed_ms < PROBE_EVERY_MS);
                (u64::from(recent), 1)
            }
        };
        if used < limit {
            return Ok(());
        }
        Err(Violation::new(Rule::Credits, format!("{kind:?} admitted with {used} of {limit} credits in use")))
    }

    /// What the design's formula allows, for the most generous version that the account may know.
    fn credit_limit(&self) -> u64 {
        let Some(round) = open_round(&self.scenario.rounds, self.origin_ms()) else { return 0 };
        let issued = self.heard_issued.get(&round.id).copied().unwrap_or_default();
        let versions = self.heard.any.max(1)..=self.origin.version();
        let remaining = versions.map(|version| self.origin.edition(version).quota.saturating_sub(issued)).max();
        remaining.unwrap_or_default().div_ceil(u64::from(self.scenario.gateways))
    }

    /// A request has been refused.
    pub(super) fn judge_refusal(&self, worker: usize, user: User, reply: &Reply) -> Result<(), Violation> {
        let now_ms = self.origin_ms();
        let phase = timetable(&self.scenario.rounds, now_ms).phase(now_ms);
        let open = open_round(&self.scenario.rounds, now_ms).map(|round| round.id);
        let obliged = self.workers[worker].obliged;
        let issued = |round: RoundId| self.origin.book(round).issued();
        let sold_out_since = |version: u64| {
            let mut versions = version.max(1)..=self.origin.version();
            open.is_some_and(|round| versions.any(|version| issued(round) >= self.origin.edition(version).quota))
        };
        let paused_since =
            |version: u64| (version.max(1)..=self.origin.version()).any(|version| self.origin.edition(version).paused);
        let code = code(reply);
        let (rule, justified) = match code.as_str() {
            "busy" => return Ok(()),
            "sold_out" if sold_out_since(0) => (Rule::Latch, sold_out_since(obliged.any)),
            "paused" if paused_since(0) => (Rule::Latch, paused_since(obliged.synced)),
            "already_issued" => {
                let has_one = open.is_some_and(|round| self.origin.book(round).committed.contains(&user));
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
        Err(Violation::new(rule, format!("worker {worker} refuses user {user} with {code}, {obliged:?}")))
    }

    /// Whatever is under way now is lost. Once credits have aged and a sync has been answered, the account is empty, and
    /// if a coupon is left, every worker admits somebody.
    pub(super) fn judge_aftermath(&self) -> Result<(), Violation> {
        let mut after = self.clone();
        for worker in 0..after.workers.len() {
            after.lose(worker);
        }
        after.origin.books.values_mut().for_each(|book| book.pending.clear());
        // Many states come to the same.
        let mut hasher = DefaultHasher::new();
        after.fingerprint().hash(&mut hasher);
        if !self.scenario.aftermaths.borrow_mut().insert(hasher.finish()) {
            return Ok(());
        }
        let slot_ms = self.scenario.ttl_ms / 15 + 1;
        after.pass(self.scenario.ttl_ms + slot_ms + 2 * self.scenario.config.credits.hold_ms);
        let Some(round) = after.go_well_inside() else { return Ok(()) };
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
        if !after.origin.has_coupon(round) {
            return Ok(());
        }
        (0..after.workers.len()).try_for_each(|worker| {
            let mut asking = after.clone();
            asking.step_whole(worker, Step::Request(self.scenario.users))?;
            let admitted = asking.workers[worker].flights.len();
            let stranded = || Violation::new(Rule::Stranded, format!("worker {worker} admits nobody"));
            (admitted == 1).then_some(()).ok_or_else(stranded)
        })
    }

    /// Waits until a round is well open; none if none follows.
    fn go_well_inside(&mut self) -> Option<RoundId> {
        let timetable = timetable(&self.scenario.rounds, self.now_ms);
        let open = |round: &&doorbuster_domain::schedule::Round| round.closes_ms() - WELL_INSIDE_MS > self.now_ms;
        let round = *timetable.rounds.iter().find(open)?;
        self.pass((round.opens_ms() + WELL_INSIDE_MS - self.now_ms).max(0));
        Some(round.id)
    }
}

fn code(reply: &Reply) -> String {
    let body = String::from_utf8_lossy(&reply.body);
    let code = body.split_once(r#""code":""#).and_then(|(_, rest)| rest.split_once('"'));
    code.map(|(code, _)| code.to_owned()).unwrap_or_default()
}
