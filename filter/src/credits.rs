//! Credits: how many requests may be with the origin at once, and what the edge knows of a round.
//!
//! A [`CreditAccount`] is one campaign's account at one gateway, shared by its workers and changed as a whole by
//! compare-and-swap. It limits load and does not count coupons: being wrong costs load, never correctness.

use doorbuster_domain::id::RoundId;
use doorbuster_domain::notice::{Notice, Outcome};

use crate::config::CreditRule;

/// Slots of the ring of admissions. A credit nobody settles lives for `ttl_ms` and at most one slot longer.
pub const RING: usize = 16;
/// Slots of the ring of holds.
pub const HOLDS: usize = 8;
/// A pause between two probes, milliseconds.
pub const PROBE_EVERY_MS: i64 = 1_000;

/// One time slot's count of credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TimeSlot {
    /// The time divided by the slots' width.
    pub number: i64,
    /// Credits in it.
    pub count: u32,
}

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
    /// Those answered so before it was sent.
    pub pending_asked: u32,
    /// Credits held when the last sync was sent, pending ones excepted.
    pub held_when_asked: u32,
    /// The opening or closing around which requests were last admitted without knowing the round.
    pub boundary_ms: i64,
    /// How many.
    pub boundary_used: u32,
    /// When the last probe was admitted.
    pub probed_ms: i64,
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

/// Leave to forward one request. Whoever holds it settles it exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// The slot it was taken from.
    slot: i64,
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
    /// It failed, was reset, timed out, or the origin said nothing.
    Silent,
}

/// Divides time into slots.
#[derive(Debug, Clone, Copy)]
pub struct SlotLayout {
    ring_ms: i64,
    hold_ms: i64,
    holds_ms: i64,
    overcommit: f64,
}

impl SlotLayout {
    /// The division that a rule asks for.
    #[must_use]
    pub fn new(rule: &CreditRule) -> Self {
        let ring_slots = RING as i64 - 1;
        Self {
            ring_ms: (rule.ttl_ms + ring_slots - 1) / ring_slots,
            hold_ms: rule.hold_ms,
            holds_ms: (rule.hold_ms / 4).max(1),
            overcommit: rule.overcommit,
        }
    }
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
        if self.tag != terms.tag {
            *self = Self::new(terms.tag);
        }
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
    pub fn admit(&mut self, terms: &Terms, layout: &SlotLayout, now_ms: i64) -> Admission {
        self.align(terms);
        if self.sold_out {
            // A worker that has yet to hear of a newer schedule asks for a round that says nothing of its own.
            return if self.round == Some(terms.round) { Admission::SoldOut } else { Admission::Busy };
        }
        if self.in_flight(layout, now_ms) >= self.limit(layout) {
            return Admission::Busy;
        }
        Admission::Granted(self.take(layout, now_ms, false))
    }

    /// Asks to pass the latch and the credit check, to find out whether they still hold.
    pub fn probe(&mut self, terms: &Terms, layout: &SlotLayout, now_ms: i64) -> Option<Permit> {
        self.align(terms);
        let rested = now_ms.abs_diff(self.probed_ms) >= PROBE_EVERY_MS.unsigned_abs();
        rested.then(|| {
            self.probed_ms = now_ms;
            self.take(layout, now_ms, true)
        })
    }

    /// Asks to forward one request while the clock cannot tell on which side of `boundary_ms` it is.
    pub fn admit_unclear(
        &mut self,
        tag: u64,
        boundary_ms: i64,
        cap: u32,
        layout: &SlotLayout,
        now_ms: i64,
    ) -> Admission {
        if self.tag != tag {
            *self = Self::new(tag);
        }
        if self.boundary_ms != boundary_ms {
            self.boundary_ms = boundary_ms;
            self.boundary_used = 0;
        }
        if self.boundary_used >= cap {
            return Admission::Busy;
        }
        self.boundary_used += 1;
        Admission::Granted(self.take(layout, now_ms, false))
    }

    /// Asks to forward one request of a campaign that is not known, of which `cap` may be under way.
    pub fn admit_unknown(&mut self, cap: u32, layout: &SlotLayout, now_ms: i64) -> Admission {
        if self.in_flight(layout, now_ms) >= u64::from(cap) {
            return Admission::Busy;
        }
        Admission::Granted(self.take(layout, now_ms, false))
    }

    fn take(&mut self, layout: &SlotLayout, now_ms: i64, probe: bool) -> Permit {
        let slot = now_ms.div_euclid(layout.ring_ms);
        add(&mut self.admitted, slot, 1);
        Permit { slot, probe }
    }

    /// Settles a permit: learns what the origin told, and gives the credit back now or later. Returns whether it was
    /// still there; one dropped with its slot is not given back twice.
    pub fn settle(
        &mut self,
        permit: &Permit,
        ending: &Ending,
        rounds: &[RoundId],
        layout: &SlotLayout,
        now_ms: i64,
        synced: bool,
    ) -> bool {
        let outcome = match ending {
            Ending::Told(notice) => {
                self.learn(notice, rounds, permit.probe, synced);
                Some(notice.outcome)
            }
            Ending::Silent => None,
        };
        if outcome == Some(Outcome::Pending) && !synced {
            // No sync will tell what becomes of it: the credit ages in its slot.
            return true;
        }
        if !remove(&mut self.admitted, permit.slot) {
            return false;
        }
        match outcome {
            Some(Outcome::Issued | Outcome::AlreadyIssued | Outcome::SoldOut) => {}
            Some(Outcome::Pending) => self.pending = self.pending.saturating_add(1),
            Some(Outcome::Refused) | None => {
                // The hold ends with its slot, so the slot after the one that is due makes it no shorter than asked.
                let due = (now_ms + layout.hold_ms).div_euclid(layout.holds_ms) + 1;
                add(&mut self.held, due, 1);
            }
        }
        true
    }

    /// Takes in what an origin says of a round. A notice of an older version, or of a round that is not this one,
    /// changes nothing; the first one of a following round, out of `rounds`, which the edge knows, begins it, and so does
    /// one of a newer version.
    fn learn(&mut self, notice: &Notice, rounds: &[RoundId], probe: bool, synced: bool) {
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
    pub fn ask(&mut self, layout: &SlotLayout, now_ms: i64) {
        self.pending_asked = self.pending_asked.saturating_add(self.pending);
        self.pending = 0;
        let held = self.in_flight(layout, now_ms).saturating_sub(u64::from(self.pending_asked));
        self.held_when_asked = u32::try_from(held).unwrap_or(u32::MAX);
    }

    /// A sync has answered for the round that `terms` name.
    pub fn answer(&mut self, terms: &Terms, issued: u64, reserved: u64, gateways: u32) {
        self.align(terms);
        self.pending_asked = 0;
        self.gateways = gateways.max(1);
        if self.round == Some(terms.round) && self.version == terms.version {
            self.issued = self.issued.max(issued);
            self.reserved_by_others = reserved.saturating_sub(u64::from(self.held_when_asked));
            self.sold_out |= self.is_exhausted();
        }
    }

    /// Requests with the origin, and failed or pending ones that keep their credit.
    #[must_use]
    pub fn in_flight(&self, layout: &SlotLayout, now_ms: i64) -> u64 {
        let newest = now_ms.div_euclid(layout.ring_ms);
        let admitted = live(&self.admitted, newest - (RING as i64 - 1), newest);
        let holding = now_ms.div_euclid(layout.holds_ms);
        let held = live(&self.held, holding + 1, holding + HOLDS as i64);
        admitted + held + u64::from(self.pending) + u64::from(self.pending_asked)
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
    /// The same without the slots that count no more, so that it equals every account from which the same follows.
    pub(crate) fn without_the_past(mut self, layout: &SlotLayout, now_ms: i64) -> Self {
        let oldest = now_ms.div_euclid(layout.ring_ms) - (RING as i64 - 1);
        let next_hold = now_ms.div_euclid(layout.holds_ms) + 1;
        let clear = |slots: &mut [TimeSlot], oldest: i64| {
            let past = slots.iter_mut().filter(|slot| slot.number < oldest || slot.count == 0);
            past.for_each(|slot| *slot = TimeSlot::default());
        };
        clear(&mut self.admitted, oldest);
        clear(&mut self.held, next_hold);
        self
    }
}

fn add<const N: usize>(slots: &mut [TimeSlot; N], number: i64, count: u32) {
    if let Some(slot) = slot_of(slots, number) {
        if slot.number != number {
            *slot = TimeSlot { number, count: 0 };
        }
        slot.count = slot.count.saturating_add(count);
    }
}

fn remove<const N: usize>(slots: &mut [TimeSlot; N], number: i64) -> bool {
    match slot_of(slots, number) {
        Some(slot) if slot.number == number && slot.count > 0 => {
            slot.count -= 1;
            true
        }
        _ => false,
    }
}

fn slot_of<const N: usize>(slots: &mut [TimeSlot; N], number: i64) -> Option<&mut TimeSlot> {
    usize::try_from(number.rem_euclid(N as i64)).ok().and_then(|at| slots.get_mut(at))
}

fn live<const N: usize>(slots: &[TimeSlot; N], oldest: i64, newest: i64) -> u64 {
    slots.iter().filter(|slot| (oldest..=newest).contains(&slot.number)).map(|slot| u64::from(slot.count)).sum()
}

#[cfg(test)]
mod tests;
