//! PostgreSQL goes back to an earlier state while Redis, backends and gateways have seen a later
//! one.

use doorbuster_backend::store::postgres::Standing;
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use crate::primaries::Primaries;
use crate::sync::sync;
use crate::world::{Reply, World, eventually, id, in_world};

const QUOTA: u32 = 20;

/// Coupons at the moment to which the database goes back.
const KEPT: u32 = 12;

async fn standing(world: &World) -> Option<Standing> {
    world.postgres().standing().await.ok()
}

/// Asks until the answer is about the user.
async fn issue(world: &World, at: usize, user: &str) -> Reply {
    eventually("an answer", async || {
        let reply = world.issue(at, "spring", user).await;
        (!["unavailable", "busy", "pending", "unknown_campaign"].contains(&reply.told())).then_some(reply)
    })
    .await
}

/// What an issue request's answer tells the gateway.
fn noticed(reply: &Reply, name: &str) -> i64 {
    let notice = reply.header("x-doorbuster-result");
    let field = notice.split(", ").find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    field.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {notice:?}"))
}

/// Two backends that know of a round which is sold out, of which the database then keeps the first
/// coupons.
async fn sold_out_then_restored(world: &mut World, primaries: &mut Primaries) -> Standing {
    world.hurried = true;
    primaries.lead(world, 0).await;
    world.start().await;
    world.start().await;
    world.put(0, "spring", &world.open(QUOTA).await).await;
    for n in 0..KEPT {
        assert_eq!(issue(world, 0, &format!("user-{n}")).await.status, 201);
    }
    primaries.save(0);
    for n in KEPT..QUOTA {
        assert!([201, 409].contains(&issue(world, 1, &format!("user-{n}")).await.status.as_u16()));
    }
    for at in 0..2 {
        assert_eq!(issue(world, at, "late").await.told(), "sold_out");
        assert_eq!(sync(world, at, "gateway", 10).await.campaigns[0].issued, u64::from(QUOTA));
    }
    let before = standing(world).await.unwrap();
    primaries.restore(0);
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restore_lost_is_issued_again() {
    let mut primaries = Primaries::start().await;
    in_world(async |world| {
        let before = sold_out_then_restored(world, &mut primaries).await;
        let began = Instant::now();
        let after = eventually("a new lineage", async || {
            standing(world).await.filter(|now| now.installation != before.installation)
        })
        .await;
        eventually("the first coupon", async || (world.issue(0, "spring", "new-0").await.status == 201).then_some(()))
            .await;
        println!("rebuilt {:?} after the restore", began.elapsed());
        assert!(after.committed > before.drawn, "{before:?} {after:?}");

        // What gateways are told under the new version is what there is.
        for n in 1..QUOTA - KEPT {
            let reply = issue(world, usize::from(n % 2 == 0), &format!("new-{n}")).await;
            assert_eq!(reply.status, 201, "{reply:?}");
            if noticed(&reply, "version") > before.drawn {
                assert!(noticed(&reply, "issued") <= i64::from(KEPT + n + 1), "{reply:?}");
            }
        }
        for at in 0..2 {
            let told = eventually("the new count", async || {
                let told = sync(world, at, "gateway", 10).await.campaigns.remove(0);
                (i64::try_from(told.version).unwrap() > before.drawn).then_some(told)
            })
            .await;
            assert_eq!(told.issued, u64::from(QUOTA));
            assert_eq!(issue(world, at, "user-0").await.told(), "sold_out");
            assert_eq!(issue(world, at, "user-19").await.told(), "sold_out");
        }
        world.assert_issued("spring", QUOTA as usize).await;
        assert_eq!(standing(world).await.unwrap().installation, after.installation, "once");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_lost_their_coupon_may_ask_again() {
    let mut primaries = Primaries::start().await;
    in_world(async |world| {
        sold_out_then_restored(world, &mut primaries).await;
        for n in KEPT..QUOTA {
            eventually("the lost coupon", async || {
                let reply = world.issue(0, "spring", &format!("user-{n}")).await;
                (reply.status == 201).then_some(())
            })
            .await;
        }
        world.assert_issued("spring", QUOTA as usize).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_while_no_backend_runs_is_noticed_at_the_start() {
    let mut primaries = Primaries::start().await;
    in_world(async |world| {
        let before = sold_out_then_restored(world, &mut primaries).await;
        for backend in world.backends.drain(..) {
            backend.ended.abort();
        }
        primaries.restore(0);
        world.start().await;
        eventually("the first coupon", async || (world.issue(0, "spring", "new").await.status == 201).then_some(()))
            .await;
        assert_ne!(standing(world).await.unwrap().installation, before.installation);
        assert_eq!(world.audit("spring").await.len(), KEPT as usize + 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_that_only_redis_has_is_no_coupon() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(5).await).await;
        assert_eq!(world.issue(at, "spring", "ann").await.told(), "issued");
        let key = format!("{}:{{spring}}:{}:users", world.name, world.today().await);
        let lost = [("zoe", "7K3M9QZ2WX4T")];
        redis::cmd("HSET").arg(&key).arg(&lost).exec_async(&mut world.raw_redis().await).await.unwrap();
        let reply = issue(world, at, "zoe").await;
        assert_eq!((reply.status.as_u16(), &reply.coupon()["number"]), (201, &json!(2)), "{reply:?}");
        world.assert_issued("spring", 2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_has_a_round_rebuilt() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(3).await).await;
        for user in ["ann", "bob", "cid"] {
            assert_eq!(world.issue(at, "spring", user).await.told(), "issued");
        }
        assert_eq!(world.issue(at, "spring", "dan").await.told(), "sold_out");
        // By hand, without a count that would tell.
        sqlx::query("DELETE FROM coupons WHERE number > 1").execute(&world.pool).await.unwrap();
        let round = world.today().await;
        let path = format!("/admin/v1/campaigns/spring/rounds/{round}/rebuild");
        let counts = world.redis().count(&id("spring"), round).await.unwrap();
        let rebuilt = world.operate(at, Method::POST, &path, None).await;
        assert_eq!((rebuilt.status.as_u16(), &rebuilt.body["issued"]), (200, &json!(1)), "{rebuilt:?}");
        assert!(world.redis().count(&id("spring"), round).await.unwrap().epoch > counts.epoch);
        for user in ["dan", "eve"] {
            eventually("a coupon", async || (world.issue(at, "spring", user).await.status == 201).then_some(())).await;
        }
        world.assert_issued("spring", 3).await;

        let log =
            world.operate(at, Method::GET, &format!("/admin/v1/audit-log?subject=round/spring/{round}"), None).await;
        let entry = &log.body["entries"][0];
        assert_eq!((&entry["action"], &entry["operator"]), (&json!("round.rebuilt"), &json!("admin")));
        assert_eq!(entry["before"], json!({"issued": 3, "pending": 0}));
        let missing = world.operate(at, Method::POST, "/admin/v1/campaigns/spring/rounds/2001-01-01/rebuild", None);
        assert_eq!(missing.await.told(), "not_found");
        let missing = world.operate(at, Method::POST, "/admin/v1/campaigns/autumn/rounds/2001-01-01/rebuild", None);
        assert_eq!(missing.await.told(), "unknown_campaign");
    })
    .await;
}
