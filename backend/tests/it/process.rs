//! Starting and stopping, also as the program.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::world::{ADMIN_TOKEN, EDGE_TOKEN, eventually, in_world};

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbuster-backend"));
    command.env_clear().kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn four_backends_migrate_at_once() {
    in_world(async |world| {
        let starts: Vec<_> = (0..4)
            .map(|_| {
                let postgres = world.postgres();
                tokio::spawn(async move { postgres.migrate().await })
            })
            .collect();
        for start in starts {
            start.await.unwrap().unwrap();
        }
        world.start().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_is_under_way() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        assert_eq!(world.issue(at, "spring", "first").await.told(), "issued");
        let mut row = world.pool.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM rounds FOR UPDATE").execute(&mut *row).await.unwrap();
        let users: Vec<String> = (0..20).map(|n| format!("user-{n}")).collect();
        let requests = futures_util::future::join_all(users.iter().map(|user| world.issue(at, "spring", user)));
        let (replies, ()) = tokio::join!(requests, async {
            world.under_way(at, users.len()).await;
            world.backends[at].stop.cancel();
            tokio::time::sleep(Duration::from_millis(100)).await;
            row.rollback().await.unwrap();
        });
        assert!(replies.iter().all(|reply| reply.status == 201), "{replies:?}");
        let stopped = world.backends.remove(at);
        tokio::time::timeout(Duration::from_secs(60), stopped.ended).await.unwrap().unwrap().unwrap();
        world.assert_issued("spring", 21).await;
        // Settled too, before it ended.
        let counts = world.redis().count(&crate::world::id("spring"), world.today().await).await.unwrap();
        assert_eq!((counts.committed, counts.pending), (21, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_ends_with_64_and_one_line() {
    for (name, value, expected) in [
        ("DOORBUSTER_MAX_IN_FLIGHT", "many", "max_in_flight"),
        ("DOORBUSTER_ADMIN_TOKEN", "hunter2", "admin_token"),
        ("DOORBUSTER_PUBLIC_ADDR", "localhost", "public_addr"),
    ] {
        let output = program()
            .env("DOORBUSTER_DATABASE_URL", "postgres://x/y")
            .env("DOORBUSTER_REDIS_URL", "redis://x")
            .env("DOORBUSTER_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("DOORBUSTER_EDGE_TOKEN", EDGE_TOKEN)
            .env(name, value)
            .output()
            .await
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_serves_until_it_is_told_to_stop() {
    in_world(async |world| {
        let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (public, ops) = (port(), port());
        let child = program()
            .env("DOORBUSTER_DATABASE_URL", &world.database_url)
            .env("DOORBUSTER_REDIS_URL", &world.redis_url)
            .env("DOORBUSTER_REDIS_PREFIX", &world.name)
            .env("DOORBUSTER_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("DOORBUSTER_EDGE_TOKEN", EDGE_TOKEN)
            .env("DOORBUSTER_PUBLIC_ADDR", &public)
            .env("DOORBUSTER_OPS_ADDR", &ops)
            .spawn()
            .unwrap();
        eventually("readiness", async || {
            let reply = world.http.get(format!("http://{ops}/readyz")).send().await.ok()?;
            reply.status().is_success().then_some(())
        })
        .await;
        const GUESS: &str = "a wrong guess at a token";
        let refused =
            world.http.get(format!("http://{ops}/admin/v1/campaigns")).bearer_auth(GUESS).send().await.unwrap();
        assert_eq!(refused.status(), 401);
        let pid = child.id().unwrap().to_string();
        // The shell's own `kill`: small systems have no program of that name.
        assert!(Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().await.unwrap().success());
        let output = tokio::time::timeout(Duration::from_secs(5), child.wait_with_output()).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let log = String::from_utf8(output.stderr).unwrap();
        for line in log.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(line["message"].is_string(), "{line}");
        }
        assert!(log.contains("a wrong bearer token"), "{log}");
        for secret in [GUESS, ADMIN_TOKEN, EDGE_TOKEN, world.database_url.as_str()] {
            assert!(!log.contains(secret), "{log}");
        }
    })
    .await;
}
