//! The Lua scripts, called as functions.

use doorbuster_backend::store::redis::{Ask, Decision, Held, Redis, Swap, Verdict};
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{CampaignId, RoundId, UserId};

use crate::world::{World, id, in_world, user};

/// A round of version 5 and quota 3, rebuilt under `epoch` from `coupons`.
struct Round {
    redis: Redis,
    campaign: CampaignId,
    round: RoundId,
    now_ms: i64,
    quota: Option<u64>,
    version: i64,
}

const HOUR_MS: i64 = 3_600_000;

fn code(n: u64) -> CouponCode {
    CouponCode::from_random(n)
}

impl Round {
    async fn new(world: &World) -> Self {
        Self {
            redis: world.redis(),
            campaign: id("spring"),
            round: world.today().await,
            now_ms: world.now().await.timestamp_millis(),
            quota: Some(3),
            version: 5,
        }
    }

    async fn fill(&self, epoch: i64, coupons: &[(UserId, u64, CouponCode)]) -> bool {
        self.try_fill(epoch, coupons, async || {}).await == Swap::Swapped
    }

    async fn try_fill(
        &self,
        epoch: i64,
        coupons: &[(UserId, u64, CouponCode)],
        before_swap: impl AsyncFnOnce(),
    ) -> Swap {
        let mut staging = self.redis.stage(&self.campaign, self.round, epoch);
        self.redis.stage_coupons(&mut staging, coupons).await.unwrap();
        before_swap().await;
        self.redis.swap(staging, 5, self.now_ms + HOUR_MS).await.unwrap()
    }

    async fn ask(&self, user: Option<&UserId>, code: CouponCode) -> Decision {
        let window_ms = (self.now_ms - HOUR_MS, self.now_ms + HOUR_MS);
        let (version, quota) = (self.version, self.quota);
        let ask = Ask { campaign: &self.campaign, round: self.round, user, code, version, quota, window_ms };
        self.redis.issue(&ask).await.unwrap()
    }

    async fn issue(&self, name: &str, n: u64) -> Verdict {
        self.ask(Some(&user(name)), code(n)).await.verdict
    }

    /// The place that a request reserves.
    async fn reserve(&self, name: &str, n: u64) -> Held {
        match self.issue(name, n).await {
            Verdict::Reserved(held) => held,
            other => panic!("{name}: {other:?}"),
        }
    }

    async fn settle(&self, held: &Held, number: u64) {
        let rows = [(held.user.clone(), held.code, number)];
        self.redis.settle(&self.campaign, self.round, &rows).await.unwrap();
    }

    async fn counts(&self) -> (bool, u64, u64) {
        let counts = self.redis.count(&self.campaign, self.round).await.unwrap();
        (counts.warm, counts.committed, counts.pending)
    }
}

#[tokio::test]
async fn a_round_is_cold_until_it_is_filled() {
    in_world(async |world| {
        let round = Round::new(world).await;
        assert_eq!(round.issue("ann", 1).await, Verdict::Cold);
        assert!(round.fill(1, &[]).await);
        assert_eq!(round.reserve("ann", 1).await.number, 1);
        assert_eq!(round.counts().await, (true, 0, 1));
    })
    .await;
}

#[tokio::test]
async fn places_are_given_once_and_up_to_the_quota() {
    in_world(async |world| {
        let round = Round::new(world).await;
        round.fill(1, &[]).await;
        let ann = round.reserve("ann", 1).await;
        assert_eq!(round.issue("ann", 2).await, Verdict::Pending(ann.clone()));
        round.reserve("bob", 2).await;
        let cid = round.reserve("cid", 3).await;
        assert_eq!((cid.number, cid.epoch), (3, 1));
        assert_eq!(round.issue("dan", 4).await, Verdict::Busy);
        assert_eq!(round.ask(None, code(4)).await.verdict, Verdict::Open);
        round.settle(&ann, 1).await;
        assert_eq!(round.issue("ann", 5).await, Verdict::AlreadyIssued(ann.code));
        let decision = round.ask(Some(&user("dan")), code(4)).await;
        assert_eq!((decision.verdict, decision.committed), (Verdict::Busy, 1));
        for (name, n) in [("bob", 2), ("cid", 3)] {
            let Verdict::Pending(held) = round.issue(name, n).await else { panic!("{name}") };
            round.settle(&held, held.number).await;
        }
        assert_eq!(round.issue("ann", 6).await, Verdict::SoldOut);
        assert_eq!(round.ask(None, code(4)).await.verdict, Verdict::SoldOut);
        assert_eq!(round.counts().await, (true, 3, 0));
    })
    .await;
}

#[tokio::test]
async fn a_number_given_back_goes_to_the_next_user() {
    in_world(async |world| {
        let round = Round::new(world).await;
        round.fill(1, &[]).await;
        let ann = round.reserve("ann", 1).await;
        round.reserve("bob", 2).await;
        round.redis.release(&round.campaign, round.round, &ann).await.unwrap();
        // Only while it is pending: the second time changes nothing.
        round.redis.release(&round.campaign, round.round, &ann).await.unwrap();
        assert_eq!(round.reserve("cid", 3).await.number, 1);
        assert_eq!(round.reserve("dan", 4).await.number, 3);
        assert_eq!(round.issue("eve", 5).await, Verdict::Busy);
    })
    .await;
}

#[tokio::test]
async fn no_number_above_a_lowered_quota_is_given() {
    in_world(async |world| {
        let mut round = Round::new(world).await;
        round.fill(1, &[]).await;
        let places = [round.reserve("ann", 1).await, round.reserve("bob", 2).await, round.reserve("cid", 3).await];
        for held in [&places[0], &places[2]] {
            round.redis.release(&round.campaign, round.round, held).await.unwrap();
        }
        round.quota = Some(2);
        assert_eq!(round.reserve("dan", 4).await.number, 1);
        assert_eq!(round.issue("eve", 5).await, Verdict::Busy);
        round.quota = None;
        assert_eq!(round.reserve("eve", 5).await.number, 3);
    })
    .await;
}

#[tokio::test]
async fn versions_and_the_window_fence() {
    in_world(async |world| {
        let mut round = Round::new(world).await;
        round.fill(1, &[]).await;
        round.version = 4;
        assert_eq!(round.issue("ann", 1).await, Verdict::Stale { version: 5 });
        round.version = 6;
        assert_eq!(round.issue("ann", 1).await, Verdict::Cold);
        assert_eq!(round.redis.raise_version(&round.campaign, 6).await.unwrap(), 6);
        assert_eq!(round.redis.raise_version(&round.campaign, 5).await.unwrap(), 6, "never lowered");
        round.reserve("ann", 1).await;
        let window_ms = (round.now_ms + HOUR_MS, round.now_ms + 2 * HOUR_MS);
        let ask = |window_ms| Ask {
            campaign: &round.campaign,
            round: round.round,
            user: None,
            code: code(1),
            version: 6,
            quota: None,
            window_ms,
        };
        assert_eq!(round.redis.issue(&ask(window_ms)).await.unwrap().verdict, Verdict::Outside);
        let over = (round.now_ms - HOUR_MS, round.now_ms);
        assert_eq!(
            round.redis.issue(&ask(over)).await.unwrap().verdict,
            Verdict::Outside,
            "the closing instant is out"
        );
    })
    .await;
}

#[tokio::test]
async fn filling_merges_what_is_pending() {
    in_world(async |world| {
        let mut round = Round::new(world).await;
        round.quota = None;
        round.fill(1, &[]).await;
        let [ann, bob, cid, dan, eve] =
            [("ann", 1), ("bob", 2), ("cid", 3), ("dan", 4), ("eve", 5)].map(|(name, n)| (user(name), code(n)));
        for (user, code) in [&ann, &bob, &cid, &dan, &eve] {
            assert!(matches!(round.ask(Some(user), *code).await.verdict, Verdict::Reserved(_)));
        }
        // PostgreSQL has ann's; bob has another; cid's number 3 is zoe's; 4 is free; 5 is above all it has.
        let coupons = [(ann.0.clone(), 1, ann.1), (bob.0.clone(), 2, code(20)), (user("zoe"), 3, code(30))];
        assert!(round.fill(2, &coupons).await);
        assert_eq!(round.counts().await, (true, 3, 2));
        assert_eq!(round.issue("ann", 9).await, Verdict::AlreadyIssued(ann.1));
        assert_eq!(round.issue("bob", 9).await, Verdict::AlreadyIssued(code(20)));
        let Verdict::Pending(held) = round.issue("dan", 9).await else { panic!() };
        assert_eq!((held.code, held.number, held.epoch), (dan.1, 4, 2));
        assert_eq!(round.reserve("cid", 9).await.number, 6);

        // An epoch not above the one shown changes nothing.
        assert!(!round.fill(2, &[]).await);
        assert_eq!(round.counts().await, (true, 3, 3));

        // Gaps below the highest number, and below a pending one, are free.
        assert!(round.fill(3, &[(user("yan"), 2, code(40))]).await);
        let mut numbers = Vec::new();
        for n in 50..54 {
            numbers.push(round.reserve(&format!("user-{n}"), n).await.number);
        }
        assert_eq!(numbers, [1, 3, 7, 8]);
    })
    .await;
}

#[tokio::test]
async fn a_round_that_redis_lost_in_the_filling_is_not_put_in_place() {
    in_world(async |world| {
        let round = Round::new(world).await;
        for coupons in [[(user("ann"), 1, code(1))], [(user("ann"), 2, code(1))]] {
            assert_eq!(round.try_fill(1, &coupons, async || world.forget_redis().await).await, Swap::Lost);
            assert_eq!(round.issue("ann", 2).await, Verdict::Cold);
        }
        assert_eq!(round.try_fill(1, &[], async || world.forget_redis().await).await, Swap::Swapped);
        assert_eq!(round.try_fill(1, &[], async || {}).await, Swap::Older);
    })
    .await;
}

#[tokio::test]
async fn a_contradicted_place_goes_and_the_round_is_rebuilt() {
    in_world(async |world| {
        let round = Round::new(world).await;
        round.fill(1, &[]).await;
        let ann = round.reserve("ann", 1).await;
        round.redis.discard(&round.campaign, round.round, &ann).await.unwrap();
        assert_eq!(round.counts().await, (false, 0, 0));
        assert_eq!(round.issue("bob", 2).await, Verdict::Cold);

        // Under a later epoch the contradiction is about the past.
        round.fill(2, &[]).await;
        let ann_again = round.reserve("ann", 3).await;
        round.redis.discard(&round.campaign, round.round, &ann).await.unwrap();
        round.redis.mark_cold(&round.campaign, round.round, ann.epoch).await.unwrap();
        assert_eq!(round.counts().await, (true, 0, 1));
        round.redis.mark_cold(&round.campaign, round.round, ann_again.epoch).await.unwrap();
        assert_eq!(round.counts().await, (false, 0, 1));
    })
    .await;
}

#[tokio::test]
async fn of_two_that_hear_of_a_contradiction_the_later_undoes_nothing() {
    in_world(async |world| {
        let round = Round::new(world).await;
        round.fill(1, &[]).await;
        let ann = round.reserve("ann", 1).await;
        round.redis.discard(&round.campaign, round.round, &ann).await.unwrap();
        round.fill(2, &[(user("zoe"), 1, code(9))]).await;
        // Under the same code, as a request does that reserves again.
        let again = round.reserve("ann", 1).await;
        assert_eq!((again.code, again.number), (ann.code, 2));
        round.redis.discard(&round.campaign, round.round, &ann).await.unwrap();
        round.redis.release(&round.campaign, round.round, &ann).await.unwrap();
        assert_eq!(round.counts().await, (true, 1, 1));
        assert_eq!(round.issue("ann", 3).await, Verdict::Pending(again));
    })
    .await;
}

#[tokio::test]
async fn settling_is_only_for_what_is_pending_under_the_code() {
    in_world(async |world| {
        let round = Round::new(world).await;
        round.fill(1, &[]).await;
        let ann = round.reserve("ann", 1).await;
        let other = Held { code: code(2), ..ann.clone() };
        round.settle(&other, 1).await;
        assert_eq!(round.counts().await, (true, 0, 1));
        round.settle(&ann, 1).await;
        round.settle(&ann, 1).await;
        assert_eq!(round.counts().await, (true, 1, 0));
        // Another number than Redis holds: one of them is somebody else's.
        let bob = round.reserve("bob", 3).await;
        round.settle(&bob, 9).await;
        assert_eq!(round.counts().await, (false, 2, 0));
    })
    .await;
}

#[tokio::test]
async fn every_key_of_a_round_expires() {
    in_world(async |world| {
        let round = Round::new(world).await;
        round.fill(1, &[(user("zoe"), 2, code(9))]).await;
        let ann = round.reserve("ann", 1).await;
        round.settle(&ann, 1).await;
        let bob = round.reserve("bob", 2).await;
        round.redis.release(&round.campaign, round.round, &bob).await.unwrap();
        round.reserve("cid", 3).await;
        let mut connection = world.raw_redis().await;
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(format!("{}:*", world.name)).query_async(&mut connection).await.unwrap();
        for key in keys.iter().filter(|key| !key.ends_with(":version")) {
            let left_ms: i64 = redis::cmd("PTTL").arg(key).query_async(&mut connection).await.unwrap();
            assert!(left_ms > 24 * HOUR_MS && left_ms <= 26 * HOUR_MS, "{key}: {left_ms}");
        }
    })
    .await;
}
