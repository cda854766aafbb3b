//! Redeeming: what a coupon promised holds, for one order, once.

use std::collections::HashMap;

use chrono::TimeDelta;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::recovery::reserve_and_die;
use crate::world::{Reply, World, campaign, eventually, in_world};

/// Issues a coupon and gives its code.
pub(crate) async fn win(world: &World, campaign: &str, user: &str) -> String {
    let reply = world.issue(0, campaign, user).await;
    assert_eq!(reply.told(), "issued", "{reply:?}");
    reply.coupon()["code"].as_str().unwrap().to_owned()
}

pub(crate) async fn redeem(world: &World, at: usize, code: &str, user: &str, body: &Value) -> Reply {
    let url = format!("{}/v1/coupons/{code}/redeem", world.backends[at].public);
    Reply::of(world.http.post(url).header("x-user-id", user).json(body).send().await.unwrap()).await
}

pub(crate) fn order(id: &str, amount: i64) -> Value {
    json!({"order_id": id, "order_amount": amount})
}

#[tokio::test(flavor = "multi_thread")]
async fn one_order_redeems_and_hears_the_same_again() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(5).await).await;
        let code = win(world, "spring", "ann").await;

        assert_eq!(redeem(world, at, &code, "bob", &order("A-1", 30_000)).await.told(), "unknown_coupon");
        assert_eq!(redeem(world, at, &code, "", &order("A-1", 30_000)).await.told(), "missing_user");
        let first = redeem(world, at, &code, "ann", &order("A-1", 30_000)).await;
        assert_eq!(first.status, 200, "{first:?}");
        let told = ["code", "order_id", "order_amount", "discount_amount"].map(|name| &first.body[name]);
        assert_eq!(told, [&json!(code), &json!("A-1"), &json!(30_000), &json!(10_000)]);
        assert!(
            first.body["redeemed_at"].as_str().unwrap()
                >= world.get(at, "/v1/coupons", "ann").await.body["coupons"][0]["issued_at"].as_str().unwrap()
        );

        // However the code is written, and through whichever door.
        let written = code.to_lowercase().replace('0', "o").replace('1', "l");
        assert_eq!(redeem(world, at, &written, "ann", &order("A-1", 30_000)).await.body, first.body);
        let path = format!("/admin/v1/coupons/{code}/redeem");
        let for_ann = json!({"user": "ann", "order_id": "A-1", "order_amount": 30_000});
        let again = world.operate(at, Method::POST, &path, Some(&for_ann)).await;
        assert_eq!((again.status.as_u16(), &again.body), (200, &first.body));

        for (body, told) in [(order("A-1", 30_001), "order_mismatch"), (order("A-2", 30_000), "already_redeemed")] {
            let refused = redeem(world, at, &code, "ann", &body).await;
            assert_eq!((refused.status.as_u16(), refused.told()), (409, told));
            assert_eq!(refused.coupon()["redeemed_at"], first.body["redeemed_at"]);
        }
        let shown = world.get(at, &format!("/v1/coupons/{code}"), "ann").await;
        assert_eq!(shown.coupon()["redeemed_at"], first.body["redeemed_at"]);
        let listed = world.get(at, "/v1/coupons", "ann").await;
        assert_eq!(listed.body["coupons"], json!([shown.coupon()]));
        assert!(shown.coupon().get("voided_at").is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shops_server_redeems_where_clients_may_not() {
    in_world(async |world| {
        let at = world.start_with("client_redeem = 'off'").await;
        world.put(at, "spring", &world.open(5).await).await;
        let code = win(world, "spring", "ann").await;
        let off = redeem(world, at, &code, "ann", &order("A-1", 30_000)).await;
        assert_eq!((off.status.as_u16(), off.told()), (404, "not_found"));
        let path = format!("/admin/v1/coupons/{code}/redeem");
        let ask = async |user: &str| {
            let body = json!({"user": user, "order_id": "A-1", "order_amount": 30_000});
            world.operate(at, Method::POST, &path, Some(&body)).await
        };
        assert_eq!(ask("bob").await.told(), "unknown_coupon");
        assert_eq!(ask("ann").await.body["discount_amount"], 10_000);
        let url = format!("{}{path}", world.backends[at].ops);
        let unknown = Reply::of(world.http.post(url).json(&json!({})).send().await.unwrap()).await;
        assert_eq!(unknown.told(), "unauthorized");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_sent_is_trusted() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(5).await).await;
        let code = win(world, "spring", "ann").await;
        let mut typo = code.clone().into_bytes();
        typo[4] = if typo[4] == b'7' { b'8' } else { b'7' };
        let typo = String::from_utf8(typo).unwrap();
        for bad in ["x", "7K3M9QZ2WX4", "%00", "%ff", &typo] {
            let refused = redeem(world, at, bad, "ann", &order("A-1", 30_000)).await;
            assert_eq!((refused.status.as_u16(), refused.told()), (400, "invalid_code"), "{bad}");
        }
        // A place that is held is no coupon yet.
        let held = reserve_and_die(world, &world.redis(), "bob").await;
        let pending = redeem(world, at, held.code.as_str(), "bob", &order("A-1", 30_000)).await;
        assert_eq!((pending.status.as_u16(), pending.told()), (404, "unknown_coupon"));

        let url = format!("{}/v1/coupons/{code}/redeem", world.backends[at].public);
        let send = async |body: String| {
            Reply::of(world.http.post(&url).header("x-user-id", "ann").body(body).send().await.unwrap()).await
        };
        for body in ["", "{", "null x", &"[".repeat(200)] {
            let refused = send(body.to_owned()).await;
            assert_eq!((refused.status.as_u16(), refused.told()), (400, "invalid_input"), "{body}");
        }
        assert_eq!(send(" ".repeat(4_097)).await.told(), "body_too_large");
        let long = format!("\"{}\"", "o".repeat(129));
        for (id, amount, fields) in [
            ("\"A-1\"", "-1", vec!["order_amount"]),
            ("\"A-1\"", "9223372036854775807", vec!["order_amount"]),
            ("\"A-1\"", "-9223372036854775808", vec!["order_amount"]),
            ("\"A-1\"", "18446744073709551616", vec!["order_amount"]),
            ("\"A-1\"", "9007199254740992", vec!["order_amount"]),
            ("\"A-1\"", "1.5", vec!["order_amount"]),
            ("\"A-1\"", "\"30000\"", vec!["order_amount"]),
            ("\"A-1\"", "1e400", vec![""]),
            ("\"\"", "null", vec!["order_id", "order_amount"]),
            ("\"A 1\"", "30000", vec!["order_id"]),
            ("\"A\\u0000\"", "30000", vec!["order_id"]),
            (&long, "30000", vec!["order_id"]),
            ("7", "30000, \"user\": \"bob\"", vec!["user", "order_id"]),
        ] {
            let refused = send(format!("{{\"order_id\": {id}, \"order_amount\": {amount}}}")).await;
            assert_eq!((refused.status.as_u16(), refused.told()), (422, "invalid_input"), "{id} {amount}");
            let wrong = refused.body["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap());
            assert_eq!(wrong.collect::<Vec<_>>(), fields, "{id} {amount}");
        }
        // The largest order there can be.
        let largest = send("{\"order_id\": \"A-1\", \"order_amount\": 9007199254740991}".to_owned()).await;
        assert_eq!((largest.status.as_u16(), &largest.body["discount_amount"]), (200, &json!(10_000)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_winner_was_told_holds_whatever_the_campaign_becomes() {
    in_world(async |world| {
        let at = world.start().await;
        let mut body = world.open(5).await;
        body["discount"] = json!({"kind": "percent", "value": 33});
        world.put(at, "spring", &body).await;
        let (ann, bob) = (win(world, "spring", "ann").await, win(world, "spring", "bob").await);

        body["discount"] = json!({"kind": "amount", "value": 1});
        body["min_order_amount"] = json!(1_000_000);
        body["validity"] = json!({"days": 1, "from": "event_end", "redeemable": "after_event"});
        body["vendor"] = json!("emca");
        body["currency"] = json!("USD");
        world.put(at, "spring", &body).await;
        world.admin(at, Method::POST, "/spring/pause", None).await;

        // A third of an order, rounded down to the minor unit.
        let redeemed = redeem(world, at, &ann, "ann", &order("A-1", 20_001)).await;
        assert_eq!(redeemed.body["discount_amount"], 6_600, "{redeemed:?}");
        let small = redeem(world, at, &bob, "bob", &order("A-2", 19_999)).await;
        assert_eq!((small.status.as_u16(), small.told()), (422, "below_minimum"));
        assert_eq!(small.coupon()["min_order_amount"], 20_000);
        // Credited to the vendor whose campaign it was, in its currency.
        let acme = world.operate(at, Method::GET, "/admin/v1/vendors/acme", None).await;
        assert_eq!((&acme.body["balance"], &acme.body["currency"]), (&json!(6_600), &json!("KRW")));
        let emca = world.operate(at, Method::GET, "/admin/v1/vendors/emca", None).await;
        assert_eq!((&emca.body["balance"], &emca.body["currency"]), (&json!(0), &json!("USD")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_older_than_the_ledger_credits_its_campaigns_vendor() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(5).await).await;
        let code = win(world, "spring", "ann").await;
        sqlx::query("UPDATE coupons SET terms = terms - 'vendor'").execute(&world.pool).await.unwrap();
        assert_eq!(world.get(at, &format!("/v1/coupons/{code}"), "ann").await.status, 200);
        assert_eq!(redeem(world, at, &code, "ann", &order("A-1", 30_000)).await.status, 200);
        let acme = world.operate(at, Method::GET, "/admin/v1/vendors/acme", None).await;
        assert_eq!(acme.body["balance"], 10_000);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_is_redeemed_from_its_first_instant_to_the_end_of_a_local_day() {
    in_world(async |world| {
        let at = world.start().await;
        let today = world.today().await.0;
        let midnight = |days| format!("{}T00:00:00", today + TimeDelta::days(days));

        // The event ends tomorrow at midnight.
        let with = |validity: Value, schedule: &Value| {
            let mut body = campaign(schedule.clone(), Value::Null);
            body["validity"] = validity;
            body["discount"] = json!({"kind": "amount", "value": 30_000});
            body
        };
        let schedule = world.daily("00:00", "24:00", 0, 1).await;
        let after = with(json!({"days": 2, "from": "event_end", "redeemable": "after_event"}), &schedule);
        world.put(at, "after", &after).await;
        let now = with(json!({"days": 2, "from": "issue", "redeemable": "on_issue"}), &schedule);
        world.put(at, "now", &now).await;

        let reply = world.issue(at, "after", "ann").await;
        assert!(reply.coupon()["redeemable_from"].as_str().unwrap().starts_with(&midnight(2)), "{reply:?}");
        assert!(reply.coupon()["redeemable_until"].as_str().unwrap().starts_with(&midnight(5)), "{reply:?}");
        let code = reply.coupon()["code"].as_str().unwrap();
        let early = redeem(world, at, code, "ann", &order("A-1", 30_000)).await;
        assert_eq!((early.status.as_u16(), early.told()), (409, "not_redeemable_yet"));
        assert_eq!(early.coupon(), reply.coupon());

        let reply = world.issue(at, "now", "ann").await;
        assert!(reply.coupon()["redeemable_until"].as_str().unwrap().starts_with(&midnight(3)), "{reply:?}");
        let code = reply.coupon()["code"].as_str().unwrap();
        // What it would be, had it been issued so much earlier, by Redis's clock.
        let until = async |until: chrono::DateTime<chrono::Utc>| {
            let moved = "UPDATE coupons SET redeemable_until = $1 WHERE code = $2";
            sqlx::query(moved).bind(until).bind(code).execute(&world.pool).await.unwrap();
        };
        until(world.now().await).await;
        let late = redeem(world, at, code, "ann", &order("A-1", 30_000)).await;
        assert_eq!((late.status.as_u16(), late.told()), (410, "expired"));
        until(world.now().await + TimeDelta::minutes(10)).await;
        // Never more than the order.
        let redeemed = redeem(world, at, code, "ann", &order("A-1", 20_000)).await;
        assert_eq!(redeemed.body["discount_amount"], 20_000, "{redeemed:?}");
        until(world.now().await).await;
        let again = redeem(world, at, code, "ann", &order("A-1", 20_000)).await;
        assert_eq!((again.status.as_u16(), &again.body), (200, &redeemed.body));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_at_once_one_order_wins() {
    in_world(async |world| {
        world.start().await;
        world.start().await;
        world.put(0, "spring", &world.open(2).await).await;
        // Until a backend has heard of the campaign it gives times in UTC.
        eventually("the second backend's notice", async || {
            let count = world.get(1, "/v1/coupon/count?campaign=spring", "ann").await;
            (count.status == 200).then_some(())
        })
        .await;
        let (raced, repeated) = (win(world, "spring", "ann").await, win(world, "spring", "bob").await);

        let orders: Vec<_> = (0..100).map(|n| order(&format!("A-{n}"), 30_000)).collect();
        let replies =
            join_all(orders.iter().enumerate().map(|(n, order)| redeem(world, n % 2, &raced, "ann", order))).await;
        let mut told: HashMap<(u16, &str), usize> = HashMap::new();
        for reply in &replies {
            *told.entry((reply.status.as_u16(), reply.told())).or_default() += 1;
        }
        assert_eq!(told, HashMap::from([((200, "issued"), 1), ((409, "already_redeemed"), 99)]));

        let same = order("B-1", 24_690);
        let replies = join_all((0..100).map(|n| redeem(world, n % 2, &repeated, "bob", &same))).await;
        for reply in &replies {
            assert_eq!((reply.status.as_u16(), &reply.body), (200, &replies[0].body));
        }
        let acme = world.operate(0, Method::GET, "/admin/v1/vendors/acme", None).await;
        assert_eq!(acme.body["balance"], 20_000);
        assert_eq!(acme.body["entries"].as_array().unwrap().len(), 2);
    })
    .await;
}
