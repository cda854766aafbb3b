//! A campaign that this release cannot read: it is not served, and everything else goes on.

use reqwest::Method;
use serde_json::{Value, json};

use crate::command::run;
use crate::process::program;
use crate::redeem::{order, redeem, win};
use crate::sync::sync;
use crate::world::{ADMIN_TOKEN, EDGE_TOKEN, World, eventually, in_world};

/// As a later release does whose campaigns have a field more.
async fn written_by_a_later_release(world: &World, campaign: &str) {
    let later = "UPDATE campaigns SET spec = spec || '{\"stackable\": true}', version = nextval('campaign_version')
                  WHERE id = $1";
    sqlx::query(later).bind(campaign).execute(&world.pool).await.unwrap();
}

async fn answer(world: &World, at: usize, campaign: &str, user: &str, expected: &str) {
    eventually(expected, async || (world.issue(at, campaign, user).await.told() == expected).then_some(())).await;
}

async fn unreadable_campaigns(world: &World, at: usize) -> Option<String> {
    let metrics = world.http.get(format!("{}/metrics", world.backends[at].ops)).send().await.ok()?;
    let metrics = metrics.text().await.ok()?;
    let count = metrics.lines().find_map(|line| line.strip_prefix("doorbuster_unreadable_campaigns "));
    count.map(str::to_owned)
}

async fn listed(world: &World, at: usize) -> Vec<Value> {
    let all = world.admin(at, Method::GET, "", None).await;
    assert_eq!(all.status, 200, "{all:?}");
    all.body["campaigns"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_that_cannot_be_read_disables_nothing_but_itself() {
    in_world(async |world| {
        let at = world.start().await;
        for campaign in ["autumn", "spring"] {
            world.put(at, campaign, &world.open(10).await).await;
        }
        let code = win(world, "autumn", "ann").await;
        written_by_a_later_release(world, "autumn").await;
        // One whose very name is unknown, and one whose schedule makes no sense here.
        sqlx::query(
            "INSERT INTO campaigns (id, version, spec)
             SELECT 'Winter sale', nextval('campaign_version'), spec FROM campaigns WHERE id = 'spring'
             UNION ALL
             SELECT 'winter', nextval('campaign_version'), jsonb_set(spec, '{schedule,timezone}', '\"Mars/Olympus\"')
               FROM campaigns WHERE id = 'spring'",
        )
        .execute(&world.pool)
        .await
        .unwrap();
        answer(world, at, "autumn", "bob", "unavailable").await;
        eventually("the metric", async || (unreadable_campaigns(world, at).await? == "3").then_some(())).await;
        // A backend that starts meanwhile says the same.
        let started = world.start().await;
        for at in [at, started] {
            let refused = world.issue(at, "autumn", "bob").await;
            assert_eq!((refused.status.as_u16(), refused.told()), (503, "unavailable"));
            assert!(!refused.header("retry-after").is_empty());
            assert_eq!(world.issue(at, "winter", "bob").await.told(), "unavailable");
            assert_eq!(world.get(at, "/v1/coupon/count?campaign=autumn", "").await.told(), "unavailable");
            assert_eq!(world.issue(at, "sommer", "bob").await.told(), "unknown_campaign");
            assert_eq!(world.issue(at, "spring", &format!("user-{at}")).await.told(), "issued");
            let new = format!("new-{at}");
            world.put(at, &new, &world.open(10).await).await;
            assert_eq!(world.issue(at, &new, "bob").await.told(), "issued");
            // A gateway must not take it for one that does not exist.
            let told = sync(world, at, "gateway-1", 100).await;
            assert!(!told.complete && told.campaigns.iter().all(|campaign| campaign.id.as_str() != "autumn"));
        }
        // What was issued is still shown and redeemed.
        let coupons = world.get(at, "/v1/coupons?campaign=autumn", "ann").await;
        assert_eq!(coupons.body["coupons"][0]["code"], json!(code));
        assert_eq!(redeem(world, at, &code, "ann", &order("A-1", 30_000)).await.status, 200);

        let listed = listed(world, at).await;
        let ids: Vec<_> = listed.iter().map(|campaign| campaign["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["Winter sale", "autumn", "new-0", "new-1", "spring", "winter"]);
        assert_eq!((&listed[1]["state"], &listed[4]["state"]), (&json!("unreadable"), &Value::Null));
        assert!(listed[1]["reason"].as_str().unwrap().contains("stackable"), "{}", listed[1]);
        assert!(listed[5]["reason"].as_str().unwrap().contains("schedule.timezone"), "{}", listed[5]);
        assert_eq!(world.admin(at, Method::GET, "/autumn", None).await.body, listed[1]);
        let table = run(world, &["campaign", "list"], "").await.out;
        let line = table.lines().find(|line| line.starts_with("autumn")).unwrap();
        assert!(line.ends_with("unreadable"), "{table}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_pauses_replaces_and_deletes_what_cannot_be_read() {
    in_world(async |world| {
        let at = world.start().await;
        for campaign in ["autumn", "winter"] {
            world.put(at, campaign, &world.open(10).await).await;
            written_by_a_later_release(world, campaign).await;
        }
        let paused = world.admin(at, Method::POST, "/autumn/pause", None).await;
        assert_eq!((paused.status.as_u16(), &paused.body["paused"]), (200, &json!(true)), "{paused:?}");
        assert_eq!(paused.body["state"], "unreadable");
        let written: (bool, bool, i64) =
            sqlx::query_as("SELECT paused, spec ? 'stackable', version FROM campaigns WHERE id = 'autumn'")
                .fetch_one(&world.pool)
                .await
                .unwrap();
        let version = paused.body["version"].as_i64().unwrap();
        assert_eq!(written, (true, true, version), "the rest stays as the later release wrote it");
        assert_eq!(paused.header("etag"), format!("\"{version}\""));
        let log = world.operate(at, Method::GET, "/admin/v1/audit-log?subject=campaign/autumn", None).await.body;
        assert_eq!(
            (&log["entries"][0]["action"], &log["entries"][0]["after"]),
            (&json!("campaign.paused"), &paused.body)
        );

        // In a form that this release knows, it is served again. A pause stays.
        let replaced = world.admin(at, Method::PUT, "/autumn", Some(&world.open(10).await)).await;
        assert_eq!((replaced.status.as_u16(), &replaced.body["paused"]), (200, &json!(true)));
        assert_eq!(world.issue(at, "autumn", "ann").await.told(), "paused");
        world.admin(at, Method::POST, "/autumn/resume", None).await;
        assert_eq!(world.issue(at, "autumn", "ann").await.told(), "issued");
        assert_eq!(world.admin(at, Method::DELETE, "/winter", None).await.status, 204);
        let states: Vec<_> = listed(world, at).await.iter().map(|campaign| campaign["state"].clone()).collect();
        assert_eq!(states, [Value::Null]);
        assert!(sync(world, at, "gateway-1", 100).await.complete);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_that_cannot_be_read_is_logged_once_and_not_at_every_look() {
    in_world(async |world| {
        let at = world.start().await;
        for campaign in ["autumn", "spring"] {
            world.put(at, campaign, &world.open(10).await).await;
        }
        written_by_a_later_release(world, "autumn").await;
        let ops = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut child = program()
            .env("DOORBUSTER_DATABASE_URL", &world.database_url)
            .env("DOORBUSTER_REDIS_URL", &world.redis_url)
            .env("DOORBUSTER_REDIS_PREFIX", &world.name)
            .env("DOORBUSTER_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("DOORBUSTER_EDGE_TOKEN", EDGE_TOKEN)
            .env("DOORBUSTER_PUBLIC_ADDR", "127.0.0.1:0")
            .env("DOORBUSTER_OPS_ADDR", &ops)
            .spawn()
            .unwrap();
        // It reads the campaigns again and again.
        for _ in 0..8 {
            world.put(at, "spring", &world.open(10).await).await;
            let version = world.admin(at, Method::GET, "/spring", None).await.body["version"].clone();
            eventually("the notice of a change", async || {
                let list = world.http.get(format!("http://{ops}/admin/v1/campaigns")).bearer_auth(ADMIN_TOKEN);
                let list: Value = list.send().await.ok()?.json().await.ok()?;
                (list["campaigns"][1]["version"] == version).then_some(())
            })
            .await;
        }
        child.start_kill().unwrap();
        let log = String::from_utf8(child.wait_with_output().await.unwrap().stderr).unwrap();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("cannot be read")).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains("\"autumn\"") && lines[0].contains("stackable"), "{log}");
    })
    .await;
}
