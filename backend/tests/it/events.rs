//! Events out: to a webhook.

use std::collections::{BTreeSet, HashMap};
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::certificates::{Certificates, File};
use crate::process::program;
use crate::receiver::{Reaction, Receiver};
use crate::redeem::{order, redeem};
use crate::schemas::Schemas;
use crate::world::{ADMIN_TOKEN, EDGE_TOKEN, Reply, World, eventually, in_world};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SECRET_OLD: &str = "whsec_bmV3ZXIgdGhhbiB0aGUgb3RoZXIgb25l";

/// Settings for a webhook, hurried enough for a test that sees it fail.
fn to(receiver: &Receiver) -> String {
    format!("webhook_url = '{}'\nwebhook_secret = '{SECRET}'\nevent_backoff_ms = 10", receiver.url)
}

fn is(kind: &'static str) -> impl Fn(&&String) -> bool {
    move |id| id.starts_with(kind)
}

impl World {
    /// Issues to `count` users at once; their codes.
    async fn issue_to(&self, at: usize, prefix: &str, count: usize) -> Vec<String> {
        let users: Vec<String> = (0..count).map(|n| format!("{prefix}-{n}")).collect();
        let issued = futures_util::future::join_all(users.iter().map(|user| self.issue(at, "spring", user))).await;
        assert!(issued.iter().all(|reply| reply.status == 201), "{issued:?}");
        issued.iter().map(|reply| reply.coupon()["code"].as_str().unwrap().to_owned()).collect()
    }

    async fn redeem_by_hand(&self, codes: &[String]) {
        sqlx::query(
            "INSERT INTO redemptions (code, order_id, order_amount, discount_amount, redeemed_at)
             SELECT code, 'A-1', 30000, 10000, now() FROM unnest($1::text[]) code",
        )
        .bind(codes)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// Commits `count` coupons, `size` in each statement, as the backend would, without a backend.
    async fn fill(&self, campaign: &str, count: i64, size: i64) {
        let terms = json!({"discount": {"kind": "percent", "value": 50}, "min_order_amount": 0, "currency": "KRW"});
        for from in (1..=count).step_by(usize::try_from(size).unwrap()) {
            sqlx::query(
                "INSERT INTO coupons (code, campaign, round, user_id, number, issued_at, redeemable_from,
                                      redeemable_until, terms, version)
                 SELECT 'F' || lpad(n::text, 11, '0'), $1, (SELECT round FROM rounds WHERE campaign = $1), 'fill-' || n,
                        1000000 + n, now(), now(), now() + interval '1 day', $2, 1
                   FROM generate_series($3::bigint, $4::bigint) n",
            )
            .bind(campaign)
            .bind(&terms)
            .bind(from)
            .bind((from + size - 1).min(count))
            .execute(&self.pool)
            .await
            .unwrap();
        }
    }

    async fn metric(&self, ops: &str, name: &str) -> Option<f64> {
        let text = self.http.get(format!("{ops}/metrics")).send().await.ok()?.text().await.ok()?;
        let line = text.lines().find(|line| line.starts_with(&format!("doorbuster_{name}{{sink=\"webhook\"}}")))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    async fn dead_letters(&self, at: usize, query: &str) -> Value {
        let url = format!("{}/admin/v1/events/dead-letters{query}", self.backends[at].ops);
        Reply::of(self.http.get(url).bearer_auth(ADMIN_TOKEN).send().await.unwrap()).await.body
    }

    async fn retry(&self, at: usize, id: &Value, token: &str) -> Reply {
        let url = format!("{}/admin/v1/events/dead-letters/{id}/retry", self.backends[at].ops);
        Reply::of(self.http.post(url).bearer_auth(token).send().await.unwrap()).await
    }
}

/// An independent reading of the specification, for one secret.
fn signed_by(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(&[id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_told_signed_and_as_its_schema_says() {
    in_world(async |world| {
        let receiver = Receiver::start(|_| Reaction::Status(204)).await;
        let at = world.start_with(&format!("{}\nwebhook_secret_old = '{SECRET_OLD}'", to(&receiver))).await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        world.admin(at, Method::POST, "/spring/pause", None).await;
        world.admin(at, Method::POST, "/spring/pause", None).await;
        world.admin(at, Method::POST, "/spring/resume", None).await;
        let mut amount = world.open(50).await;
        amount["discount"] = json!({"kind": "amount", "value": 1000});
        let version = world.put(at, "spring", &amount).await.body["version"].clone();
        let codes = world.issue_to(at, "user", 20).await;
        world.put(at, "autumn", &amount).await;
        assert_eq!(world.admin(at, Method::DELETE, "/autumn", None).await.status, 204);
        for (user, code) in ["user-0", "user-1"].into_iter().zip(&codes) {
            assert_eq!(redeem(world, at, code, user, &order("A-1", 30_000)).await.status, 200);
        }
        let void = json!({"reason": "fraud", "reverse": true});
        let path = format!("/admin/v1/coupons/{}/void", codes[1]);
        assert_eq!(world.operate(at, Method::POST, &path, Some(&void)).await.status, 200);

        let expected = 4 + 20 + 2 + 2 + 1;
        eventually("all events", async || (receiver.taken().len() >= expected).then_some(())).await;
        let calls = receiver.calls();
        let (schemas, mut kinds) = (Schemas::load(), BTreeSet::new());
        for call in &calls {
            schemas.check(&call.event);
            kinds.insert(call.event["type"].as_str().unwrap().to_owned());
            let (id, timestamp) = (call.header("webhook-id"), call.header("webhook-timestamp"));
            assert_eq!(call.event["id"], id);
            assert_eq!(call.header("content-type"), "application/cloudevents+json; charset=UTF-8");
            let age_s = world.now().await.timestamp() - timestamp.parse::<i64>().unwrap();
            assert!((-5..=60).contains(&age_s), "{age_s}");
            let both = [SECRET, SECRET_OLD].map(|secret| signed_by(secret, id, timestamp, &call.body));
            assert_eq!(call.header("webhook-signature"), both.join(" "));
        }
        assert_eq!(kinds.len(), 4, "{kinds:?}");
        let taken = receiver.taken();
        assert_eq!((taken.len(), calls.len()), (expected, expected), "each once, when nothing fails");
        let of = |code: &str| taken.iter().filter(|id| id.ends_with(code)).cloned().collect::<Vec<_>>();
        assert_eq!(of(&codes[1]), ["issued", "redeemed", "voided"].map(|kind| format!("{kind}-{}", codes[1])));
        assert_eq!(of(&codes[2]), [format!("issued-{}", codes[2])]);
        let changes = |campaign: &str| {
            let told = calls.iter().filter(|call| call.event["subject"] == campaign);
            told.map(|call| call.event["data"]["change"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(changes("spring"), ["created", "paused", "resumed", "replaced"]);
        assert_eq!(changes("autumn"), ["created", "deleted"]);
        // What is told of a coupon is what it is.
        let told = calls.iter().find(|call| call.event["id"] == format!("issued-{}", codes[0])).unwrap();
        let data = &told.event["data"];
        assert_eq!((&data["user"], &data["version"]), (&json!("user-0"), &version));
        assert_eq!(data["discount"], amount["discount"]);
        // Nothing is left behind.
        eventually("an empty outbox", async || {
            let left: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&world.pool).await.unwrap();
            (left == 0).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_taken_becomes_a_dead_letter_that_holds_its_coupon_back_until_it_is_sent_again() {
    in_world(async |world| {
        let receiver = Receiver::start(|_| Reaction::Status(200)).await;
        let at = world.start_with(&format!("{}\nevent_attempts = 3", to(&receiver))).await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        receiver.react(|event| Reaction::Status(if event["data"]["user"] == "bad-0" { 503 } else { 200 }));
        let (bad, good) = (world.issue_to(at, "bad", 1).await, world.issue_to(at, "good", 5).await);
        world.redeem_by_hand(&[bad.as_slice(), good.as_slice()].concat()).await;

        let letters = eventually("a dead letter with another event behind it", async || {
            let listed = world.dead_letters(at, "").await;
            (listed["dead_letters"][0]["behind"] == 1).then_some(listed)
        })
        .await;
        assert_eq!((letters["dead_letters"].as_array().unwrap().len(), &letters["next_cursor"]), (1, &Value::Null));
        let letter = &letters["dead_letters"][0];
        assert_eq!(letter["event"]["id"], format!("issued-{}", bad[0]));
        assert_eq!((&letter["sink"], &letter["attempts"]), (&json!("webhook"), &json!(3)));
        assert_eq!(letter["error"], "answered 503");
        // The other coupons went on, in order; of this one the sink has nothing, and heard three times of its issue only.
        eventually("the others", async || (receiver.taken().iter().filter(is("redeemed")).count() == 5).then_some(()))
            .await;
        let attempts: Vec<Value> =
            receiver.calls().iter().filter(|call| !call.taken).map(|call| call.event["id"].clone()).collect();
        assert_eq!(attempts, vec![json!(format!("issued-{}", bad[0])); 3]);
        assert!(receiver.calls().iter().all(|call| call.event["id"] != format!("redeemed-{}", bad[0])));

        assert_eq!(world.retry(at, &letter["id"], EDGE_TOKEN).await.told(), "unauthorized");
        assert_eq!(world.retry(at, &json!(0), ADMIN_TOKEN).await.told(), "not_found");
        assert_eq!(world.retry(at, &json!("x"), ADMIN_TOKEN).await.told(), "not_found");
        receiver.react(|_| Reaction::Status(200));
        assert_eq!(world.retry(at, &letter["id"], ADMIN_TOKEN).await.status, 202);
        eventually("what waited behind it", async || {
            receiver.taken().contains(&format!("redeemed-{}", bad[0])).then_some(())
        })
        .await;
        let of: Vec<String> = receiver.taken().into_iter().filter(|id| id.ends_with(&bad[0])).collect();
        assert_eq!(of, [format!("issued-{}", bad[0]), format!("redeemed-{}", bad[0])]);
        eventually("no dead letter", async || {
            (world.dead_letters(at, "").await["dead_letters"] == json!([])).then_some(())
        })
        .await;
        assert_eq!(world.retry(at, &letter["id"], ADMIN_TOKEN).await.told(), "not_found");
        let log: Vec<(String, String, Value)> =
            sqlx::query_as("SELECT operator, subject, before FROM audit_log WHERE action = 'event.retried'")
                .fetch_all(&world.pool)
                .await
                .unwrap();
        let subject = format!("event/issued-{}", bad[0]);
        assert_eq!(
            log,
            [("admin".to_owned(), subject, json!({"sink": "webhook", "attempts": 3, "error": "answered 503"}))]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_page_by_page() {
    in_world(async |world| {
        let receiver =
            Receiver::start(|event| Reaction::Status(if event["type"] == "coupon.issued" { 400 } else { 200 })).await;
        let at = world.start_with(&format!("{}\nevent_attempts = 1", to(&receiver))).await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        let codes: BTreeSet<String> = world.issue_to(at, "user", 5).await.into_iter().collect();
        eventually("the dead letters", async || {
            (world.dead_letters(at, "").await["dead_letters"].as_array()?.len() == 5).then_some(())
        })
        .await;
        let (mut listed, mut query) = (BTreeSet::new(), "?limit=2".to_owned());
        let sizes = loop {
            let page = world.dead_letters(at, &query).await;
            let letters = page["dead_letters"].as_array().unwrap();
            listed.extend(letters.iter().map(|letter| letter["event"]["subject"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(cursor) => query = format!("?limit=2&cursor={cursor}"),
                None => break letters.len(),
            }
        };
        assert_eq!((listed, sizes), (codes, 1));
        for bad in ["?limit=0", "?limit=101", "?limit=1&limit=2", "?cursor=x", "?cursor=-1"] {
            assert_eq!(world.dead_letters(at, bad).await["code"], "invalid_input", "{bad}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_redirect_is_followed_and_no_endless_answer_read() {
    in_world(async |world| {
        let mut first = true;
        let react = move |_: &Value| {
            if std::mem::take(&mut first) { Reaction::Redirect } else { Reaction::Endless }
        };
        let receiver = Receiver::start(react).await;
        let at = world.start_with(&to(&receiver)).await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        world.issue_to(at, "user", 5).await;
        eventually("the events", async || (receiver.taken().len() == 6).then_some(())).await;
        assert!(receiver.calls().iter().all(|call| call.path == "/hook"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_https_only_the_server_that_is_meant_is_told() {
    let made = Certificates::make();
    let (ours, unknown) = (File::with(&made.ca), File::with(&made.unknown_ca));
    let receiver = Receiver::start_encrypted(made.server.clone(), |_| Reaction::Status(200)).await;
    let by_address = receiver.url.replace("localhost", "127.0.0.1");
    // Told is whoever is named, if the authority vouches for it; another authority may well have the same name.
    for (url, ca, complaint) in [
        (&receiver.url, Some(&unknown), "invalid peer certificate: BadSignature"),
        (&receiver.url, None, "invalid peer certificate: UnknownIssuer"),
        (&by_address, Some(&ours), "certificate not valid for name"),
    ] {
        in_world(async |world| {
            let ca = ca.map_or_else(String::new, |file| format!("webhook_ca_file = '{}'\n", file.path()));
            let more = format!("webhook_url = '{url}'\nwebhook_secret = '{SECRET}'\nevent_attempts = 1\n{ca}");
            let at = world.start_with(&more).await;
            world.put(at, "spring", &world.open(Value::Null).await).await;
            let error = eventually("a dead letter", async || {
                world.dead_letters(at, "").await["dead_letters"][0]["error"].as_str().map(ToOwned::to_owned)
            })
            .await;
            assert!(error.contains(complaint), "{url}: {error}");
        })
        .await;
    }
    assert_eq!(receiver.count(), 0);
    in_world(async |world| {
        let nonsense = File::with("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let refused = world.refused(&format!("{}\nwebhook_ca_file = '{}'", to(&receiver), nonsense.path())).await;
        assert!(refused.contains("webhook_ca_file: holds a certificate that is none"), "{refused}");
        let at = world.start_with(&format!("{}\nwebhook_ca_file = '{}'", to(&receiver), ours.path())).await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        world.issue_to(at, "user", 5).await;
        eventually("the events", async || (receiver.taken().len() == 6).then_some(())).await;
    })
    .await;
}

/// Bytes of memory that a process holds.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

struct Program {
    public: String,
    ops: String,
    child: tokio::process::Child,
}

impl World {
    /// Starts the backend as a program of its own.
    async fn spawn(&self, more: &str) -> Program {
        let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (public, ops) = (port(), port());
        let mut command = program();
        for line in more.lines() {
            let (key, value) = line.split_once(" = ").unwrap();
            command.env(format!("DOORBUSTER_{}", key.to_uppercase()), value.trim_matches('\''));
        }
        let child = command
            .env("DOORBUSTER_DATABASE_URL", &self.database_url)
            .env("DOORBUSTER_REDIS_URL", &self.redis_url)
            .env("DOORBUSTER_REDIS_PREFIX", &self.name)
            .env("DOORBUSTER_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("DOORBUSTER_EDGE_TOKEN", EDGE_TOKEN)
            .env("DOORBUSTER_PUBLIC_ADDR", &public)
            .env("DOORBUSTER_OPS_ADDR", &ops)
            .env("DOORBUSTER_COMMIT_TIMEOUT_MS", "20000")
            .env("DOORBUSTER_POSTGRES_TIMEOUT_MS", "15000")
            .env("DOORBUSTER_REDIS_TIMEOUT_MS", "10000")
            .env("DOORBUSTER_SWEEP_AFTER_MS", "50000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (public, ops) = (format!("http://{public}"), format!("http://{ops}"));
        eventually("readiness", async || {
            self.http.get(format!("{ops}/readyz")).send().await.ok()?.status().is_success().then_some(())
        })
        .await;
        Program { public, ops, child }
    }

    async fn issue_by(&self, program: &Program, user: &str) -> Reply {
        let url = format!("{}/v1/coupon/issue?campaign=spring", program.public);
        Reply::of(self.http.post(url).header("x-user-id", user).send().await.unwrap()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_hangs_slows_nothing_and_fills_no_memory() {
    in_world(async |world| {
        let receiver = Receiver::start(|_| Reaction::Hang).await;
        let settings = format!("{}\nwebhook_in_flight = 4\nevent_timeout_ms = 300", to(&receiver));
        let backend = world.spawn(&settings).await;
        let url = format!("{}/admin/v1/campaigns/spring", backend.ops);
        let body = world.open(Value::Null).await;
        world.http.put(url).bearer_auth(ADMIN_TOKEN).json(&body).send().await.unwrap().error_for_status().unwrap();
        eventually("a call that hangs", async || (receiver.count() > 0).then_some(())).await;

        // Everybody is served all the same.
        let users: Vec<String> = (0..200).map(|n| format!("user-{n}")).collect();
        let issued = futures_util::future::join_all(users.iter().map(|user| world.issue_by(&backend, user))).await;
        assert!(issued.iter().all(|reply| reply.status == 201), "{issued:?}");

        // What waits, waits in PostgreSQL: neither while the sink hangs nor while it catches up is it all in memory.
        let pid = backend.child.id().unwrap();
        let before = resident(pid);
        world.fill("spring", 100_000, 500).await;
        let waits = |least: f64| {
            let (world, ops) = (&*world, backend.ops.clone());
            async move || world.metric(&ops, "outbox_events").await.filter(|waiting| *waiting >= least)
        };
        eventually("the metric", waits(100_000.0)).await;
        let age = async || world.metric(&backend.ops, "outbox_age_seconds").await.filter(|age| *age > 0.0);
        eventually("the age", age).await;
        let called = receiver.count();
        eventually("further calls", async || (receiver.count() > called + 1).then_some(())).await;
        assert!(receiver.most_open() <= 4, "{}", receiver.most_open());
        receiver.react(|_| Reaction::Status(200));
        eventually("some of it", async || (receiver.taken().len() > 600).then_some(())).await;
        let grown = resident(pid).saturating_sub(before);
        assert!(grown < 48 << 20, "{grown} bytes for events in the outbox");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_backend_takes_over_from_one_that_is_killed() {
    in_world(async |world| {
        let receiver = Receiver::start(|_| Reaction::Status(200)).await;
        let settings = format!("{}\nwebhook_in_flight = 2", to(&receiver));
        let mut backends = vec![world.spawn(&settings).await, world.spawn(&settings).await];
        let url = format!("{}/admin/v1/campaigns/spring", backends[0].ops);
        let body = world.open(Value::Null).await;
        world.http.put(url).bearer_auth(ADMIN_TOKEN).json(&body).send().await.unwrap().error_for_status().unwrap();
        assert_eq!(world.issue_by(&backends[0], "first").await.status, 201);
        let relaying = eventually("a relay", async || {
            for (at, backend) in backends.iter().enumerate() {
                if world.metric(&backend.ops, "events_relaying").await == Some(1.0) {
                    return Some(at);
                }
            }
            None
        })
        .await;

        // Killed in the middle of it.
        world.fill("spring", 500, 50).await;
        let codes: Vec<String> = world.audit("spring").await.into_iter().map(|(_, _, code)| code).collect();
        world.redeem_by_hand(&codes).await;
        eventually("some of it", async || (receiver.count() > 50).then_some(())).await;
        let mut killed = backends.remove(relaying);
        killed.child.kill().await.unwrap();
        assert!(receiver.taken().len() < 1_000, "nothing was left to take over");

        eventually("the rest", async || (receiver.taken().len() == 1 + 2 * 501).then_some(())).await;
        let place: HashMap<String, usize> = receiver.taken().into_iter().enumerate().map(|(n, id)| (id, n)).collect();
        for code in &codes {
            assert!(place[&format!("issued-{code}")] < place[&format!("redeemed-{code}")], "{code}");
        }
        assert_eq!(world.metric(&backends[0].ops, "events_relaying").await, Some(1.0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_commits_late_is_not_passed_over() {
    in_world(async |world| {
        let receiver = Receiver::start(|_| Reaction::Status(200)).await;
        let at = world.start_with(&to(&receiver)).await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        let codes = world.issue_to(at, "user", 2).await;
        let mut late = world.pool.begin().await.unwrap();
        sqlx::query("INSERT INTO voids (code, reason, reversed, voided_at) VALUES ($1, 'late', false, now())")
            .bind(&codes[0])
            .execute(&mut *late)
            .await
            .unwrap();
        // Drawn later, committed earlier, and done with.
        world.redeem_by_hand(&codes[1..]).await;
        eventually("the later one", async || {
            receiver.taken().contains(&format!("redeemed-{}", codes[1])).then_some(())
        })
        .await;
        eventually("its row is gone", async || {
            let left: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&world.pool).await.unwrap();
            (left == 0).then_some(())
        })
        .await;
        late.commit().await.unwrap();
        eventually("the late one", async || receiver.taken().contains(&format!("voided-{}", codes[0])).then_some(()))
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_sink_nothing_is_kept_and_a_forgotten_sinks_events_are_deleted() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        world.issue_to(at, "user", 3).await;
        let kept = async || {
            let count = "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM parked_events)
                              + (SELECT count(*) FROM event_sinks)";
            sqlx::query_scalar::<_, i64>(count).fetch_one(&world.pool).await.unwrap()
        };
        assert_eq!(kept().await, 0);
        // A sink that was configured once, and is heard of no more.
        sqlx::query("INSERT INTO event_sinks (name) VALUES ('webhook')").execute(&world.pool).await.unwrap();
        world.fill("spring", 5_000, 2).await;
        sqlx::query("INSERT INTO parked_events (sink, subject, event, attempts, dead_at) VALUES ('webhook', 'x', '{}', 9, now())")
            .execute(&world.pool)
            .await
            .unwrap();
        assert_eq!(kept().await, 2_502);
        sqlx::query("UPDATE event_sinks SET seen_at = now() - interval '6 days'").execute(&world.pool).await.unwrap();
        eventually("the metric", async || {
            let ops = world.backends[at].ops.clone();
            (world.metric(&ops, "outbox_events").await == Some(5_000.0)).then_some(())
        })
        .await;
        assert_eq!(kept().await, 2_502, "six days are not long enough");
        sqlx::query("UPDATE event_sinks SET seen_at = now() - interval '8 days'").execute(&world.pool).await.unwrap();
        eventually("an empty outbox", async || (kept().await == 0).then_some(())).await;
    })
    .await;
}
