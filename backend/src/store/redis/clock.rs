//! Redis's clock, the only one that decides: sampled now and then, carried forward by the monotonic clock.

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
    /// Asks Redis.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn sample(&self, redis: &Redis) -> Result<Reading, RedisError> {
        let asked = Instant::now();
        let (seconds, micros): (i64, i64) = redis.command(&redis::cmd("TIME")).await?;
        let answered = Instant::now();
        let half_trip = (answered - asked) / 2;
        let reading = Reading {
            now_ms: seconds * 1_000 + micros / 1_000,
            uncertainty_ms: u32::try_from(half_trip.as_millis()).unwrap_or(u32::MAX).saturating_add(1),
        };
        let sample = Sample { at: asked + half_trip, reading };
        if let Ok(mut held) = self.sample.write() {
            *held = Some(sample);
        }
        Ok(carried(sample, answered))
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
