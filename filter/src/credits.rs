//! Credits: how many requests may be with the origin at once, and what the edge knows of a round.
//!
//! A [`CreditAccount`] is one campaign's account at one gateway, shared by its workers and changed as a whole by
//! compare-and-swap. It limits load and does not count coupons: being wrong costs load, never correctness.

mod slots;
mod users;

use doorbuster_domain::id::RoundId;
use doorbuster_domain::notice::{Notice, Outcome};

pub use self::slots::{HOLDS, RING, SlotLayout, TimeSlot};
use self::slots::{add, live, remove};
pub use self::users::{MOST_USERS, UserMark, UsersInFlight};

/// A pause between two probes, milliseconds.
pub const PROBE_EVERY_MS: i64 = 1_000;

/// One campaign's account at one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct CreditAccount {
    /// Whose account this is: a hash of the campaign's id. Accounts are reused.
    pub tag: u64,
    /// The newest version heard of.
    pub version: u64,
    /// The round that the counts describe.
    pub round: Option<RoundId>,
    /// That round's quota; none means no limit.
    pub quota: Option<u64>,
    /// Committed coupons: the largest number heard.
    pub issued: u64,
    /// Reserved at the last sync, less the credits this gateway held when it asked.
    pub reserved_by_others: u64,
    /// Live gateways, as of the last sync.
    pub gateways: u32,
    /// Whether the round is sold out for certain, at `version`.
    pub sold_out: bool,
    /// Requests with the origin, by the time of their admission.
    pub admitted: [TimeSlot; RING],
    /// Failed requests that keep their credit, by the time at which they give it back.
    pub held: [TimeSlot; HOLDS],
    /// Requests answered with `pending` since the last sync was sent.
    pub pending: u32,
    /// When pending credits are free although no sync has been answered, Unix milliseconds.
    pub pending_until_ms: i64,
    /// Syncs that were sent and not answered yet, the newest first; those with number 0 are none.
    pub asks: [Ask; ASKS],
    /// The opening or closing around which requests were last admitted without knowing the round.
    pub boundary_ms: i64,
    /// How many.
    pub boundary_used: u32,
    /// When the last probe was admitted.
    pub probed_ms: i64,
    /// The second in which requests were last admitted without knowing the campaign's terms.
    pub blind_second: i64,
    /// How many.
    pub blind_used: u32,
    /// Users with a request at the origin.
    pub users: UsersInFlight,
}

/// Syncs under way of which an account knows; an older one counts as unanswered.
pub const ASKS: usize = 4;

/// What an account held when a sync was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ask {
    /// The sync's number; later ones have larger numbers.
    pub number: u64,
    /// Credits, pending ones excepted.
    pub held: u32,
    /// Requests answered with `pending` since the sync before.
    pub pending: u32,
}

/// What a worker knows of a campaign when it admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The campaign's tag.
    pub tag: u64,
    /// Its version.
    pub version: u64,
    /// Its quota.
    pub quota: Option<u64>,
    /// The round that is open.
    pub round: RoundId,
    /// Whether the backend tells of it, and says so where there is no limit. Written campaigns learn their quota from an
    /// origin that may say nothing of it.
    pub synced: bool,
}

/// Leave to forward one request, which is settled exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// The slot it was taken from.
    slot: i64,
    /// Who asked.
    user: UserMark,
    /// Whether it passed the latch to find out whether it still holds.
    pub probe: bool,
}

/// Why a request may go, or may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Granted(Permit),
    /// The round is sold out.
    SoldOut,
    /// Each remaining coupon is being claimed already.
    Busy,
}

/// How an admitted request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The origin said what became of it.
    Told(Notice),
    /// It failed, timed out, or was answered without a valid notice.
    Silent,
    /// The client ended it before there was an answer.
    Abandoned,
}

/// The most requests of campaigns whose terms are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlindLimit {
    /// At the origin at once.
    pub at_once: u32,
    /// Admitted in one second.
    pub per_second: u32,
}

impl CreditAccount {
    /// An empty account of a campaign.
    #[must_use]
    pub fn new(tag: u64) -> Self {
        Self { tag, gateways: 1, ..Self::default() }
    }

    /// Brings the account to what `terms` say, unless it knows better: a newer version lifts the latch, another round
    /// starts from nothing. Requests with the origin keep their credits.
    pub fn align(&mut self, terms: &Terms) {
        self.belong_to(terms.tag);
        let newer = self.version < terms.version;
        // A newer schedule may name an earlier round; within a version rounds only follow each other. Of a written
        // campaign an origin's notices raise the version, but not the configuration's, whose rounds go on all the same.
        let follows = self.round.is_none_or(|round| round < terms.round);
        if newer || (follows && (self.version == terms.version || !terms.synced)) {
            self.enter(terms.round);
        }
        if newer {
            self.version = terms.version;
            self.quota = terms.quota;
            self.sold_out = false;
        } else if self.version == terms.version && (terms.synced || self.quota.is_none()) {
            self.quota = terms.quota;
        }
        self.sold_out |= self.is_exhausted();
    }

    fn enter(&mut self, round: RoundId) {
        if self.round == Some(round) {
            return;
        }
        self.round = Some(round);
        self.issued = 0;
        self.reserved_by_others = 0;
        self.sold_out = false;
    }

    fn is_exhausted(&self) -> bool {
        self.quota.is_some_and(|quota| self.issued >= quota)
    }

    /// Asks for a credit to forward one request of the round that `terms` name.
    pub fn admit(&mut self, terms: &Terms, user: UserMark, layout: &SlotLayout, now_ms: i64) -> Admission {
        self.align(terms);
        if self.sold_out {
            // A worker that has yet to hear of a newer schedule asks for a round that says nothing of its own.
            return if self.round == Some(terms.round) { Admission::SoldOut } else { Admission::Busy };
        }
        // Without a limit nothing is counted, and a user takes nothing from others.
        let unlimited = self.quota.is_none();
        if !unlimited && (self.users.contains(user, now_ms) || self.in_flight(layout, now_ms) >= self.limit(layout)) {
            return Admission::Busy;
        }
        Admission::Granted(self.take(user, layout, now_ms, false))
    }

    /// Asks to pass the latch and the credit check, to find out whether they are still valid.
    pub fn probe(&mut self, terms: &Terms, user: UserMark, layout: &SlotLayout, now_ms: i64) -> Option<Permit> {
        self.align(terms);
        let rested = now_ms.abs_diff(self.probed_ms) >= PROBE_EVERY_MS.unsigned_abs();
        (rested && !self.users.contains(user, now_ms)).then(|| {
            self.probed_ms = now_ms;
            self.take(user, layout, now_ms, true)
        })
    }

    /// Asks to forward one request while the clock cannot tell on which side of `boundary_ms` it is.
    pub fn admit_unclear(
        &mut self,
        tag: u64,
        boundary_ms: i64,
        cap: u32,
        user: UserMark,
        layout: &SlotLayout,
        now_ms: i64,
    ) -> Admission {
        self.belong_to(tag);
        if self.boundary_ms != boundary_ms {
            self.boundary_ms = boundary_ms;
            self.boundary_used = 0;
        }
        if self.boundary_used >= cap || self.users.contains(user, now_ms) {
            return Admission::Busy;
        }
        self.boundary_used += 1;
        Admission::Granted(self.take(user, layout, now_ms, false))
    }

    /// Asks to forward one request of a campaign whose terms are not known.
    pub fn admit_blind(
        &mut self,
        tag: u64,
        limit: BlindLimit,
        user: UserMark,
        layout: &SlotLayout,
        now_ms: i64,
    ) -> Admission {
        self.belong_to(tag);
        let second = now_ms.div_euclid(1_000);
        let used = if self.blind_second == second { self.blind_used } else { 0 };
        let full = used >= limit.per_second || self.in_flight(layout, now_ms) >= u64::from(limit.at_once);
        if full || self.users.contains(user, now_ms) {
            return Admission::Busy;
        }
        (self.blind_second, self.blind_used) = (second, used + 1);
        Admission::Granted(self.take(user, layout, now_ms, false))
    }

    /// Begins anew if the account was another campaign's.
    fn belong_to(&mut self, tag: u64) {
        if self.tag != tag {
            *self = Self::new(tag);
        }
    }

    fn take(&mut self, user: UserMark, layout: &SlotLayout, now_ms: i64, probe: bool) -> Permit {
        let slot = layout.admission(now_ms);
        add(&mut self.admitted, slot);
        if self.quota.is_some() || self.round.is_none() {
            self.users.insert(user, now_ms, now_ms.saturating_add(layout.ttl_ms));
        }
        Permit { slot, user, probe }
    }

    /// Settles a permit: learns what the origin said of the account's campaign, and gives the credit back now or later.
    /// Returns whether it was still there; one dropped with its slot is not given back twice.
    pub fn settle(
        &mut self,
        permit: &Permit,
        ending: &Ending,
        rounds: &[RoundId],
        layout: &SlotLayout,
        now_ms: i64,
        synced: bool,
    ) -> bool {
        if let Ending::Told(notice) = ending {
            self.learn(notice, rounds, permit.probe, synced);
        }
        self.release(permit, ending, layout, now_ms, synced)
    }

    /// Gives a permit's credit back, now or later, and learns nothing. Returns whether it was still there.
    pub fn release(
        &mut self,
        permit: &Permit,
        ending: &Ending,
        layout: &SlotLayout,
        now_ms: i64,
        synced: bool,
    ) -> bool {
        let held_for_ms = match ending {
            Ending::Told(notice) => match notice.outcome {
                Outcome::Issued | Outcome::AlreadyIssued | Outcome::SoldOut => None,
                Outcome::Pending => return self.keep_pending(permit, layout, now_ms, synced),
                Outcome::Refused => notice.hold.then_some(layout.hold_ms),
            },
            Ending::Silent => Some(layout.hold_ms),
            Ending::Abandoned => Some(layout.brief_ms),
        };
        if !remove(&mut self.admitted, permit.slot) {
            return false;
        }
        match held_for_ms {
            None => self.users.remove(permit.user),
            Some(for_ms) => {
                let slot = layout.hold(now_ms, for_ms);
                add(&mut self.held, slot);
                self.users.keep_until(permit.user, layout.hold_ends_ms(slot));
            }
        }
        true
    }

    /// A place is reserved. The credit is kept until a sync counts it among the reserved ones, or until it is as old as
    /// any credit may become: without a sync it ages in its slot.
    fn keep_pending(&mut self, permit: &Permit, layout: &SlotLayout, now_ms: i64, synced: bool) -> bool {
        if !synced {
            return true;
        }
        if !remove(&mut self.admitted, permit.slot) {
            return false;
        }
        self.forget_pending(now_ms);
        self.pending = self.pending.saturating_add(1);
        self.pending_until_ms = now_ms.saturating_add(layout.ttl_ms);
        self.users.keep_until(permit.user, layout.hold_ends_ms(layout.hold(now_ms, layout.hold_ms)));
        true
    }

    /// Frees pending credits for which no sync was answered in time.
    fn forget_pending(&mut self, now_ms: i64) {
        if self.pending_until_ms <= now_ms {
            self.pending = 0;
            self.asks.iter_mut().for_each(|ask| ask.pending = 0);
        }
    }

    /// Requests answered with `pending` before some sync that is not answered yet.
    fn pending_asked(&self) -> u32 {
        self.asks.iter().fold(0, |sum, ask| sum.saturating_add(ask.pending))
    }

    /// Takes in what an origin says of a round. A notice of an older version, or of a round that is not this one,
    /// changes nothing; the first one of a following round, out of `rounds`, which the edge knows, begins it, and so does
    /// one of a newer version.
    pub fn learn(&mut self, notice: &Notice, rounds: &[RoundId], probe: bool, synced: bool) {
        let older = notice.version != 0 && notice.version < self.version;
        let Some(round) = notice.round.filter(|_| !older) else { return };
        let newer = notice.version > self.version;
        let follows = self.round.is_none_or(|current| current < round) && rounds.contains(&round);
        if newer || follows {
            self.enter(round);
        }
        if self.round != Some(round) {
            return;
        }
        if newer {
            self.version = notice.version;
        }
        if notice.quota.is_some() || (newer && synced) {
            self.quota = notice.quota;
        }
        self.issued = self.issued.max(notice.issued);
        let says_sold_out = notice.outcome == Outcome::SoldOut || self.is_exhausted();
        if newer || probe {
            self.sold_out = says_sold_out;
        } else {
            self.sold_out |= says_sold_out;
        }
    }

    /// A sync is being sent: what is held now is what its answer will count.
    pub fn ask(&mut self, number: u64, layout: &SlotLayout, now_ms: i64) {
        self.forget_pending(now_ms);
        let pending = std::mem::take(&mut self.pending);
        let held = self.in_flight(layout, now_ms).saturating_sub(u64::from(self.pending_asked()));
        let ask = Ask { number, held: u32::try_from(held).unwrap_or(u32::MAX), pending };
        // The one that falls out is not answered in time; the next one's answer will count its pending requests.
        let [first, second, third, last] = self.asks;
        let third = Ask { pending: third.pending.saturating_add(last.pending), ..third };
        self.asks = [ask, first, second, third];
    }

    /// A sync has been answered for the round that `terms` name; none that was sent later is answered yet.
    pub fn answer(&mut self, number: u64, terms: &Terms, issued: u64, reserved: u64, gateways: u32) {
        self.align(terms);
        self.gateways = gateways.max(1);
        if self.round == Some(terms.round) && self.version == terms.version {
            self.issued = self.issued.max(issued);
            // An account that was begun after the sync was sent held nothing then.
            let held = self.asks.iter().find(|ask| ask.number == number).map_or(0, |ask| ask.held);
            self.reserved_by_others = reserved.saturating_sub(u64::from(held));
            self.sold_out |= self.is_exhausted();
        }
        self.asks.iter_mut().filter(|ask| ask.number <= number).for_each(|ask| *ask = Ask::default());
    }

    /// Requests with the origin, and failed or pending ones that keep their credit.
    #[must_use]
    pub fn in_flight(&self, layout: &SlotLayout, now_ms: i64) -> u64 {
        let pending =
            if now_ms < self.pending_until_ms { self.pending.saturating_add(self.pending_asked()) } else { 0 };
        live(&self.admitted, layout.admissions_at(now_ms))
            + live(&self.held, layout.holds_at(now_ms))
            + u64::from(pending)
    }

    /// The most that may be in flight; no quota needs no credits.
    fn limit(&self, layout: &SlotLayout) -> u64 {
        let Some(quota) = self.quota else { return u64::MAX };
        let remaining = quota.saturating_sub(self.issued.max(self.reserved_by_others));
        if remaining == 0 {
            return 0;
        }
        let share = remaining as f64 / f64::from(self.gateways.max(1)) * layout.overcommit;
        (share.ceil() as u64).max(1)
    }
}

/// For the model checker.
#[cfg(test)]
impl CreditAccount {
    /// The same with the numbers of syncs counted from the newest one.
    pub(crate) fn count_from(mut self, newest: u64) -> Self {
        for ask in self.asks.iter_mut().filter(|ask| ask.number > 0) {
            ask.number = newest + 1 - ask.number;
        }
        self
    }

    /// The same without what counts no more, so that it equals every account from which the same follows.
    pub(crate) fn without_the_past(mut self, layout: &SlotLayout, now_ms: i64) -> Self {
        slots::forget(&mut self.admitted, layout.admissions_at(now_ms));
        slots::forget(&mut self.held, layout.holds_at(now_ms));
        self.users.forget(now_ms);
        if self.blind_second != now_ms.div_euclid(1_000) {
            (self.blind_second, self.blind_used) = (0, 0);
        }
        if self.pending_until_ms <= now_ms {
            self.forget_pending(now_ms);
            self.pending_until_ms = 0;
        }
        self
    }
}

#[cfg(test)]
mod tests;
