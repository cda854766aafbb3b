//! Chance that can be had again: the same seed gives the same numbers, on every machine and with every version of this program.

use std::ops::RangeInclusive;

/// `SplitMix64`: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of the range; the last one where the range is empty.
    pub(super) fn between(&mut self, range: RangeInclusive<u64>) -> u64 {
        let width = range.end().saturating_sub(*range.start()).saturating_add(1);
        // The modulo's bias is of no account: no range here is above a few thousand.
        range.start().saturating_add(self.roll() % width)
    }

    /// Whether one of `sides` came up.
    pub(super) fn one_in(&mut self, sides: u64) -> bool {
        self.between(1..=sides) == 1
    }

    /// One of these.
    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let last = u64::try_from(of.len()).ok()?.checked_sub(1)?;
        of.get(usize::try_from(self.between(0..=last)).ok()?)
    }

    /// These in another order.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let with = self.between(0..=u64::try_from(last).unwrap_or(0));
            items.swap(last, usize::try_from(with).unwrap_or(last));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_paper() {
        // The reference implementation's first numbers for the seed 1234567.
        let mut dice = Dice::new(1_234_567);
        assert_eq!([dice.roll(), dice.roll()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn every_number_of_a_range_comes_up_and_no_other() {
        let mut dice = Dice::new(1);
        let rolled: std::collections::BTreeSet<u64> = (0..200).map(|_| dice.between(3..=6)).collect();
        assert_eq!(rolled, (3..=6).collect());
        assert_eq!(dice.pick::<u8>(&[]), None);
        let mut deck = [1, 2, 3, 4, 5, 6, 7, 8];
        dice.shuffle(&mut deck);
        assert_ne!(deck, [1, 2, 3, 4, 5, 6, 7, 8]);
        deck.sort_unstable();
        assert_eq!(deck, [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
