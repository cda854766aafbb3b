//! An operator at work during a rush: every change binds from the moment it is answered, in one order, on every backend.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, campaign, eventually, in_world};

/// Redis's clock, Unix milliseconds.
async fn now_ms(world: &World) -> i64 {
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut world.raw_redis().await).await.unwrap();
    seconds * 1_000 + micros / 1_000
}

async fn two(world: &mut World, quota: Value) {
    world.start().await;
    world.start().await;
    world.put(0, "spring", &world.open(quota).await).await;
    eventually("the second backend's notice", async || {
        (world.issue(1, "spring", "").await.told() != "unknown_campaign").then_some(())
    })
    .await;
}

/// New users, forty at once, until `over`.
async fn crowd(world: &World, over: &AtomicBool) {
    let next = AtomicUsize::new(0);
    while !over.load(Ordering::Relaxed) {
        let first = next.fetch_add(40, Ordering::Relaxed);
        let told = crate::issue::rush(world, (first..first + 40).map(|n| format!("user-{n}")), 40).await;
        let known = ["issued", "paused", "ended", "outside_hours", "sold_out", "busy", "unavailable"];
        assert!(told.keys().all(|told| known.contains(&told.as_str())), "{told:?}");
    }
}

async fn more_coupons(world: &World) {
    let before = world.audit("spring").await.len();
    eventually("more coupons", async || (world.audit("spring").await.len() > before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_issued_while_the_rules_forbid_it() {
    in_world(async |world| {
        two(world, Value::Null).await;
        let open = world.open(Value::Null).await;
        let over_today = campaign(world.daily("00:00", "00:01", 0, 0).await, Value::Null);
        let between_rounds = campaign(world.daily("00:00", "00:01", -1, 1).await, Value::Null);
        let over = AtomicBool::new(false);
        let (forbidden, ()) = tokio::join!(
            async {
                let mut forbidden = Vec::new();
                for (at, schedule) in [(0, None), (1, Some(&over_today)), (1, None), (0, Some(&between_rounds))] {
                    more_coupons(world).await;
                    // Whichever backend is asked to, both obey.
                    match schedule {
                        None => {
                            let paused = world.admin(at, Method::POST, "/spring/pause", None).await;
                            assert_eq!(paused.status, 200);
                        }
                        Some(schedule) => drop(world.put(at, "spring", schedule).await),
                    }
                    let from_ms = now_ms(world).await;
                    for asked in [0, 1] {
                        let told = world.issue(asked, "spring", "somebody").await;
                        let expected = ["paused", "ended", "outside_hours"];
                        assert!(expected.contains(&told.told()), "{told:?}");
                    }
                    forbidden.push((from_ms, now_ms(world).await));
                    match schedule {
                        None => drop(world.admin(1 - at, Method::POST, "/spring/resume", None).await),
                        Some(_) => drop(world.put(1 - at, "spring", &open).await),
                    }
                }
                more_coupons(world).await;
                over.store(true, Ordering::Relaxed);
                forbidden
            },
            crowd(world, &over)
        );
        let issued: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT (extract(epoch FROM issued_at) * 1000)::bigint, version FROM coupons ORDER BY number",
        )
        .fetch_all(&world.pool)
        .await
        .unwrap();
        for (from_ms, until_ms) in forbidden {
            let wrong: Vec<_> = issued.iter().filter(|(at_ms, _)| from_ms < *at_ms && *at_ms < until_ms).collect();
            assert!(wrong.is_empty(), "{wrong:?} between {from_ms} and {until_ms}");
        }
        // One order for both backends: nothing was reserved by an older version after something by a newer one.
        assert!(issued.is_sorted_by_key(|(_, version)| version), "{issued:?}");
        assert!(issued.is_sorted_by_key(|(at_ms, _)| at_ms), "{issued:?}");
        let count = issued.len();
        world.assert_issued("spring", count).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_going_up_and_down_in_the_rush_is_never_exceeded() {
    in_world(async |world| {
        two(world, json!(10)).await;
        let over = AtomicBool::new(false);
        tokio::join!(
            async {
                let mut largest = 10;
                for (at, quota) in [(0, 30), (1, 20), (0, 5), (1, 60), (0, 40), (1, 90)] {
                    world.put(at, "spring", &world.open(quota).await).await;
                    largest = largest.max(quota);
                    if quota == largest {
                        // Raised: it is used up. A lower one takes nothing back and gives nothing out.
                        let full = usize::try_from(quota).unwrap();
                        eventually("the quota", async || (world.audit("spring").await.len() == full).then_some(()))
                            .await;
                    } else {
                        for asked in [0, 1] {
                            assert_eq!(world.issue(asked, "spring", "somebody").await.told(), "sold_out");
                        }
                    }
                    let highest = world.audit("spring").await.last().map_or(0, |(number, _, _)| *number);
                    assert_eq!(highest, largest, "after a quota of {quota}");
                }
                over.store(true, Ordering::Relaxed);
            },
            crowd(world, &over)
        );
        world.assert_issued("spring", 90).await;
    })
    .await;
}

/// Connections that listen for changes.
async fn listeners(world: &World) -> Vec<i32> {
    sqlx::query_scalar("SELECT pid FROM pg_stat_activity WHERE datname = $1 AND query LIKE 'LISTEN%'")
        .bind(&world.name)
        .fetch_all(&world.pool)
        .await
        .unwrap()
}

async fn quota(world: &World, at: usize) -> Value {
    world.get(at, "/v1/coupon/count?campaign=spring", "").await.body["quota"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_notification_is_made_good_by_polling() {
    in_world(async |world| {
        two(world, json!(1)).await;
        let old = eventually("both listeners", async || {
            let listeners = listeners(world).await;
            (listeners.len() == 2).then_some(listeners)
        })
        .await;
        // Nobody is told any more, and nobody would hear.
        sqlx::query("ALTER TABLE campaigns DISABLE TRIGGER campaigns_changed").execute(&world.pool).await.unwrap();
        for pid in &old {
            sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&world.pool).await.unwrap();
        }
        world.put(0, "spring", &world.open(2).await).await;
        eventually("the other backend's notice", async || (quota(world, 1).await == 2).then_some(())).await;
        // Not even Redis tells of this one.
        sqlx::query(
            "UPDATE campaigns SET spec = jsonb_set(spec, '{quota}', '3'), version = nextval('campaign_version')",
        )
        .execute(&world.pool)
        .await
        .unwrap();
        for at in [0, 1] {
            eventually("the notice", async || (quota(world, at).await == 3).then_some(())).await;
        }
        // They listen again by themselves.
        eventually("new listeners", async || {
            let listeners = listeners(world).await;
            (listeners.len() == 2 && listeners.iter().all(|pid| !old.contains(pid))).then_some(())
        })
        .await;
    })
    .await;
}
