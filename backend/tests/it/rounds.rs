//! Rounds as operators see them: a round stays as it was, whatever becomes of the schedule.

use chrono::{Days, NaiveDate};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::migrate::Migrator;

use crate::command::run;
use crate::door::{Door, door};
use crate::recovery::reserve_and_die;
use crate::redeem::win;
use crate::world::{Reply, World, campaign, eventually, in_world};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

async fn show(world: &World, round: NaiveDate) -> Reply {
    world.admin(0, Method::GET, &format!("/spring/rounds/{round}"), None).await
}

async fn listed(world: &World, query: &str) -> Vec<Value> {
    let reply = world.admin(0, Method::GET, &format!("/spring/rounds{query}"), None).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body["rounds"].as_array().unwrap().clone()
}

/// A round of that date as it was prepared when its turn came, open from 10 to 11 UTC.
async fn prepared(world: &World, round: NaiveDate, quota: i64) {
    let sql = format!(
        "INSERT INTO rounds (campaign, round, opens_at, closes_at, quota, max_number)
         VALUES ('spring', '{round}', '{round} 10:00Z', '{round} 11:00Z', {quota}, {quota})"
    );
    sqlx::query(AssertSqlSafe(sql)).execute(&world.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_with_coupons_stays_when_the_schedule_moves_on() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(5).await).await;
        win(world, "spring", "ann").await;
        let today = world.today().await.0;
        let before = show(world, today).await;
        assert_eq!((before.status.as_u16(), &before.body["quota"]), (200, &json!(5)));
        let window = json!({"opens_at": before.body["opens_at"], "closes_at": before.body["closes_at"]});
        assert_eq!(before.body["windows"], json!([window]));
        // The schedule has no such round any more.
        world.put(at, "spring", &campaign(world.daily("00:00", "24:00", 1, 3).await, json!(7))).await;
        let after = show(world, today).await;
        assert_eq!((after.status.as_u16(), &after.body), (200, &before.body));
        let rounds = listed(world, "").await;
        assert_eq!((rounds.len(), &rounds[0]["round"]), (1, &json!(today.to_string())));
        // One that is to come is shown as the schedule has it; one that never was is not there.
        let tomorrow = show(world, today + Days::new(1)).await;
        assert_eq!((tomorrow.status.as_u16(), &tomorrow.body["quota"]), (200, &json!(7)));
        assert_eq!(show(world, today - Days::new(9)).await.told(), "not_found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_is_over_keeps_its_window_and_quota() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &campaign(world.daily("00:00", "24:00", -3, 0).await, json!(5))).await;
        let today = world.today().await.0;
        // Over long ago: of the days before a change may reach only those that are not over.
        let old = today - Days::new(2);
        prepared(world, old, 1).await;
        win(world, "spring", "ann").await;
        let (was_old, was_today) = (show(world, old).await.body, show(world, today).await.body);

        let schedule = world.daily("01:00", "24:00", -3, 0).await;
        world.put(at, "spring", &campaign(schedule, json!(9))).await;
        assert_eq!(show(world, old).await.body, was_old);
        let is_today = show(world, today).await.body;
        assert_eq!((&is_today["quota"], &is_today["closes_at"]), (&json!(9), &was_today["closes_at"]));
        assert_ne!(is_today["opens_at"], was_today["opens_at"], "a round that is open follows");

        // What is tried again in it counts by its own quota, and rebuilding it changes nothing.
        for (n, user) in ["bob", "cid"].into_iter().enumerate() {
            let failed = format!(
                "INSERT INTO failed_issuances (campaign, round, user_id, code, number, attempts, cause, given_up_at)
                 VALUES ('spring', '{old}', '{user}', 'C', {n}, 1, 'a test', now())"
            );
            let failed = failed.replace("'C'", &format!("'{}'", doorbuster_domain::code::CouponCode::from_random(7)));
            sqlx::query(AssertSqlSafe(failed)).execute(&world.pool).await.unwrap();
        }
        let retry = async || world.operate(at, Method::POST, "/admin/v1/failures/retry", None).await.body;
        assert_eq!(retry().await["outcomes"]["issued"], 1);
        eventually("a clear answer", async || (retry().await["outcomes"] == json!({"sold_out": 1})).then_some(()))
            .await;
        let is_old = show(world, old).await.body;
        assert_eq!((&is_old["windows"], &is_old["quota"]), (&was_old["windows"], &json!(1)));
        assert_eq!((&is_old["issued"], &is_old["failed"]), (&json!(1), &json!(1)));

        // One that is opened again is not over.
        world.put(at, "spring", &campaign(world.daily("00:00", "00:01", 0, 0).await, json!(2))).await;
        let is_today = show(world, today).await.body;
        assert_eq!(is_today["quota"], 2, "it was open until now");
        let closed = is_today["closes_at"].clone();
        world.put(at, "spring", &campaign(world.daily("00:00", "00:02", 0, 0).await, json!(3))).await;
        let is_today = show(world, today).await.body;
        assert_eq!((&is_today["quota"], &is_today["closes_at"]), (&json!(2), &closed));
        world.put(at, "spring", &campaign(world.daily("00:00", "24:00", 0, 0).await, json!(4))).await;
        assert_eq!(show(world, today).await.body["quota"], 4);
        assert_eq!(world.issue(at, "spring", "dan").await.told(), "issued");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_are_listed_newest_first_with_what_became_of_them() {
    in_world(async |world| {
        let (url, door) = door(&world.redis_url).await;
        let direct = std::mem::replace(&mut world.redis_url, url);
        world.hurried = true;
        let at = world.start().await;
        world.redis_url = direct;
        assert_eq!(world.admin(at, Method::GET, "/spring/rounds", None).await.told(), "unknown_campaign");
        world.put(at, "spring", &world.open(5).await).await;
        assert_eq!(listed(world, "").await.len(), 0);
        let today = world.today().await.0;
        for days in 1..=6 {
            prepared(world, today - Days::new(days), 10 + i64::try_from(days).unwrap()).await;
        }
        let codes = [win(world, "spring", "ann").await, win(world, "spring", "bob").await];
        let void = json!({"reason": "a test"});
        let path = format!("/admin/v1/coupons/{}/void", codes[0]);
        for _ in 0..2 {
            assert_eq!(world.operate(at, Method::POST, &path, Some(&void)).await.status, 200);
        }
        let members = ["issued", "pending", "failed", "void", "quota", "restocked"];
        let counts = |round: &Value| members.map(|name| round[name].clone());
        let first = &listed(world, "").await[0];
        assert_eq!(counts(first), [json!(2), json!(0), json!(0), json!(1), json!(5), json!(0)]);
        assert_eq!(first.get("edge"), None);

        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = world.admin(at, Method::GET, &format!("/spring/rounds?limit=3{cursor}"), None).await;
            let rounds = page.body["rounds"].as_array().unwrap();
            seen.extend(rounds.iter().map(|round| (round["round"].clone(), round["quota"].clone())));
            let Some(next) = page.body["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let expected = (0..=6).map(|days| {
            let quota = if days == 0 { 5 } else { 10 + days };
            (json!((today - Days::new(days)).to_string()), json!(quota))
        });
        assert_eq!(seen, expected.collect::<Vec<_>>());
        for query in ["?limit=0", "?cursor=x", "?round=2026-01-01", "?limit=1&limit=1"] {
            let reply = world.admin(at, Method::GET, &format!("/spring/rounds{query}"), None).await;
            assert_eq!((reply.status.as_u16(), reply.told()), (422, "invalid_input"), "{query}");
        }
        let table = run(world, &["round", "list", "spring", "--limit", "2"], "").await.out;
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].starts_with("ROUND") && lines[1].starts_with(&today.to_string()), "{table}");
        assert_eq!((lines.len(), lines[3].starts_with("more: --cursor ")), (4, true), "{table}");

        // A place that nobody has committed yet, and a Redis that nobody can ask.
        reserve_and_die(world, &world.redis(), "cid").await;
        assert_eq!(listed(world, "").await[0]["pending"], 1);
        door.send_replace(Door::Closed);
        let first = eventually("the list without Redis", async || {
            let reply = world.admin(at, Method::GET, "/spring/rounds", None).await;
            (reply.status == 200).then(|| reply.body["rounds"][0].clone())
        })
        .await;
        assert_eq!((&first["pending"], &first["issued"]), (&Value::Null, &json!(2)));
        let shown = show(world, today).await;
        assert_eq!((shown.status.as_u16(), &shown.body["edge"]), (200, &Value::Null));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voids_from_before_they_were_counted_are_counted() {
    in_world(async |world| {
        let counting = MIGRATIONS.iter().find(|migration| migration.description == "void count").unwrap();
        MIGRATIONS.run_to(counting.version - 1, &world.pool).await.unwrap();
        sqlx::raw_sql(
            "INSERT INTO campaigns (id, version, spec)
             VALUES ('spring', 1, '{\"vendor\": \"acme\", \"currency\": \"KRW\"}');
             INSERT INTO rounds (campaign, round, opens_at, closes_at, max_number)
             SELECT 'spring', day, day, day + 1, 10 FROM unnest('{2026-05-01, 2026-05-02}'::date[]) day;
             INSERT INTO coupons (code, campaign, round, user_id, number, issued_at, redeemable_from,
                                  redeemable_until, terms, version)
             SELECT round || '-' || n, campaign, round, n, n, opens_at, opens_at, closes_at, '{}', 1
               FROM rounds, generate_series(1, 5) n;
             INSERT INTO voids (code, reason, reversed, voided_at)
             SELECT code, 'a test', false, now() FROM coupons WHERE round = '2026-05-02' AND number > 2",
        )
        .execute(&world.pool)
        .await
        .unwrap();
        assert_eq!(world.postgres().migrate().await.unwrap()[0], counting.version);
        let counted = async || -> Vec<i64> {
            let counts = sqlx::query_scalar("SELECT void FROM rounds ORDER BY round");
            counts.fetch_all(&world.pool).await.unwrap()
        };
        assert_eq!(counted().await, [0, 3]);
        sqlx::query("INSERT INTO voids VALUES ('2026-05-01-1', 'a test', false, now())")
            .execute(&world.pool)
            .await
            .unwrap();
        assert_eq!(counted().await, [1, 3]);
        // A release that wrote no quota left the largest one.
        let campaign = crate::world::id("spring");
        let rounds = world.postgres().past_rounds(&campaign, None, 9).await.unwrap();
        assert_eq!(rounds.iter().map(|round| round.quota).collect::<Vec<_>>(), [Some(10), Some(10)]);
    })
    .await;
}
