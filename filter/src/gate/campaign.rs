//! One campaign as a worker sees it: its terms, the latch it has copied, and the replies it has rendered.

use std::rc::Rc;

use chrono::TimeZone;
use doorbuster_domain::count::Count;
use doorbuster_domain::id::{CampaignId, RoundId};
use doorbuster_domain::refusal::{Problem, Refusal};
use doorbuster_domain::schedule::{Phase, Schedule};
use doorbuster_domain::timetable::Timetable;
use doorbuster_domain::wire::SyncCampaign;

use super::tally::Tally;
use crate::config::StaticCampaign;
use crate::credits::{PROBE_EVERY_MS, Terms};
use crate::duplicates::HashKey;
use crate::host::SharedData;
use crate::reply::{Rendered, Reply};
use crate::state::{self, AccountKey};

/// A campaign stays in the accounts' care this long after a round has closed, milliseconds.
const AFTERMATH_MS: i64 = 60_000;

/// A campaign as a worker sees it.
#[derive(Debug, Clone)]
pub(super) struct Campaign {
    pub(super) id: CampaignId,
    pub(super) account: AccountKey,
    pub(super) tag: u64,
    pub(super) paused: bool,
    pub(super) tally: Tally,
    version: u64,
    quota: Option<u64>,
    timetable: Timetable,
    /// Of a campaign written in the configuration: its rounds never run out.
    schedule: Option<Schedule>,
    latch: Option<RoundId>,
    next_probe_ms: i64,
    replies: Rendered,
    /// Of a campaign that the backend told: a round, and how many of its coupons were committed.
    told: Option<(RoundId, u64)>,
    /// The count as it was rendered last, and for which instant.
    counted: Option<(i64, Rc<Reply>)>,
    /// What this worker answers by itself since the tick at this instant, if it does. A crowd asks thousands of times
    /// between two ticks.
    at_once: Option<(i64, AtOnce)>,
}

/// What a worker answers by itself until its next tick.
#[derive(Debug, Clone)]
enum AtOnce {
    /// Everybody is refused.
    Refuse(Refusal, Rc<Reply>),
    /// A round is open, as far as this worker knows. `looked`: it has looked whether the others know better.
    Open { round: RoundId, looked: bool },
    /// Nothing.
    Nothing,
}

/// When a decision is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// This machine's monotonic clock, milliseconds.
    pub(super) host_ms: i64,
    /// The origin's, as far as it is known.
    pub(super) now_ms: i64,
    /// How far `now_ms` may be off.
    pub(super) uncertainty_ms: i64,
    /// Whether no snapshot is young enough to be believed.
    pub(super) stale: bool,
}

/// Where a campaign stands before it is asked who wants a coupon.
#[derive(Debug)]
pub(super) enum Standing {
    /// Nobody can win.
    Refused(Rc<Reply>),
    /// The edge has run out of rounds it was told, with more to follow.
    Unknown,
    /// Too near to an opening or a closing to know the round.
    Unclear { boundary_ms: i64 },
    /// A round is open. `probing`: what blocks it may be passed, to find out whether it still does.
    Open { terms: Terms, probing: bool },
}

impl Campaign {
    /// A campaign of the plugin configuration.
    pub(super) fn written(written: &StaticCampaign, account: AccountKey, key: &HashKey, now_ms: i64) -> Self {
        Self {
            timetable: written.schedule.timetable(now_ms),
            schedule: Some(written.schedule.clone()),
            ..Self::new(written.id.clone(), account, key, written.version, written.quota)
        }
    }

    /// A campaign that the backend told.
    pub(super) fn told(told: SyncCampaign, account: AccountKey, key: &HashKey) -> Self {
        let sold_out = told.quota.is_some_and(|quota| told.issued >= quota);
        Self {
            paused: told.paused,
            // After the last round it is that one which is told of.
            told: told.round.or(told.timetable.previous.map(|last| last.id)).map(|round| (round, told.issued)),
            timetable: told.timetable,
            latch: told.round.filter(|_| sold_out),
            ..Self::new(told.id, account, key, told.version, told.quota)
        }
    }

    fn new(id: CampaignId, account: AccountKey, key: &HashKey, version: u64, quota: Option<u64>) -> Self {
        Self {
            tag: key.campaign(&id),
            id,
            account,
            paused: false,
            tally: Tally::default(),
            version,
            quota,
            timetable: Timetable::default(),
            schedule: None,
            latch: None,
            next_probe_ms: i64::MIN,
            replies: Rendered::default(),
            told: None,
            counted: None,
            at_once: None,
        }
    }

    /// What is known after `newer` replaces this: counts always stay, the latch and rendered replies with the version.
    pub(super) fn succeeded_by(self, newer: Self) -> Self {
        if self.version == newer.version && self.paused == newer.paused {
            let still_told = |round: &RoundId| newer.timetable.rounds.iter().any(|told| told.id == *round);
            Self {
                latch: newer.latch.or(self.latch.filter(still_told)),
                tally: self.tally,
                next_probe_ms: self.next_probe_ms,
                replies: self.replies,
                ..newer
            }
        } else {
            Self { tally: self.tally, ..newer }
        }
    }

    /// Begins a tick. What was kept for the last one goes, also where the monotonic clock has stood
    /// still since, as it does while the machine is suspended. The next rounds of a written campaign
    /// are worked out once those at hand are running out.
    pub(super) fn refresh(&mut self, now_ms: i64) {
        self.at_once = None;
        self.counted = None;
        if let Some(schedule) = &self.schedule
            && self.timetable.rounds.first().is_some_and(|round| round.closes_ms() + AFTERMATH_MS <= now_ms)
        {
            self.timetable = schedule.timetable(now_ms);
            self.latch = self.latch.filter(|round| self.timetable.rounds.iter().any(|known| known.id == *round));
        }
    }

    /// Whether the backend tells of it.
    pub(super) fn is_synced(&self) -> bool {
        self.schedule.is_none()
    }

    /// Looks again at a latch that this worker has copied: a probe or a newer version may have lifted it.
    pub(super) fn look_at_latch(&mut self, shared: &dyn SharedData) {
        if self.latch.is_some()
            && let Some(account) = state::account(shared, &self.account, self.tag)
            && !account.sold_out
            && account.round == self.latch
        {
            self.latch = None;
            self.at_once = None;
        }
    }

    /// The round is sold out.
    pub(super) fn latch(&mut self, round: RoundId) {
        self.latch = Some(round);
        self.at_once = None;
    }

    /// A probe has been let through or was not due yet: this worker asks again in a second.
    pub(super) fn probed(&mut self, host_ms: i64) {
        self.next_probe_ms = host_ms.saturating_add(PROBE_EVERY_MS);
        self.at_once = None;
    }

    /// The rounds an answer may be about.
    pub(super) fn rounds(&self) -> Vec<RoundId> {
        self.timetable.rounds.iter().map(|round| round.id).collect()
    }

    /// The round to speak of: the current one, else the next, else the last.
    pub(super) fn round_to_speak_of(&self, now_ms: i64) -> Option<RoundId> {
        self.timetable.rounds_to_speak_of(now_ms).map(|rounds| rounds.round.id)
    }

    /// Where the campaign stands at `now_ms`; none where only the origin can tell. Rendered once per tick.
    pub(super) fn count(&mut self, now_ms: i64, uncertainty_ms: i64, shared: &dyn SharedData) -> Option<Rc<Reply>> {
        if let Some((rendered_ms, reply)) = &self.counted
            && *rendered_ms == now_ms
        {
            return Some(Rc::clone(reply));
        }
        if self.boundary_near(now_ms, uncertainty_ms).is_some() {
            return None;
        }
        let rounds = self.timetable.rounds_to_speak_of(now_ms)?;
        let (_, told) = self.told.filter(|(round, _)| *round == rounds.round.id)?;
        let account = state::account(shared, &self.account, self.tag);
        let heard =
            account.filter(|account| account.round == Some(rounds.round.id)).map_or(0, |account| account.issued);
        let as_of = rounds.round.opens.timezone().timestamp_millis_opt(now_ms).single()?;
        let count = Count::new(&self.id, &rounds, self.paused, self.quota, told.max(heard), as_of);
        let reply = Rc::new(Reply::count(&count));
        self.counted = Some((now_ms, Rc::clone(&reply)));
        Some(reply)
    }

    /// Whether requests may be with the origin.
    pub(super) fn is_active(&self, now_ms: i64) -> bool {
        self.timetable
            .previous
            .iter()
            .chain(&self.timetable.rounds)
            .any(|round| (round.opens_ms() - AFTERMATH_MS..round.closes_ms() + AFTERMATH_MS).contains(&now_ms))
    }

    /// The refusal that follows from what this worker keeps, if one does: only where no opening or closing lies within
    /// the moment's uncertainty, so that a clock read some time ago is good enough.
    pub(super) fn refuse_at_once(&mut self, moment: &Moment) -> Option<Rc<Reply>> {
        if let Some((since_ms, at_once)) = &self.at_once
            && *since_ms == moment.host_ms
        {
            let AtOnce::Refuse(refusal, reply) = at_once else { return None };
            self.tally.refuse(*refusal);
            return Some(Rc::clone(reply));
        }
        let near = self.boundary_near(moment.now_ms, moment.uncertainty_ms).is_some();
        let probing = self.may_probe(moment.host_ms, moment.stale);
        let phase = self.timetable.phase(moment.now_ms).filter(|_| !near);
        let at_once = match phase.map(|phase| (phase, self.refuse_standing(&phase, moment.now_ms, probing))) {
            Some((_, Some((refusal, reply)))) => AtOnce::Refuse(refusal, reply),
            // What only a probe may pass is not open.
            Some((Phase::Open { round }, None)) if !self.paused && self.latch != Some(round.id) => {
                AtOnce::Open { round: round.id, looked: false }
            }
            _ => AtOnce::Nothing,
        };
        let reply = match &at_once {
            AtOnce::Refuse(_, reply) => Some(Rc::clone(reply)),
            _ => None,
        };
        self.at_once = Some((moment.host_ms, at_once));
        reply
    }

    /// The round that [`Campaign::refuse_at_once`] found open to somebody.
    pub(super) fn open_at_once(&self, moment: &Moment) -> Option<RoundId> {
        match self.at_once {
            Some((since_ms, AtOnce::Open { round, .. })) if since_ms == moment.host_ms => Some(round),
            _ => None,
        }
    }

    /// Whether `round` is sold out, asked of the other workers once per tick.
    pub(super) fn is_sold_out_this_tick(&mut self, round: RoundId, moment: &Moment, shared: &dyn SharedData) -> bool {
        if let Some((since_ms, AtOnce::Open { looked: true, .. })) = self.at_once
            && since_ms == moment.host_ms
        {
            return false;
        }
        if self.hears_sold_out(round, shared) {
            return true;
        }
        self.at_once = Some((moment.host_ms, AtOnce::Open { round, looked: true }));
        false
    }

    /// Whether `round` is sold out as far as any worker has heard. From then on this one knows.
    pub(super) fn hears_sold_out(&mut self, round: RoundId, shared: &dyn SharedData) -> bool {
        if self.latch != Some(round)
            && let Some(account) = state::account(shared, &self.account, self.tag)
            && account.sold_out
            && account.round == Some(round)
            && account.version >= self.version
        {
            self.latch(round);
        }
        self.latch == Some(round)
    }

    /// Where the campaign stands at `moment`.
    pub(super) fn standing(&mut self, moment: &Moment, shared: &dyn SharedData) -> Standing {
        let Some(mut phase) = self.timetable.phase(moment.now_ms) else { return Standing::Unknown };
        let probing = self.may_probe(moment.host_ms, moment.stale);
        if let Some((boundary_ms, opening)) = self.boundary_near(moment.now_ms, moment.uncertainty_ms) {
            if self.paused && !probing {
                return Standing::Refused(self.refuse(Refusal::Paused));
            }
            let heard = state::account(shared, &self.account, self.tag).and_then(|account| account.round);
            // The first answer from the round that opens here ends the uncertainty.
            match self.timetable.rounds.iter().find(|round| opening && round.opens_ms() == boundary_ms) {
                // Where its closing is as near, it may be over.
                Some(begun)
                    if heard == Some(begun.id)
                        && begun.closes_ms().abs_diff(moment.now_ms) > moment.uncertainty_ms.unsigned_abs() =>
                {
                    phase = Phase::Open { round: *begun }
                }
                _ => return Standing::Unclear { boundary_ms },
            }
        }
        if let Some((_, reply)) = self.refuse_standing(&phase, moment.now_ms, probing) {
            return Standing::Refused(reply);
        }
        match phase {
            Phase::Open { round } => {
                let terms = Terms {
                    tag: self.tag,
                    version: self.version,
                    quota: self.quota,
                    round: round.id,
                    synced: self.is_synced(),
                };
                Standing::Open { terms, probing }
            }
            _ => Standing::Unknown,
        }
    }

    /// Why a phase, a pause or a latch refuses, in the contract's order; none while a round is open to somebody.
    fn refusal_of(&self, phase: &Phase, probing: bool) -> Option<Refusal> {
        match phase {
            Phase::Ended { .. } => Some(Refusal::Ended),
            _ if self.paused && !probing => Some(Refusal::Paused),
            Phase::NotStarted { .. } => Some(Refusal::NotStarted),
            Phase::OutsideHours { .. } => Some(Refusal::OutsideHours),
            Phase::Open { round } if self.latch == Some(round.id) && !probing => Some(Refusal::SoldOut),
            Phase::Open { .. } => None,
        }
    }

    fn refuse_standing(&mut self, phase: &Phase, now_ms: i64, probing: bool) -> Option<(Refusal, Rc<Reply>)> {
        let refusal = self.refusal_of(phase, probing)?;
        let reply = match (refusal, phase) {
            (Refusal::SoldOut, Phase::Open { round }) => self.refuse_sold_out(round.id, now_ms),
            (Refusal::Paused, _) => self.refuse(refusal),
            _ => self.refuse_outside(refusal, phase, now_ms),
        };
        Some((refusal, reply))
    }

    /// What is known of a written campaign is always stale: nobody tells when it changes.
    fn may_probe(&self, host_ms: i64, stale: bool) -> bool {
        (stale || self.schedule.is_some()) && host_ms >= self.next_probe_ms
    }

    /// The opening or closing within `reach_ms` of `now_ms`, and whether it is an opening. Where one round closes as
    /// the next one opens, that is an opening.
    fn boundary_near(&self, now_ms: i64, reach_ms: i64) -> Option<(i64, bool)> {
        let reach_ms = reach_ms.unsigned_abs();
        let near = |at_ms: &i64| at_ms.abs_diff(now_ms) <= reach_ms;
        let rounds = &self.timetable.rounds;
        let opening = rounds.iter().map(|round| round.opens_ms()).find(near).map(|at_ms| (at_ms, true));
        opening.or_else(|| {
            let known = self.timetable.previous.iter().chain(rounds);
            known.map(|round| round.closes_ms()).find(near).map(|at_ms| (at_ms, false))
        })
    }
}

/// For the model checker.
#[cfg(test)]
impl Campaign {
    /// What its decisions at `host_ms` and later depend on, besides shared data and the snapshot it was loaded from.
    pub(super) fn essence(&self, host_ms: i64) -> impl std::hash::Hash + use<> {
        let at_once = self.at_once.as_ref().filter(|(since_ms, _)| *since_ms == host_ms);
        let at_once = at_once.map(|(_, at_once)| match at_once {
            AtOnce::Refuse(refusal, _) => (Some(*refusal), None),
            AtOnce::Open { round, looked } => (None, Some((*round, *looked))),
            AtOnce::Nothing => (None, None),
        });
        let terms = (self.version, self.quota, self.paused, self.rounds());
        (terms, self.latch, self.next_probe_ms.max(host_ms), at_once)
    }
}

/// The replies.
impl Campaign {
    /// A refusal that is the same for everybody.
    pub(super) fn refuse(&mut self, refusal: Refusal) -> Rc<Reply> {
        self.tally.refuse(refusal);
        self.replies.get(refusal, 0, || Problem::about(refusal, &self.id))
    }

    /// Each remaining coupon is being claimed, or the round cannot be told.
    pub(super) fn refuse_busy(&mut self, random: u64) -> Rc<Reply> {
        self.tally.refuse(Refusal::Busy);
        let variant = i64::try_from(random % 3).unwrap_or_default();
        self.replies.get(Refusal::Busy, variant, || Problem::ask_again(Refusal::Busy, Some(&self.id), random))
    }

    /// The user has this round's coupon.
    pub(super) fn refuse_already_issued(&mut self, round: RoundId) -> Rc<Reply> {
        self.tally.refuse(Refusal::AlreadyIssued);
        let variant = i64::from(chrono::Datelike::num_days_from_ce(&round.0));
        self.replies.get(Refusal::AlreadyIssued, variant, || Problem::already_issued(&self.id, round))
    }

    /// The round's quota is committed.
    pub(super) fn refuse_sold_out(&mut self, round: RoundId, now_ms: i64) -> Rc<Reply> {
        self.tally.refuse(Refusal::SoldOut);
        let next = self.timetable.opens_after(round);
        self.replies.get(Refusal::SoldOut, second(now_ms), || Problem::sold_out(&self.id, round, next, now_ms))
    }

    fn refuse_outside(&mut self, refusal: Refusal, phase: &Phase, now_ms: i64) -> Rc<Reply> {
        self.tally.refuse(refusal);
        self.replies.get(refusal, second(now_ms), || {
            Problem::outside(&self.id, phase, now_ms).unwrap_or_else(|| Problem::about(refusal, &self.id))
        })
    }
}

/// The second in which every wait is the same number of whole seconds: rounds open on whole seconds.
fn second(now_ms: i64) -> i64 {
    now_ms.div_euclid(1000) + i64::from(now_ms.rem_euclid(1000) > 0)
}
