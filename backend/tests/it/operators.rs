//! Who may do what on the operations listener, and what is kept of it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::redeem::win;
use crate::world::{ADMIN_TOKEN, EDGE_TOKEN, Reply, World, eventually, in_world};

const ANN: &str = "ann's own token, long enough";
const VIC: &str = "vic's own token, long enough";
const CAS: &str = "cas's own token, long enough";

/// Ann is an operator, Vic a viewer, Cas a cashier.
const TOKENS: &str = "
[[operator_tokens]]
name = 'ann'
role = 'operator'
sha256 = 'b41ccefe409e8587cb44f5dc8c9817ffb2e00cf5b158a435c3ae084508c71cea'
[[operator_tokens]]
name = 'vic'
role = 'viewer'
sha256 = '42562702e4875fcdb456887f5a0e696eda8c34d63bb546d7070d37ca925697ea'
[[operator_tokens]]
name = 'cas'
role = 'cashier'
sha256 = '7c22530e739abbfe1856e1db8620af4491ebd3b8b55975f73817a6af5d8021f9'
";

async fn ask(world: &World, token: &str, method: Method, path: &str, body: Option<&Value>) -> Reply {
    let mut request = world.http.request(method, format!("{}{path}", world.backends[0].ops)).bearer_auth(token);
    if let Some(body) = body {
        request = request.json(body);
    }
    Reply::of(request.send().await.unwrap()).await
}

async fn log(world: &World, query: &str) -> (Vec<Value>, Value) {
    let reply = ask(world, VIC, Method::GET, &format!("/admin/v1/audit-log{query}"), None).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    (reply.body["entries"].as_array().unwrap().clone(), reply.body["next_cursor"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_looks_and_an_operator_changes() {
    in_world(async |world| {
        world.start_with(TOKENS).await;
        let body = world.open(5).await;
        for (method, path) in [
            (Method::PUT, "/admin/v1/campaigns/spring"),
            (Method::POST, "/admin/v1/campaigns/spring/pause"),
            (Method::POST, "/admin/v1/campaigns/spring/resume"),
            (Method::DELETE, "/admin/v1/campaigns/spring"),
        ] {
            let reply = ask(world, VIC, method, path, Some(&body)).await;
            assert_eq!((reply.status.as_u16(), reply.told()), (403, "forbidden"), "{path}");
        }
        assert_eq!(log(world, "").await.0, [] as [Value; 0]);
        assert_eq!(ask(world, ANN, Method::PUT, "/admin/v1/campaigns/spring", Some(&body)).await.status, 201);
        let round = format!("/admin/v1/campaigns/spring/rounds/{}", world.today().await);
        for path in ["/admin/v1/campaigns", "/admin/v1/campaigns/spring", &round] {
            assert_eq!(ask(world, VIC, Method::GET, path, None).await.status, 200, "{path}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_use_its_own_routes_and_no_others() {
    in_world(async |world| {
        world.start_with(TOKENS).await;
        let document: Value = serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
        // What the contract lists for a cashier, as far as it exists.
        let coupon = "/admin/v1/coupons/{code}".to_owned();
        let till = [("GET", coupon.clone()), ("POST", coupon + "/redeem")];
        let (mut changing, mut at_the_till) = (0, 0);
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap().iter().filter(|_| path.starts_with("/admin/")) {
                let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
                if operation["security"] != json!([{"operator": []}]) {
                    assert_eq!(method.as_str(), "SERVERS", "{path} says nothing of a token");
                    continue;
                }
                let is_till = till.contains(&(method.as_str(), path.clone()));
                let path = path.replace(['{', '}'], "x");
                let told = async |token| {
                    let reply = ask(world, token, method.clone(), &path, None).await;
                    (reply.status.as_u16(), reply.told().to_owned())
                };
                assert_eq!(told(EDGE_TOKEN).await, (401, "unauthorized".to_owned()), "{method} {path}");
                if is_till {
                    assert!(![401, 403].contains(&told(CAS).await.0), "{method} {path}");
                    at_the_till += 1;
                } else {
                    let refused = (403, "forbidden".to_owned());
                    assert_eq!(told(CAS).await, refused, "{method} {path}");
                }
                if method == Method::GET {
                    assert!(![401, 403].contains(&told(VIC).await.0), "{method} {path}");
                } else {
                    assert_eq!(told(VIC).await, (403, "forbidden".to_owned()), "{method} {path}");
                    assert!(![401, 403].contains(&told(ANN).await.0), "{method} {path}");
                    changing += 1;
                }
            }
        }
        assert!(changing >= 9, "{changing} routes that change something");
        assert_eq!(at_the_till, till.len());
        assert_eq!(log(world, "").await.0, [] as [Value; 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cashier_redeems_shows_and_is_named_in_the_log() {
    in_world(async |world| {
        let at = world.start_with(TOKENS).await;
        world.put(at, "spring", &world.open(5).await).await;
        let code = win(world, "spring", "user").await;
        let shown = format!("/admin/v1/coupons/{code}");
        let redeem = format!("{shown}/redeem");
        let order = json!({"user": "user", "order_id": "A-1", "order_amount": 30_000});
        let redeemed = ask(world, CAS, Method::POST, &redeem, Some(&order)).await;
        assert_eq!(redeemed.body["discount_amount"], 10_000, "{redeemed:?}");
        let coupon = ask(world, CAS, Method::GET, &shown, None).await;
        assert_eq!(coupon.body["coupon"]["redemption"]["order_id"], "A-1", "{coupon:?}");
        let void = json!({"reason": "returned", "reverse": true});
        let refused = ask(world, CAS, Method::POST, &format!("{shown}/void"), Some(&void)).await;
        assert_eq!((refused.status.as_u16(), refused.told()), (403, "forbidden"));
        let (entries, _) = log(world, &format!("?subject=coupon/{code}")).await;
        let [entry] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!((&entry["operator"], &entry["action"]), (&json!("cas"), &json!("coupon.redeemed")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_tries_are_limited_and_lock_nobody_out() {
    in_world(async |world| {
        world.start_with(TOKENS).await;
        let first = ask(world, "a guess at a token", Method::GET, "/admin/v1/campaigns", None).await;
        assert_eq!(first.told(), "unauthorized");
        // One more try a second is let through: however slowly this runs, the limit is reached in the end.
        let limited = eventually("the limit", async || {
            let replies = futures_util::future::join_all(
                (0..50).map(|_| ask(world, "a guess at a token", Method::GET, "/admin/v1/campaigns", None)),
            );
            replies.await.into_iter().find(|reply| reply.status == 429)
        })
        .await;
        assert_eq!((limited.told(), limited.header("retry-after")), ("too_many", "1"));
        for token in [ADMIN_TOKEN, ANN, VIC] {
            assert_eq!(ask(world, token, Method::GET, "/admin/v1/campaigns", None).await.status, 200);
        }
        // To ask without a token is no try at one.
        let reply = world.http.get(format!("{}/admin/v1/campaigns", world.backends[0].ops)).send().await.unwrap();
        assert_eq!(Reply::of(reply).await.told(), "unauthorized");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_logged_with_who_and_before_and_after() {
    in_world(async |world| {
        world.start_with(TOKENS).await;
        let (small, large) = (world.open(5).await, world.open(7).await);
        let spring = "/admin/v1/campaigns/spring";
        let pause = format!("{spring}/pause");
        let created = ask(world, ANN, Method::PUT, spring, Some(&small)).await.body;
        let replaced = ask(world, ADMIN_TOKEN, Method::PUT, spring, Some(&large)).await.body;
        let paused = ask(world, ANN, Method::POST, &pause, None).await.body;
        // What changes nothing, or is refused, is no change.
        ask(world, ANN, Method::POST, &pause, None).await;
        ask(world, ANN, Method::PUT, spring, Some(&json!({}))).await;
        let resumed = ask(world, ANN, Method::POST, &format!("{spring}/resume"), None).await.body;
        ask(world, ANN, Method::PUT, "/admin/v1/campaigns/autumn", Some(&small)).await;
        ask(world, ANN, Method::DELETE, spring, None).await;

        let (entries, next) = log(world, "?subject=campaign/spring").await;
        assert_eq!(next, Value::Null);
        let expected = [
            ("ann", "campaign.deleted", &resumed, &Value::Null),
            ("ann", "campaign.resumed", &paused, &resumed),
            ("ann", "campaign.paused", &replaced, &paused),
            ("admin", "campaign.replaced", &created, &replaced),
            ("ann", "campaign.created", &Value::Null, &created),
        ];
        assert_eq!(entries.len(), expected.len(), "{entries:?}");
        for (entry, (operator, action, before, after)) in entries.iter().zip(expected) {
            let told = (&entry["operator"], &entry["action"], &entry["before"], &entry["after"]);
            assert_eq!(told, (&json!(operator), &json!(action), before, after));
            let at = chrono::DateTime::parse_from_rfc3339(entry["at"].as_str().unwrap()).unwrap();
            assert!((world.now().await - at.to_utc()).abs() < chrono::TimeDelta::hours(1), "{at}");
        }

        let mut walked = Vec::new();
        let mut query = "?limit=2".to_owned();
        loop {
            let (page, next) = log(world, &query).await;
            walked.extend(page);
            let Some(cursor) = next.as_str() else { break };
            query = format!("?limit=2&cursor={cursor}");
        }
        let (all, _) = log(world, "?limit=100").await;
        assert_eq!((walked.len(), &walked), (6, &all));

        for wrong in ["?limit=0", "?cursor=x", "?cursor=-1", "?subject=%00", "?subject=a&subject=b"] {
            let reply = ask(world, VIC, Method::GET, &format!("/admin/v1/audit-log{wrong}"), None).await;
            assert_eq!((reply.status.as_u16(), reply.told()), (422, "invalid_input"), "{wrong}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_only_added_to_and_there_is_no_change_without_it() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(5).await).await;
        for forbidden in ["UPDATE audit_log SET operator = 'eve'", "DELETE FROM audit_log", "TRUNCATE audit_log"] {
            let error = sqlx::query(forbidden).execute(&world.pool).await.unwrap_err();
            assert!(error.to_string().contains("the audit log is only ever added to"), "{error}");
        }
        sqlx::query("ALTER TABLE audit_log RENAME TO elsewhere").execute(&world.pool).await.unwrap();
        for (method, path) in [(Method::PUT, "/autumn"), (Method::POST, "/spring/pause"), (Method::DELETE, "/spring")] {
            let reply = world.admin(at, method, path, Some(&world.open(5).await)).await;
            assert_eq!(reply.told(), "unavailable", "{path}");
        }
        let all = world.admin(at, Method::GET, "", None).await;
        let kept: Vec<_> = all.body["campaigns"].as_array().unwrap().iter().map(|c| (&c["id"], &c["paused"])).collect();
        assert_eq!(kept, [(&json!("spring"), &json!(false))]);
    })
    .await;
}
