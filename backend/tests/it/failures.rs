//! Reservations that PostgreSQL will not take: recorded, given back, tried again by an operator.

use std::collections::BTreeMap;

use doorbuster_domain::code::CouponCode;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::recovery::reserve_and_die;
use crate::world::{ADMIN_TOKEN, Reply, World, campaign, eventually, in_world};

async fn run(world: &World, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&world.pool).await.unwrap();
}

/// From now on PostgreSQL refuses these users for a reason that only it knows.
async fn refuse(world: &World, users: &str) {
    run(world, &format!("ALTER TABLE coupons ADD CONSTRAINT refused CHECK (user_id NOT IN ({users})) NOT VALID")).await;
}

async fn refuse_nobody(world: &World) {
    run(world, "ALTER TABLE coupons DROP CONSTRAINT refused").await;
}

async fn failures(world: &World, at: usize, method: Method, path: &str) -> Reply {
    let url = format!("{}/admin/v1/failures{path}", world.backends[at].ops);
    Reply::of(world.http.request(method, url).bearer_auth(ADMIN_TOKEN).send().await.unwrap()).await
}

async fn listed(world: &World, query: &str) -> Vec<Value> {
    let reply = failures(world, 0, Method::GET, query).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body["failures"].as_array().unwrap().clone()
}

async fn retry(world: &World, failure: &Value) -> Value {
    let reply = failures(world, 0, Method::POST, &format!("/{}/retry", failure["id"])).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body
}

/// Asks until the answer is this one. With short deadlines a slow machine hears `unavailable` or `pending` now and then.
async fn ask_until(world: &World, user: &str, expected: &str) -> Reply {
    eventually(expected, async || {
        let reply = world.issue(0, "spring", user).await;
        let told = match reply.told() {
            // An earlier answer was lost.
            "already_issued" | "sold_out" => "issued",
            told => told,
        };
        assert!([expected, "unavailable", "pending"].contains(&told), "{reply:?}");
        (told == expected).then_some(reply)
    })
    .await
}

async fn retry_until(world: &World, failure: &Value, expected: &str) {
    let path = format!("/{}/retry", failure["id"]);
    eventually(expected, async || {
        (failures(world, 0, Method::POST, &path).await.body["outcome"] == expected).then_some(())
    })
    .await;
}

/// Issued, pending and failed, as the operator is told.
async fn tally(world: &World, campaign: &str) -> (u64, u64, u64) {
    let round = world.today().await;
    let told = world.admin(0, Method::GET, &format!("/{campaign}/rounds/{round}"), None).await.body;
    let number = |name: &str| told[name].as_u64().unwrap();
    (number("issued"), number("pending"), number("failed"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_good_is_recorded_and_its_number_goes_to_the_next_user() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(2).await).await;
        refuse(world, "'bad'").await;
        let refused = world.issue(at, "spring", "bad").await;
        assert_eq!((refused.status.as_u16(), refused.told()), (503, "unavailable"));
        assert!(refused.header("x-doorbuster-result").starts_with("outcome=refused"));
        assert_eq!(tally(world, "spring").await, (0, 0, 1));

        let failure = &listed(world, "").await[0];
        assert_eq!((&failure["campaign"], &failure["user"]), (&json!("spring"), &json!("bad")));
        assert_eq!(failure["round"], json!(world.today().await.to_string()));
        assert_eq!(
            (&failure["number"], &failure["attempts"], &failure["retried_at"]),
            (&json!(1), &json!(1), &json!(null))
        );
        let cause = failure["cause"].as_str().unwrap();
        assert!(cause.starts_with("23514: ") && cause.contains("refused"), "{cause}");

        // However often the user asks, it is one failure.
        for _ in 0..3 {
            assert_eq!(world.issue(at, "spring", "bad").await.told(), "unavailable");
        }
        assert_eq!(tally(world, "spring").await, (0, 0, 1));
        assert_eq!(world.issue(at, "spring", "ann").await.coupon()["number"], 1, "its number went back");

        // Whoever gets a coupon after all is no failure any more.
        refuse_nobody(world).await;
        assert_eq!(world.issue(at, "spring", "bad").await.coupon()["number"], 2);
        assert_eq!((tally(world, "spring").await, listed(world, "").await), ((2, 0, 0), vec![]));
        world.assert_issued("spring", 2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_that_may_pass_is_waited_for_a_few_times() {
    in_world(async |world| {
        world.hurried = true;
        world.start().await;
        world.start().await;
        world.put(0, "spring", &world.open(3).await).await;
        run(
            world,
            "CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.user_id IN ('bad', 'worse') THEN RAISE 'not %', NEW.user_id; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER raises BEFORE INSERT ON coupons FOR EACH ROW EXECUTE FUNCTION raise()",
        )
        .await;
        let bad = ask_until(world, "bad", "pending").await;
        ask_until(world, "worse", "pending").await;
        // They spoil nobody else's commit, and asking again and again is no way to be given up sooner.
        ask_until(world, "ann", "issued").await;
        join_all((0..10).map(|_| world.issue(0, "spring", "bad"))).await;

        let given_up = eventually("giving up", async || {
            let listed = listed(world, "").await;
            (listed.len() == 2).then_some(listed)
        })
        .await;
        for failure in &given_up {
            assert!(failure["attempts"].as_u64() >= Some(5), "{failure}");
            let expected = format!("P0001: not {}", failure["user"].as_str().unwrap());
            assert_eq!(failure["cause"], json!(expected));
        }
        let soonest: f64 = sqlx::query_scalar(
            "SELECT min(extract(epoch FROM given_up_at - first_failed_at))::float8 FROM failed_issuances",
        )
        .fetch_one(&world.pool)
        .await
        .unwrap();
        assert!(soonest >= 3.6, "given up after {soonest} s");
        eventually("giving back", async || (tally(world, "spring").await == (1, 0, 2)).then_some(())).await;
        assert_eq!(world.get(0, bad.header("location"), "bad").await.told(), "unknown_coupon");
        // Their numbers went back.
        for user in ["bob", "cid"] {
            ask_until(world, user, "issued").await;
        }
        world.assert_issued("spring", 3).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_away_is_no_failure() {
    in_world(async |world| {
        world.hurried = true;
        let at = world.start().await;
        world.put(at, "spring", &world.open(5).await).await;
        ask_until(world, "first", "issued").await;
        // First it does not answer, then it refuses everything it is asked, more often than one row may be refused.
        let mut row = world.pool.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM rounds FOR UPDATE").execute(&mut *row).await.unwrap();
        ask_until(world, "ann", "pending").await;
        row.rollback().await.unwrap();
        run(world, "ALTER FUNCTION commit_coupons RENAME TO gone").await;
        let refused = eventually("thirty refusals", async || {
            ask_until(world, "bob", "pending").await;
            let metrics = world.http.get(format!("{}/metrics", world.backends[at].ops)).send().await.unwrap();
            let metrics = metrics.text().await.unwrap();
            let failures = metrics.lines().find_map(|line| line.strip_prefix("doorbuster_commit_failures_total "));
            failures.unwrap().parse().ok().filter(|failures: &u64| *failures > 30)
        })
        .await;
        run(world, "ALTER FUNCTION gone RENAME TO commit_coupons").await;
        eventually("both commits", async || (tally(world, "spring").await == (3, 0, 0)).then_some(())).await;
        let counted: i64 =
            sqlx::query_scalar("SELECT count(*) FROM failed_issuances").fetch_one(&world.pool).await.unwrap();
        assert_eq!(counted, 0, "of {refused} refusals");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_rows_fault_never_gives_a_winners_place_away() {
    in_world(async |world| {
        world.hurried = true;
        let at = world.start().await;
        world.put(at, "spring", &world.open(9).await).await;
        ask_until(world, "first", "issued").await;
        // Each user's row meets another error of the server.
        let errors = ["XX000", "XX002", "54000", "0A000", "40001", "40P01", "23505"];
        run(
            world,
            "CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.user_id ~ '^[0-9A-Z]{5}$' THEN
                     RAISE 'a test' USING ERRCODE = NEW.user_id, TABLE = 'outbox';
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER raises BEFORE INSERT ON coupons FOR EACH ROW EXECUTE FUNCTION raise()",
        )
        .await;
        for error in errors {
            ask_until(world, error, "pending").await;
        }
        // They spoil nobody else's commit.
        ask_until(world, "ann", "issued").await;
        let refusals = async || -> u64 {
            let metrics = world.http.get(format!("{}/metrics", world.backends[at].ops)).send().await.unwrap();
            let metrics = metrics.text().await.unwrap();
            let failures = metrics.lines().find_map(|line| line.strip_prefix("doorbuster_commit_failures_total "));
            failures.unwrap().parse().unwrap()
        };
        // Far more often than a row that is at fault may be refused.
        eventually("refusals", async || (refusals().await > 100).then_some(())).await;
        assert_eq!(tally(world, "spring").await, (2, 7, 0));
        assert_eq!(world.issue(at, "spring", "too-late").await.told(), "busy", "no place is free");
        run(world, "DROP TRIGGER raises ON coupons").await;
        eventually("all commits", async || (tally(world, "spring").await == (9, 0, 0)).then_some(())).await;
        let winners: i64 = sqlx::query_scalar("SELECT count(*) FROM coupons WHERE user_id = ANY ($1)")
            .bind(errors.map(str::to_owned).to_vec())
            .fetch_one(&world.pool)
            .await
            .unwrap();
        assert_eq!(winners, 7);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_bad_rows_is_tried_row_by_row_in_key_order() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(Value::Null).await).await;
        assert_eq!(world.issue(at, "spring", "first").await.told(), "issued");
        refuse(world, "'user-3', 'user-7', 'user-18'").await;
        run(
            world,
            "CREATE TABLE seen (at bigserial, number bigint);
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO seen (number) VALUES (NEW.number); RETURN NULL; END $$;
             CREATE TRIGGER sees AFTER INSERT ON coupons FOR EACH ROW EXECUTE FUNCTION see()",
        )
        .await;
        // The first to come commits alone and waits for the row; the others gather behind it.
        let mut row = world.pool.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM rounds FOR UPDATE").execute(&mut *row).await.unwrap();
        let (mut replies, ()) = tokio::join!(
            join_all((0..20).map(async |n| world.issue(at, "spring", &format!("user-{n}")).await)),
            async {
                eventually("twenty places", async || (tally(world, "spring").await.1 == 20).then_some(())).await;
                row.rollback().await.unwrap();
            }
        );
        replies.retain(|reply| reply.told() == "issued");
        assert_eq!(replies.len(), 17);
        assert_eq!(tally(world, "spring").await, (18, 0, 3));
        let seen: Vec<i64> =
            sqlx::query_scalar("SELECT number FROM seen ORDER BY at").fetch_all(&world.pool).await.unwrap();
        // Whoever was first may hold any number; behind it they come in order.
        assert!(seen[1..].is_sorted(), "{seen:?}");
        for user in ["ann", "bob", "cid"] {
            assert_eq!(world.issue(at, "spring", user).await.told(), "issued");
        }
        world.assert_issued("spring", 21).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweeper_records_failures_too() {
    in_world(async |world| {
        world.hurried = true;
        let at = world.start().await;
        world.put(at, "spring", &world.open(1).await).await;
        refuse(world, "'bad'").await;
        reserve_and_die(world, &world.redis(), "bad").await;
        eventually("the failure", async || (tally(world, "spring").await == (0, 0, 1)).then_some(())).await;
        ask_until(world, "ann", "issued").await;
        world.assert_issued("spring", 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_says_what_became_of_it() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(2).await).await;
        refuse(world, "'bad', 'worse'").await;
        for user in ["bad", "worse"] {
            world.issue(at, "spring", user).await;
        }
        let [worse, bad] = &listed(world, "").await[..] else { panic!("two failures") };
        assert_eq!((&bad["user"], &worse["user"]), (&json!("bad"), &json!("worse")));

        let again = retry(world, bad).await;
        assert_eq!(again, json!({"id": bad["id"], "outcome": "failed", "coupon": null}));
        assert_eq!(tally(world, "spring").await, (0, 0, 2));
        assert!(listed(world, "").await[1]["retried_at"].is_string());

        refuse_nobody(world).await;
        world.admin(at, Method::POST, "/spring/pause", None).await;
        assert_eq!(retry(world, bad).await["outcome"], "paused");
        world.admin(at, Method::POST, "/spring/resume", None).await;
        // However often and at once it is asked for, it is one coupon.
        let outcomes = join_all((0..8).map(|_| retry(world, bad))).await;
        for outcome in &outcomes {
            assert_eq!((&outcome["outcome"], &outcome["coupon"]), (&json!("issued"), &outcomes[0]["coupon"]));
        }
        assert_eq!(retry(world, bad).await, outcomes[0]);
        assert_eq!(world.issue(at, "spring", "bad").await.told(), "already_issued");
        assert_eq!(world.issue(at, "spring", "ann").await.told(), "issued");
        assert_eq!(retry(world, worse).await["outcome"], "sold_out");
        assert_eq!(retry(world, bad).await, outcomes[0], "sold out or not, the winner is told of the coupon");
        world.put(at, "spring", &world.open(3).await).await;
        assert_eq!(retry(world, worse).await["coupon"]["number"], 3);
        assert_eq!((tally(world, "spring").await, listed(world, "").await), ((3, 0, 0), vec![]));
        world.assert_issued("spring", 3).await;

        // What was tried is in the audit log; what was known by then is not.
        let log = format!("{}/admin/v1/audit-log?subject=failure/{}", world.backends[at].ops, bad["id"]);
        let log = Reply::of(world.http.get(log).bearer_auth(ADMIN_TOKEN).send().await.unwrap()).await;
        let entries = log.body["entries"].as_array().unwrap();
        assert!((3..=10).contains(&entries.len()), "{entries:?}");
        for entry in entries {
            assert_eq!((&entry["operator"], &entry["action"]), (&json!("admin"), &json!("failure.retried")));
            assert_eq!((&entry["after"]["campaign"], &entry["after"]["user"]), (&json!("spring"), &json!("bad")));
        }

        for path in ["/999/retry", "/0x1/retry", "/-1/retry", "/99999999999999999999/retry"] {
            assert_eq!(failures(world, at, Method::POST, path).await.told(), "not_found", "{path}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_retried_at_once_oldest_first_and_within_the_quota() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(150).await).await;
        world.put(at, "summer", &world.open(1).await).await;
        run(world, "ALTER TABLE coupons ADD CONSTRAINT refused CHECK (false) NOT VALID").await;
        assert_eq!(world.issue(at, "summer", "ann").await.told(), "unavailable");
        for n in 0..120 {
            assert_eq!(world.issue(at, "spring", &format!("user-{n}")).await.told(), "unavailable");
        }
        refuse_nobody(world).await;
        assert_eq!(tally(world, "spring").await, (0, 0, 120));
        world.put(at, "spring", &world.open(100).await).await;

        let (one, other) = tokio::join!(
            failures(world, at, Method::POST, "/retry?campaign=spring"),
            failures(world, at, Method::POST, "/retry?campaign=spring")
        );
        for reply in [one, other] {
            let outcomes: BTreeMap<String, u64> = serde_json::from_value(reply.body["outcomes"].clone()).unwrap();
            assert!(
                outcomes.keys().all(|name| ["issued", "sold_out", "busy"].contains(&name.as_str())),
                "{outcomes:?}"
            );
            assert_eq!(reply.body["next_cursor"], json!(null));
        }
        world.assert_issued("spring", 100).await;
        assert_eq!((tally(world, "spring").await, tally(world, "summer").await), ((100, 0, 20), (0, 0, 1)));
        let last: i64 = sqlx::query_scalar("SELECT max(substr(user_id, 6)::bigint) FROM coupons")
            .fetch_one(&world.pool)
            .await
            .unwrap();
        // Sixteen are tried at once.
        assert!(last < 116, "{last}");

        assert_eq!(
            failures(world, at, Method::POST, "/retry").await.body["outcomes"],
            json!({"issued": 1, "sold_out": 20})
        );
        world.assert_issued("summer", 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_comes_after_the_round_has_closed() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(1).await).await;
        refuse(world, "'bad', 'worse'").await;
        for user in ["bad", "worse"] {
            world.issue(at, "spring", user).await;
        }
        refuse_nobody(world).await;
        let [worse, bad] = &listed(world, "").await[..] else { panic!("two failures") };

        // A round that the schedule does not have any more issues nothing.
        world.put(at, "spring", &campaign(world.daily("00:00", "24:00", 2, 2).await, json!(1))).await;
        assert_eq!(retry(world, bad).await["outcome"], "ended");
        world.put(at, "spring", &campaign(world.daily("00:00", "00:01", 0, 0).await, json!(1))).await;
        assert_eq!(world.issue(at, "spring", "bad").await.told(), "ended");
        // Its keys are long gone, too.
        world.forget_redis().await;
        world.put(at, "spring", &campaign(world.daily("00:00", "00:01", 0, 0).await, json!(1))).await;
        assert_eq!(retry(world, bad).await["outcome"], "issued");
        assert_eq!(retry(world, worse).await["outcome"], "sold_out");
        world.assert_issued("spring", 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_without_an_answer_is_swept_however_old_its_round() {
    in_world(async |world| {
        world.hurried = true;
        let at = world.start().await;
        world.put(at, "spring", &campaign(world.daily("00:00", "24:00", -5, 0).await, json!(1))).await;
        ask_until(world, "now", "issued").await;
        let old = world.now().await.date_naive() - chrono::Days::new(5);
        let code = CouponCode::from_random(7);
        // As if it had failed while that round was open.
        let failed = format!(
            "INSERT INTO rounds (campaign, round, opens_at, closes_at, max_number)
             VALUES ('spring', '{old}', now() - interval '5 days', now() - interval '4 days', 1);
             INSERT INTO failed_issuances (campaign, round, user_id, code, number, attempts, cause, given_up_at)
             VALUES ('spring', '{old}', 'bad', '{code}', 1, 1, 'a test', now())"
        );
        run(world, &failed).await;
        refuse(world, "'bad'").await;
        let failure = listed(world, &format!("?round={old}")).await[0].clone();
        retry_until(world, &failure, "failed").await;
        refuse_nobody(world).await;
        let mut rows = world.pool.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM rounds FOR UPDATE").execute(&mut *rows).await.unwrap();
        retry_until(world, &failure, "pending").await;
        rows.rollback().await.unwrap();
        eventually("the coupon", async || (world.audit("spring").await.len() == 2).then_some(())).await;
        retry_until(world, &failure, "issued").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_listed_page_by_page_and_filtered() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(5).await).await;
        world.put(at, "summer", &world.open(5).await).await;
        refuse(world, "'a', 'b', 'c', 'd', 'e'").await;
        for user in ["a", "b", "c", "d", "e"] {
            world.issue(at, "spring", user).await;
        }
        world.issue(at, "summer", "a").await;
        let users =
            |page: &[Value]| page.iter().map(|one| one["user"].as_str().unwrap().to_owned()).collect::<Vec<_>>();

        let mut path = "?campaign=spring&limit=2".to_owned();
        let mut seen = Vec::new();
        loop {
            let page = failures(world, at, Method::GET, &path).await.body;
            seen.push(users(page["failures"].as_array().unwrap()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("?campaign=spring&limit=2&cursor={cursor}");
        }
        assert_eq!(seen, [vec!["e", "d"], vec!["c", "b"], vec!["a"]]);
        assert_eq!(listed(world, "").await.len(), 6);
        let today = world.today().await;
        assert_eq!(users(&listed(world, &format!("?campaign=summer&round={today}")).await), ["a"]);
        assert_eq!(listed(world, "?round=2001-01-01").await.len(), 0);

        let wrong = failures(world, at, Method::GET, "?campaign=A&round=x&limit=0&cursor=-1").await;
        assert_eq!((wrong.status.as_u16(), wrong.told()), (422, "invalid_input"));
        let fields: Vec<_> = wrong.body["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
        assert_eq!(fields, ["campaign", "round", "limit", "cursor"]);
        let url = format!("{}/admin/v1/failures", world.backends[at].ops);
        assert_eq!(world.http.get(url).send().await.unwrap().status(), 401);

        // A mistyped filter must not have all of them tried.
        let wide = failures(world, at, Method::POST, "/retry?campagin=spring&limit=1").await;
        let fields: Vec<_> = wide.body["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
        assert_eq!(wide.told(), "invalid_input");
        assert_eq!(fields, ["campagin", "limit"]);
        assert_eq!(listed(world, "").await.len(), 6);
    })
    .await;
}
