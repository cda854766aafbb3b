//! Which gateways are alive.

use std::time::Duration;

use super::keys::EDGE;
use super::{Redis, RedisError};

/// A gateway that has not synced for so long is gone, or asks another Redis.
const LIVE: Duration = Duration::from_secs(3);

impl Redis {
    /// Notes that a gateway has synced at `now_ms`, and counts those alive, this one included.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn gateway_seen(&self, gateway: &str, now_ms: i64) -> Result<u32, RedisError> {
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
