//! Users for whom the origin confirmed a committed coupon: a set-associative table of keyed 64-bit hashes.
//!
//! The table never grows. A user that falls out is let through, and the origin says no. A user is refused wrongly only
//! if a 64-bit SipHash under a key nobody outside knows collides with one of the n in the table: about n x 2^-64.

use std::hash::Hasher;
use std::rc::Rc;

use doorbuster_domain::id::{CampaignId, RoundId, UserId};
use siphasher::sip::SipHasher13;

use crate::credits::UserMark;

/// Bytes of one shard: what a look-up copies out of shared data.
pub const SHARD_BYTES: usize = 1_024;
const WAYS: usize = 8;
const HASH_BYTES: usize = 8;
const SETS: u64 = (SHARD_BYTES / (WAYS * HASH_BYTES)) as u64;

/// The key of all hashes, drawn once per process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub u64, pub u64);

impl HashKey {
    /// The hash that stands for a user's coupon of a round. Never 0, which marks an empty place.
    #[must_use]
    pub fn holder(&self, campaign: &CampaignId, round: RoundId, user: &UserId) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        // No id contains a line feed, so no two triples look alike.
        hasher.write(campaign.as_str().as_bytes());
        hasher.write_u8(b'\n');
        hasher.write_i32(chrono::Datelike::num_days_from_ce(&round.0));
        hasher.write(user.as_str().as_bytes());
        hasher.finish().max(1)
    }

    /// The mark of a user with a request of a campaign at the origin.
    #[must_use]
    pub fn in_flight(&self, campaign: &CampaignId, user: &UserId) -> UserMark {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        hasher.write(campaign.as_str().as_bytes());
        hasher.write_u8(b'\n');
        hasher.write(user.as_str().as_bytes());
        UserMark((hasher.finish() >> 32) as u32)
    }

    /// The tag by which an account knows its campaign.
    #[must_use]
    pub fn campaign(&self, campaign: &CampaignId) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        hasher.write(campaign.as_str().as_bytes());
        hasher.finish().max(1)
    }
}

/// The shard a hash lives in, of `shards`; none if there are none.
#[must_use]
pub fn shard_of(hash: u64, shards: usize) -> Option<usize> {
    let shards = u64::try_from(shards).ok().filter(|shards| *shards > 0)?;
    // The high half picks the shard, the low half the set within it.
    usize::try_from((hash >> 32) % shards).ok()
}

/// Whether `shard` holds `hash`.
#[must_use]
pub fn contains(shard: &[u8], hash: u64) -> bool {
    let wanted = hash.to_le_bytes();
    set_of(shard, hash).chunks_exact(HASH_BYTES).any(|place| place == wanted)
}

/// How many hashes `shard` holds.
#[must_use]
pub fn filled(shard: &[u8]) -> usize {
    shard.chunks_exact(HASH_BYTES).filter(|place| place.iter().any(|byte| *byte != 0)).count()
}

/// Puts `hash` first in its set of `shard`; the one that was there longest falls out.
pub fn insert(shard: &mut Vec<u8>, hash: u64) {
    shard.resize(SHARD_BYTES, 0);
    let start = set_start(hash);
    if let Some(set) = shard.get_mut(start..start + WAYS * HASH_BYTES) {
        set.copy_within(..(WAYS - 1) * HASH_BYTES, HASH_BYTES);
        if let Some(first) = set.get_mut(..HASH_BYTES) {
            first.copy_from_slice(&hash.to_le_bytes());
        }
    }
}

/// Winners that one worker has lately found in the table, so that those who keep asking cost no shared data. What it
/// holds stays true: a coupon of a round is never taken back. Its size is constant, and who falls out is looked up again.
#[derive(Debug, Clone)]
pub struct Remembered(Rc<[u64]>);

/// 4 KiB for each worker.
const REMEMBERED: u64 = 512;

impl Default for Remembered {
    fn default() -> Self {
        Self((0..REMEMBERED).map(|_| 0).collect())
    }
}

impl Remembered {
    /// Whether `hash` was found in the table a while ago.
    #[must_use]
    pub fn contains(&self, hash: u64) -> bool {
        self.0.get(Self::place(hash)) == Some(&hash)
    }

    /// Remembers `hash`, in place of another one.
    pub fn insert(&mut self, hash: u64) {
        if let Some(place) = Rc::make_mut(&mut self.0).get_mut(Self::place(hash)) {
            *place = hash;
        }
    }

    fn place(hash: u64) -> usize {
        usize::try_from(hash % REMEMBERED).unwrap_or_default()
    }
}

/// For the model checker.
#[cfg(test)]
impl Remembered {
    /// Those it holds, in an order that follows from them.
    pub(crate) fn essence(&self) -> Vec<u64> {
        self.0.iter().copied().filter(|hash| *hash != 0).collect()
    }
}

fn set_start(hash: u64) -> usize {
    usize::try_from(hash % SETS).unwrap_or_default() * WAYS * HASH_BYTES
}

fn set_of(shard: &[u8], hash: u64) -> &[u8] {
    let start = set_start(hash);
    shard.get(start..start + WAYS * HASH_BYTES).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HashKey = HashKey(1, 2);

    fn hash(round: &str, user: &str) -> u64 {
        KEY.holder(&CampaignId::parse("spring").unwrap(), round.parse().unwrap(), &UserId::parse(user).unwrap())
    }

    #[test]
    fn a_user_is_found_in_the_round_it_was_put_in() {
        let mut shard = Vec::new();
        assert!(!contains(&shard, hash("2026-05-01", "u1")));
        insert(&mut shard, hash("2026-05-01", "u1"));
        assert!(contains(&shard, hash("2026-05-01", "u1")));
        assert!(!contains(&shard, hash("2026-05-01", "u2")));
        assert!(!contains(&shard, hash("2026-05-02", "u1")));
    }

    #[test]
    fn a_full_set_lets_the_oldest_go_and_the_shard_never_grows() {
        let mut shard = Vec::new();
        let same_set: Vec<u64> = (1..=9).map(|n| n * SETS).collect();
        for hash in &same_set {
            insert(&mut shard, *hash);
        }
        assert_eq!(shard.len(), SHARD_BYTES);
        assert_eq!(filled(&shard), WAYS);
        assert!(!contains(&shard, same_set[0]));
        assert!(same_set[1..].iter().all(|hash| contains(&shard, *hash)));
    }

    #[test]
    fn a_worker_remembers_as_many_as_it_has_places() {
        let mut remembered = Remembered::default();
        for hash in 1..=2 * REMEMBERED {
            assert!(!remembered.contains(hash));
            remembered.insert(hash);
            assert!(remembered.contains(hash));
        }
        assert!(!remembered.contains(1) && remembered.contains(REMEMBERED + 1));
        assert_eq!(remembered.essence().len() as u64, REMEMBERED);
    }

    #[test]
    fn half_full_tables_keep_nearly_everybody() {
        let shards = 64;
        let mut table = vec![Vec::new(); shards];
        let users: Vec<u64> =
            (0..shards * SHARD_BYTES / HASH_BYTES / 2).map(|n| hash("2026-05-01", &format!("u{n}"))).collect();
        for hash in &users {
            insert(&mut table[shard_of(*hash, shards).unwrap()], *hash);
        }
        let kept = users.iter().filter(|hash| contains(&table[shard_of(**hash, shards).unwrap()], **hash)).count();
        assert!(kept * 100 > users.len() * 95, "{kept} of {}", users.len());
        assert_eq!(shard_of(7, 0), None);
    }
}
