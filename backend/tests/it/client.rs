//! Count, coupons, and what every route of the public listener answers.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Reply, World, campaign, eventually, hours_east, in_world};

async fn count(world: &World) -> Value {
    world.get(0, "/v1/coupon/count?campaign=spring", "").await.body
}

#[tokio::test(flavor = "multi_thread")]
async fn the_count_names_each_state() {
    in_world(async |world| {
        let at = world.start().await;
        assert_eq!(world.get(at, "/v1/coupon/count?campaign=spring", "").await.told(), "unknown_campaign");
        assert_eq!(world.get(at, "/v1/coupon/count", "").await.told(), "invalid_campaign");
        let today = world.today().await;
        let day = |days| (today.0 + chrono::TimeDelta::days(days)).to_string();

        world.put(at, "spring", &campaign(world.daily("00:00", "24:00", 1, 3).await, json!(2))).await;
        let scheduled = count(world).await;
        assert_eq!((&scheduled["state"], &scheduled["round"]), (&json!("scheduled"), &json!(day(1))));
        assert!(scheduled["opens_at"].as_str().unwrap().starts_with(&day(1)));
        assert_eq!(scheduled["next_opens_at"], scheduled["closes_at"]);
        assert_eq!((&scheduled["issued"], &scheduled["remaining"]), (&json!(0), &json!(2)));

        world.put(at, "spring", &campaign(world.daily("01:00", "02:00", -1, 1).await, json!(2))).await;
        let closed = count(world).await;
        assert_eq!((&closed["state"], &closed["round"]), (&json!("closed"), &json!(day(1))));
        assert_eq!(closed["next_opens_at"], Value::Null);

        world.put(at, "spring", &campaign(world.daily("00:00", "24:00", 0, 1).await, json!(2))).await;
        let open = count(world).await;
        assert_eq!((&open["state"], &open["round"]), (&json!("open"), &json!(day(0))));
        assert!(open["as_of"].as_str().unwrap().starts_with(&day(0)));
        assert_eq!(world.issue(at, "spring", "ann").await.told(), "issued");
        let open = count(world).await;
        assert_eq!((&open["state"], &open["issued"], &open["remaining"]), (&json!("open"), &json!(1), &json!(1)));
        assert_eq!(world.issue(at, "spring", "bob").await.told(), "issued");
        let sold_out = count(world).await;
        assert_eq!((&sold_out["state"], &sold_out["remaining"]), (&json!("sold_out"), &json!(0)));

        world.put(at, "spring", &campaign(world.daily("00:00", "24:00", 0, 1).await, json!(1))).await;
        let lowered = count(world).await;
        assert_eq!(
            (&lowered["state"], &lowered["issued"], &lowered["remaining"]),
            (&json!("sold_out"), &json!(2), &json!(0))
        );

        world.put(at, "spring", &campaign(world.daily("00:00", "24:00", 0, 1).await, Value::Null)).await;
        let unlimited = count(world).await;
        assert_eq!(
            (&unlimited["state"], &unlimited["quota"], &unlimited["remaining"]),
            (&json!("open"), &Value::Null, &Value::Null)
        );

        world.admin(at, Method::POST, "/spring/pause", None).await;
        assert_eq!(count(world).await["state"], "paused");
        world.put(at, "spring", &campaign(world.daily("00:00", "01:00", -3, 0).await, json!(2))).await;
        let ended = count(world).await;
        assert_eq!((&ended["state"], &ended["round"]), (&json!("ended"), &json!(day(0))));
        assert_eq!((&ended["issued"], &ended["next_opens_at"]), (&json!(2), &Value::Null));
        let reply = world.get(at, "/v1/coupon/count?campaign=spring", "").await;
        assert_eq!(reply.header("cache-control"), "public, max-age=1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_lists_own_coupons_newest_first() {
    in_world(async |world| {
        let at = world.start().await;
        for n in 0..7 {
            world.put(at, &format!("campaign-{n}"), &world.open(5).await).await;
            assert_eq!(world.issue(at, &format!("campaign-{n}"), "ann").await.told(), "issued");
        }
        world.issue(at, "campaign-0", "bob").await;

        let mut seen = Vec::new();
        let mut path = "/v1/coupons?limit=3".to_owned();
        loop {
            let page = world.get(at, &path, "ann").await;
            assert_eq!(page.status, 200, "{page:?}");
            let coupons = page.body["coupons"].as_array().unwrap();
            assert!(coupons.len() <= 3);
            seen.extend(coupons.iter().map(|coupon| coupon["campaign"].as_str().unwrap().to_owned()));
            let Some(cursor) = page.body["next_cursor"].as_str() else { break };
            path = format!("/v1/coupons?limit=3&cursor={cursor}");
        }
        assert_eq!(seen, (0..7).rev().map(|n| format!("campaign-{n}")).collect::<Vec<_>>());

        let one = world.get(at, "/v1/coupons?campaign=campaign-3", "ann").await;
        assert_eq!(one.body["coupons"].as_array().unwrap().len(), 1);
        assert_eq!(one.body["next_cursor"], Value::Null);
        assert_eq!(one.body["coupons"][0]["campaign"], "campaign-3");
        let none = world.get(at, "/v1/coupons", "nobody").await;
        assert_eq!(none.body, json!({"coupons": [], "next_cursor": null}));

        for (path, told) in [
            ("/v1/coupons?campaign=A", "invalid_campaign"),
            ("/v1/coupons?campaign=a&campaign=a", "invalid_campaign"),
            ("/v1/coupons?campaign=winter", "unknown_campaign"),
            ("/v1/coupons?limit=0", "invalid_input"),
            ("/v1/coupons?limit=101", "invalid_input"),
            ("/v1/coupons?limit=%2B1", "invalid_input"),
            ("/v1/coupons?limit=1&limit=2", "invalid_input"),
            ("/v1/coupons?cursor=x", "invalid_input"),
            ("/v1/coupons?cursor=99999999999999999999-000000000000", "invalid_input"),
            ("/v1/coupons?cursor=-210866803200000001-000000000000", "invalid_input"),
            ("/v1/coupons?cursor=9223372036854775807-000000000000", "invalid_input"),
        ] {
            assert_eq!(world.get(at, path, "ann").await.told(), told, "{path}");
        }
        assert_eq!(world.get(at, "/v1/coupons", "").await.told(), "missing_user");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_coupon_is_shown_to_its_user() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(5).await).await;
        let win = world.issue(at, "spring", "ann").await;
        let code = win.coupon()["code"].as_str().unwrap();
        let path = format!("/v1/coupons/{code}");
        assert_eq!(world.get(at, &path, "ann").await.coupon(), win.coupon());
        assert_eq!(world.get(at, &path.to_lowercase(), "ann").await.status, 200);
        assert_eq!(world.get(at, &path, "bob").await.told(), "unknown_coupon");
        assert_eq!(world.get(at, &path, "").await.told(), "missing_user");
        for bad in ["x", "7K3M9QZ2WX4", "%00", "%ff", &code.replace(&code[..1], "U")] {
            assert_eq!(world.get(at, &format!("/v1/coupons/{bad}"), "ann").await.told(), "invalid_code", "{bad}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_listener_has_these_routes_and_no_other() {
    in_world(async |world| {
        let at = world.start().await;
        let ask = async |method: &str, path: &str| {
            let url = format!("{}{path}", world.backends[at].public);
            Reply::of(world.http.request(method.parse().unwrap(), url).send().await.unwrap()).await
        };
        for path in [
            "/",
            "/v1",
            "/v1/coupon",
            "/v1/coupon/issue/",
            "/admin/v1/campaigns",
            "/internal/v1/edge/sync",
            "/metrics",
            "/readyz",
        ] {
            let reply = ask("GET", path).await;
            assert_eq!((reply.status.as_u16(), reply.told()), (404, "not_found"), "{path}");
            assert_eq!(reply.header("content-type"), "application/problem+json");
            assert!(reply.headers.contains_key("content-length"));
        }
        for (method, path, allow) in [
            ("GET", "/v1/coupon/issue", "POST"),
            ("PUT", "/v1/coupon/issue", "POST"),
            ("POST", "/v1/coupon/count", "GET,HEAD"),
            ("DELETE", "/v1/coupons", "GET,HEAD"),
            ("GET", "/v1/coupons/7K3M9QZ2WX4T/redeem", "POST"),
        ] {
            let reply = ask(method, path).await;
            assert_eq!((reply.status.as_u16(), reply.told()), (405, "method_not_allowed"), "{path}");
            assert_eq!(reply.header("allow"), allow);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_and_a_closing_are_seen_by_redis_clock() {
    in_world(async |world| {
        let at = world.start().await;
        let now = world.now().await;
        let local = now + chrono::TimeDelta::hours(hours_east(now));
        let time = |seconds| (local + chrono::TimeDelta::seconds(seconds)).format("%H:%M:%S").to_string();
        let schedule = world.daily(&time(2), &time(4), 0, 0).await;
        world.put(at, "spring", &campaign(schedule, Value::Null)).await;
        let mut heard = vec!["not_started".to_owned()];
        eventually("the end", async || {
            let told = world.issue(at, "spring", &format!("user-{}", rand::random::<u64>())).await.told().to_owned();
            if heard.last() != Some(&told) {
                heard.push(told.clone());
            }
            (told == "ended").then_some(())
        })
        .await;
        assert_eq!(heard, ["not_started", "issued", "ended"]);
        let outside: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM coupons JOIN rounds USING (campaign, round) WHERE issued_at < opens_at OR issued_at >= closes_at",
        )
        .fetch_one(&world.pool)
        .await
        .unwrap();
        assert_eq!(outside, 0);
    })
    .await;
}
