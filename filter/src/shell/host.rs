//! Envoy's shared data, clock, callouts and log, and random numbers.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::time::{Duration, UNIX_EPOCH};

use proxy_wasm::hostcalls;
use proxy_wasm::types::LogLevel;

use crate::host::{Call, CallId, Callout, Changed, Clock, Log, NotSent, Random, SharedData, Versioned};

/// Envoy, as this VM sees it.
#[derive(Debug, Default)]
pub(super) struct EnvoyHost {
    /// Keys that the standard library asks the host for, once per VM.
    keys: std::collections::hash_map::RandomState,
    drawn: Cell<u64>,
}

impl SharedData for EnvoyHost {
    fn get(&self, key: &str) -> Option<Versioned> {
        match hostcalls::get_shared_data(key) {
            // An empty value arrives as none, with its number.
            Ok((value, Some(number))) => Some((value.unwrap_or_default(), number)),
            _ => None,
        }
    }

    fn replace(&self, key: &str, value: &[u8], seen: u32) -> Result<(), Changed> {
        hostcalls::set_shared_data(key, Some(value), Some(seen)).map_err(|_| Changed)
    }

    fn create(&self, key: &str, value: &[u8]) -> Result<(), Changed> {
        // On a missing key Envoy takes any number but 0 and creates it; on one that is there, a number that no change
        // ever has is a mismatch. Other hosts do the opposite.
        hostcalls::set_shared_data(key, Some(value), Some(u32::MAX)).map_err(|_| Changed)
    }
}

impl Clock for EnvoyHost {
    fn now_ms(&self) -> i64 {
        hostcalls::get_current_time()
            .ok()
            .and_then(|now| now.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| i64::try_from(since.as_millis()).ok())
            .unwrap_or_default()
    }

    fn monotonic_ms(&self) -> i64 {
        let now = coarsetime::Instant::now_without_cache_update();
        let since = now.duration_since(coarsetime::Instant::from_ticks(0));
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

impl Random for EnvoyHost {
    fn random(&self) -> u64 {
        self.drawn.set(self.drawn.get().wrapping_add(1));
        self.keys.hash_one(self.drawn.get())
    }
}

impl Callout for EnvoyHost {
    fn post(&self, call: &Call<'_>) -> Result<CallId, NotSent> {
        let authorization = format!("Bearer {}", call.token);
        let headers = vec![
            (":method", "POST"),
            (":path", call.path),
            (":authority", call.authority),
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        let timeout = Duration::from_millis(call.timeout_ms.unsigned_abs());
        hostcalls::dispatch_http_call(call.server, headers, Some(call.body), vec![], timeout).map_err(|_| NotSent)
    }
}

impl Log for EnvoyHost {
    fn info(&self, message: &str) {
        log(LogLevel::Info, message);
    }

    fn warn(&self, message: &str) {
        log(LogLevel::Warn, message);
    }
}

/// Writes a line to Envoy's log.
pub(super) fn log(level: LogLevel, message: &str) {
    // There is nowhere else to report that a line could not be written.
    let _ = hostcalls::log(level, message);
}
