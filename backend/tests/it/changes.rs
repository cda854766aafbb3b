//! Operators' changes while users ask.

use doorbuster_backend::campaign::Campaign;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, campaign, eventually, id, in_world};

/// Two backends that both know the campaign.
async fn two(world: &mut World, quota: Value) {
    world.start().await;
    world.start().await;
    world.put(0, "spring", &world.open(quota).await).await;
    eventually("the second backend's notice", async || {
        (world.issue(1, "spring", "").await.told() != "unknown_campaign").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_once_answered_binds_every_backend() {
    in_world(async |world| {
        two(world, json!(1)).await;
        assert_eq!(world.issue(0, "spring", "ann").await.told(), "issued");
        assert_eq!(world.issue(1, "spring", "bob").await.told(), "sold_out");
        // The other backend's catalog is old at first: the script turns it away.
        for quota in 2..12 {
            world.put(0, "spring", &world.open(quota).await).await;
            let reply = world.issue(1, "spring", &format!("user-{quota}")).await;
            assert_eq!((reply.told(), &reply.coupon()["number"]), ("issued", &json!(quota)), "{reply:?}");
        }
        world.put(0, "spring", &world.open(3).await).await;
        assert_eq!(world.issue(1, "spring", "late").await.told(), "sold_out");
        world.put(0, "spring", &world.open(12).await).await;
        assert_eq!(world.issue(1, "spring", "late").await.told(), "issued");
        world.admin(0, Method::POST, "/spring/pause", None).await;
        assert_eq!(world.issue(1, "spring", "later").await.told(), "paused");
        world.admin(0, Method::POST, "/spring/resume", None).await;
        assert_eq!(world.issue(0, "spring", "later").await.told(), "sold_out");
        world.assert_issued("spring", 12).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_changed_in_the_rush_is_kept() {
    in_world(async |world| {
        two(world, json!(50)).await;
        let users = (0..600).map(|n| format!("user-{n}"));
        let (told, ()) = tokio::join!(crate::issue::rush(world, users, 60), async {
            for quota in [60, 20, 80, 40, 100, 70] {
                tokio::time::sleep(std::time::Duration::from_millis(25)).await;
                world.put(quota % 2, "spring", &world.open(quota).await).await;
            }
        });
        assert!(!told.contains_key("?") && !told.contains_key("pending"), "{told:?}");
        crate::issue::rush(world, (600..800).map(|n| format!("user-{n}")), 60).await;
        let issued = world.audit("spring").await.len();
        assert!((70..=100).contains(&issued), "{issued}");
        world.assert_issued("spring", issued).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_ahead_of_postgresql_is_repaired() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(5).await).await;
        // A change told Redis its version and then failed.
        world.redis().raise_version(&id("spring"), 40).await.unwrap();
        assert_eq!(world.issue(at, "spring", "ann").await.told(), "issued");
        let repaired = world.admin(at, Method::GET, "/spring", None).await;
        assert!(repaired.body["version"].as_i64().unwrap() > 40, "{repaired:?}");
        assert_eq!(repaired.body["quota"], 5);
        // Nobody asks for a coupon: a look each second finds it too.
        world.redis().raise_version(&id("spring"), 90).await.unwrap();
        eventually("the repair", async || {
            let version = world.admin(at, Method::GET, "/spring", None).await.body["version"].as_i64().unwrap();
            (version > 90).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_under_way_is_waited_for_and_not_overruled() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(5).await).await;
        let postgres = world.postgres();
        let mut change = postgres.change(&id("spring")).await.unwrap();
        let version = change.draw_version(0).await.unwrap();
        let mut changed = Campaign::clone(change.current().unwrap().readable().unwrap());
        (changed.version, changed.spec.quota) = (version, Some(1));
        change.write(&changed.into()).await.unwrap();
        world.redis().raise_version(&id("spring"), version).await.unwrap();
        let (reply, ()) = tokio::join!(world.issue(at, "spring", "ann"), async {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            change.commit().await.unwrap();
        });
        assert_eq!(reply.told(), "issued", "{reply:?}");
        assert!(reply.header("x-doorbuster-result").contains(&format!("quota=1, version={version}")), "{reply:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_with_one_etag_one_wins() {
    in_world(async |world| {
        two(world, json!(1)).await;
        let etag = world.admin(0, Method::GET, "/spring", None).await.header("etag").to_owned();
        let body = world.open(2).await;
        let puts = (0..10).map(|n| {
            let url = format!("{}/admin/v1/campaigns/spring", world.backends[n % 2].ops);
            let put = world.http.put(url).bearer_auth(crate::world::ADMIN_TOKEN).header("if-match", &etag).json(&body);
            async { put.send().await.unwrap().status().as_u16() }
        });
        let mut statuses = join_all(puts).await;
        statuses.sort_unstable();
        assert_eq!(statuses, [vec![200], vec![412; 9]].concat());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_at_once_create_one_campaign() {
    in_world(async |world| {
        let at = world.start().await;
        let body = world.open(2).await;
        let puts = (0..10).map(|_| world.admin(at, Method::PUT, "/spring", Some(&body)));
        let replies = join_all(puts).await;
        let created = replies.iter().filter(|reply| reply.status == 201).count();
        assert_eq!((created, replies.iter().filter(|reply| reply.status == 200).count()), (1, 9));
        let mut versions: Vec<_> = replies.iter().map(|reply| reply.body["version"].as_i64().unwrap()).collect();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), 10);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_is_deleted_before_its_first_coupon_only() {
    in_world(async |world| {
        two(world, json!(5)).await;
        let first_version = world.admin(0, Method::GET, "/spring", None).await.body["version"].as_i64().unwrap();
        // Somebody holds a place and nobody commits it.
        crate::recovery::reserve_and_die(world, &world.redis(), "zoe").await;
        let deleted = world.admin(0, Method::DELETE, "/spring", None).await;
        assert_eq!(deleted.status, 204);
        assert_eq!(world.issue(1, "spring", "ann").await.told(), "unknown_campaign");
        assert_eq!(world.issue(0, "spring", "ann").await.told(), "unknown_campaign");
        assert_eq!(world.admin(0, Method::DELETE, "/spring", None).await.told(), "unknown_campaign");
        assert_eq!(world.admin(0, Method::GET, "/spring", None).await.status, 404);

        // Made again, it is another campaign, though of the same name and day.
        let again = world.put(0, "spring", &world.open(1).await).await;
        assert_eq!(again.status, 201);
        assert!(again.body["version"].as_i64().unwrap() > first_version);
        let win = world.issue(0, "spring", "ann").await;
        assert_eq!((win.told(), &win.coupon()["number"]), ("issued", &json!(1)));
        let refused = world.admin(0, Method::DELETE, "/spring", None).await;
        assert_eq!(refused.status, 409, "{refused:?}");
        assert_eq!(world.issue(0, "spring", "ann").await.told(), "sold_out");
        world.assert_issued("spring", 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_made_longer_takes_larger_numbers() {
    in_world(async |world| {
        let at = world.start().await;
        // Today's round is over; PostgreSQL knows it as closed.
        let over = campaign(world.daily("00:00", "00:01", 0, 0).await, json!(1));
        world.put(at, "spring", &over).await;
        assert_eq!(world.issue(at, "spring", "ann").await.told(), "ended");
        world.put(at, "spring", &world.open(1).await).await;
        assert_eq!(world.issue(at, "spring", "ann").await.told(), "issued");
        world.put(at, "spring", &over).await;
        assert_eq!(world.issue(at, "spring", "bob").await.told(), "ended");
        world.put(at, "spring", &world.open(2).await).await;
        let win = world.issue(at, "spring", "bob").await;
        assert_eq!((win.told(), &win.coupon()["number"]), ("issued", &json!(2)), "{win:?}");
    })
    .await;
}
