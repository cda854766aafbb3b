//! Places of a round: deciding, settling, giving back.

use std::sync::LazyLock;

use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{CampaignId, RoundId, UserId};
use redis::Script;

use super::rounds::expiry_ms;
use super::{Redis, RedisError};

static ISSUE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("issue.lua")));
static SETTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("settle.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("release.lua")));
static DISCARD: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("discard.lua")));

/// A place that a user holds until it is committed or given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its holder.
    pub user: UserId,
    /// The coupon's code, which names the reservation.
    pub code: CouponCode,
    /// The order of reservation.
    pub number: u64,
    /// The epoch under which it may be committed.
    pub epoch: i64,
    /// Redis's time of the reservation, Unix milliseconds.
    pub since_ms: i64,
}

impl Held {
    /// As Redis writes it.
    fn place(&self) -> String {
        format!("{}:{}", self.code, self.number)
    }
}

/// What `issue.lua` answers; see there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The round must be rebuilt first.
    Cold,
    /// The campaign has this newer version.
    Stale {
        /// The version Redis shows.
        version: i64,
    },
    /// Redis's clock is not in the round.
    Outside,
    /// The quota is committed.
    SoldOut,
    /// Not sold out; no user was given.
    Open,
    /// The user's coupon is committed.
    AlreadyIssued(CouponCode),
    /// The user held a place before this request.
    Pending(Held),
    /// Every place left is held.
    Busy,
    /// This request holds a place now.
    Reserved(Held),
}

/// A verdict and the circumstances it was given in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What was decided.
    pub verdict: Verdict,
    /// By Redis's clock, Unix milliseconds.
    pub now_ms: i64,
    /// Committed coupons that Redis knows of; 0 where it did not look.
    pub committed: u64,
}

/// What is asked of [`Redis::issue`].
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The campaign.
    pub campaign: &'a CampaignId,
    /// Its round that is thought to be open.
    pub round: RoundId,
    /// Who wants a coupon; none only looks.
    pub user: Option<&'a UserId>,
    /// The code it would have.
    pub code: CouponCode,
    /// The campaign's version, to which the rest belongs.
    pub version: i64,
    /// None: no limit.
    pub quota: Option<u64>,
    /// `[opens, closes)` of the round, Unix milliseconds.
    pub window_ms: (i64, i64),
}

impl Redis {
    /// Decides a request and reserves its place.
    ///
    /// # Errors
    /// If Redis cannot be reached; the place may be reserved all the same.
    pub async fn issue(&self, ask: &Ask<'_>) -> Result<Decision, RedisError> {
        let keys = self.round_keys(ask.campaign, ask.round);
        let (opens_ms, closes_ms) = ask.window_ms;
        let (status, now_ms, committed, _reserved, code, number, epoch, since_ms): Reply = self
            .invoke(
                ask.campaign.as_str(),
                ISSUE
                    .key(keys.version)
                    .key(keys.round)
                    .key(keys.users)
                    .key(keys.pending)
                    .key(keys.free)
                    .arg(ask.user.map_or("", UserId::as_str))
                    .arg(ask.code.as_str())
                    .arg(ask.version)
                    .arg(ask.quota.map_or_else(String::new, |quota| quota.to_string()))
                    .arg(opens_ms)
                    .arg(closes_ms)
                    .arg(expiry_ms(closes_ms)),
            )
            .await?;
        let code = || CouponCode::parse(&code).map_err(|_| unreadable("a code"));
        let held = || -> Result<Held, RedisError> {
            let user = ask.user.ok_or_else(|| unreadable("a place for nobody"))?.clone();
            Ok(Held { user, code: code()?, number, epoch, since_ms })
        };
        let verdict = match status.as_str() {
            "cold" => Verdict::Cold,
            "stale" => Verdict::Stale { version: i64::try_from(number).unwrap_or(i64::MAX) },
            "outside" => Verdict::Outside,
            "sold_out" => Verdict::SoldOut,
            "open" => Verdict::Open,
            "already_issued" => Verdict::AlreadyIssued(code()?),
            "pending" => Verdict::Pending(held()?),
            "busy" => Verdict::Busy,
            "reserved" => Verdict::Reserved(held()?),
            _ => return Err(unreadable("a status")),
        };
        Ok(Decision { verdict, now_ms, committed })
    }

    /// Marks places as committed: user, code and number of each row.
    ///
    /// # Errors
    /// If Redis cannot be reached; they stay pending and the sweeper settles them.
    pub async fn settle(
        &self,
        campaign: &CampaignId,
        round: RoundId,
        rows: &[(UserId, CouponCode, u64)],
    ) -> Result<(), RedisError> {
        let keys = self.round_keys(campaign, round);
        let mut invocation = SETTLE.key(keys.round);
        invocation.key(keys.users).key(keys.pending);
        for (user, code, number) in rows {
            invocation.arg(user.as_str()).arg(code.as_str()).arg(*number);
        }
        self.invoke(campaign.as_str(), &invocation).await
    }

    /// Gives back a place that can never be committed.
    ///
    /// # Errors
    /// If Redis cannot be reached; it stays pending and the sweeper tries again.
    pub async fn release(&self, campaign: &CampaignId, round: RoundId, held: &Held) -> Result<(), RedisError> {
        let keys = self.round_keys(campaign, round);
        let mut invocation = RELEASE.key(keys.round);
        invocation.key(keys.users).key(keys.pending).key(keys.free);
        self.invoke(campaign.as_str(), invocation.arg(held.user.as_str()).arg(held.place()).arg(held.number)).await
    }

    /// Drops a place that PostgreSQL contradicts, and marks the round cold.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn discard(&self, campaign: &CampaignId, round: RoundId, held: &Held) -> Result<(), RedisError> {
        let keys = self.round_keys(campaign, round);
        let mut invocation = DISCARD.key(keys.round);
        invocation.key(keys.users).key(keys.pending);
        self.invoke(campaign.as_str(), invocation.arg(held.epoch).arg(held.user.as_str()).arg(held.place())).await
    }

    /// Marks the round cold if it still shows this epoch.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn mark_cold(&self, campaign: &CampaignId, round: RoundId, epoch: i64) -> Result<(), RedisError> {
        let keys = self.round_keys(campaign, round);
        let mut invocation = DISCARD.key(keys.round);
        invocation.key(keys.users).key(keys.pending);
        self.invoke(campaign.as_str(), invocation.arg(epoch).arg("").arg("")).await
    }

    /// Remembers to which round a code belongs that was answered with 202, so that its location can be looked up.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn point(
        &self,
        campaign: &CampaignId,
        round: RoundId,
        code: CouponCode,
        closes_ms: i64,
    ) -> Result<(), RedisError> {
        let key = self.pointer_key(code);
        let mut pipeline = redis::pipe();
        pipeline.set(&key, format!("{campaign} {round}")).ignore().pexpire_at(&key, expiry_ms(closes_ms)).ignore();
        self.transaction(code.as_str(), &mut pipeline).await
    }

    /// Whether `user` holds the place `code`, not committed as far as Redis knows.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn holds(&self, user: &UserId, code: CouponCode) -> Result<bool, RedisError> {
        let pointer: Option<String> = self.command(code.as_str(), &redis::Cmd::get(self.pointer_key(code))).await?;
        let place = pointer.as_deref().and_then(|text| text.split_once(' '));
        let Some((Ok(campaign), Ok(round))) =
            place.map(|(campaign, round)| (CampaignId::parse(campaign), round.parse::<RoundId>()))
        else {
            return Ok(false);
        };
        let users = self.round_keys(&campaign, round).users;
        let entry: Option<String> = self.command(campaign.as_str(), &redis::Cmd::hget(users, user.as_str())).await?;
        Ok(entry.and_then(|entry| entry.split_once(':').map(|(held, _)| held == code.as_str())).unwrap_or(false))
    }
}

/// Status, now_ms, committed, reserved, code, number, epoch, since_ms.
type Reply = (String, i64, u64, u64, String, u64, i64, i64);

/// Something else than this program has written to its keys.
pub(super) fn unreadable(what: &'static str) -> RedisError {
    redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "unreadable reply", what.to_owned())).into()
}
