//! Settings of PostgreSQL that would weaken what 201 promises.

use futures_util::future::join_all;
use serde_json::Value;
use sqlx::AssertSqlSafe;

use crate::database::Database;
use crate::world::{World, eventually, in_world};

async fn readiness(world: &World, at: usize) -> (u16, Value) {
    let reply = world.http.get(format!("{}/readyz", world.backends[at].ops)).send().await.unwrap();
    (reply.status().as_u16(), reply.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_of_the_database_do_not_reach_the_sessions_of_backends() {
    for isolation in ["repeatable read", "serializable"] {
        in_world(async |world| {
            for setting in
                [format!("default_transaction_isolation = '{isolation}'"), "synchronous_commit = off".to_owned()]
            {
                let sql = format!("ALTER DATABASE {} SET {setting}", world.name);
                sqlx::query(AssertSqlSafe(sql)).execute(&world.pool).await.unwrap();
            }
            world.start().await;
            world.start().await;
            assert_eq!(readiness(world, 0).await.0, 200);
            world.put(0, "spring", &world.open(Value::Null).await).await;
            eventually("both backends' notice", async || {
                (world.issue(1, "spring", "").await.status == 401).then_some(())
            })
            .await;
            // Both commit to one round at once: each has to see what the other has committed.
            let users: Vec<String> = (0..60).map(|n| format!("user-{n}")).collect();
            let replies = join_all(users.iter().enumerate().map(|(n, user)| world.issue(n % 2, "spring", user))).await;
            assert!(replies.iter().all(|reply| reply.status == 201), "{replies:?}");
            world.assert_issued("spring", users.len()).await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_can_lose_commits_makes_the_backend_unready_by_name() {
    for setting in ["fsync", "full_page_writes"] {
        let database = Database::start(&[&format!("{setting}=off")]);
        in_world(async |world| {
            let shared = std::mem::replace(&mut world.database_url, database.url.clone());
            let at = world.start_with("database_durability = 'ignore'").await;
            assert_eq!(readiness(world, at).await.0, 200);
            let strict = world.begin("").await;
            let told = eventually("an answer", async || {
                let reply = world.http.get(format!("{}/readyz", world.backends[strict].ops));
                let reply = reply.send().await.ok()?;
                Some((reply.status().as_u16(), reply.json::<Value>().await.ok()?))
            })
            .await;
            assert_eq!((told.0, &told.1["redis"]), (503, &Value::from("ok")), "{told:?}");
            let named = told.1["postgres"].as_str().unwrap();
            assert!(named.starts_with(&format!("{setting} is off")), "{named}");
            assert!(named.contains(&format!("set {setting} = on")), "{named}");
            world.database_url = shared;
        })
        .await;
    }
}
