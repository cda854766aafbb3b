//! The audit of a round, over real stores: clean after a rush, and each side's tampering is found.

use std::process::Stdio;

use doorbuster_backend::audit::{Defect, Report, Sighting, audit};
use serde_json::Value;
use tokio::process::Command;

use crate::world::{ADMIN_TOKEN, EDGE_TOKEN, World, eventually, id, in_world};

async fn report(world: &World, seen: Vec<Sighting>) -> Report {
    audit(&world.postgres(), &world.redis(), &id("spring"), world.today().await, seen).await.unwrap()
}

/// Four coupons of five, all settled. Returns their codes.
async fn rush(world: &mut World) -> Vec<String> {
    let at = world.start().await;
    world.put(at, "spring", &world.open(5).await).await;
    let mut codes = Vec::new();
    for user in ["ann", "ben", "cat", "dan"] {
        let reply = world.issue(at, "spring", user).await;
        codes.push(reply.coupon()["code"].as_str().unwrap().to_owned());
    }
    eventually("settling", async || {
        let counts = world.redis().count(&id("spring"), world.today().await).await.ok()?;
        (counts.pending == 0).then_some(())
    })
    .await;
    codes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_round_is_clean_and_tampering_is_found_on_either_side() {
    in_world(async |world| {
        let codes = rush(world).await;
        let told: Vec<Sighting> = vec![
            Sighting { user: "ann".into(), code: Some(codes[0].clone()) },
            Sighting { user: "ben".into(), code: None },
        ];
        let clean = report(world, told.clone()).await;
        assert_eq!(clean.defects, []);
        assert_eq!((clean.quota, clean.sums.issued, clean.sums.pending), (Some(5), 4, Some(0)));
        assert_eq!((clean.sums.committed_in_redis, clean.sums.highest_number, clean.sums.free), (Some(4), 4, 0));

        // Redis forgets a user, and believes another one served who is not.
        let round = world.today().await;
        let key = format!("{}:{{spring}}:{round}:users", world.name);
        let mut redis = world.raw_redis().await;
        redis::cmd("HDEL").arg(&key).arg("ben").query_async::<()>(&mut redis).await.unwrap();
        redis::cmd("HSET").arg(&key).arg("eve").arg("EEEEEEEEEEEE").query_async::<()>(&mut redis).await.unwrap();
        let found = report(world, told.clone()).await.defects;
        let expected = [
            Defect::CommittedWithoutRow { user: "eve".into(), code: "EEEEEEEEEEEE".into() },
            Defect::RowNotInRedis { user: "ben".into(), code: codes[1].clone(), held: None },
        ];
        assert_eq!(found, expected);

        // A row is lost, and with it a coupon that its user was told of.
        sqlx::query("DELETE FROM coupons WHERE user_id = 'ann'").execute(&world.pool).await.unwrap();
        let found = report(world, told).await.defects;
        for expected in [
            Defect::Miscounted { counted: 4, rows: 3 },
            Defect::NumbersLost { from: 1, to: 1 },
            Defect::CommittedWithoutRow { user: "ann".into(), code: codes[0].clone() },
            Defect::SeenWithoutRow { user: "ann".into(), code: Some(codes[0].clone()) },
        ] {
            assert!(found.contains(&expected), "{expected:?} is not in {found:?}");
        }
    })
    .await;
}

/// Runs the command over this world and a Redis: its exit code, what it prints, and what it complains of.
pub(crate) async fn run_audit(world: &World, redis_url: &str, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_doorbuster-backend"))
        .arg("audit")
        .args(arguments)
        .env_clear()
        .env("DOORBUSTER_DATABASE_URL", &world.database_url)
        .env("DOORBUSTER_REDIS_URL", redis_url)
        .env("DOORBUSTER_REDIS_PREFIX", &world.name)
        .env("DOORBUSTER_ADMIN_TOKEN", ADMIN_TOKEN)
        .env("DOORBUSTER_EDGE_TOKEN", EDGE_TOKEN)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_a_report_and_exits_by_it() {
    in_world(async |world| {
        let codes = rush(world).await;
        let seen = std::env::temp_dir().join(format!("{}-seen", world.name));
        let audit = async |arguments: &[&str]| run_audit(world, &world.redis_url, arguments).await;
        let round = world.today().await.to_string();
        let file = seen.to_str().unwrap();
        std::fs::write(&seen, format!("ann {}\n", codes[0])).unwrap();

        let (code, table, _) = audit(&["spring", &round, "--seen", file]).await;
        assert!(code == 0 && table.contains("Everything fits.") && table.contains("quota 5"), "{table}");
        let (code, json, _) = audit(&["spring", "--json"]).await;
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (code, &json["clean"], &json["sums"]["issued"], &json["round"]),
            (0, &true.into(), &4.into(), &round.into())
        );

        std::fs::write(&seen, format!("eve {}\nfay\n", codes[0])).unwrap();
        let (code, table, _) = audit(&["spring", "--seen", file]).await;
        assert_eq!(code, 1, "{table}");
        assert!(table.contains(&format!("BROKEN: eve was told of coupon {}, which is ann's", codes[0])), "{table}");
        assert!(table.contains("BROKEN: fay was told of a coupon, and there is no such row"), "{table}");
        let (code, json, _) = audit(&["spring", "--json", "--seen", file]).await;
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((code, &json["clean"], json["defects"].as_array().map(Vec::len)), (1, &false.into(), Some(2)));

        std::fs::write(&seen, "ann twice over\n").unwrap();
        for (arguments, words) in [
            (&["autumn"] as &[&str], "there is no campaign autumn"),
            (&["spring", "first of May"], "YYYY-MM-DD"),
            (&["spring", "--seen", file], "line 1 is not"),
            (&[], "CAMPAIGN"),
        ] {
            let (code, _, error) = audit(arguments).await;
            assert!(code == 64 && error.contains(words), "{arguments:?}: {code} {error}");
        }
        std::fs::remove_file(&seen).unwrap();
    })
    .await;
}
