//! How fast a relay goes: much at a time while its sink takes events, one at a time, with growing pauses, while it does
//! not. Pure: chance comes in as a value.

use std::time::Duration;

/// Events taken at a time: they, and no more, are held in memory.
const LARGEST_WINDOW: usize = 512;

/// Events taken at a time at first.
const FIRST_WINDOW: usize = 16;

/// Pause where nothing waits.
const IDLE: Duration = Duration::from_millis(200);

/// Longest pause for the sake of a sink that takes nothing.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Longest wait of one event for its next attempt.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What came of one pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Events delivered.
    pub(super) sent: usize,
    /// Events not delivered.
    pub(super) failed: usize,
    /// Whether more may wait.
    pub(super) more: bool,
}

/// The pace of one relay.
#[derive(Debug)]
pub(super) struct Pace {
    base: Duration,
    window: usize,
    failed_passes: u32,
}

impl Pace {
    /// `base`: the first pause after a failure.
    pub(super) fn new(base: Duration) -> Self {
        Self { base, window: FIRST_WINDOW, failed_passes: 0 }
    }

    /// Events to take in the next pass.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// The pause before the next pass. `chance`: from 0 to 1.
    pub(super) fn after(&mut self, pass: Tally, chance: f64) -> Duration {
        if pass.sent == 0 && pass.failed > 0 {
            self.window = 1;
            self.failed_passes = self.failed_passes.saturating_add(1);
            return backoff(self.base, self.failed_passes, LONGEST_PAUSE, chance);
        }
        self.failed_passes = 0;
        if pass.failed > pass.sent {
            self.window = (self.window / 2).max(1);
        } else if pass.sent > 0 {
            self.window = (self.window * 2).min(LARGEST_WINDOW);
        }
        if pass.more { Duration::ZERO } else { IDLE }
    }
}

/// An event's wait after so many failed attempts: doubled each time, and half of it left to chance so that events that
/// failed together are not tried together. None once it has had all its attempts.
pub(super) fn wait(base: Duration, failed: u32, attempts: u32, chance: f64) -> Option<Duration> {
    (failed < attempts).then(|| backoff(base, failed, LONGEST_WAIT, chance))
}

fn backoff(base: Duration, failures: u32, longest: Duration, chance: f64) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    base.saturating_mul(doubled).min(longest).mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(500);

    #[test]
    fn a_sink_that_takes_nothing_is_asked_ever_less() {
        let mut pace = Pace::new(BASE);
        let pauses: Vec<_> =
            (0..7).map(|_| pace.after(Tally { sent: 0, failed: 3, more: true }, 1.0).as_millis()).collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
        assert_eq!(pace.window(), 1);
        // One success, and it goes on faster and faster, up to what may be held in memory.
        let windows: Vec<_> = (0..11)
            .map(|_| {
                assert_eq!(pace.after(Tally { sent: 1, failed: 0, more: true }, 1.0), Duration::ZERO);
                pace.window()
            })
            .collect();
        assert_eq!(windows, [2, 4, 8, 16, 32, 64, 128, 256, 512, 512, 512]);
        assert_eq!(pace.after(Tally { sent: 1, failed: 2, more: false }, 1.0), IDLE);
        assert_eq!(pace.window(), 256);
        assert_eq!(pace.after(Tally::default(), 1.0), IDLE);
        assert_eq!(pace.window(), 256);
    }

    #[test]
    fn waits_double_up_to_a_bound_and_end() {
        let longest = |failed| wait(BASE, failed, 20, 1.0).map(|wait| wait.as_millis());
        let shortest = |failed| wait(BASE, failed, 20, 0.0).map(|wait| wait.as_millis());
        assert_eq!((longest(1), shortest(1)), (Some(500), Some(250)));
        assert_eq!((longest(10), shortest(10)), (Some(256_000), Some(128_000)));
        assert_eq!((longest(19), shortest(19)), (Some(300_000), Some(150_000)));
        assert_eq!((longest(20), longest(u32::MAX)), (None, None));
        assert_eq!(wait(BASE, 1, 1, 0.5), None);
    }
}
