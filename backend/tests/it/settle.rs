//! Vendors, the ledger, payouts and voids: exact to the minor unit, whatever happens at once.

use std::collections::HashMap;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use reqwest::Method;
use serde_json::{Value, json};

use crate::redeem::{order, redeem, win};
use crate::world::{ADMIN_TOKEN, Reply, World, in_world};

async fn vendor(world: &World, name: &str) -> Reply {
    world.operate(0, Method::GET, &format!("/admin/v1/vendors/{name}"), None).await
}

async fn pay(world: &World, at: usize, vendor: &str, key: &str, body: &Value) -> Reply {
    let url = format!("{}/admin/v1/vendors/{vendor}/payouts", world.backends[at].ops);
    let request = world.http.post(url).bearer_auth(ADMIN_TOKEN).header("idempotency-key", key).json(body);
    Reply::of(request.send().await.unwrap()).await
}

async fn void(world: &World, at: usize, code: &str, body: &Value) -> Reply {
    world.operate(at, Method::POST, &format!("/admin/v1/coupons/{code}/void"), Some(body)).await
}

/// A status and a problem's code.
fn told(reply: &Reply) -> (u16, &str) {
    (reply.status.as_u16(), reply.body["code"].as_str().unwrap_or_default())
}

/// Reads every row: each transaction sums to zero, each balance is the sum of its entries, each redemption is credited
/// and each void of a redeemed coupon taken back, and all money is somewhere.
async fn assert_ledger(world: &World) {
    for (what, sql) in [
        (
            "transactions that do not sum to zero",
            "SELECT count(*) FROM (SELECT id FROM ledger_transactions LEFT JOIN ledger_entries ON transaction = id
              GROUP BY id HAVING count(*) <> 2 OR sum(amount) <> 0) wrong",
        ),
        (
            "balances that are not the sum of their entries",
            "SELECT count(*) FROM vendors WHERE balance <> (
                 SELECT coalesce(sum(amount), 0) FROM ledger_entries JOIN ledger_transactions ON id = transaction
                  WHERE account = 'owed' AND vendor = vendors.id)",
        ),
        (
            "redemptions without their credit, or credits without their redemption",
            "SELECT count(*) FROM redemptions FULL JOIN (
                 SELECT code, amount, at FROM ledger_transactions JOIN ledger_entries ON transaction = id
                  WHERE kind = 'redemption' AND account = 'owed') credit USING (code)
              WHERE (discount_amount, redeemed_at) IS DISTINCT FROM (amount, at)",
        ),
        (
            "voids of redeemed coupons without their reversal, or reversals without their void",
            "SELECT count(*) FROM (SELECT * FROM voids JOIN redemptions USING (code)) reversed FULL JOIN (
                 SELECT code, amount, at FROM ledger_transactions JOIN ledger_entries ON transaction = id
                  WHERE kind = 'reversal' AND account = 'owed') debit USING (code)
              WHERE (-discount_amount, voided_at, reversed) IS DISTINCT FROM (amount, at, true)",
        ),
        (
            "voids that say they reversed and did not",
            "SELECT count(*) FROM voids LEFT JOIN redemptions USING (code) WHERE reversed <> (order_id IS NOT NULL)",
        ),
        (
            "payouts that differ from their entry",
            "SELECT count(*) FROM payouts FULL JOIN (
                 SELECT transaction, amount, vendor FROM ledger_transactions JOIN ledger_entries ON transaction = id
                  WHERE kind = 'payout' AND account = 'paid') entry USING (transaction)
              WHERE (payouts.amount, payouts.vendor) IS DISTINCT FROM (entry.amount, entry.vendor)",
        ),
    ] {
        let wrong: i64 = sqlx::query_scalar(sql).fetch_one(&world.pool).await.unwrap();
        assert_eq!(wrong, 0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_comes_with_its_first_campaign_and_keeps_its_currency() {
    in_world(async |world| {
        let at = world.start().await;
        assert_eq!(told(&vendor(world, "acme").await), (404, "unknown_vendor"));
        let with = async |vendor: &str, currency: &str| {
            let mut body = world.open(1).await;
            (body["vendor"], body["currency"]) = (json!(vendor), json!(currency));
            body
        };
        world.put(at, "one", &with("acme", "KRW").await).await;
        world.put(at, "two", &with("Bäcker & Söhne/7", "EUR").await).await;
        let empty = json!({"id": "acme", "currency": "KRW", "balance": 0, "entries": [], "next_cursor": null});
        assert_eq!(vendor(world, "acme").await.body, empty);
        assert_eq!(vendor(world, "B%C3%A4cker%20%26%20S%C3%B6hne%2F7").await.body["currency"], "EUR");

        let refused = world.admin(at, Method::PUT, "/one", Some(&with("acme", "USD").await)).await;
        assert_eq!((told(&refused), &refused.body["errors"][0]["field"]), ((422, "invalid_input"), &json!("currency")));

        let list = async |query: &str| world.operate(at, Method::GET, &format!("/admin/v1/vendors{query}"), None).await;
        let first = list("?limit=1").await;
        assert_eq!(first.body["vendors"], json!([{"id": "Bäcker & Söhne/7", "currency": "EUR", "balance": 0}]));
        let cursor = first.body["next_cursor"].as_str().unwrap();
        let second = list(&format!("?limit=1&cursor={cursor}")).await;
        assert_eq!(second.body["vendors"][0]["id"], "acme");
        assert_eq!(second.body["next_cursor"], Value::Null);
        for query in ["?limit=0", "?cursor=%00", "?cursor=AA", "?cursor=a.b", "?cursor=_w"] {
            assert_eq!(told(&list(query).await), (422, "invalid_input"), "{query}");
        }
        for name in ["nobody", "%00", "%ff", "a%0Ab"] {
            assert_eq!(told(&vendor(world, name).await), (404, "unknown_vendor"), "{name}");
            assert_eq!(told(&pay(world, at, name, "k", &json!({})).await), (404, "unknown_vendor"), "{name}");
        }
        assert_eq!(told(&world.operate(at, Method::GET, "/admin/v1/vendors/acme?cursor=x", None).await).0, 422);

        // Named by mistake, it goes with the campaign; but not while another names it, or has named it.
        world.put(at, "three", &with("acme", "KRW").await).await;
        world.put(at, "three", &with("emca", "KRW").await).await;
        assert_eq!(world.admin(at, Method::DELETE, "/one", None).await.status, 204);
        assert_eq!(vendor(world, "acme").await.status, 200);
        assert_eq!(world.admin(at, Method::DELETE, "/three", None).await.status, 204);
        assert_eq!(told(&vendor(world, "acme").await), (404, "unknown_vendor"));
        world.put(at, "one", &with("acme", "USD").await).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_is_made_once_and_never_exceeds_what_is_owed() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(10).await).await;
        for n in 0..5 {
            let user = format!("user-{n}");
            let code = win(world, "spring", &user).await;
            redeem(world, at, &code, &user, &order(&format!("A-{n}"), 20_000 + n)).await;
        }
        assert_eq!(vendor(world, "acme").await.body["balance"], 50_000);

        let paid = pay(world, at, "acme", "k-1", &json!({"amount": 20_000})).await;
        assert_eq!(paid.status, 201, "{paid:?}");
        let shown = ["vendor", "currency", "amount", "balance"].map(|name| &paid.body[name]);
        assert_eq!(shown, [&json!("acme"), &json!("KRW"), &json!(20_000), &json!(30_000)]);
        let again = pay(world, at, "acme", "k-1", &json!({"amount": 20_000})).await;
        assert_eq!((again.status.as_u16(), &again.body), (201, &paid.body));
        for other in [json!({"amount": 20_001}), json!({})] {
            assert_eq!(told(&pay(world, at, "acme", "k-1", &other).await), (422, "key_reused"));
        }
        let above = pay(world, at, "acme", "k-2", &json!({"amount": 30_001})).await;
        assert_eq!(told(&above), (409, "insufficient_balance"));
        for (key, body) in [
            ("", json!({})),
            ("a b", json!({})),
            ("k-3", json!({"amount": 0})),
            ("k-3", json!({"amount": -1})),
            ("k-3", json!({"amount": i64::MAX})),
            ("k-3", json!({"sum": 1})),
            ("k-3", json!([])),
        ] {
            assert_eq!(told(&pay(world, at, "acme", key, &body).await), (422, "invalid_input"), "{key} {body}");
        }
        let path = "/admin/v1/vendors/acme/payouts";
        assert_eq!(told(&world.operate(at, Method::POST, path, Some(&json!({}))).await), (422, "invalid_input"));

        // Without an amount, all of it. The key that was refused before is free.
        let rest = pay(world, at, "acme", "k-2", &json!({})).await;
        assert_eq!((&rest.body["amount"], &rest.body["balance"]), (&json!(30_000), &json!(0)));
        assert_eq!(pay(world, at, "acme", "k-2", &json!({"amount": null})).await.body, rest.body);
        assert_eq!(told(&pay(world, at, "acme", "k-4", &json!({})).await), (409, "insufficient_balance"));

        // Entries, newest first, page by page.
        let mut amounts = Vec::new();
        let mut path = "/admin/v1/vendors/acme?limit=3".to_owned();
        loop {
            let page = world.operate(at, Method::GET, &path, None).await.body;
            assert_eq!(page["balance"], 0);
            amounts.extend(page["entries"].as_array().unwrap().iter().map(|entry| entry["amount"].as_i64().unwrap()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/admin/v1/vendors/acme?limit=3&cursor={cursor}");
        }
        assert_eq!(amounts, [-30_000, -20_000, 10_000, 10_000, 10_000, 10_000, 10_000]);
        let newest = vendor(world, "acme").await.body["entries"].clone();
        assert_eq!((&newest[0]["kind"], &newest[0]["id"]), (&json!("payout"), &rest.body["id"]));
        assert_eq!((&newest[2]["kind"], &newest[2]["order_id"]), (&json!("redemption"), &json!("A-4")));
        assert_ledger(world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voided_coupon_keeps_its_number_and_redeems_no_more() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(3).await).await;
        let code = win(world, "spring", "ann").await;
        for body in
            [json!({}), json!({"reason": ""}), json!({"reason": "x", "reverse": 1}), json!({"reason": "a\u{0}"})]
        {
            assert_eq!(told(&void(world, at, &code, &body).await), (422, "invalid_input"), "{body}");
        }
        assert_eq!(told(&void(world, at, "x", &json!({"reason": "fraud"})).await), (400, "invalid_code"));
        let unknown = doorbuster_domain::code::CouponCode::from_random(rand::random());
        let reply = void(world, at, unknown.as_str(), &json!({"reason": "fraud"})).await;
        assert_eq!(told(&reply), (404, "unknown_coupon"));
        for (code, expected) in [(unknown.as_str(), (404, "unknown_coupon")), ("x", (400, "invalid_code"))] {
            let shown = world.operate(at, Method::GET, &format!("/admin/v1/coupons/{code}"), None).await;
            assert_eq!(told(&shown), expected);
        }

        let voided = void(world, at, &code, &json!({"reason": "fraud"})).await;
        assert_eq!(voided.status, 200, "{voided:?}");
        let shown = ["code", "reason", "reversed"].map(|name| &voided.body[name]);
        assert_eq!(shown, [&json!(code), &json!("fraud"), &json!(false)]);
        // The first one stands.
        let again = void(world, at, &code, &json!({"reason": "second thoughts", "reverse": true})).await;
        assert_eq!((again.status.as_u16(), &again.body), (200, &voided.body));
        let refused = redeem(world, at, &code, "ann", &order("A-1", 30_000)).await;
        assert_eq!(told(&refused), (410, "voided"));
        assert_eq!(refused.coupon()["voided_at"], voided.body["voided_at"]);
        let listed = world.get(at, "/v1/coupons", "ann").await;
        assert_eq!(listed.body["coupons"][0]["voided_at"], voided.body["voided_at"]);

        // Its user had one, and its number counts, also for a Redis that learns of it anew.
        world.forget_redis().await;
        let asked = world.issue(at, "spring", "ann").await;
        assert_eq!((told(&asked), &asked.coupon()["voided_at"]), ((409, "already_issued"), &voided.body["voided_at"]));
        for number in [2, 3] {
            assert_eq!(world.issue(at, "spring", &format!("user-{number}")).await.coupon()["number"], number);
        }
        assert_eq!(world.issue(at, "spring", "late").await.told(), "sold_out");
        world.assert_issued("spring", 3).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voiding_a_redeemed_coupon_takes_the_credit_back() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(3).await).await;
        let code = win(world, "spring", "ann").await;
        redeem(world, at, &code, "ann", &order("A-1", 30_000)).await;
        let refused = void(world, at, &code, &json!({"reason": "fraud"})).await;
        assert_eq!(told(&refused), (409, "already_redeemed"));
        assert!(refused.coupon().get("voided_at").is_none());
        assert_eq!(pay(world, at, "acme", "k-1", &json!({"amount": 7_000})).await.status, 201);

        let voided = void(world, at, &code, &json!({"reason": "fraud", "reverse": true})).await;
        assert_eq!((voided.status.as_u16(), &voided.body["reversed"]), (200, &json!(true)));
        assert_eq!(void(world, at, &code, &json!({"reason": "fraud", "reverse": true})).await.body, voided.body);
        let shown = world.operate(at, Method::GET, &format!("/admin/v1/coupons/{code}"), None).await;
        let told_of = ["user", "vendor", "redeemed_at"].map(|name| &shown.coupon()[name]);
        assert_eq!(told_of, [&json!("ann"), &json!("acme"), &shown.coupon()["redemption"]["redeemed_at"]]);
        assert_eq!((&shown.coupon()["redemption"]["order_id"], &shown.coupon()["void"]), (&json!("A-1"), &voided.body));
        // The order that redeemed it has no discount any more.
        assert_eq!(told(&redeem(world, at, &code, "ann", &order("A-1", 30_000)).await), (410, "voided"));

        // What was paid out already the vendor owes now; the next redemptions make up for it, and no payout adds to it.
        let acme = vendor(world, "acme").await;
        assert_eq!(acme.body["balance"], -7_000);
        assert_eq!(
            (&acme.body["entries"][0]["kind"], &acme.body["entries"][0]["amount"]),
            (&json!("reversal"), &json!(-10_000))
        );
        for body in [json!({}), json!({"amount": 1})] {
            assert_eq!(told(&pay(world, at, "acme", "k-2", &body).await), (409, "insufficient_balance"));
        }
        let code = win(world, "spring", "bob").await;
        redeem(world, at, &code, "bob", &order("A-2", 30_000)).await;
        assert_eq!(pay(world, at, "acme", "k-2", &json!({})).await.body["amount"], 3_000);
        assert_ledger(world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_redemptions_payouts_and_voids_stays_exact() {
    in_world(async |world| {
        const COUPONS: usize = 60;
        world.start().await;
        world.start().await;
        world.put(0, "spring", &world.open(COUPONS as u64).await).await;
        let world = &*world;
        let codes: Vec<_> = stream::iter(0..COUPONS)
            .map(|n| async move { win(world, "spring", &format!("user-{n}")).await })
            .buffered(20)
            .collect()
            .await;

        // Each coupon is asked for by two orders, each twice; every third is voided meanwhile; payouts of all sizes, each
        // sent twice under its key.
        let redeeming = join_all((0..COUPONS * 4).map(|n| {
            let (at, which) = (n % 2, n / 4);
            let order = order(&format!("A-{which}-{}", n / 2 % 2), 20_000 + which as i64);
            let code = &codes[which];
            async move { redeem(world, at, code, &format!("user-{which}"), &order).await }
        }));
        let paying = join_all((0..60).map(|n: usize| async move {
            let body = if n / 2 % 10 == 9 { json!({}) } else { json!({"amount": 997 * (n / 2 + 1)}) };
            pay(world, n % 2, "acme", &format!("k-{}", n / 2), &body).await
        }));
        let voiding = join_all((0..COUPONS).step_by(3).map(|n| {
            let code = &codes[n];
            async move { void(world, n % 2, code, &json!({"reason": "fraud", "reverse": true})).await }
        }));
        let (redeemed, paid, voided) = tokio::join!(redeeming, paying, voiding);

        let mut winners: HashMap<&str, &Value> = HashMap::new();
        for reply in &redeemed {
            match told(reply) {
                (200, code) => assert_eq!(*winners.entry(code).or_insert(&reply.body), &reply.body, "one answer"),
                refused => assert!([(409, "already_redeemed"), (410, "voided")].contains(&refused), "{reply:?}"),
            }
        }
        let mut payouts: HashMap<i64, &Value> = HashMap::new();
        for reply in &paid {
            match told(reply) {
                (201, _) => {
                    let id = reply.body["id"].as_i64().unwrap();
                    assert_eq!(*payouts.entry(id).or_insert(&reply.body), &reply.body, "one answer");
                    assert!(reply.body["balance"].as_i64().unwrap() >= 0);
                }
                refused => assert_eq!(refused, (409, "insufficient_balance"), "{reply:?}"),
            }
        }
        assert!(voided.iter().all(|reply| reply.status == 200), "{voided:?}");
        let reversed = voided.iter().filter(|reply| reply.body["reversed"] == true).count();
        assert!(winners.len() >= COUPONS - COUPONS / 3, "{}", winners.len());
        assert_ledger(world).await;

        // What was answered is what the vendor is owed: all orders were of an amount whose half is the cap or more.
        let paid_out: i64 = payouts.values().map(|payout| payout["amount"].as_i64().unwrap()).sum();
        let balance = vendor(world, "acme").await.body["balance"].as_i64().unwrap();
        assert_eq!(balance, 10_000 * (winners.len() - reversed) as i64 - paid_out);
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM payouts").fetch_one(&world.pool).await.unwrap();
        assert_eq!(rows, payouts.len() as i64);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_refuses_whatever_would_falsify_the_ledger() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(3).await).await;
        let code = win(world, "spring", "ann").await;
        redeem(world, at, &code, "ann", &order("A-1", 30_000)).await;
        let payout =
            "INSERT INTO ledger_transactions (vendor, currency, kind, at) VALUES ('acme', 'KRW', 'payout', now());";
        let entry = |account: &str, amount: i64| {
            format!("INSERT INTO ledger_entries VALUES (lastval(), '{account}', {amount});")
        };
        for (sql, constraint) in [
            (payout.to_owned(), "ledger_balanced"),
            (format!("{payout}{}", entry("owed", -1)), "ledger_balanced"),
            (format!("{payout}{}{}", entry("owed", -1), entry("paid", 2)), "ledger_balanced"),
            (format!("{payout}{}{}", entry("owed", -10_001), entry("paid", 10_001)), "ledger_payout_covered"),
            ("INSERT INTO ledger_entries SELECT id, 'paid', 0 FROM ledger_transactions".to_owned(), "ledger_balanced"),
            ("UPDATE ledger_entries SET amount = 0".to_owned(), "ledger_append_only"),
            ("DELETE FROM ledger_entries".to_owned(), "ledger_append_only"),
            ("DELETE FROM ledger_transactions".to_owned(), "ledger_append_only"),
            (
                format!("SELECT post_to_ledger('acme', 'KRW', 'redemption', '{code}', 1, now())"),
                "ledger_once_per_coupon",
            ),
            ("SELECT post_to_ledger('acme', 'USD', 'payout', NULL, -1, now())".to_owned(), "ledger_vendor_currency"),
        ] {
            let error = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone())).execute(&world.pool).await.unwrap_err();
            let broken = error.as_database_error().and_then(|error| error.constraint());
            assert_eq!(broken, Some(constraint), "{sql}: {error}");
        }
        assert_ledger(world).await;
        assert_eq!(vendor(world, "acme").await.body["balance"], 10_000);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_do_to_coupons_and_vendors_is_logged_once_or_not_done() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(3).await).await;
        let (ann, bob) = (win(world, "spring", "ann").await, win(world, "spring", "bob").await);
        let path = format!("/admin/v1/coupons/{ann}/redeem");
        let for_ann = json!({"user": "ann", "order_id": "A-1", "order_amount": 30_000});
        let reason = json!({"reason": "fraud", "reverse": true});
        let everything = async || {
            [
                world.operate(at, Method::POST, &path, Some(&for_ann)).await.status.as_u16(),
                pay(world, at, "acme", "k-1", &json!({"amount": 4_000})).await.status.as_u16(),
                void(world, at, &ann, &reason).await.status.as_u16(),
            ]
        };

        sqlx::query("ALTER TABLE audit_log RENAME TO elsewhere").execute(&world.pool).await.unwrap();
        assert_eq!(redeem(world, at, &bob, "bob", &order("B-1", 30_000)).await.status, 200, "no operator's doing");
        assert_eq!(everything().await, [503; 3]);
        let acme = vendor(world, "acme").await.body;
        assert_eq!((&acme["balance"], acme["entries"].as_array().unwrap().len()), (&json!(10_000), 1));
        sqlx::query("ALTER TABLE elsewhere RENAME TO audit_log").execute(&world.pool).await.unwrap();
        assert_eq!(everything().await, [200, 201, 200]);
        // The order's discount is gone, so it is refused now; the others hear the same again.
        assert_eq!(everything().await, [410, 201, 200]);

        let log = async |subject: &str| {
            let path = format!("/admin/v1/audit-log?subject={subject}");
            let mut entries = world.operate(at, Method::GET, &path, None).await.body["entries"].take();
            entries
                .as_array_mut()
                .unwrap()
                .drain(..)
                .map(|mut entry| ["operator", "action", "before", "after"].map(|name| entry[name].take()))
                .collect::<Vec<_>>()
        };
        let coupon = log(&format!("coupon/{ann}")).await;
        let [[by, voided, before, after], [_, redeemed, untouched, was]] = &coupon[..] else { panic!("{coupon:?}") };
        assert_eq!((by, voided, redeemed), (&json!("admin"), &json!("coupon.voided"), &json!("coupon.redeemed")));
        assert_eq!(untouched, &json!({"redemption": null, "void": null}));
        assert_eq!((before, &was["redemption"]["order_id"]), (was, &json!("A-1")));
        assert_eq!((&after["redemption"], &after["void"]["reason"]), (&before["redemption"], &json!("fraud")));
        assert_eq!(log(&format!("coupon/{bob}")).await.len(), 0);
        let payouts = log("vendor/acme").await;
        let [[_, paid, before, after]] = &payouts[..] else { panic!("{payouts:?}") };
        assert_eq!((paid, before), (&json!("vendor.paid"), &json!({"balance": 20_000})));
        assert_eq!((&after["balance"], &after["payout"]["idempotency_key"]), (&json!(16_000), &json!("k-1")));
        assert_ledger(world).await;
    })
    .await;
}
