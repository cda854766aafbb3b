//! Redis's clock, the only one that decides: sampled now and then, carried forward by the monotonic clock.
//!
//! In a cluster each node decides about its campaigns by its own clock. What is sampled is the middle of them all, and
//! `uncertainty_ms` reaches to the furthest one, so it holds for every campaign, wherever its keys may move.

use std::sync::RwLock;
use std::time::Duration;

use tokio::time::Instant;

use super::{Redis, RedisError};

/// Beyond this age a sample is not carried forward any more.
const STALE: Duration = Duration::from_secs(5);

/// How far two clocks may drift apart: a thousandth is ten times what crystals do.
const DRIFT_PER_MS: u128 = 1_000;

/// What Redis's clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Unix milliseconds.
    pub now_ms: i64,
    /// How far `now_ms` may be off, milliseconds.
    pub uncertainty_ms: u32,
}

impl Reading {
    /// What holds if one of the two does.
    fn cover(self, other: Self) -> Self {
        let from_ms = |reading: Self| reading.now_ms - i64::from(reading.uncertainty_ms);
        let to_ms = |reading: Self| reading.now_ms + i64::from(reading.uncertainty_ms);
        let (from_ms, to_ms) = (from_ms(self).min(from_ms(other)), to_ms(self).max(to_ms(other)));
        let now_ms = from_ms.midpoint(to_ms);
        Self { now_ms, uncertainty_ms: u32::try_from(to_ms - now_ms).unwrap_or(u32::MAX) }
    }
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    reading: Reading,
}

/// The last sample.
#[derive(Debug, Default)]
pub struct Clock {
    sample: RwLock<Option<Sample>>,
}

impl Clock {
    /// Asks Redis, each of a cluster's nodes that holds keys.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn sample(&self, redis: &Redis) -> Result<Reading, RedisError> {
        let answers = redis.each::<(i64, i64)>(&redis::cmd("TIME")).await?;
        let answered = Instant::now();
        let readings = answers.iter().map(|answer| {
            let (seconds, micros) = answer.value;
            let half_trip = (answer.answered - answer.asked) / 2;
            let reading = Reading {
                now_ms: seconds * 1_000 + micros / 1_000,
                uncertainty_ms: u32::try_from(half_trip.as_millis()).unwrap_or(u32::MAX).saturating_add(1),
            };
            carried(Sample { at: answer.asked + half_trip, reading }, answered)
        });
        let reading = readings.reduce(Reading::cover).ok_or(RedisError::Away)?;
        if let Ok(mut held) = self.sample.write() {
            *held = Some(Sample { at: answered, reading });
        }
        Ok(reading)
    }

    /// What Redis's clock shows.
    ///
    /// # Errors
    /// If it was not asked lately and cannot be.
    pub async fn now(&self, redis: &Redis) -> Result<Reading, RedisError> {
        match self.at(Instant::now()) {
            Some(reading) => Ok(reading),
            None => self.sample(redis).await,
        }
    }

    /// What Redis's clock shows at `instant`; none without a sample that is fresh enough.
    #[must_use]
    pub fn at(&self, instant: Instant) -> Option<Reading> {
        let sample = self.sample.read().ok().and_then(|held| *held)?;
        (instant.saturating_duration_since(sample.at) <= STALE).then(|| carried(sample, instant))
    }
}

fn carried(sample: Sample, instant: Instant) -> Reading {
    let age_ms = instant.saturating_duration_since(sample.at).as_millis();
    Reading {
        now_ms: sample.reading.now_ms.saturating_add(i64::try_from(age_ms).unwrap_or(i64::MAX)),
        uncertainty_ms: sample
            .reading
            .uncertainty_ms
            .saturating_add(u32::try_from(age_ms.div_ceil(DRIFT_PER_MS)).unwrap_or(u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_clocks_the_middle_is_shown_and_all_are_covered() {
        let reading = |now_ms, uncertainty_ms| Reading { now_ms, uncertainty_ms };
        assert_eq!(reading(1_000, 2).cover(reading(1_000, 2)), reading(1_000, 2));
        assert_eq!(reading(1_000, 50).cover(reading(1_001, 2)), reading(1_000, 50));
        assert_eq!(reading(1_000, 2).cover(reading(2_000, 4)), reading(1_501, 503));
    }

    #[test]
    fn a_sample_is_carried_forward_until_it_is_stale() {
        let at = Instant::now();
        let reading = Reading { now_ms: 1_000, uncertainty_ms: 2 };
        let clock = Clock { sample: RwLock::new(Some(Sample { at, reading })) };
        assert_eq!(clock.at(at), Some(reading));
        let later = clock.at(at + Duration::from_millis(1_500));
        assert_eq!(later, Some(Reading { now_ms: 2_500, uncertainty_ms: 4 }));
        assert_eq!(clock.at(at + STALE + Duration::from_millis(1)), None);
    }
}
