//! Which gateways are alive.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::keys::EDGE;
use super::{Redis, RedisError};

/// A gateway that has not synced for so long is gone, or asks another Redis.
const LIVE: Duration = Duration::from_secs(3);

/// How many were alive when that was last known; 0 before.
#[derive(Debug, Default)]
pub(super) struct LastKnown(AtomicU32);

impl Redis {
    /// Notes that a gateway has synced at `now_ms`, and counts those alive, this one included. While they cannot be counted
    /// there are as many as before: in a cluster, the campaigns of other nodes are served.
    ///
    /// # Errors
    /// If Redis cannot be reached, and they were never counted.
    pub async fn gateway_seen(&self, gateway: &str, now_ms: i64) -> Result<u32, RedisError> {
        let LastKnown(last_known) = &self.gateways;
        match self.note_gateway(gateway, now_ms).await {
            Ok(live) => {
                last_known.store(live, Ordering::Relaxed);
                Ok(live)
            }
            Err(error) => match last_known.load(Ordering::Relaxed) {
                0 => Err(error),
                live => Ok(live),
            },
        }
    }

    async fn note_gateway(&self, gateway: &str, now_ms: i64) -> Result<u32, RedisError> {
        let key = self.gateways_key();
        let live_ms = i64::try_from(LIVE.as_millis()).unwrap_or(i64::MAX);
        let mut pipeline = redis::pipe();
        pipeline
            .zadd(&key, gateway, now_ms)
            .ignore()
            .zrembyscore(&key, "-inf", now_ms.saturating_sub(live_ms))
            .ignore()
            .pexpire(&key, live_ms)
            .ignore()
            .zcard(&key);
        let (live,): (u32,) = self.transaction(EDGE, &mut pipeline).await?;
        Ok(live.max(1))
    }
}
