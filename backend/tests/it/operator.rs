//! The operators' interface.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{ADMIN_TOKEN, EDGE_TOKEN, Reply, World, in_world};

async fn put_raw(world: &World, path: &str, body: String) -> Reply {
    let url = format!("{}/admin/v1/campaigns{path}", world.backends[0].ops);
    Reply::of(world.http.put(url).bearer_auth(ADMIN_TOKEN).body(body).send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_is_created_shown_and_replaced() {
    in_world(async |world| {
        let at = world.start().await;
        let body = world.open(5).await;
        let created = world.admin(at, Method::PUT, "/spring", Some(&body)).await;
        assert_eq!(created.status, 201);
        let version = created.body["version"].as_i64().unwrap();
        assert_eq!(created.header("etag"), format!("\"{version}\""));
        for (key, value) in body.as_object().unwrap() {
            assert_eq!(&created.body[key], value, "{key}");
        }
        assert_eq!((&created.body["id"], &created.body["paused"]), (&json!("spring"), &json!(false)));
        assert_eq!(world.admin(at, Method::GET, "/spring", None).await.body, created.body);

        let replaced = world.admin(at, Method::PUT, "/spring", Some(&world.open(7).await)).await;
        assert_eq!(replaced.status, 200);
        assert!(replaced.body["version"].as_i64().unwrap() > version);
        assert_eq!(replaced.body["quota"], 7);

        world.put(at, "autumn", &world.open(Value::Null).await).await;
        let all = world.admin(at, Method::GET, "", None).await;
        let ids: Vec<_> = all.body["campaigns"].as_array().unwrap().iter().map(|each| &each["id"]).collect();
        assert_eq!(ids, [&json!("autumn"), &json!("spring")]);

        let paused = world.admin(at, Method::POST, "/spring/pause", None).await;
        assert_eq!((paused.status.as_u16(), &paused.body["paused"]), (200, &json!(true)));
        // A paused campaign that is written stays paused; pausing it again changes nothing.
        let written = world.put(at, "spring", &world.open(8).await).await;
        assert_eq!(written.body["paused"], true);
        let again = world.admin(at, Method::POST, "/spring/pause", None).await;
        assert_eq!(again.header("etag"), written.header("etag"));
        assert_eq!(world.admin(at, Method::POST, "/spring/resume", None).await.body["paused"], false);
        assert_eq!(world.admin(at, Method::POST, "/winter/pause", None).await.told(), "unknown_campaign");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn if_match_guards_every_change() {
    in_world(async |world| {
        let at = world.start().await;
        let body = world.open(5).await;
        let send = async |method: Method, path: &str, tag: &str| {
            let url = format!("{}/admin/v1/campaigns{path}", world.backends[at].ops);
            let request = world.http.request(method, url).bearer_auth(ADMIN_TOKEN).header("if-match", tag).json(&body);
            Reply::of(request.send().await.unwrap()).await
        };
        for tag in ["\"1\"", "*"] {
            assert_eq!(send(Method::PUT, "/spring", tag).await.told(), "version_conflict", "there is none yet");
        }
        let created = world.put(at, "spring", &body).await;
        let etag = created.header("etag").to_owned();
        for tag in ["\"0\"", &format!("W/{etag}"), etag.trim_matches('"'), "", "\"\"", "x"] {
            for (method, path) in
                [(Method::PUT, "/spring"), (Method::DELETE, "/spring"), (Method::POST, "/spring/pause")]
            {
                let reply = send(method, path, tag).await;
                assert_eq!((reply.status.as_u16(), reply.told()), (412, "version_conflict"), "{tag}");
            }
        }
        let paused = send(Method::POST, "/spring/pause", &etag).await;
        assert_eq!(paused.status, 200);
        assert_eq!(send(Method::PUT, "/spring", &etag).await.status, 412);
        let written = send(Method::PUT, "/spring", &format!("\"0\", {}", paused.header("etag"))).await;
        assert_eq!(written.status, 200);
        assert_eq!(send(Method::PUT, "/spring", "*").await.status, 200);
        assert_eq!(send(Method::DELETE, "/spring", "*").await.status, 204);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_hold_is_said_at_once_and_not_stored() {
    in_world(async |world| {
        let at = world.start().await;
        for not_json in ["", "{", "nope", "{\"a\":1}x", "\u{feff}{}", &"[".repeat(200)] {
            let reply = put_raw(world, "/spring", not_json.to_owned()).await;
            assert_eq!((reply.status.as_u16(), reply.told()), (400, "invalid_input"), "{not_json}");
        }
        let reply = put_raw(world, "/spring", "{\"quota\": 1e400}".to_owned()).await;
        assert_eq!(
            (reply.status.as_u16(), reply.told()),
            (422, "invalid_input"),
            "JSON, though no number can be so large"
        );
        assert_eq!(put_raw(world, "/spring", " ".repeat(70_000)).await.told(), "body_too_large");

        let mut body = world.open(-1).await;
        body["colour"] = json!("red");
        body["title"] = json!("a\u{0}b");
        body["schedule"]["closes"] = json!("24:01");
        body["schedule"]["timezone"] = json!("Mars/Olympus");
        body["discount"]["value"] = json!(1e300);
        let reply = put_raw(world, "/Spring", body.to_string()).await;
        assert_eq!((reply.status.as_u16(), reply.told()), (422, "invalid_input"));
        let mut fields: Vec<_> =
            reply.body["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            ["colour", "discount.value", "id", "quota", "schedule.closes", "schedule.timezone", "title"]
        );
        assert_eq!(world.admin(at, Method::GET, "", None).await.body, json!({"campaigns": []}));

        world.put(at, "spring", &world.open(1).await).await;
        let mut other = world.open(1).await;
        other["currency"] = json!("USD");
        let reply = put_raw(world, "/autumn", other.to_string()).await;
        assert_eq!((reply.status.as_u16(), &reply.body["errors"][0]["field"]), (422, &json!("currency")));
        other["vendor"] = json!("emca");
        assert_eq!(put_raw(world, "/autumn", other.to_string()).await.status, 201);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_listener_wants_its_token() {
    in_world(async |world| {
        let at = world.start().await;
        let ask = async |method: &str, path: &str, authorization: &[&str]| {
            let url = format!("{}{path}", world.backends[at].ops);
            let mut request = world.http.request(method.parse().unwrap(), url);
            for value in authorization {
                request = request.header("authorization", *value);
            }
            Reply::of(request.send().await.unwrap()).await
        };
        let (admin, edge) = (format!("Bearer {ADMIN_TOKEN}"), format!("Bearer {EDGE_TOKEN}"));
        for (method, path, good, bad) in [
            ("GET", "/admin/v1/campaigns", &admin, &edge),
            ("DELETE", "/admin/v1/campaigns/x", &admin, &edge),
            ("POST", "/internal/v1/edge/sync", &edge, &admin),
        ] {
            let longer = format!("{good}x");
            let basic = good.replace("Bearer", "Basic");
            for wrong in [
                vec![],
                vec![""],
                vec!["Bearer"],
                vec!["Bearer "],
                vec![bad.as_str()],
                vec![&longer],
                vec![&basic],
                vec![&good[..good.len() - 1]],
                vec![good, good],
            ] {
                let reply = ask(method, path, &wrong).await;
                assert_eq!((reply.status.as_u16(), reply.told()), (401, "unauthorized"), "{path} {wrong:?}");
                assert!(reply.header("www-authenticate").starts_with("Bearer"));
            }
            assert_ne!(ask(method, path, &[good]).await.status, 401, "{path}");
            assert_ne!(ask(method, path, &[&good.replace("Bearer", "bearer")]).await.status, 401, "{path}");
        }
        assert_eq!(ask("GET", "/v1/coupon/count", &[]).await.told(), "not_found");
        assert_eq!(ask("GET", "/livez", &[]).await.status, 200);
        let metrics = ask("GET", "/metrics", &[]).await;
        assert_eq!(metrics.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_shows_what_is_issued_and_pending() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(5).await).await;
        let round = world.today().await;
        world.issue(at, "spring", "ann").await;
        crate::recovery::reserve_and_die(world, &world.redis(), "bob").await;
        let shown = world.admin(at, Method::GET, &format!("/spring/rounds/{round}"), None).await;
        assert_eq!(shown.status, 200);
        let numbers = ["quota", "issued", "pending", "failed"].map(|name| shown.body[name].as_i64());
        assert_eq!(numbers, [Some(5), Some(1), Some(1), Some(0)], "{shown:?}");
        for path in ["/spring/rounds/2020-01-01", "/spring/rounds/today", "/winter/rounds/2020-01-01", "/%ff", "/A"] {
            assert_eq!(world.admin(at, Method::GET, path, None).await.status, 404, "{path}");
        }
    })
    .await;
}
