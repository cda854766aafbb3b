//! Two releases on one database: an upgrade, a rollback, and who may migrate.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::process::program;
use crate::receiver::{Reaction, Receiver};
use crate::redeem::{order, redeem, win};
use crate::world::{ADMIN_TOKEN, EDGE_TOKEN, World, eventually, in_world};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// What the release after this one does to the database when it starts.
async fn upgrade(world: &World) {
    sqlx::raw_sql(include_str!("next_release.sql")).execute(&world.pool).await.unwrap();
}

/// The database as the release before the newest migration left it.
async fn before_the_newest_migration(world: &World) {
    let versions: Vec<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
    let [.., before, _newest] = versions[..] else { panic!("two migrations") };
    MIGRATIONS.run_to(before, &world.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_works_with_the_schema_of_the_next_one() {
    in_world(async |world| {
        let receiver = Receiver::start(|_| Reaction::Status(204)).await;
        let hook =
            format!("webhook_url = '{}'\nwebhook_secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'", receiver.url);
        let running = world.start_with(&hook).await;
        world.put(running, "spring", &world.open(10).await).await;
        let before = win(world, "spring", "ann").await;
        upgrade(world).await;
        // One that runs on while the other release starts, and one that starts again after a
        // rollback.
        let restarted = world.start_with(&hook).await;
        for (at, user) in [(running, "bob"), (restarted, "cid")] {
            assert_eq!(world.issue(at, "spring", user).await.told(), "issued");
            world.put(at, "spring", &world.open(20).await).await;
        }
        assert_eq!(redeem(world, restarted, &before, "ann", &order("A-1", 30_000)).await.status, 200);

        // What the later release has written.
        let code = win(world, "spring", "dan").await;
        for sql in [
            "SELECT post_to_ledger('acme', 'KRW', 'adjustment', $1, -500, now())",
            "INSERT INTO next_holds VALUES ($1, now())",
            "INSERT INTO audit_log (operator, action, subject) VALUES ('eve', 'coupon.held', 'coupon/' || $1)",
        ] {
            sqlx::query(sql).bind(&code).execute(&world.pool).await.unwrap();
        }
        let vendor = world.operate(restarted, Method::GET, "/admin/v1/vendors/acme", None).await.body;
        let kinds: Vec<_> = vendor["entries"].as_array().unwrap().iter().map(|entry| &entry["kind"]).collect();
        assert_eq!((kinds, &vendor["balance"]), (vec![&json!("adjustment"), &json!("redemption")], &json!(9_500)));
        let paid = world
            .http
            .post(format!("{}/admin/v1/vendors/acme/payouts", world.backends[restarted].ops))
            .bearer_auth(ADMIN_TOKEN)
            .header("idempotency-key", "may")
            .json(&json!({}));
        assert_eq!(paid.send().await.unwrap().status(), 201);
        let log = world.operate(restarted, Method::GET, "/admin/v1/audit-log?limit=2", None).await.body;
        assert_eq!(log["entries"][1]["action"], "coupon.held");
        let void = json!({"reason": "a test", "reverse": true});
        let path = format!("/admin/v1/coupons/{before}/void");
        assert_eq!(world.operate(restarted, Method::POST, &path, Some(&void)).await.status, 200);
        eventually("the event of the later release", async || {
            receiver.calls().iter().any(|call| call.event["type"] == "coupon.held").then_some(())
        })
        .await;
        world.assert_issued("spring", 4).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_too_old_for_the_schema_says_which_one_is_needed() {
    in_world(async |world| {
        world.start().await;
        upgrade(world).await;
        sqlx::query("UPDATE release_floor SET migration = 9001, release = '9.1.0'").execute(&world.pool).await.unwrap();
        let error = world.refused("").await;
        assert!(error.contains("needs Doorbuster 9.1.0 or later"), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_only_a_later_release_can_send_is_not_lost() {
    in_world(async |world| {
        let receiver = Receiver::start(|_| Reaction::Status(204)).await;
        let hook =
            format!("webhook_url = '{}'\nwebhook_secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'", receiver.url);
        let at = world.start_with(&hook).await;
        // Its data is somewhere in the schema of that release.
        sqlx::query(
            "INSERT INTO outbox (sink, type, subjects, size) VALUES ('webhook', 'round.opened', '{spring}', 1)",
        )
        .execute(&world.pool)
        .await
        .unwrap();
        world.put(at, "spring", &world.open(10).await).await;
        let relaying = async |value: &str| {
            let line = format!("doorbuster_events_relaying{{sink=\"webhook\"}} {value}");
            eventually("the lease", async || {
                let metrics = world.http.get(format!("{}/metrics", world.backends[at].ops)).send().await.ok()?;
                metrics.text().await.ok()?.lines().any(|each| each == line).then_some(())
            })
            .await;
        };
        for value in ["0", "1", "0"] {
            relaying(value).await;
        }
        let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox WHERE type = 'round.opened'")
            .fetch_one(&world.pool)
            .await
            .unwrap();
        assert_eq!(kept, 1);
        // That release brings it to the sink, and what waited behind it follows.
        sqlx::query("DELETE FROM outbox WHERE type = 'round.opened'").execute(&world.pool).await.unwrap();
        eventually("the change's event", async || (!receiver.taken().is_empty()).then_some(())).await;
    })
    .await;
}

/// Runs `doorbuster-backend migrate` as the owner of a database; its exit code and what it printed.
async fn migrate(world: &World, database_url: &str) -> (Option<i32>, String) {
    let output = program()
        .arg("migrate")
        .env("DOORBUSTER_DATABASE_URL", database_url)
        .env("DOORBUSTER_REDIS_URL", &world.redis_url)
        .env("DOORBUSTER_ADMIN_TOKEN", ADMIN_TOKEN)
        .env("DOORBUSTER_EDGE_TOKEN", EDGE_TOKEN)
        .output()
        .await
        .unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_change_the_schema_works_once_it_is_up_to_date() {
    in_world(async |world| {
        let (name, owner) = (world.name.clone(), world.database_url.clone());
        let run = async |sql: &str| {
            sqlx::raw_sql(AssertSqlSafe(sql.replace("ROLE", &format!("{name}_app"))))
                .execute(&world.pool)
                .await
                .unwrap()
        };
        run("CREATE USER ROLE PASSWORD 'a-password'").await;
        let (_, address) = owner.rsplit_once('@').unwrap();
        let limited = format!("postgres://{name}_app:a-password@{address}");

        let (code, told) = migrate(world, &limited).await;
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("doorbuster-backend migrate") && told.contains("[1, 2, "), "{told}");
        let (code, told) = migrate(world, &owner).await;
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("applied migration 1\n") && told.contains("up to date"), "{told}");
        let (code, told) = migrate(world, &owner).await;
        assert!(code == Some(0) && !told.contains("applied"), "{told}");
        // As in docs/operating.md, "Upgrades".
        run("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ROLE;
             GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO ROLE")
        .await;
        world.database_url = limited;
        let at = world.start().await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        let code = win(world, "spring", "ann").await;
        assert_eq!(redeem(world, at, &code, "ann", &order("A-1", 30_000)).await.status, 200);
        assert_eq!(world.admin(at, Method::PUT, "/autumn", Some(&world.open(1).await)).await.status, 201);
        assert_eq!(world.admin(at, Method::DELETE, "/autumn", None).await.status, 204);

        for backend in world.backends.drain(..) {
            backend.stop.cancel();
            backend.ended.await.unwrap().unwrap();
        }
        let run = async |sql: &str| {
            sqlx::raw_sql(AssertSqlSafe(sql.replace("ROLE", &format!("{name}_app"))))
                .execute(&world.pool)
                .await
                .unwrap()
        };
        run("DROP OWNED BY ROLE; DROP USER ROLE").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_waits_for_a_lock_without_holding_up_others() {
    in_world(async |world| {
        before_the_newest_migration(world).await;
        // A long transaction elsewhere: what it has read, a migration may not change.
        let mut elsewhere = PgConnection::connect(&world.database_url).await.unwrap();
        sqlx::raw_sql("BEGIN; LOCK TABLE _sqlx_migrations IN SHARE MODE").execute(&mut elsewhere).await.unwrap();
        let postgres = world.postgres();
        let migrating = tokio::spawn(async move { postgres.migrate().await });
        let waiting = async |expected: bool| {
            eventually("the wait for a lock", async || {
                let waiting: bool = sqlx::query_scalar(
                    "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database ON oid = database
                                     WHERE datname = current_database() AND NOT granted)",
                )
                .fetch_one(&world.pool)
                .await
                .unwrap();
                (waiting == expected).then_some(())
            })
            .await;
        };
        for _ in 0..2 {
            waiting(true).await;
            // It gives up soon, so that whoever queued behind it goes on, and comes back.
            waiting(false).await;
        }
        assert!(!migrating.is_finished());
        sqlx::raw_sql("ROLLBACK").execute(&mut elsewhere).await.unwrap();
        let applied = tokio::time::timeout(Duration::from_secs(60), migrating).await.unwrap().unwrap().unwrap();
        assert_eq!(applied.len(), 1);
    })
    .await;
}
