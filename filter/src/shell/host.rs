//! Envoy's shared data and clock.

use std::hash::BuildHasher;
use std::time::UNIX_EPOCH;

use proxy_wasm::hostcalls;

use crate::host::{Changed, SharedData, Versioned};

/// Envoy's shared data.
#[derive(Debug, Clone, Copy)]
pub(super) struct EnvoyShared;

impl SharedData for EnvoyShared {
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

/// This machine's clock, Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    hostcalls::get_current_time()
        .ok()
        .and_then(|now| now.duration_since(UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

/// Random numbers from the standard library's hasher, whose keys the host draws for each VM.
#[derive(Debug, Default)]
pub(super) struct Random {
    keys: std::collections::hash_map::RandomState,
    drawn: u64,
}

impl Random {
    /// The next one.
    pub(super) fn next(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        self.keys.hash_one(self.drawn)
    }
}
