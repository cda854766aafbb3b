//! The command line, run against a backend.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::world::{ADMIN_TOKEN, World, in_world};

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Run {
    code: Option<i32>,
    pub(crate) out: String,
    err: String,
}

impl Run {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

async fn run_with(environment: &[(&str, &str)], arguments: &[&str], input: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_doorbuster"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // One that does not read has ended, or will.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let run = Run { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!run.out.contains(ADMIN_TOKEN) && !run.err.contains(ADMIN_TOKEN), "a token is shown: {run:?}");
    run
}

pub(crate) async fn run(world: &World, arguments: &[&str], input: &str) -> Run {
    let target = [("DOORBUSTER_URL", world.backends[0].ops.as_str()), ("DOORBUSTER_TOKEN", ADMIN_TOKEN)];
    run_with(&target, arguments, input).await
}

async fn alone(arguments: &[&str], input: &str) -> Run {
    run_with(&[], arguments, input).await
}

fn default_config() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config.default.toml")
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_are_applied_shown_paused_and_resumed() {
    in_world(async |world| {
        world.start().await;
        let mut spring = world.open(5).await;
        spring["id"] = json!("spring");
        let apply = ["campaign", "apply", "-"];
        let created = run(world, &apply, &spring.to_string()).await;
        assert_eq!(created.code, Some(0), "{created:?}");
        assert!(created.out.starts_with("created\n") && created.out.contains("Spring 50%"), "{created:?}");
        let shown = run(world, &["--json", "campaign", "get", "spring"], "").await.json();
        assert_eq!((&shown["id"], &shown["quota"]), (&json!("spring"), &json!(5)));

        let paused = run(world, &["campaign", "pause", "spring", "--json"], "").await.json();
        assert_eq!(paused["paused"], true);
        let list = run(world, &["campaign", "list"], "").await;
        let lines: Vec<_> = list.out.lines().collect();
        assert!(lines.len() == 2 && lines[0].starts_with("ID") && lines[1].starts_with("spring"), "{list:?}");
        assert!(lines[1].ends_with("paused"), "{list:?}");
        assert!(run(world, &["campaign", "resume", "spring"], "").await.out.contains("paused       false"));

        // What `get` prints can be applied, once: the version in it is the one that may be replaced.
        let mut written = run(world, &["campaign", "get", "spring", "--json"], "").await.json();
        written["quota"] = json!(7);
        let replaced = run(world, &apply, &written.to_string()).await;
        assert!(replaced.code == Some(0) && replaced.out.starts_with("replaced\n"), "{replaced:?}");
        let again = run(world, &["campaign", "apply", "-", "--json"], &written.to_string()).await;
        assert_eq!((again.code, &again.json()["code"]), (Some(1), &json!("version_conflict")), "{again:?}");

        let log = run(world, &["log", "--subject", "campaign/spring", "--limit", "2"], "").await;
        assert!(log.out.contains("campaign.replaced") && log.out.contains("quota"), "{log:?}");
        assert!(log.out.contains("more: --cursor "), "{log:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_mistakes_and_absences_have_their_codes() {
    in_world(async |world| {
        world.start().await;
        let mut wrong = world.open(-1).await;
        wrong["id"] = json!("spring");
        wrong["schedule"]["closes"] = json!("25:00");
        let refused = run(world, &["campaign", "apply", "-"], &wrong.to_string()).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for expected in ["(invalid_input, 422)", "\n  quota: must be", "\n  schedule.closes: \"25:00\""] {
            assert!(refused.err.contains(expected), "{expected}: {refused:?}");
        }
        let unknown = run(world, &["campaign", "get", "../campaigns"], "").await;
        assert!(unknown.code == Some(1) && unknown.err.contains("unknown_campaign"), "{unknown:?}");

        let url = world.backends[0].ops.clone();
        let stranger = [("DOORBUSTER_URL", url.as_str()), ("DOORBUSTER_TOKEN", "a stranger's token")];
        let stranger = run_with(&stranger, &["campaign", "list"], "").await;
        assert!(stranger.code == Some(1) && stranger.err.contains("unauthorized"), "{stranger:?}");
        let nobody = [("DOORBUSTER_URL", "http://127.0.0.1:1"), ("DOORBUSTER_TOKEN", ADMIN_TOKEN)];
        assert_eq!(run_with(&nobody, &["campaign", "list"], "").await.code, Some(69));
        // The public listener is another one.
        let public = world.backends[0].public.clone();
        let public = [("DOORBUSTER_URL", public.as_str()), ("DOORBUSTER_TOKEN", ADMIN_TOKEN)];
        assert_eq!(run_with(&public, &["campaign", "list"], "").await.code, Some(1));

        for (arguments, input, code) in [
            (&["campaign", "list"] as &[&str], "", 64),
            (&["campaign", "shout"], "", 64),
            (&["schedule", "preview", "-"], "nonsense", 65),
            (&["schedule", "preview", "/nowhere"], "", 66),
            (&["check-config", "/nowhere"], "", 66),
            (&["--help"], "", 0),
        ] {
            let run = alone(arguments, input).await;
            assert_eq!(run.code, Some(code), "{arguments:?} {run:?}");
        }
        let token_alone = run_with(&[("DOORBUSTER_URL", url.as_str())], &["campaign", "list"], "").await;
        assert!(token_alone.code == Some(64) && token_alone.err.contains("DOORBUSTER_TOKEN"), "{token_alone:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_is_shown_and_audited() {
    in_world(async |world| {
        let at = world.start().await;
        world.put(at, "spring", &world.open(5).await).await;
        world.issue(at, "spring", "ann").await;
        let rebuilt = run(world, &["round", "rebuild", "spring", "--json"], "").await.json();
        assert_eq!((&rebuilt["issued"], &rebuilt["pending"]), (&json!(1), &json!(0)));
        let shown = run(world, &["round", "show", "spring", "--json"], "").await.json();
        assert_eq!((&shown["issued"], &shown["round"]), (&json!(1), &json!(world.today().await)));
        assert!(run(world, &["round", "show", "spring"], "").await.out.contains("issued    1"));

        let settings = [
            ("DOORBUSTER_DATABASE_URL", world.database_url.as_str()),
            ("DOORBUSTER_REDIS_URL", &world.redis_url),
            ("DOORBUSTER_REDIS_PREFIX", &world.name),
            ("DOORBUSTER_ADMIN_TOKEN", ADMIN_TOKEN),
            ("DOORBUSTER_EDGE_TOKEN", crate::world::EDGE_TOKEN),
        ];
        let audit = run_with(&settings, &["--json", "audit", "spring"], "").await;
        assert_eq!((audit.code, &audit.json()["clean"]), (Some(0), &json!(true)), "{audit:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_is_won_shown_redeemed_settled_and_taken_back() {
    in_world(async |world| {
        let at = world.start().await;
        let mut spring = world.open(5).await;
        spring["id"] = json!("spring");
        assert_eq!(run(world, &["campaign", "apply", "-"], &spring.to_string()).await.code, Some(0));
        let code = world.issue(at, "spring", "ann").await.coupon()["code"].as_str().unwrap().to_owned();
        let shown = run(world, &["coupon", "show", &code.to_lowercase()], "").await;
        assert!(shown.code == Some(0) && shown.out.contains("user         ann"), "{shown:?}");

        let redeem = ["coupon", "redeem", &code, "--user", "ann", "--order", "A-1", "--amount", "30000", "--json"];
        assert_eq!(run(world, &redeem, "").await.json()["discount_amount"], 10000);
        let vendors = run(world, &["vendor", "list"], "").await;
        assert!(vendors.out.contains("acme  KRW       10000"), "{vendors:?}");
        let payout = ["vendor", "payout", "acme", "--key", "may", "--json"];
        assert_eq!(run(world, &payout, "").await.json()["balance"], 0);
        assert_eq!(run(world, &payout, "").await.json()["amount"], 10000, "paid once");
        let settled = run(world, &["vendor", "show", "acme"], "").await;
        assert!(settled.out.contains("balance   0") && settled.out.contains(&code), "{settled:?}");
        let newest = run(world, &["vendor", "show", "acme", "--limit", "1"], "").await;
        let (_, cursor) = newest.out.trim_end().rsplit_once("more: --cursor ").expect(&newest.out);
        assert!(!newest.out.contains(&code), "{newest:?}");
        let oldest = run(world, &["vendor", "show", "acme", "--limit", "1", "--cursor", cursor], "").await;
        assert!(oldest.out.contains(&code) && !oldest.out.contains("more:"), "{oldest:?}");

        let void = run(world, &["coupon", "void", &code, "--reason", "a mistake"], "").await;
        assert!(void.code == Some(1) && void.err.contains("already_redeemed"), "{void:?}");
        let void = run(world, &["coupon", "void", &code, "--reason", "a mistake", "--reverse"], "").await;
        assert!(void.code == Some(0) && void.out.contains("reversed   true"), "{void:?}");
        let unknown = run(world, &["coupon", "show", "000000000000"], "").await;
        assert!(unknown.code == Some(1) && unknown.err.contains("unknown_coupon"), "{unknown:?}");
    })
    .await;
}

#[tokio::test]
async fn a_preview_shows_rounds_in_local_and_universal_time_across_a_clock_change() {
    let schedule = json!({"timezone": "Europe/Berlin", "first_day": "2026-10-01", "last_day": "2026-12-31",
        "opens": "22:00", "closes": "03:00", "weekdays": ["sat", "sun"]});
    let arguments = ["schedule", "preview", "-", "--days", "3", "--from", "2026-10-24T12:00:00Z"];
    let preview = alone(&arguments, &schedule.to_string()).await;
    assert_eq!(
        preview.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>(),
        [
            "ROUND DAY OPENS (LOCAL) CLOSES (LOCAL) OPENS (UTC) CLOSES (UTC)",
            "2026-10-24 Sat 2026-10-24 22:00:00 +02:00 2026-10-25 03:00:00 +01:00 2026-10-24 20:00:00 2026-10-25 02:00:00",
            "2026-10-25 Sun 2026-10-25 22:00:00 +01:00 2026-10-26 03:00:00 +01:00 2026-10-25 21:00:00 2026-10-26 02:00:00",
        ],
        "{preview:?}"
    );
    let campaign = json!({"id": "spring", "schedule": schedule});
    let arguments = ["--json", "schedule", "preview", "-", "--from", "2027-01-01T12:00:00Z"];
    assert_eq!(alone(&arguments, &campaign.to_string()).await.json(), json!({"rounds": []}));
    let mut wrong = campaign.clone();
    wrong["schedule"]["opens"] = json!("noon");
    let wrong = alone(&["schedule", "preview", "-"], &wrong.to_string()).await;
    assert!(wrong.code == Some(65) && wrong.err.contains("schedule.opens: \"noon\""), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_opens_what_its_digest_is_configured_for() {
    in_world(async |world| {
        let new = alone(&["token", "new", "--name", "vic", "--role", "viewer", "--json"], "").await.json();
        let digest = new["sha256"].as_str().unwrap();
        let table = format!("[[operator_tokens]]\nname = 'vic'\nrole = 'viewer'\nsha256 = '{digest}'");
        world.start_with(&table).await;
        let target =
            [("DOORBUSTER_URL", world.backends[0].ops.as_str()), ("DOORBUSTER_TOKEN", new["token"].as_str().unwrap())];
        assert_eq!(run_with(&target, &["campaign", "list"], "").await.code, Some(0));
        let pause = run_with(&target, &["campaign", "pause", "spring"], "").await;
        assert!(pause.code == Some(1) && pause.err.contains("forbidden"), "{pause:?}");
        let people = alone(&["token", "new"], "").await.out;
        assert!(people.contains("[[operator_tokens]]") && !people.contains(new["token"].as_str().unwrap()), "{people}");
    })
    .await;
}

#[tokio::test]
async fn configurations_are_checked_and_shells_complete() {
    let good = default_config();
    assert_eq!(alone(&["check-config", good.to_str().unwrap()], "").await.code, Some(0));
    let variables = [("DOORBUSTER_MAX_IN_FLIGHT", "many")];
    let checked = run_with(&variables, &["check-config", good.to_str().unwrap(), "--with-environment"], "").await;
    assert!(checked.code == Some(65) && checked.err.contains("max_in_flight: \"many\""), "{checked:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = alone(&["completions", shell], "").await.out;
        assert!(script.contains("doorbuster") && script.contains("campaign"), "{shell}");
    }
}
