//! Issuing while everything is up.

use std::collections::HashMap;

use futures_util::StreamExt;
use futures_util::stream;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, campaign, in_world};

/// Sends one request for each user, so many at a time, spread over the backends; counts what they are told.
pub(crate) async fn rush(world: &World, users: impl Iterator<Item = String>, at_once: usize) -> HashMap<String, usize> {
    let backends = world.backends.len();
    let requests = users
        .enumerate()
        .map(|(at, user)| async move { world.issue(at % backends, "spring", &user).await.told().to_owned() });
    let told: Vec<String> = stream::iter(requests).buffer_unordered(at_once).collect().await;
    told.into_iter().fold(HashMap::new(), |mut counts, told| {
        *counts.entry(told).or_default() += 1;
        counts
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_win_shows_its_coupon_and_a_second_request_too() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(2).await).await;

        let win = world.issue(at, "spring", "ann").await;
        assert_eq!(win.status, 201, "{win:?}");
        let coupon = win.coupon();
        let round = world.today().await.to_string();
        assert_eq!(
            (&coupon["campaign"], &coupon["round"], &coupon["number"]),
            (&json!("spring"), &json!(round), &json!(1))
        );
        assert_eq!(coupon["discount"], json!({"kind": "percent", "value": 50, "max_amount": 10000}));
        assert_eq!((&coupon["min_order_amount"], &coupon["currency"]), (&json!(20000), &json!("KRW")));
        assert_eq!(coupon["redeemable_from"], coupon["issued_at"]);
        assert!(coupon["redeemable_until"].as_str().unwrap() > coupon["issued_at"].as_str().unwrap());
        assert!(win.headers.contains_key("content-length"));
        assert_eq!(
            win.header("x-doorbuster-result"),
            format!("outcome=issued, campaign=\"spring\", round=\"{round}\", issued=1, quota=2, version=1")
        );

        let again = world.issue(at, "spring", "ann").await;
        assert_eq!((again.status.as_u16(), again.told()), (409, "already_issued"));
        assert_eq!(again.coupon(), coupon);
        assert_eq!(again.header("cache-control"), "no-store");
        assert!(again.header("x-doorbuster-result").starts_with("outcome=already_issued"));

        assert_eq!(world.issue(at, "spring", "bob").await.coupon()["number"], 2);
        let late = world.issue(at, "spring", "cid").await;
        assert_eq!((late.status.as_u16(), late.told()), (409, "sold_out"));
        assert!(late.header("x-doorbuster-result").starts_with("outcome=sold_out"), "{late:?}");
        assert_eq!(late.header("retry-after"), "", "there is no next round");
        // Winners hear it too.
        assert_eq!(world.issue(at, "spring", "ann").await.told(), "sold_out");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_over_two_backends_issues_exactly_the_quota() {
    in_world(async |world| {
        world.start().await;
        world.start().await;
        world.put(0, "spring", &world.open(100).await).await;
        crate::world::eventually("the second backend's notice", async || {
            (world.get(1, "/v1/coupon/count?campaign=spring", "").await.status == 200).then_some(())
        })
        .await;

        // Each user twice, at about the same time.
        let users = (0..1_500).map(|n| format!("user-{}", n / 2 % 500));
        let told = rush(world, users, 200).await;
        assert_eq!(told.values().sum::<usize>(), 1_500);
        assert!(
            told.keys().all(|told| ["issued", "already_issued", "sold_out", "busy"].contains(&told.as_str())),
            "{told:?}"
        );
        assert!(told["issued"] >= 100, "{told:?}");
        world.assert_issued("spring", 100).await;
        for at in [0, 1] {
            let count = world.get(at, "/v1/coupon/count?campaign=spring", "").await.body;
            assert_eq!(
                (&count["issued"], &count["remaining"], &count["state"]),
                (&json!(100), &json!(0), &json!("sold_out"))
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_at_once_everywhere_gets_one_coupon() {
    in_world(async |world| {
        world.start().await;
        world.start().await;
        world.put(0, "spring", &world.open(Value::Null).await).await;
        let told = rush(world, (0..200).map(|_| "ann".to_owned()), 100).await;
        assert!(
            told.keys().all(|told| ["issued", "already_issued", "unknown_campaign"].contains(&told.as_str())),
            "{told:?}"
        );
        world.assert_issued("spring", 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_come_in_the_order_of_the_contract() {
    in_world(async |world| {
        let at = world.start().await;
        let issue = async |query: &str, users: &[&str], body: usize| {
            let url = format!("{}/v1/coupon/issue{query}", world.backends[at].public);
            let mut request = world.http.post(url).body("x".repeat(body));
            for user in users {
                request = request.header("x-user-id", *user);
            }
            let reply = crate::world::Reply::of(request.send().await.unwrap()).await;
            (reply.status.as_u16(), reply.told().to_owned())
        };
        let expect = |status: u16, code: &str| (status, code.to_owned());

        assert_eq!(issue("?campaign=spring", &["ann"], 4_097).await, expect(413, "body_too_large"));
        for query in ["", "?campaign=", "?campaign=a&campaign=a", "?campaign=%00", "?campaign=%zz", "?campaign=A"] {
            assert_eq!(issue(query, &[], 0).await, expect(400, "invalid_campaign"), "{query}");
        }
        assert_eq!(issue("?campaign=spring", &[], 0).await, expect(404, "unknown_campaign"));

        let past = campaign(world.daily("00:00", "24:00", -9, -8).await, json!(1));
        world.put(at, "spring", &past).await;
        world.admin(at, Method::POST, "/spring/pause", None).await;
        assert_eq!(issue("?campaign=spring", &[], 0).await, expect(410, "ended"));
        let closed = campaign(world.daily("01:00", "02:00", -1, 2).await, json!(1));
        world.put(at, "spring", &closed).await;
        assert_eq!(issue("?campaign=spring", &[], 0).await, expect(403, "paused"));
        world.admin(at, Method::POST, "/spring/resume", None).await;
        assert_eq!(issue("?campaign=spring", &[], 0).await, expect(403, "outside_hours"));
        let future = campaign(world.daily("00:00", "24:00", 3, 4).await, json!(1));
        world.put(at, "spring", &future).await;
        assert_eq!(issue("?campaign=spring", &[], 0).await, expect(403, "not_started"));

        world.put(at, "spring", &world.open(0).await).await;
        assert_eq!(issue("?campaign=spring", &[], 0).await, expect(409, "sold_out"));
        world.put(at, "spring", &world.open(1).await).await;
        assert_eq!(issue("?campaign=spring", &[], 4_096).await, expect(401, "missing_user"));
        assert_eq!(issue("?campaign=spring", &[""], 0).await, expect(401, "missing_user"));
        assert_eq!(issue("?campaign=spring", &["a b"], 0).await, expect(400, "invalid_user"));
        assert_eq!(issue("?campaign=spring", &["ann", "ann"], 0).await, expect(400, "invalid_user"));
        assert_eq!(issue("?x=y&c%61mpaign=%73pring", &["ann"], 4_096).await, expect(201, "issued"));
        assert_eq!(issue("?campaign=spring", &["a b"], 0).await, expect(409, "sold_out"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_campaign_is_meant_where_none_is_named() {
    in_world(async |world| {
        let at = world.start_with("default_campaign = 'spring'").await;
        world.put(at, "spring", &world.open(1).await).await;
        let url = format!("{}/v1/coupon/issue", world.backends[at].public);
        let reply = world.http.post(url).header("x-user-id", "ann").send().await.unwrap();
        assert_eq!(reply.status(), 201);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_its_bound_a_backend_is_unavailable_at_once() {
    in_world(async |world| {
        let at = world.start_with("max_in_flight = 1").await;
        world.put(at, "spring", &world.open(1).await).await;
        // The round's row is held, so the first request waits for its commit.
        let mut transaction = world.pool.begin().await.unwrap();
        crate::world::eventually("the warmed round", async || {
            let held = sqlx::query("SELECT 1 FROM rounds FOR UPDATE").execute(&mut *transaction).await.unwrap();
            (held.rows_affected() == 1).then_some(())
        })
        .await;
        let (first, second) = tokio::join!(world.issue(at, "spring", "ann"), async {
            world.under_way(at, 1).await;
            let second = world.issue(at, "spring", "bob").await;
            transaction.rollback().await.unwrap();
            second
        });
        assert_eq!((first.told(), second.told()), ("issued", "unavailable"));
        assert!(["1", "2", "3"].contains(&second.header("retry-after")), "{second:?}");
    })
    .await;
}
