//! An honest origin in its smallest form: who has a coupon of which round, who holds a place, and under which quota.

use std::collections::{BTreeMap, BTreeSet};

use doorbuster_domain::id::{CampaignId, RoundId};
use doorbuster_domain::notice::{Notice, Outcome};
use doorbuster_domain::schedule::{Phase, Round};
use doorbuster_domain::timetable::Timetable;
use doorbuster_domain::wire::SyncCampaign;

use super::Broken;

/// A campaign's place in [`Scenario::drops`](super::Scenario::drops).
pub(super) type Drop = usize;

/// A user's number.
pub(super) type User = u8;

/// What an operator has set; its place in [`Origin::editions`], counted from 1, is its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Edition {
    pub(super) quota: u64,
    pub(super) paused: bool,
}

/// One round's coupons.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Book {
    pub(super) committed: BTreeSet<User>,
    pub(super) pending: BTreeSet<User>,
}

impl Book {
    fn reserved(&self) -> u64 {
        (self.committed.len() + self.pending.len()) as u64
    }

    pub(super) fn issued(&self) -> u64 {
        self.committed.len() as u64
    }
}

/// The origin of one campaign.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    drop: Drop,
    pub(super) editions: Vec<Edition>,
    pub(super) books: BTreeMap<RoundId, Book>,
}

impl Origin {
    pub(super) fn new(drop: Drop, first: Edition) -> Self {
        Self { drop, editions: vec![first], books: BTreeMap::new() }
    }

    pub(super) fn version(&self) -> u64 {
        self.editions.len() as u64
    }

    pub(super) fn edition(&self, version: u64) -> Edition {
        self.editions[usize::try_from(version).unwrap() - 1]
    }

    pub(super) fn current(&self) -> Edition {
        self.edition(self.version())
    }

    /// The book of `round`, empty if nobody has asked for a coupon of it.
    pub(super) fn book(&self, round: RoundId) -> Book {
        self.books.get(&round).cloned().unwrap_or_default()
    }

    /// Users it knows in any round.
    pub(super) fn users(&self) -> BTreeSet<User> {
        self.books.values().flat_map(|book| book.committed.iter().chain(&book.pending)).copied().collect()
    }

    /// Whether a new user would get a coupon of `round`.
    pub(super) fn has_coupon(&self, round: RoundId) -> bool {
        !self.current().paused && self.book(round).reserved() < self.current().quota
    }

    /// Decides a request, in the contract's order. `committing`: whether the commit of a new coupon comes through in time.
    pub(super) fn decide(
        &mut self,
        rounds: &[Round],
        user: User,
        committing: bool,
        now_ms: i64,
        broken: Option<Broken>,
    ) -> Notice {
        let (version, Edition { quota, paused }) = (self.version(), self.current());
        let Some(round) = open_round(rounds, now_ms) else {
            return notice(self.drop, Outcome::Refused, None, 0, quota, version);
        };
        let book = self.books.entry(round.id).or_default();
        let mut known = book.clone();
        if broken == Some(Broken::TakesPendingForIssued) {
            known.committed.append(&mut known.pending);
        }
        let outcome = if paused {
            Outcome::Refused
        } else if known.issued() >= quota {
            Outcome::SoldOut
        } else if known.committed.contains(&user) {
            Outcome::AlreadyIssued
        } else if known.pending.contains(&user) {
            Outcome::Pending
        } else if known.reserved() >= quota {
            Outcome::Refused
        } else if committing {
            book.committed.insert(user);
            Outcome::Issued
        } else {
            book.pending.insert(user);
            Outcome::Pending
        };
        notice(self.drop, outcome, Some(round.id), book.issued(), quota, version)
    }

    /// What a backend that knows the campaign as of `version` answers to a sync.
    pub(super) fn sync(&self, rounds: &[Round], version: u64, now_ms: i64) -> SyncCampaign {
        let timetable = timetable(rounds, now_ms);
        let round = timetable.rounds.first().map(|round| round.id);
        let book = round.map(|round| self.book(round)).unwrap_or_default();
        let Edition { quota, paused } = self.edition(version);
        SyncCampaign {
            id: campaign_id(self.drop),
            version,
            paused,
            timetable,
            quota: Some(quota),
            round,
            issued: book.issued(),
            reserved: book.reserved(),
        }
    }
}

fn notice(drop: Drop, outcome: Outcome, round: Option<RoundId>, issued: u64, quota: u64, version: u64) -> Notice {
    Notice { outcome, campaign: campaign_id(drop), round, issued, quota: Some(quota), version, hold: true }
}

/// The rounds around a moment, of all there are.
pub(super) fn timetable(rounds: &[Round], now_ms: i64) -> Timetable {
    let over = rounds.iter().take_while(|round| round.closes_ms() <= now_ms).count();
    let (previous, coming) = (over.checked_sub(1).map(|last| rounds[last]), &rounds[over..]);
    Timetable { previous, rounds: coming.iter().take(2).copied().collect(), more: coming.len() > 2 }
}

/// The round that is open.
pub(super) fn open_round(rounds: &[Round], now_ms: i64) -> Option<Round> {
    match timetable(rounds, now_ms).phase(now_ms) {
        Some(Phase::Open { round }) => Some(round),
        _ => None,
    }
}

/// A campaign's id.
pub(super) fn campaign_id(drop: Drop) -> CampaignId {
    CampaignId::parse(["spring", "autumn"][drop]).unwrap()
}
