//! Whose Redis and prefix are, and what becomes of a database that is behind.

use std::sync::Arc;

use doorbuster_backend::catalog::Catalog;
use doorbuster_backend::lineage::{Lineage, Watch};
use doorbuster_backend::store::postgres::{Installation, Standing};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use tokio_util::sync::CancellationToken;

use crate::process::program;
use crate::world::{ADMIN_TOKEN, EDGE_TOKEN, World, eventually, id, in_world};

/// A second database, dropped after `test`.
async fn with_another_database(world: &mut World, test: impl AsyncFnOnce(&mut World, String)) {
    let server = std::env::var("DOORBUSTER_TEST_DATABASE_URL").unwrap();
    let admin = PgPool::connect(&server).await.unwrap();
    let name = format!("{}_other", world.name);
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.unwrap();
    let (before, _) = server.rsplit_once('/').unwrap();
    let url = format!("{before}/{name}");
    test(world, url).await;
    sqlx::query(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).execute(&admin).await.unwrap();
}

/// Why a backend with this database does not start.
async fn refused(world: &mut World, database_url: &str) -> String {
    let first = std::mem::replace(&mut world.database_url, database_url.to_owned());
    let refused = world.refused("").await;
    world.database_url = first;
    refused
}

/// The command `installation`, as the backend's program has it.
async fn command(world: &World, database_url: &str, arguments: &[&str]) -> (bool, String) {
    let output = program()
        .arg("installation")
        .args(arguments)
        .env("DOORBUSTER_DATABASE_URL", database_url)
        .env("DOORBUSTER_REDIS_URL", &world.redis_url)
        .env("DOORBUSTER_REDIS_PREFIX", &world.name)
        .env("DOORBUSTER_ADMIN_TOKEN", ADMIN_TOKEN)
        .env("DOORBUSTER_EDGE_TOKEN", EDGE_TOKEN)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(if output.status.success() { output.stdout } else { output.stderr }).unwrap();
    (output.status.success(), text)
}

async fn installation(database_url: &str) -> Installation {
    let pool = PgPool::connect(database_url).await.unwrap();
    let found = sqlx::query_as("SELECT id, lineage FROM installation").fetch_one(&pool).await.unwrap();
    pool.close().await;
    found
}

/// One field of the hash that says whose Redis and prefix are.
async fn owner(world: &World, field: &str) -> Option<String> {
    let key = format!("{}:{{installation}}:owner", world.name);
    redis::cmd("HGET").arg(key).arg(field).query_async(&mut world.raw_redis().await).await.unwrap()
}

async fn standing(world: &World) -> Standing {
    world.postgres().standing().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_installation_on_one_prefix_is_refused() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(3).await).await;
        let first = standing(world).await;
        with_another_database(world, async |world, other| {
            let error = refused(world, &other).await;
            let (name, address) = (world.name.clone(), first.installation.id.as_str());
            assert!(error.contains(&format!("prefix {name:?}")) && error.contains(address), "{error}");
            assert!(error.contains(&installation(&other).await.id), "{error}");
            assert!(
                error.contains("set a redis_prefix") && error.contains("`doorbuster installation claim`"),
                "{error}"
            );
            assert!(!error.contains('\n') && !error.contains("postgres://"), "{error}");
            // It is at work, so it cannot be taken over either.
            let (claimed, error) = command(world, &other, &["claim"]).await;
            assert!(!claimed && error.contains("stop its backends first"), "{error}");
        })
        .await;
        assert_eq!(world.issue(at, "spring", "ann").await.told(), "issued");
        assert_eq!(standing(world).await.installation, first.installation);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_database_is_refused_until_it_is_an_installation_of_its_own() {
    in_world(async |world| {
        world.start().await;
        let original = standing(world).await.installation;
        with_another_database(world, async |world, copy| {
            let postgres =
                doorbuster_backend::store::postgres::Postgres::new(&copy, None, 1, std::time::Duration::from_secs(15));
            postgres.unwrap().migrate().await.unwrap();
            let pool = PgPool::connect(&copy).await.unwrap();
            sqlx::query("UPDATE installation SET id = $1, lineage = $2")
                .bind(&original.id)
                .bind(&original.lineage)
                .execute(&pool)
                .await
                .unwrap();
            let error = refused(world, &copy).await;
            assert!(error.contains(&original.id) && error.contains("this database is a copy"), "{error}");
            assert!(error.contains("`doorbuster installation new`"), "{error}");

            let (renewed, error) = command(world, &world.database_url, &["new"]).await;
            assert!(!renewed && error.contains("connections of backends use this database"), "{error}");
            let (renewed, told) = command(world, &copy, &["new"]).await;
            let own = installation(&copy).await;
            assert!(renewed && told.contains(&own.id) && own.id != original.id, "{told}");
            assert_ne!(own.lineage, original.lineage);
            let (action, subject): (String, String) =
                sqlx::query_as("SELECT action, subject FROM audit_log").fetch_one(&pool).await.unwrap();
            assert_eq!((action.as_str(), subject), ("installation.renewed", format!("installation/{}", own.id)));
            pool.close().await;

            // Still not on the prefix of its original, but on one of its own.
            let error = refused(world, &copy).await;
            assert!(error.contains(&original.id) && error.contains(&own.id), "{error}");
            let (first_url, first_name) = (world.database_url.clone(), world.name.clone());
            (world.database_url, world.name) = (copy, format!("{first_name}:copy"));
            world.start().await;
            assert_eq!(owner(world, "installation").await, Some(own.id));
            let stopped = world.backends.pop().unwrap();
            stopped.stop.cancel();
            stopped.ended.await.unwrap().unwrap();
            (world.database_url, world.name) = (first_url, first_name);
        })
        .await;
        assert_eq!(standing(world).await.installation, original);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_taken_over_from_an_installation_that_is_gone() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(1).await).await;
        assert_eq!(world.issue(at, "spring", "ann").await.told(), "issued");
        let stopped = world.backends.remove(at);
        stopped.stop.cancel();
        stopped.ended.await.unwrap().unwrap();
        with_another_database(world, async |world, other| {
            assert!(refused(world, &other).await.contains("redis_prefix"));
            let (claimed, told) = eventually("the end of the first installation's time", async || {
                let (claimed, told) = command(world, &other, &["claim"]).await;
                (claimed || !told.contains("at work")).then_some((claimed, told))
            })
            .await;
            assert!(claimed, "{told}");
            let first = std::mem::replace(&mut world.database_url, other);
            let at = world.start().await;
            // What the other installation has left is gone: a campaign of the same name begins
            // anew.
            world.put(at, "spring", &world.open(1).await).await;
            assert_eq!(world.issue(at, "spring", "ann").await.coupon()["number"], 1);
            let stopped = world.backends.remove(at);
            stopped.stop.cancel();
            stopped.ended.await.unwrap().unwrap();
            world.database_url = first;
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_is_claimed_again() {
    in_world(async |world| {
        world.start().await;
        let before = standing(world).await.installation;
        world.forget_redis().await;
        eventually("the claim", async || owner(world, "installation").await.filter(|id| *id == before.id)).await;
        assert_eq!(owner(world, "lineage").await, Some(before.lineage.clone()));
        assert_eq!(standing(world).await.installation, before, "losing Redis is no reason for a new lineage");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_of_a_history_that_the_database_does_not_have_brings_a_new_lineage() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(1).await).await;
        let before = standing(world).await;
        let key = format!("{}:{{installation}}:owner", world.name);
        let foreign = [("lineage", "a-lineage-that-was-lost"), ("version", "5000000")];
        redis::cmd("HSET").arg(&key).arg(&foreign).exec_async(&mut world.raw_redis().await).await.unwrap();
        let after = eventually("a new lineage", async || {
            let now = standing(world).await;
            let told = owner(world, "lineage").await;
            (now.installation != before.installation && told.as_ref() == Some(&now.installation.lineage)).then_some(now)
        })
        .await;
        assert_eq!(
            (&after.installation.id, after.former.last()),
            (&before.installation.id, Some(&before.installation.lineage))
        );
        assert!(after.committed > 5_000_000, "{after:?}");
        // The backend acts by the new version, and Redis that shows the lineage before is known to
        // be older.
        eventually("the new version", async || {
            let shown = world.admin(at, reqwest::Method::GET, "/spring", None).await.body["version"].as_i64();
            (shown == Some(after.committed)).then_some(())
        })
        .await;
        assert_eq!(world.issue(at, "spring", "ann").await.told(), "issued");
        let older = [("lineage", before.installation.lineage.as_str()), ("version", "1")];
        redis::cmd("HSET").arg(&key).arg(&older).exec_async(&mut world.raw_redis().await).await.unwrap();
        eventually("the lineage in Redis", async || {
            owner(world, "lineage").await.filter(|lineage| *lineage == after.installation.lineage)
        })
        .await;
        assert_eq!(standing(world).await.installation, after.installation);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_ahead_of_the_database_brings_a_new_lineage() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        let before = standing(world).await;
        let lineage = Arc::new(Lineage::new(before.installation.clone()));
        let catalog = Arc::new(Catalog::new(world.postgres(), Arc::clone(&lineage)));
        let (redis, clock) = (Arc::new(world.redis()), Arc::default());
        let watch = Watch::new(world.postgres(), redis, clock, catalog, Arc::clone(&lineage));
        let stop = CancellationToken::new();
        let watching = tokio::spawn(watch.run(stop.clone()));
        // Gateways that are not ahead, or of another history, change nothing.
        lineage.observe_edge(&before.installation.lineage, before.drawn.unsigned_abs());
        lineage.observe_edge("another", before.drawn.unsigned_abs() + 70);
        let seen = before.drawn + 50;
        lineage.observe_edge(&before.installation.lineage, seen.unsigned_abs());
        let after = eventually("a new lineage", async || {
            let now = standing(world).await;
            (now.installation != before.installation).then_some(now)
        })
        .await;
        assert!(after.committed > seen, "{after:?}");
        eventually("the watch's own notice", async || (*lineage.current() == after.installation).then_some(())).await;
        eventually("the backend's claim", async || {
            owner(world, "lineage").await.filter(|lineage| *lineage == after.installation.lineage)
        })
        .await;
        assert_eq!(world.issue(at, "spring", "ann").await.told(), "issued");
        assert!(world.redis().version(&id("spring")).await.unwrap() > seen);
        stop.cancel();
        watching.await.unwrap();
        assert_eq!(standing(world).await.installation, after.installation, "one new lineage, not one for each look");
    })
    .await;
}
