//! Counts by time: credits age with the slot in which they were taken.

use crate::config::CreditRule;

/// Slots of the ring of admissions. A credit that is never settled lives for `ttl_ms` and at most one slot longer.
pub const RING: usize = 16;
/// Slots of the ring of holds.
pub const HOLDS: usize = 8;

/// One time slot's count of credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TimeSlot {
    /// The time divided by the slots' width.
    pub number: i64,
    /// Credits in it.
    pub count: u32,
}

/// Divides time into slots.
#[derive(Debug, Clone, Copy)]
pub struct SlotLayout {
    pub(super) ring_ms: i64,
    pub(super) hold_ms: i64,
    pub(super) brief_ms: i64,
    pub(super) holds_ms: i64,
    pub(super) ttl_ms: i64,
    pub(super) overcommit: f64,
}

impl SlotLayout {
    /// The division that a rule asks for.
    #[must_use]
    pub fn new(rule: &CreditRule) -> Self {
        let ring_slots = RING as i64 - 1;
        Self {
            ring_ms: (rule.ttl_ms + ring_slots - 1) / ring_slots,
            hold_ms: rule.hold_ms,
            brief_ms: rule.brief_hold_ms(),
            holds_ms: (rule.hold_ms / 4).max(1),
            ttl_ms: rule.ttl_ms,
            overcommit: rule.overcommit,
        }
    }

    /// The slot of a credit taken at `now_ms`.
    pub(super) fn admission(&self, now_ms: i64) -> i64 {
        now_ms.div_euclid(self.ring_ms)
    }

    /// The slot of a credit that is kept for `for_ms` from `now_ms` on. A hold ends with its slot, so the slot after the
    /// one that is due makes it no shorter than asked.
    pub(super) fn hold(&self, now_ms: i64, for_ms: i64) -> i64 {
        (now_ms + for_ms).div_euclid(self.holds_ms) + 1
    }

    /// When the credits of a slot of holds are free, Unix milliseconds.
    pub(super) fn hold_ends_ms(&self, slot: i64) -> i64 {
        slot * self.holds_ms
    }

    /// The slots of admissions that count at `now_ms`, oldest and newest.
    pub(super) fn admissions_at(&self, now_ms: i64) -> (i64, i64) {
        let newest = self.admission(now_ms);
        (newest - (RING as i64 - 1), newest)
    }

    /// The slots of holds that count at `now_ms`.
    pub(super) fn holds_at(&self, now_ms: i64) -> (i64, i64) {
        let current = now_ms.div_euclid(self.holds_ms);
        (current + 1, current + HOLDS as i64)
    }
}

/// Counts one more in a slot, which may have been another time's.
pub(super) fn add<const N: usize>(slots: &mut [TimeSlot; N], number: i64) {
    if let Some(slot) = slot_of(slots, number) {
        if slot.number != number {
            *slot = TimeSlot { number, count: 0 };
        }
        slot.count = slot.count.saturating_add(1);
    }
}

/// Counts one less, if the slot is still that time's.
pub(super) fn remove<const N: usize>(slots: &mut [TimeSlot; N], number: i64) -> bool {
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

/// The sum of the slots from `oldest` to `newest`.
pub(super) fn live<const N: usize>(slots: &[TimeSlot; N], (oldest, newest): (i64, i64)) -> u64 {
    slots.iter().filter(|slot| (oldest..=newest).contains(&slot.number)).map(|slot| u64::from(slot.count)).sum()
}

/// Clears the slots that count no more.
#[cfg(test)]
pub(super) fn forget<const N: usize>(slots: &mut [TimeSlot; N], (oldest, _): (i64, i64)) {
    let past = slots.iter_mut().filter(|slot| slot.number < oldest || slot.count == 0);
    past.for_each(|slot| *slot = TimeSlot::default());
}
