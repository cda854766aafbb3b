//! Failed tries at a token: how many a peer may make before it hears `too_many`.
//!
//! A token that holds always passes, whoever else fails from wherever, so nobody can lock an operator out. Guessing is
//! kept hopeless by the length of tokens; the limit keeps it from filling the log and makes it visible.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

/// A peer that has not failed lately may fail so often at once.
const BURST: u64 = 60;

/// After that once in so long, milliseconds.
const INTERVAL_MS: u64 = 1_000;

/// Peers are told apart by a hash of their address in a table of this size, so memory is constant. Two that fall into
/// one place share its tries.
const PLACES: usize = 4_096;

/// The failed tries of all peers.
#[derive(Debug)]
pub struct FailedTries {
    hasher: RandomState,
    /// When the place's last try will be forgotten: each failure adds [`INTERVAL_MS`] (the generic cell rate algorithm).
    forgotten_ms: Vec<AtomicU64>,
}

impl Default for FailedTries {
    fn default() -> Self {
        Self { hasher: RandomState::new(), forgotten_ms: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl FailedTries {
    /// Counts a failure at `now_ms` of a clock that never goes back. Whether it was within the limit.
    pub fn count(&self, peer: IpAddr, now_ms: u64) -> bool {
        let place = usize::try_from(self.hasher.hash_one(network(peer))).unwrap_or_default() % PLACES;
        let Some(forgotten_ms) = self.forgotten_ms.get(place) else { return true };
        let latest_ms = now_ms + (BURST - 1) * INTERVAL_MS;
        let more = |until_ms: u64| (until_ms <= latest_ms).then(|| until_ms.max(now_ms) + INTERVAL_MS);
        forgotten_ms.try_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// One who has an IPv6 address has its whole network of 64 bits.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(tries: &FailedTries, peer: &str, now_ms: u64, count: usize) -> usize {
        (0..count).filter(|_| tries.count(peer.parse().unwrap(), now_ms)).count()
    }

    #[test]
    fn a_burst_is_let_through_and_then_one_a_second() {
        let tries = FailedTries::default();
        assert_eq!(allowed(&tries, "192.0.2.1", 5_000, 1_000), 60);
        assert_eq!(allowed(&tries, "192.0.2.1", 5_999, 10), 0);
        assert_eq!(allowed(&tries, "192.0.2.1", 6_000, 10), 1);
        assert_eq!(allowed(&tries, "192.0.2.1", 9_500, 10), 3);
        assert_eq!(allowed(&tries, "192.0.2.1", 10_000_000, 1_000), 60);
    }

    #[test]
    fn a_whole_network_of_addresses_is_one_peer_and_memory_is_constant() {
        let tries = FailedTries::default();
        let passed = (0..1_000).map(|n| allowed(&tries, &format!("2001:db8::{n:x}"), 0, 1)).sum::<usize>();
        assert_eq!(passed, 60);
        // The same peer, however its address is written.
        assert_eq!(allowed(&tries, "::ffff:192.0.2.1", 0, 60), allowed(&tries, "192.0.2.7", 0, 60));
        assert_eq!(allowed(&tries, "192.0.2.1", 0, 1), 0);
        assert_eq!(tries.forgotten_ms.len(), PLACES);
    }
}
