//! What `/metrics` tells after real traffic.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::world::{eventually, in_world};

/// Samples by their whole name with labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_shows_in_metrics_whose_labels_no_client_chooses() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(json!(3)).await).await;
        for user in ["a", "b", "b", "c", "d"] {
            world.issue(at, "spring", user).await;
        }
        let nonsense = world.issue(at, "%22%7D%0Anonsense", "a").await;
        assert_eq!(nonsense.status, 400);
        let scrape = async || {
            let reply = world.http.get(format!("{}/metrics", world.backends[at].ops)).send().await.unwrap();
            reply.text().await.unwrap()
        };
        // Settled and swept since: the sweeper has looked, and nothing is pending.
        let text = eventually("a sweep", async || {
            let text = scrape().await;
            (samples(&text)["doorbuster_sweep_seconds_count"] > 0.0).then_some(text)
        })
        .await;
        let found = samples(&text);
        for (name, value) in [
            ("doorbuster_issue_requests_total", 6.0),
            ("doorbuster_issued_total", 3.0),
            ("doorbuster_refused_total{code=\"already_issued\"}", 1.0),
            ("doorbuster_refused_total{code=\"sold_out\"}", 1.0),
            ("doorbuster_refused_total{code=\"invalid_campaign\"}", 1.0),
            ("doorbuster_commit_batch_size_sum", 3.0),
            ("doorbuster_commit_failures_total", 0.0),
            ("doorbuster_in_flight", 0.0),
            ("doorbuster_swept_total", 0.0),
        ] {
            assert!((found[name] - value).abs() < 1e-9, "{name} is {}, not {value}", found[name]);
        }
        for name in [
            "doorbuster_commit_seconds_count",
            "doorbuster_hydrations_total",
            "doorbuster_hydration_seconds_count",
            "doorbuster_redis_seconds_count{exchange=\"script\"}",
            "doorbuster_redis_seconds_count{exchange=\"command\"}",
            "doorbuster_redis_seconds_count{exchange=\"pipeline\"}",
            "doorbuster_postgres_seconds_count",
        ] {
            assert!(found[name] >= 1.0, "{name}");
        }
        let connections =
            ["idle", "used"].map(|state| found[&format!("doorbuster_postgres_connections{{state=\"{state}\"}}")]);
        assert!((1.0..=4.0).contains(&connections.iter().sum::<f64>()), "{connections:?}");
        assert!(
            found.contains_key("doorbuster_pending_places") && found.contains_key("doorbuster_pending_oldest_seconds")
        );
        assert!(!text.contains("nonsense") && !text.contains("spring"), "{text}");
        for line in text.lines().filter(|line| line.starts_with("# HELP ")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(README.contains(&format!("`{name}")), "the README's table lacks {name}");
        }
    })
    .await;
}

const README: &str = include_str!("../../../README.md");

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pending_is_counted_and_aged() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(json!(10)).await).await;
        world.issue(at, "spring", "first").await;
        // Commits wait for the round's row.
        let mut row = world.pool.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM rounds FOR UPDATE").execute(&mut *row).await.unwrap();
        let requests = futures_util::future::join_all(["a", "b"].map(|user| world.issue(at, "spring", user)));
        let (replies, ()) = tokio::join!(requests, async {
            eventually("two old places", async || {
                let text = world
                    .http
                    .get(format!("{}/metrics", world.backends[at].ops))
                    .send()
                    .await
                    .ok()?
                    .text()
                    .await
                    .ok()?;
                let found = samples(&text);
                let two = (found["doorbuster_pending_places"] - 2.0).abs() < 1e-9;
                (two && found["doorbuster_pending_oldest_seconds"] > 1.0).then_some(())
            })
            .await;
            row.rollback().await.unwrap();
        });
        assert!(replies.iter().all(|reply| reply.status == 201), "{replies:?}");
        eventually("nothing pending", async || {
            let text =
                world.http.get(format!("{}/metrics", world.backends[at].ops)).send().await.ok()?.text().await.ok()?;
            (samples(&text)["doorbuster_pending_places"].abs() < 1e-9).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_batch_gathers_while_one_commits() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(json!(100)).await).await;
        world.issue(at, "spring", "first").await;
        let mut row = world.pool.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM rounds FOR UPDATE").execute(&mut *row).await.unwrap();
        let alone = world.issue(at, "spring", "alone");
        let (alone, replies) = tokio::join!(alone, async {
            // It is on its way to PostgreSQL by itself: nothing waits for company.
            eventually("a commit that waits for the round's row", async || {
                let waiting: i64 = sqlx::query_scalar(
                    "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%commit_coupons%'",
                )
                .fetch_one(&world.pool)
                .await
                .ok()?;
                (waiting == 1).then_some(())
            })
            .await;
            let users: Vec<String> = (0..30).map(|n| format!("user-{n}")).collect();
            let crowd = futures_util::future::join_all(users.iter().map(|user| world.issue(at, "spring", user)));
            let (replies, ()) = tokio::join!(crowd, async {
                let redis = world.redis();
                let (campaign, today) = (crate::world::id("spring"), world.today().await);
                eventually("thirty reservations behind it", async || {
                    let counts = redis.count(&campaign, today).await.ok()?;
                    (counts.pending == 31).then_some(())
                })
                .await;
                // None of them is answered before its commit, and the first one's holds them all.
                world.assert_issued("spring", 1).await;
                row.rollback().await.unwrap();
            });
            replies
        });
        assert_eq!(alone.told(), "issued");
        assert!(replies.iter().all(|reply| reply.status == 201), "{replies:?}");
        let text = world.http.get(format!("{}/metrics", world.backends[at].ops)).send().await.unwrap().text().await.unwrap();
        let found = samples(&text);
        let (rows, batches) = (found["doorbuster_commit_batch_size_sum"], found["doorbuster_commit_batch_size_count"]);
        // The first, the one alone, and the thirty together; but Redis may have answered some of them late.
        assert!((rows - 32.0).abs() < 1e-9 && batches < 16.0, "{rows} rows in {batches} batches");
        let numbers: BTreeSet<u64> = replies.iter().map(|reply| reply.coupon()["number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (3..=32).collect());
    })
    .await;
}
