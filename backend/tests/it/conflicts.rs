//! PostgreSQL contradicts Redis, which lags behind: a replica that was failed over to.

use chrono::{DateTime, Utc};
use doorbuster_backend::campaign::{Discount, Terms};
use doorbuster_backend::store::postgres::{Fault, Outcome, Reservation};
use doorbuster_backend::store::redis::Held;
use doorbuster_domain::code::CouponCode;
use serde_json::Value;

use crate::recovery::reserve_and_die;
use crate::world::{World, eventually, id, in_world, user};

async fn reservation(world: &World, name: &str, number: u64, epoch: i64) -> Reservation {
    let now: DateTime<Utc> = world.now().await;
    Reservation {
        code: CouponCode::from_random(rand::random()),
        user: user(name),
        number,
        epoch,
        issued_at: now,
        redeemable_from: now,
        redeemable_until: now,
        terms: Terms {
            discount: Discount::Amount { value: 1 },
            min_order_amount: 0,
            currency: "KRW".to_owned(),
            vendor: None,
        },
        version: 1,
    }
}

/// What the backend that holds a place would commit.
pub(crate) async fn reservation_of(world: &World, held: &Held) -> Reservation {
    let any = reservation(world, held.user.as_str(), held.number, held.epoch).await;
    Reservation { code: held.code, ..any }
}

async fn epoch(world: &World) -> i64 {
    eventually("a round", async || {
        sqlx::query_scalar("SELECT epoch FROM rounds WHERE epoch > 0").fetch_optional(&world.pool).await.unwrap()
    })
    .await
}

/// Commits a coupon behind Redis's back.
async fn commit_unseen(world: &World, name: &str, number: u64) -> Reservation {
    // A second backend that warms the round as well raises its epoch meanwhile.
    eventually("a commit under the round's epoch", async || {
        let reserved = reservation(world, name, number, epoch(world).await).await;
        let batch = std::slice::from_ref(&reserved);
        let commit = world.postgres().commit(&id("spring"), world.today().await, batch).await.unwrap();
        match commit.outcomes[..] {
            [Outcome::Issued(_)] => Some(reserved),
            [Outcome::Stale] => None,
            _ => panic!("{commit:?}"),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_held_by_another_is_replaced() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(3).await).await;
        world.issue(at, "spring", "zoe").await;
        commit_unseen(world, "yan", 2).await;
        let win = world.issue(at, "spring", "ann").await;
        assert_eq!((win.told(), &win.coupon()["number"]), ("issued", &3.into()));
        assert_eq!(world.issue(at, "spring", "yan").await.told(), "sold_out");
        world.assert_issued("spring", 3).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_another_coupon_hears_of_that_one() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(3).await).await;
        let unseen = commit_unseen(world, "ann", 3).await;
        let reply = world.issue(at, "spring", "ann").await;
        assert_eq!((reply.told(), reply.coupon()["code"].as_str()), ("already_issued", Some(unseen.code.as_str())));
        // The place that was reserved for her went back.
        assert_eq!(world.issue(at, "spring", "bob").await.coupon()["number"], 1);
        assert_eq!(world.issue(at, "spring", "cid").await.coupon()["number"], 2);
        assert_eq!(world.issue(at, "spring", "dan").await.told(), "sold_out");
        world.assert_issued("spring", 3).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rush_on_a_redis_that_lags_ends_with_the_quota() {
    in_world(async |world| {
        world.start().await;
        world.start().await;
        world.put(0, "spring", &world.open(100).await).await;
        for number in [1, 2, 3, 50, 51, 99, 100] {
            commit_unseen(world, &format!("user-{number}"), number).await;
        }
        eventually("the quota", async || {
            crate::issue::rush(world, (0..200).map(|n| format!("user-{n}")), 40).await;
            (world.audit("spring").await.len() >= 100).then_some(())
        })
        .await;
        world.assert_issued("spring", 100).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_a_replica_has_missed_holds_after_its_promotion() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(1).await).await;
        assert_eq!(world.issue(at, "spring", "ann").await.told(), "issued");
        let missed = world.redis().version(&id("spring")).await.unwrap();
        world.put(at, "spring", &world.open(2).await).await;
        let key = format!("{}:{{spring}}:version", world.name);
        redis::cmd("SET").arg(&key).arg(missed).exec_async(&mut world.raw_redis().await).await.unwrap();
        assert_eq!(world.issue(at, "spring", "bob").await.told(), "issued");
        assert_eq!(world.issue(at, "spring", "cid").await.told(), "sold_out");
        assert!(world.redis().version(&id("spring")).await.unwrap() > missed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweeper_resolves_conflicts_too() {
    in_world(async |world| {
        world.hurried = true;
        let at = world.start().await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        let redis = world.redis();
        let ann = reserve_and_die(world, &redis, "ann").await;
        commit_unseen(world, "zoe", ann.number).await;
        eventually("the round's rebuilding", async || {
            let counts = redis.count(&id("spring"), world.today().await).await.unwrap();
            (counts.warm && counts.pending == 0 && counts.committed == 1).then_some(())
        })
        .await;
        assert_eq!(world.issue(at, "spring", "ann").await.told(), "issued");
        world.assert_issued("spring", 2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_commit_of_an_older_epoch_is_fenced() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(2).await).await;
        let redis = world.redis();
        // A backend reserves, is paused, and meanwhile Redis loses everything.
        let held = reserve_and_die(world, &redis, "ann").await;
        let late = reservation(world, "ann", held.number, held.epoch).await;
        world.forget_redis().await;
        assert_eq!(world.issue(at, "spring", "bob").await.coupon()["number"], 1);
        let postgres = world.postgres();
        let commit = postgres.commit(&id("spring"), world.today().await, &[late]).await.unwrap();
        assert_eq!((commit.outcomes, commit.issued), (vec![Outcome::Stale], 1));
        assert_eq!(world.issue(at, "spring", "ann").await.coupon()["number"], 2);
        world.assert_issued("spring", 2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_merged_by_a_hydration_is_committed_under_its_new_epoch() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(2).await).await;
        let redis = world.redis();
        let held = reserve_and_die(world, &redis, "ann").await;
        redis.mark_cold(&id("spring"), world.today().await, held.epoch).await.unwrap();
        let again = world.issue(at, "spring", "ann").await;
        assert_eq!((again.told(), again.coupon()["code"].as_str()), ("issued", Some(held.code.as_str())));
        assert!(epoch(world).await > held.epoch);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_says_last_that_the_quota_is_kept() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(2).await).await;
        let above = reservation(world, "ann", 3, epoch(world).await).await;
        let error = world.postgres().commit(&id("spring"), world.today().await, &[above]).await.unwrap_err();
        assert!(error.fault() == Fault::Row && error.is_above_quota(), "{error}");
        assert_eq!(world.audit("spring").await, []);

        // A Redis that gives such a number is rebuilt, and the user gets another.
        let mut connection = world.raw_redis().await;
        let key = format!("{}:{{spring}}:{}", world.name, world.today().await);
        redis::cmd("HSET").arg(&key).arg("next").arg(2).exec_async(&mut connection).await.unwrap();
        let version: i64 = world.redis().version(&id("spring")).await.unwrap();
        assert!(version > 0);
        let held = reserve_and_die(world, &world.redis(), "bob").await;
        assert_eq!(held.number, 3);
        let again = world.issue(at, "spring", "bob").await;
        assert_eq!((again.told(), &again.coupon()["number"]), ("issued", &1.into()), "{again:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_does_not_spoil_its_batch() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        let redis = world.redis();
        // A constraint that PostgreSQL alone knows of stands for whatever it will never take.
        sqlx::query("ALTER TABLE coupons ADD CONSTRAINT no_bad CHECK (user_id <> 'bad')")
            .execute(&world.pool)
            .await
            .unwrap();
        let bad = reserve_and_die(world, &redis, "bad").await;
        assert_eq!(bad.number, 1);
        let mut row = world.pool.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM rounds FOR UPDATE").execute(&mut *row).await.unwrap();
        // The first to come commits alone and waits; the others gather behind it.
        let (first, second, third, refused, ()) = tokio::join!(
            world.issue(at, "spring", "ann"),
            world.issue(at, "spring", "bob"),
            world.issue(at, "spring", "cid"),
            world.issue(at, "spring", "bad"),
            async {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                row.rollback().await.unwrap();
            }
        );
        for reply in [first, second, third] {
            assert_eq!(reply.told(), "issued", "{reply:?}");
        }
        assert_eq!(refused.told(), "unavailable", "{refused:?}");
        assert_eq!(world.issue(at, "spring", "dan").await.coupon()["number"], 1, "its number went back");
        world.assert_issued("spring", 4).await;
    })
    .await;
}
