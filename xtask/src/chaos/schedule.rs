//! What goes wrong when: a pure function of the seed.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use super::dice::Dice;

/// The crowd is at work before the first fault comes.
const FIRST_MS: u64 = 1_000;
/// Between the beginnings of two faults.
const PAUSE_MS: RangeInclusive<u64> = 400..=2_200;
/// What was hit is left alone for so long afterwards: it shall also be at work.
const REST_MS: u64 = 400;
/// A fault shorter than this is none.
const SHORTEST_MS: u64 = 100;

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    RedisKilled,
    RedisEmptied,
    RedisSetBack,
    PostgresCrashed,
    BackendKilled,
    GatewayKilled,
    RedisPaused,
    PostgresPaused,
    BackendPaused,
    GatewayPaused,
    ConnectionsCut,
    RepliesLost,
}

impl Kind {
    pub(super) const ALL: [Self; 12] = [
        Self::RedisKilled,
        Self::RedisEmptied,
        Self::RedisSetBack,
        Self::PostgresCrashed,
        Self::BackendKilled,
        Self::GatewayKilled,
        Self::RedisPaused,
        Self::PostgresPaused,
        Self::BackendPaused,
        Self::GatewayPaused,
        Self::ConnectionsCut,
        Self::RepliesLost,
    ];

    /// From its beginning to its end. Some pauses of a backend are longer than the time after which its places are swept.
    fn lasts_ms(self) -> RangeInclusive<u64> {
        match self {
            Self::RedisKilled | Self::RedisEmptied => 100..=1_200,
            // How old the data is with which it comes back.
            Self::RedisSetBack => 200..=2_000,
            Self::PostgresCrashed => 100..=1_200,
            Self::BackendKilled | Self::GatewayKilled => 100..=1_500,
            Self::RedisPaused | Self::PostgresPaused => 200..=2_500,
            Self::BackendPaused => 300..=6_000,
            Self::GatewayPaused => 200..=2_500,
            Self::ConnectionsCut => 0..=0,
            Self::RepliesLost => 100..=1_500,
        }
    }

    fn targets(self, cast: &Cast) -> &[String] {
        match self {
            Self::RedisKilled | Self::RedisEmptied | Self::RedisSetBack | Self::RedisPaused => &cast.redis,
            Self::PostgresCrashed | Self::PostgresPaused => &cast.postgres,
            Self::BackendKilled | Self::BackendPaused => &cast.backends,
            Self::GatewayKilled | Self::GatewayPaused => &cast.gateways,
            Self::ConnectionsCut | Self::RepliesLost => &cast.ways,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RedisKilled => "Redis killed, back with its data",
            Self::RedisEmptied => "Redis killed, back without data",
            Self::RedisSetBack => "Redis killed, back with older data",
            Self::PostgresCrashed => "PostgreSQL killed with all its processes",
            Self::BackendKilled => "backend killed",
            Self::GatewayKilled => "gateway killed",
            Self::RedisPaused => "Redis paused",
            Self::PostgresPaused => "PostgreSQL paused",
            Self::BackendPaused => "backend paused",
            Self::GatewayPaused => "gateway paused",
            Self::ConnectionsCut => "connections cut",
            Self::RepliesLost => "replies lost, then connections cut",
        })
    }
}

/// Who can be hit, by name.
#[derive(Debug, Clone)]
pub(super) struct Cast {
    redis: Vec<String>,
    postgres: Vec<String>,
    backends: Vec<String>,
    gateways: Vec<String>,
    ways: Vec<String>,
}

impl Cast {
    pub(super) fn new(gateways: u16, backends: u16, ways: Vec<String>) -> Self {
        let named = |role: &str, count| (1..=count).map(|index: u16| format!("{role}-{index}")).collect();
        Self {
            redis: vec!["redis".to_owned()],
            postgres: vec!["postgres".to_owned()],
            backends: named("backend", backends),
            gateways: named("gateway", gateways),
            ways,
        }
    }
}

/// One fault, times in milliseconds since the storm began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) target: String,
    pub(super) begins_ms: u64,
    pub(super) ends_ms: u64,
}

/// The faults of a storm, by their beginnings. All are over when the storm is; no target suffers two at once.
pub(super) fn draw(seed: u64, storm_ms: u64, cast: &Cast) -> Vec<Fault> {
    let mut dice = Dice::new(seed);
    let mut faults = Vec::new();
    let mut free_again: BTreeMap<String, u64> = BTreeMap::new();
    let mut deck: Vec<Kind> = Vec::new();
    let mut now_ms = FIRST_MS;
    loop {
        // Kinds come from a deck: none is missing for long.
        let Some(kind) = deck.pop() else {
            deck = Kind::ALL.to_vec();
            dice.shuffle(&mut deck);
            continue;
        };
        now_ms += dice.between(PAUSE_MS);
        let lasts_ms = dice.between(kind.lasts_ms());
        let Some(target) = dice.pick(kind.targets(cast)) else { continue };
        let begins_ms = now_ms.max(free_again.get(target).copied().unwrap_or(0));
        let ends_ms = (begins_ms + lasts_ms).min(storm_ms);
        if now_ms >= storm_ms {
            break;
        }
        if lasts_ms > 0 && ends_ms < begins_ms + SHORTEST_MS {
            continue;
        }
        if begins_ms >= storm_ms {
            continue;
        }
        free_again.insert(target.clone(), ends_ms + REST_MS);
        faults.push(Fault { kind, target: target.clone(), begins_ms, ends_ms });
    }
    faults.sort_by_key(|fault| fault.begins_ms);
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const MINUTE_MS: u64 = 60_000;

    fn cast() -> Cast {
        let ways = ["backend-1 to redis", "backend-1 to postgres", "gateways to backend-1"];
        Cast::new(2, 2, ways.map(ToOwned::to_owned).into())
    }

    #[test]
    fn a_seed_draws_the_same_schedule_each_time_and_another_one_another() {
        assert_eq!(draw(7, MINUTE_MS, &cast()), draw(7, MINUTE_MS, &cast()));
        let schedules: BTreeSet<String> = (0..50).map(|seed| format!("{:?}", draw(seed, MINUTE_MS, &cast()))).collect();
        assert_eq!(schedules.len(), 50);
    }

    #[test]
    fn every_kind_comes_in_half_a_minute_whatever_the_seed() {
        for seed in 0..200 {
            let kinds: BTreeSet<Kind> = draw(seed, 30_000, &cast()).iter().map(|fault| fault.kind).collect();
            assert_eq!(kinds, BTreeSet::from(Kind::ALL), "seed {seed}");
        }
    }

    #[test]
    fn faults_are_over_in_time_and_never_meet_on_one_target() {
        for seed in 0..200 {
            let mut free_again: BTreeMap<String, u64> = BTreeMap::new();
            let faults = draw(seed, MINUTE_MS, &cast());
            assert!(faults.len() > 30, "seed {seed}: {}", faults.len());
            for fault in faults {
                assert!(FIRST_MS <= fault.begins_ms && fault.ends_ms <= MINUTE_MS, "seed {seed}: {fault:?}");
                let cut = fault.kind == Kind::ConnectionsCut;
                assert!(cut || fault.begins_ms + SHORTEST_MS <= fault.ends_ms, "seed {seed}: {fault:?}");
                let free = free_again.insert(fault.target.clone(), fault.ends_ms + REST_MS).unwrap_or(0);
                assert!(free <= fault.begins_ms, "seed {seed}: {fault:?}");
            }
        }
    }

    #[test]
    fn every_target_is_hit_by_some_seed() {
        let hit: BTreeSet<String> =
            (0..20).flat_map(|seed| draw(seed, MINUTE_MS, &cast())).map(|fault| fault.target).collect();
        assert_eq!(hit.len(), 2 + 2 + 2 + 3, "{hit:?}");
    }
}
