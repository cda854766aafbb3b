//! What campaigns cost in which nothing happens.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::nodes::Nodes;
use crate::sync::sync;
use crate::world::{World, campaign, eventually, in_world};

/// How long commands are counted.
const COUNTED: Duration = Duration::from_secs(12);

/// Between two polls of one gateway.
const POLL: Duration = Duration::from_millis(250);

const GATEWAYS: usize = 3;

/// What was asked of the stores, each second.
#[derive(Debug)]
struct Cost {
    redis: f64,
    postgres: f64,
}

/// Commands that a Redis has run, those within scripts and transactions included.
async fn commands(redis: &Nodes) -> f64 {
    let told: String = redis.ask(0, &["INFO", "commandstats"]).await.unwrap();
    let calls = told.lines().filter_map(|line| line.split_once(":calls=")?.1.split(',').next()?.parse::<f64>().ok());
    calls.sum()
}

async fn metric(world: &World, name: &str) -> f64 {
    let mut sum = 0.0;
    for backend in &world.backends {
        let text = world.http.get(format!("{}/metrics", backend.ops)).send().await.unwrap().text().await.unwrap();
        let value = |line: &str| line.strip_prefix(name)?.trim().parse::<f64>().ok();
        sum += text.lines().find_map(value).unwrap();
    }
    sum
}

/// Polls as gateways do, and counts meanwhile.
async fn cost(world: &World, redis: &Nodes) -> Cost {
    const EXCHANGES: &str = "doorbuster_postgres_seconds_count";
    let before = (commands(redis).await, metric(world, EXCHANGES).await);
    let began = Instant::now();
    let gateways = (0..GATEWAYS).map(async |gateway| {
        let mut polls = tokio::time::interval(POLL);
        for at in (0..world.backends.len()).cycle().skip(gateway) {
            polls.tick().await;
            if began.elapsed() >= COUNTED {
                break;
            }
            sync(world, at, &format!("gateway-{gateway}"), 1_000).await;
        }
    });
    futures_util::future::join_all(gateways).await;
    let seconds = began.elapsed().as_secs_f64();
    let after = (commands(redis).await, metric(world, EXCHANGES).await);
    Cost { redis: (after.0 - before.0) / seconds, postgres: (after.1 - before.1) / seconds }
}

/// As many campaigns as that, made from one that is there.
async fn multiply(world: &World, original: &str, count: usize) {
    let insert = "INSERT INTO campaigns (id, version, paused, spec)
        SELECT id || '-' || n, nextval('campaign_version'), paused, spec
          FROM campaigns, generate_series(1, $2) AS n WHERE id = $1";
    let count = i32::try_from(count).unwrap();
    sqlx::query(insert).bind(original).bind(count).execute(&world.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_campaigns_cost_next_to_nothing() {
    let mut redis = Nodes::new();
    redis.start(&[]);
    in_world(async |world| {
        let shared = std::mem::replace(&mut world.redis_url, format!("redis://127.0.0.1:{}", redis.ports[0]));
        let at = world.start().await;
        world.start().await;
        world.redis_url = shared;
        world.put(at, "open", &world.open(100).await).await;
        world.issue(at, "open", "ann").await;
        let one = cost(world, &redis).await;

        world.put(at, "ended", &campaign(world.daily("00:00", "24:00", -9, -1).await, json!(100))).await;
        multiply(world, "ended", 899).await;
        multiply(world, "open", 99).await;
        eventually("a thousand campaigns, all open rounds of them in Redis", async || {
            let told = sync(world, at, "gateway-0", 2_000).await;
            let warm = metric(world, "doorbuster_hydrations_total").await;
            (told.campaigns.len() == 1_000 && warm >= 100.0).then_some(())
        })
        .await;
        let thousand = cost(world, &redis).await;
        println!("with one campaign {one:.0?}, with a thousand {thousand:.0?}");
        assert!(thousand.redis - one.redis <= 200.0, "{one:?}, {thousand:?}");
        assert!(thousand.postgres - one.postgres <= 3.0, "{one:?}, {thousand:?}");
    })
    .await;
}
