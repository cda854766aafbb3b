//! One test's world: a database, a key prefix, and backends over them.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use doorbuster_backend::config::Config;
use doorbuster_backend::store::postgres::Postgres;
use doorbuster_backend::store::redis::Redis;
use doorbuster_backend::{Listeners, run};
use doorbuster_domain::id::{CampaignId, RoundId, UserId};
use futures_util::FutureExt;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const ADMIN_TOKEN: &str = "an-operator's-token";
pub(crate) const EDGE_TOKEN: &str = "a-gateway's-token";

/// Deadlines that no machine is slow enough to run into.
const PATIENT: &str = "commit_timeout_ms = 20000
postgres_timeout_ms = 15000
redis_timeout_ms = 10000
sweep_after_ms = 50000";

/// Deadlines for a test that runs into them, or waits for the sweeper.
const HURRIED: &str = "commit_timeout_ms = 1000
postgres_timeout_ms = 600
redis_timeout_ms = 1500
sweep_after_ms = 3100";

pub(crate) struct Backend {
    pub(crate) public: String,
    pub(crate) ops: String,
    pub(crate) stop: CancellationToken,
    pub(crate) ended: JoinHandle<anyhow::Result<()>>,
}

pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) redis_url: String,
    pub(crate) database_url: String,
    /// The test's own way into the database.
    pub(crate) pool: PgPool,
    pub(crate) http: reqwest::Client,
    pub(crate) backends: Vec<Backend>,
    /// Whether backends have deadlines short enough for a test that runs into them.
    pub(crate) hurried: bool,
}

fn needed(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`"))
}

/// Runs a test in a world of its own and clears it away, whatever the test comes to.
pub(crate) async fn in_world(test: impl AsyncFnOnce(&mut World)) {
    let (redis_url, server) = (needed("DOORBUSTER_TEST_REDIS_URL"), needed("DOORBUSTER_TEST_DATABASE_URL"));
    let name = format!("doorbuster_test_{:016x}", rand::random::<u64>());
    let admin = PgPool::connect(&server).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.unwrap();
    let (before, _) = server.rsplit_once('/').unwrap();
    let database_url = format!("{before}/{name}");
    let pool = PgPool::connect(&database_url).await.unwrap();
    let mut world = World {
        name,
        redis_url,
        database_url,
        pool,
        http: reqwest::Client::new(),
        backends: Vec::new(),
        hurried: false,
    };

    let outcome = AssertUnwindSafe(test(&mut world)).catch_unwind().await;

    for backend in world.backends.drain(..) {
        backend.stop.cancel();
        let _ = backend.ended.await;
    }
    world.pool.close().await;
    world.forget_redis().await;
    let drop = format!("DROP DATABASE {} WITH (FORCE)", world.name);
    sqlx::query(AssertSqlSafe(drop)).execute(&admin).await.unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Polls until `check` gives something.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1_600 {
        if let Some(found) = check().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what} did not happen within forty seconds");
}

pub(crate) fn id(text: &str) -> CampaignId {
    CampaignId::parse(text).unwrap()
}

pub(crate) fn user(text: &str) -> UserId {
    UserId::parse(text).unwrap()
}

impl World {
    pub(crate) fn config(&self, more: &str) -> Config {
        let text = format!(
            "database_url = '{}'\nredis_url = '{}'\nredis_prefix = '{}'\nadmin_token = \"{ADMIN_TOKEN}\"\n\
             edge_token = \"{EDGE_TOKEN}\"\ndatabase_pool = 4\n{}\n{}\n{more}",
            self.database_url,
            self.redis_url,
            self.name,
            if self.hurried { HURRIED } else { PATIENT },
            // Most tests that redeem do it as a user does.
            if more.contains("client_redeem") { "" } else { "client_redeem = 'on'" },
        );
        Config::parse(&text, []).unwrap()
    }

    /// Starts a backend on free ports and waits until it serves.
    pub(crate) async fn start(&mut self) -> usize {
        self.start_with("").await
    }

    pub(crate) async fn start_with(&mut self, more: &str) -> usize {
        let at = self.begin(more).await;
        eventually("a backend's start", async || {
            let reply = self.http.get(format!("{}/readyz", self.backends[at].ops)).send().await.ok()?;
            reply.status().is_success().then_some(())
        })
        .await;
        at
    }

    /// The same without waiting.
    pub(crate) async fn begin(&mut self, more: &str) -> usize {
        let listeners = Listeners {
            public: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            ops: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        };
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (public, ops, stop) = (url(&listeners.public), url(&listeners.ops), CancellationToken::new());
        let ended = tokio::spawn(run(self.config(more), listeners, stop.clone()));
        self.backends.push(Backend { public, ops, stop, ended });
        self.backends.len() - 1
    }

    /// Why a backend does not start with these settings.
    pub(crate) async fn refused(&self, more: &str) -> String {
        let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listeners = Listeners { public: listen().await, ops: listen().await };
        format!("{:#}", run(self.config(more), listeners, CancellationToken::new()).await.unwrap_err())
    }

    /// Waits until a backend is serving exactly `count` requests of clients.
    pub(crate) async fn under_way(&self, at: usize, count: usize) {
        let gauge = format!("doorbuster_in_flight {count}");
        eventually("the requests under way", async || {
            let metrics = self.http.get(format!("{}/metrics", self.backends[at].ops)).send().await.ok()?;
            metrics.text().await.ok()?.lines().any(|line| line == gauge).then_some(())
        })
        .await;
    }

    /// The store behind the backends, for a test that plays a backend.
    pub(crate) fn redis(&self) -> Redis {
        Redis::new(&self.redis_url, None, &self.name, Duration::from_secs(2)).unwrap()
    }

    pub(crate) fn postgres(&self) -> Postgres {
        Postgres::new(&self.database_url, None, 4, Duration::from_secs(2)).unwrap()
    }

    /// What a restart without its file does to Redis, for this world's keys alone.
    pub(crate) async fn forget_redis(&self) {
        let mut connection = self.raw_redis().await;
        let script = "for _, key in ipairs(redis.call('KEYS', ARGV[1] .. ':*')) do redis.call('UNLINK', key) end";
        redis::Script::new(script).arg(&self.name).invoke_async::<()>(&mut connection).await.unwrap();
    }

    pub(crate) async fn raw_redis(&self) -> redis::aio::MultiplexedConnection {
        redis::Client::open(self.redis_url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap()
    }

    pub(crate) async fn issue(&self, at: usize, campaign: &str, user: &str) -> Reply {
        let url = format!("{}/v1/coupon/issue?campaign={campaign}", self.backends[at].public);
        Reply::of(self.http.post(url).header("x-user-id", user).send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, at: usize, path: &str, user: &str) -> Reply {
        let url = format!("{}{path}", self.backends[at].public);
        Reply::of(self.http.get(url).header("x-user-id", user).send().await.unwrap()).await
    }

    pub(crate) async fn admin(&self, at: usize, method: Method, path: &str, body: Option<&Value>) -> Reply {
        self.operate(at, method, &format!("/admin/v1/campaigns{path}"), body).await
    }

    pub(crate) async fn operate(&self, at: usize, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let url = format!("{}{path}", self.backends[at].ops);
        let mut request = self.http.request(method, url).bearer_auth(ADMIN_TOKEN);
        if let Some(body) = body {
            request = request.json(body);
        }
        Reply::of(request.send().await.unwrap()).await
    }

    pub(crate) async fn put(&self, at: usize, campaign: &str, body: &Value) -> Reply {
        // A slow machine runs into a hurried backend's deadlines.
        let reply = eventually("a campaign's change", async || {
            let reply = self.admin(at, Method::PUT, &format!("/{campaign}"), Some(body)).await;
            (reply.told() != "unavailable").then_some(reply)
        })
        .await;
        assert!(reply.status.is_success(), "{reply:?}");
        reply
    }

    /// A campaign open for hours before and after now.
    pub(crate) async fn open(&self, quota: impl Into<Value>) -> Value {
        campaign(self.daily("00:00", "24:00", 0, 0).await, quota.into())
    }

    /// A daily schedule in a zone where it is noon or soon after, from so many days from today to so many.
    pub(crate) async fn daily(&self, opens: &str, closes: &str, first: i64, last: i64) -> Value {
        let now = self.now().await;
        let hours_east = hours_east(now);
        // POSIX signs: Etc/GMT-9 is nine hours east.
        let timezone = format!("Etc/GMT{:+}", -hours_east);
        let day = |days| (now + chrono::TimeDelta::days(days)).format("%Y-%m-%d").to_string();
        json!({"timezone": timezone, "first_day": day(first), "last_day": day(last), "opens": opens, "closes": closes})
    }

    pub(crate) async fn now(&self) -> chrono::DateTime<chrono::Utc> {
        let (seconds, _): (i64, i64) = redis::cmd("TIME").query_async(&mut self.raw_redis().await).await.unwrap();
        chrono::DateTime::from_timestamp(seconds, 0).unwrap()
    }

    /// The round that [`World::open`] has open now.
    pub(crate) async fn today(&self) -> RoundId {
        RoundId(self.now().await.date_naive())
    }

    /// What an audit sees, by number: each coupon's number, user and code.
    pub(crate) async fn audit(&self, campaign: &str) -> Vec<(i64, String, String)> {
        sqlx::query_as("SELECT number, user_id, code FROM issued_coupons WHERE campaign = $1 ORDER BY number")
            .bind(campaign)
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    /// Fails unless numbers 1 to `count` are there once each, each with another user.
    pub(crate) async fn assert_issued(&self, campaign: &str, count: usize) {
        let rows = self.audit(campaign).await;
        let numbers: Vec<_> = rows.iter().map(|(number, _, _)| *number).collect();
        assert_eq!(numbers, (1..=i64::try_from(count).unwrap()).collect::<Vec<_>>(), "numbers");
        let mut users: Vec<_> = rows.iter().map(|(_, user, _)| user).collect();
        users.sort();
        users.dedup();
        assert_eq!(users.len(), count, "users");
    }
}

pub(crate) fn campaign(schedule: Value, quota: Value) -> Value {
    json!({"title": "Spring 50%", "vendor": "acme", "currency": "KRW", "schedule": schedule, "quota": quota,
        "discount": {"kind": "percent", "value": 50, "max_amount": 10000}, "min_order_amount": 20000,
        "validity": {"days": 30, "from": "event_end", "redeemable": "on_issue"}})
}

/// How far east of Greenwich it is noon or soon after; the date is the same there.
pub(crate) fn hours_east(now: chrono::DateTime<chrono::Utc>) -> i64 {
    12 - i64::from(chrono::Timelike::hour(&now))
}

/// A reply, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) async fn of(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Self { status, headers, body }
    }

    /// The problem's code, or `issued`, or `pending`.
    pub(crate) fn told(&self) -> &str {
        match self.status.as_u16() {
            200 | 201 => "issued",
            202 => "pending",
            _ => self.body["code"].as_str().unwrap_or("?"),
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn coupon(&self) -> &Value {
        &self.body["coupon"]
    }
}
