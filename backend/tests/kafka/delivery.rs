//! What comes to the topic.

use std::collections::HashMap;

use serde_json::Value;

use crate::brokers::{Brokers, Received};
use crate::schemas::Schemas;
use crate::world::{World, in_world};

/// Issues to `count` users at once, and writes a redemption of each coupon; their codes.
async fn issue_and_redeem(world: &World, at: usize, prefix: &str, count: usize) -> Vec<String> {
    let users: Vec<String> = (0..count).map(|n| format!("{prefix}-{n}")).collect();
    let issued = futures_util::future::join_all(users.iter().map(|user| world.issue(at, "spring", user))).await;
    assert!(issued.iter().all(|reply| reply.status == 201), "{issued:?}");
    let codes: Vec<String> = issued.iter().map(|reply| reply.coupon()["code"].as_str().unwrap().to_owned()).collect();
    sqlx::query(
        "INSERT INTO redemptions (code, order_id, order_amount, discount_amount, redeemed_at)
         SELECT code, 'A-1', 30000, 10000, now() FROM unnest($1::text[]) code",
    )
    .bind(&codes)
    .execute(&world.pool)
    .await
    .unwrap();
    codes
}

/// Fails unless each coupon's events are in one partition, its issue before its redemption.
fn assert_in_order(received: &[Received], codes: &[String]) {
    let mut first: HashMap<&str, (usize, i32)> = HashMap::new();
    for (place, message) in received.iter().enumerate() {
        first.entry(message.event["id"].as_str().unwrap()).or_insert((place, message.partition));
    }
    for code in codes {
        let (issued, redeemed) = (first[&*format!("issued-{code}")], first[&*format!("redeemed-{code}")]);
        assert!(issued.0 < redeemed.0 && issued.1 == redeemed.1, "{code}: {issued:?}, {redeemed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupons_events_share_a_key_and_come_in_order() {
    in_world(async |world| {
        let mut brokers = Brokers::start();
        let at = world.start_with(&Brokers::settings(&brokers.bootstrap_servers())).await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        let codes = issue_and_redeem(world, at, "user", 100).await;
        let received = brokers.received(201).await;
        let schemas = Schemas::load();
        for message in &received {
            schemas.check(&message.event);
            assert_eq!(message.event["subject"], message.key.as_str());
            assert_eq!(message.content_type, "application/cloudevents+json; charset=UTF-8");
        }
        assert_in_order(&received, &codes);
        let used: std::collections::HashSet<i32> = received.iter().map(|message| message.partition).collect();
        assert!(used.len() > 1, "coupons share the partitions between them");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_down_slow_nothing_and_miss_nothing() {
    in_world(async |world| {
        let mut brokers = Brokers::start();
        let at = world.start_with(&Brokers::settings(&brokers.bootstrap_servers())).await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        let mut codes = issue_and_redeem(world, at, "before", 10).await;
        brokers.received(21).await;
        brokers.down();
        codes.extend(issue_and_redeem(world, at, "meanwhile", 50).await);
        let failed = "doorbuster_events_failed_total{sink=\"kafka\"}";
        crate::world::eventually("a failed delivery", async || {
            let reply = world.http.get(format!("{}/metrics", world.backends[at].ops)).send().await.ok()?;
            let text = reply.text().await.ok()?;
            text.lines().any(|line| line.starts_with(failed) && !line.ends_with(" 0")).then_some(())
        })
        .await;
        codes.extend(issue_and_redeem(world, at, "later", 5).await);
        brokers.up();
        let received = brokers.received(1 + 2 * 65).await;
        assert_in_order(&received, &codes);
    })
    .await;
}
