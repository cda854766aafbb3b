//! What survives the loss of Redis, of PostgreSQL for a while, and of a backend.

use std::time::{Duration, Instant};

use doorbuster_backend::store::postgres::Outcome;
use doorbuster_backend::store::redis::{Ask, Held, Lease, Redis, Verdict};
use doorbuster_domain::code::CouponCode;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::door::{Door, door, door_to};
use crate::issue::rush;
use crate::world::{World, eventually, id, in_world, user};

/// Reserves a place as a backend does that dies before it commits.
pub(crate) async fn reserve_and_die(world: &World, redis: &Redis, name: &str) -> Held {
    let campaign = id("spring");
    let opens_ms = world.now().await.timestamp_millis() - 3_600_000;
    let version = redis.version(&campaign).await.unwrap();
    let user = user(name);
    let ask = Ask {
        campaign: &campaign,
        round: world.today().await,
        user: Some(&user),
        code: CouponCode::from_random(rand::random()),
        version,
        quota: None,
        window_ms: (opens_ms, opens_ms + 24 * 3_600_000),
    };
    eventually("a warm round", async || match redis.issue(&ask).await.unwrap().verdict {
        Verdict::Reserved(held) => Some(held),
        Verdict::Cold => None,
        other => panic!("{other:?}"),
    })
    .await
}

/// Holds the round's row, so that every commit runs into its deadline, until dropped.
async fn stop_commits(world: &World) -> sqlx::Transaction<'static, sqlx::Postgres> {
    eventually("the round's row", async || {
        let mut transaction = world.pool.begin().await.unwrap();
        let held = sqlx::query("SELECT 1 FROM rounds FOR UPDATE").execute(&mut *transaction).await.unwrap();
        (held.rows_affected() == 1).then_some(transaction)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_lost_in_the_rush_costs_nobody_a_coupon() {
    in_world(async |world| {
        world.start().await;
        world.start().await;
        world.put(0, "spring", &world.open(200).await).await;
        assert_eq!(world.issue(0, "spring", "first").await.told(), "issued");
        eventually("the second backend's notice", async || {
            (world.issue(1, "spring", "first").await.status == 409).then_some(())
        })
        .await;

        let requests = rush(world, (0..400).map(|n| format!("user-{n}")), 50);
        let losses = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(40)).await;
                world.forget_redis().await;
            }
        };
        let (mut told, ()) = tokio::join!(requests, losses);
        // Whoever was told to ask again does.
        for attempt in 0..5 {
            for (key, count) in rush(world, (0..400).map(|n| format!("user-{n}")), 50).await {
                *told.entry(format!("{key} {attempt}")).or_default() += count;
            }
        }
        assert_eq!(told.get("?"), None, "{told:?}");
        world.assert_issued("spring", 200).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_with_201_is_known_after_the_loss_of_redis() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(3).await).await;
        let win = world.issue(at, "spring", "ann").await;
        world.forget_redis().await;
        let again = world.issue(at, "spring", "ann").await;
        assert_eq!((again.told(), again.coupon()), ("already_issued", win.coupon()));
        assert_eq!(world.issue(at, "spring", "bob").await.coupon()["number"], 2);
        world.forget_redis().await;
        // Without asking for a coupon first.
        let count = world.get(at, "/v1/coupon/count?campaign=spring", "").await.body;
        assert_eq!(count["issued"], 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_backends_places_are_committed_by_another() {
    in_world(async |world| {
        world.hurried = true;
        let at = world.start().await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        let redis = world.redis();
        let ann = reserve_and_die(world, &redis, "ann").await;
        let bob = reserve_and_die(world, &redis, "bob").await;
        // Who asks again is not kept waiting for the sweeper.
        let again = eventually("bob's coupon", async || {
            let again = world.issue(at, "spring", "bob").await;
            matches!(again.told(), "issued" | "already_issued").then_some(again)
        })
        .await;
        assert_eq!(again.coupon()["code"].as_str(), Some(bob.code.as_str()));
        eventually("the sweep", async || (world.audit("spring").await.len() == 2).then_some(())).await;
        // Settled in Redis or not yet.
        let again = world.issue(at, "spring", "ann").await;
        assert!(matches!(again.told(), "issued" | "already_issued"), "{again:?}");
        assert_eq!(again.coupon()["code"].as_str(), Some(ann.code.as_str()));
        world.assert_issued("spring", 2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_joins_the_commit_of_another_backend() {
    in_world(async |world| {
        world.start().await;
        world.start().await;
        world.put(0, "spring", &world.open(Value::Null).await).await;
        eventually("the second backend's notice", async || {
            (world.issue(1, "spring", "").await.status == 401).then_some(())
        })
        .await;
        let held = stop_commits(world).await;
        let (one, other, ()) = tokio::join!(world.issue(0, "spring", "ann"), world.issue(1, "spring", "ann"), async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            held.rollback().await.unwrap();
        });
        assert_eq!((one.status.as_u16(), other.status.as_u16()), (201, 201), "{one:?} {other:?}");
        assert_eq!(one.coupon(), other.coupon());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_from_postgresql_a_place_is_pending() {
    in_world(async |world| {
        world.hurried = true;
        let at = world.start().await;
        world.put(at, "spring", &world.open(10).await).await;
        let held = stop_commits(world).await;
        let users: Vec<String> = (0..5).map(|n| format!("user-{n}")).collect();
        let replies = join_all(users.iter().map(|user| world.issue(at, "spring", user))).await;
        for (user, reply) in users.iter().zip(&replies) {
            assert_eq!(reply.status, 202, "{reply:?}");
            assert_eq!(reply.body["status"], "pending");
            let code = reply.body["code"].as_str().unwrap();
            let location = reply.header("location");
            assert_eq!(location, format!("/v1/coupons/{code}"));
            assert!(reply.header("x-doorbuster-result").starts_with("outcome=pending"));
            assert_eq!(world.get(at, location, user).await.status, 202);
            assert_eq!(world.get(at, location, "somebody-else").await.told(), "unknown_coupon");
        }
        held.rollback().await.unwrap();
        for (user, reply) in users.iter().zip(&replies) {
            let coupon = eventually("the commit", async || {
                let found = world.get(at, reply.header("location"), user).await;
                assert!([200, 202].contains(&found.status.as_u16()), "{found:?}");
                (found.status == 200).then_some(found.coupon().clone())
            })
            .await;
            assert_eq!(coupon["code"], reply.body["code"]);
        }
        world.assert_issued("spring", 5).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_gone_and_back_in_the_rush() {
    in_world(async |world| {
        world.hurried = true;
        world.start().await;
        world.put(0, "spring", &world.open(Value::Null).await).await;
        eventually("the first coupon", async || {
            ["issued", "already_issued"].contains(&world.issue(0, "spring", "first").await.told()).then_some(())
        })
        .await;
        let admin = sqlx::PgPool::connect(&std::env::var("DOORBUSTER_TEST_DATABASE_URL").unwrap()).await.unwrap();
        let run = async |sql: String| sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&admin).await.unwrap();
        let (mut told, ()) = tokio::join!(rush(world, (0..300).map(|n| format!("user-{n}")), 20), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            run(format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", world.name)).await;
            run(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", world.name))
                .await;
        });
        // However quick the rush was, these ask while PostgreSQL is gone.
        for (key, count) in rush(world, (300..320).map(|n| format!("user-{n}")), 20).await {
            *told.entry(key).or_default() += count;
        }
        run(format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", world.name)).await;
        assert!(told.keys().all(|told| ["issued", "pending", "unavailable"].contains(&told.as_str())), "{told:?}");
        assert!(told.contains_key("pending"), "{told:?}");
        let held = told.get("issued").unwrap_or(&0) + told["pending"];
        eventually("every place's commit", async || (world.audit("spring").await.len() == held + 1).then_some(()))
            .await;
        world.assert_issued("spring", held + 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nobody_guesses() {
    in_world(async |world| {
        world.hurried = true;
        // A door to Redis that can be closed.
        let (url, door) = door(&world.redis_url).await;
        let direct = std::mem::replace(&mut world.redis_url, url);
        let at = world.start().await;
        world.redis_url = direct;
        world.put(at, "spring", &world.open(5).await).await;
        assert_eq!(world.issue(at, "spring", "ann").await.told(), "issued");

        door.send_replace(Door::Closed);
        let reply = world.issue(at, "spring", "bob").await;
        assert_eq!((reply.status.as_u16(), reply.told()), (503, "unavailable"));
        assert!(reply.header("x-doorbuster-result").starts_with("outcome=refused"));
        let body = world.open(7).await;
        let change = world.admin(at, reqwest::Method::PUT, "/spring", Some(&body)).await;
        assert_eq!((change.status.as_u16(), change.told()), (503, "unavailable"));
        let stored = world.admin(at, reqwest::Method::GET, "/spring", None).await;
        assert_eq!(stored.body["quota"], 5, "nothing was stored");
        let ready = world.http.get(format!("{}/readyz", world.backends[at].ops)).send().await.unwrap();
        assert_eq!(ready.status(), 503);
        let ready: Value = ready.json().await.unwrap();
        assert_eq!(ready["postgres"], json!("ok"));
        assert_ne!(ready["redis"], json!("ok"));
        // A committed coupon is found all the same; one that is not found may be pending.
        assert_eq!(world.get(at, "/v1/coupons", "ann").await.body["coupons"].as_array().unwrap().len(), 1);
        let code = CouponCode::from_random(1);
        assert_eq!(world.get(at, &format!("/v1/coupons/{code}"), "ann").await.told(), "unavailable");

        door.send_replace(Door::Open);
        eventually("the way back", async || (world.issue(at, "spring", "bob").await.told() == "issued").then_some(()))
            .await;
        world.assert_issued("spring", 2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_comes_after_the_sweep_finds_its_own_coupon() {
    in_world(async |world| {
        world.hurried = true;
        let at = world.start().await;
        world.put(at, "spring", &world.open(5).await).await;
        // A backend reserves and is paused before it commits.
        let held = reserve_and_die(world, &world.redis(), "ann").await;
        eventually("the sweep", async || (world.audit("spring").await.len() == 1).then_some(())).await;
        let late = crate::conflicts::reservation_of(world, &held).await;
        let commit = world.postgres().commit(&id("spring"), world.today().await, &[late]).await.unwrap();
        let Outcome::Issued(coupon) = &commit.outcomes[0] else { panic!("{commit:?}") };
        assert_eq!((coupon.code, commit.issued), (held.code, 1));
        world.assert_issued("spring", 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_backend_at_a_time_hydrates() {
    in_world(async |world| {
        for _ in 0..3 {
            world.start().await;
        }
        world.put(0, "spring", &world.open(10).await).await;
        assert_eq!(world.issue(0, "spring", "ann").await.told(), "issued");
        for at in 1..3 {
            eventually("a backend's notice", async || {
                (world.issue(at, "spring", "ann").await.told() == "already_issued").then_some(())
            })
            .await;
        }
        let world: &World = world;
        // Whoever hydrates draws an epoch, then waits for the coupons.
        let drawn = async || -> i64 {
            sqlx::query_scalar("SELECT last_value FROM round_epoch").fetch_one(&world.pool).await.unwrap()
        };
        let before = drawn().await;
        let mut away = world.pool.begin().await.unwrap();
        sqlx::query("LOCK TABLE coupons IN ACCESS EXCLUSIVE MODE").execute(&mut *away).await.unwrap();
        world.forget_redis().await;
        let crowd = join_all((0..9).map(|n| {
            let name = format!("user-{n}");
            async move { world.issue(n % 3, "spring", &name).await }
        }));
        let watch = async {
            eventually("a hydration", async || (drawn().await > before).then_some(())).await;
            tokio::time::sleep(Duration::from_millis(700)).await;
            let drawn = drawn().await;
            away.rollback().await.unwrap();
            drawn
        };
        let (replies, drawn_by_all) = tokio::join!(crowd, watch);
        assert_eq!(drawn_by_all, before + 1, "another backend hydrated as well");
        assert!(replies.iter().all(|reply| reply.told() == "issued"), "{replies:?}");
        assert_eq!(drawn().await, before + 1, "those who waited found the round filled");
        world.assert_issued("spring", 10).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hydration_that_was_killed_is_taken_over() {
    in_world(async |world| {
        world.start().await;
        world.put(0, "spring", &world.open(1).await).await;
        let (redis, campaign, round) = (world.redis(), id("spring"), world.today().await);
        let known = eventually("a warm round", async || {
            let counts = redis.count(&campaign, round).await.unwrap();
            counts.warm.then_some(counts)
        })
        .await;
        // A backend that took the lease and is heard of no more.
        let lease = redis.lease(&campaign, round, "a backend that was killed");
        eventually("the lease", async || redis.take(&lease).await.unwrap().then_some(())).await;
        let taken = Instant::now();
        redis.mark_cold(&campaign, round, known.epoch).await.unwrap();
        eventually("a win", async || (world.issue(0, "spring", "ann").await.told() == "issued").then_some(())).await;
        assert!(taken.elapsed() > Lease::TERM / 2, "nobody waited");
        world.assert_issued("spring", 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_starts_although_postgresql_breaks_off() {
    in_world(async |world| {
        let (before, address_and_name) = world.database_url.rsplit_once('@').unwrap();
        let (address, name) = address_and_name.split_once('/').unwrap();
        let (through, door) = door_to(address).await;
        let url = format!("{before}@{through}/{name}");
        door.send_replace(Door::Closed);
        let straight = std::mem::replace(&mut world.database_url, url);
        let opened = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(700)).await;
            door.send_replace(Door::Open);
            door
        });
        world.start().await;
        world.database_url = straight;
        drop(opened.await.unwrap());
    })
    .await;
}
