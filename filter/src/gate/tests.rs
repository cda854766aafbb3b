//! Several workers over one model of shared data.

use chrono::DateTime;
use doorbuster_domain::notice::Notice;
use doorbuster_domain::schedule::{Round, Schedule, ScheduleSpec};
use doorbuster_domain::wire::{SyncCampaign, SyncResponse};

use super::*;
use crate::host::model::{At, Model, ModelMetrics};
use crate::sync::Snapshot;

/// 2026-05-01T13:30:00+09:00, half an hour into the first round.
const NOW: i64 = 1_777_609_800_000;
const HOUR: i64 = 3_600_000;
/// The value of every variable of the environment.
const SECRET: &str = "a secret of some length";
/// Before the opening, far from any boundary.
const MORNING: i64 = NOW - 3 * HOUR;

fn schedule() -> Schedule {
    let spec = ScheduleSpec {
        timezone: "Asia/Seoul".into(),
        first_day: "2026-05-01".into(),
        last_day: "2026-05-02".into(),
        opens: "13:00".into(),
        closes: "15:00".into(),
        weekdays: None,
    };
    Schedule::compile(&spec).unwrap()
}

fn rounds() -> (Round, Round) {
    (schedule().first_round(), schedule().last_round())
}

fn spring() -> CampaignId {
    CampaignId::parse("spring").unwrap()
}

fn user(name: &str) -> Result<UserId, Refusal> {
    Ok(UserId::parse(name).unwrap())
}

/// Envoy with some workers.
struct Edge {
    shared: Model,
    syncs: u64,
    workers: Vec<Gate>,
    config: Rc<Config>,
    now_ms: i64,
}

impl Edge {
    fn start(config: &str, workers: usize, now_ms: i64) -> Self {
        let config = Rc::new(Config::parse(config.as_bytes(), |_| Some(SECRET.to_owned())).unwrap());
        let shared = Model::default();
        let mut edge = Self { workers: Vec::new(), config, shared, now_ms, syncs: 0 };
        for _ in 0..workers {
            let gate = edge.configure();
            edge.workers.push(gate);
        }
        edge
    }

    /// What a start, a configuration push or a reloaded VM does.
    fn configure(&self) -> Gate {
        let names = Namespace::new(&self.config.namespace);
        let process = state::process(&self.shared, &names, [1, 2, 3, 4]);
        Gate::new(Rc::clone(&self.config), names, process, &self.shared, at(self.now_ms))
    }

    fn synced(workers: usize, now_ms: i64) -> Self {
        Self::start(r#"{"sync": {"cluster": "control"}}"#, workers, now_ms)
    }

    fn written(quota: u64, now_ms: i64) -> Self {
        let config = format!(
            r#"{{"campaigns": [{{"id": "spring", "quota": {quota}, "schedule": {{"timezone": "Asia/Seoul",
                "first_day": "2026-05-01", "last_day": "2026-05-02", "opens": "13:00", "closes": "15:00"}}}}]}}"#
        );
        Self::start(&config, 2, now_ms)
    }

    fn wait(&mut self, ms: i64) {
        self.now_ms += ms;
        for worker in &mut self.workers {
            worker.tick(&self.shared, at(self.now_ms));
        }
    }

    /// The first worker syncs, and every worker ticks.
    fn sync(&mut self, campaigns: Vec<SyncCampaign>, complete: bool) {
        let response = SyncResponse { now_ms: self.now_ms, uncertainty_ms: 1, gateways: 1, complete, campaigns };
        let clock = OriginClock { offset_ms: 0, uncertainty_ms: 2 };
        let sync = self.config.sync.clone().unwrap();
        self.syncs += 1;
        let number = self.syncs;
        self.workers[0].ask(number, &sync, &self.shared, at(self.now_ms));
        self.workers[0]
            .accept(Snapshot { number, received_ms: self.now_ms, wall_ahead_ms: 0, clock, response }, &self.shared);
        self.wait(0);
    }

    fn ask(&mut self, worker: usize, campaign: Result<CampaignId, Refusal>, user: Result<UserId, Refusal>) -> Decision {
        self.workers[worker].decide(&campaign, || user, &At { shared: &self.shared, now_ms: self.now_ms })
    }

    /// The code with which a request of `spring` is refused, or `admitted` and settled in silence at once.
    fn code(&mut self, worker: usize, name: &str) -> String {
        match self.ask(worker, Ok(spring()), user(name)) {
            Decision::Refuse(reply) => code(&reply),
            Decision::Admit(pass) => {
                self.settle(worker, &pass, None);
                "admitted".to_owned()
            }
        }
    }

    fn admit(&mut self, worker: usize, name: &str) -> Pass {
        match self.ask(worker, Ok(spring()), user(name)) {
            Decision::Admit(pass) => pass,
            Decision::Refuse(reply) => panic!("{}", code(&reply)),
        }
    }

    /// What a worker has counted since it was asked last.
    fn flush(&mut self, worker: usize) -> Vec<(String, &'static str, u64)> {
        let mut metrics = ModelMetrics::default();
        self.workers[worker].flush(&self.shared, &mut metrics);
        metrics.decisions
    }

    fn settle(&mut self, worker: usize, pass: &Pass, notice: Option<Notice>) {
        let ending = notice.map_or(Ending::Silent, Ending::Told);
        self.workers[worker].settle(pass, ending, &self.shared, self.now_ms);
    }
}

/// Clocks that agree.
fn at(host_ms: i64) -> HostTime {
    HostTime { host_ms, wall_ahead_ms: 0 }
}

fn code(reply: &Reply) -> String {
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["status"], reply.status);
    body["code"].as_str().unwrap().to_owned()
}

fn notice(outcome: Outcome, issued: u64, quota: u64, version: u64) -> Option<Notice> {
    Some(Notice {
        outcome,
        campaign: spring(),
        round: Some(rounds().0.id),
        issued,
        quota: Some(quota),
        version,
        hold: true,
    })
}

fn told(version: u64, quota: u64, issued: u64, now_ms: i64) -> SyncCampaign {
    let timetable = schedule().timetable(now_ms);
    SyncCampaign {
        id: spring(),
        version,
        paused: false,
        round: timetable.rounds.first().map(|round| round.id),
        timetable,
        quota: Some(quota),
        issued,
        reserved: issued,
    }
}

#[test]
fn the_checks_come_in_the_contract_s_order() {
    let missing = || Err(Refusal::MissingUser);
    let mut edge = Edge::synced(1, NOW);
    edge.sync(vec![told(1, 1, 1, NOW)], true);
    let code_of = |edge: &mut Edge, campaign, user| match edge.ask(0, campaign, user) {
        Decision::Refuse(reply) => code(&reply),
        Decision::Admit(_) => "admitted".to_owned(),
    };
    assert_eq!(code_of(&mut edge, Err(Refusal::InvalidCampaign), missing()), "invalid_campaign");
    assert_eq!(
        code_of(&mut edge, CampaignId::parse("other").map_err(|_| Refusal::InvalidCampaign), missing()),
        "unknown_campaign"
    );
    assert_eq!(code_of(&mut edge, Ok(spring()), missing()), "sold_out", "before the user");
    let mut paused = told(2, 1, 1, NOW);
    paused.paused = true;
    edge.sync(vec![paused.clone()], true);
    assert_eq!(code_of(&mut edge, Ok(spring()), missing()), "paused", "before the phase");
    edge.now_ms = NOW + 100 * HOUR;
    edge.sync(vec![SyncCampaign { timetable: schedule().timetable(edge.now_ms), ..paused }], true);
    assert_eq!(code_of(&mut edge, Ok(spring()), missing()), "ended", "before the pause");
    edge.now_ms = NOW;
    edge.sync(vec![told(3, 2, 1, NOW)], true);
    assert_eq!(code_of(&mut edge, Ok(spring()), missing()), "missing_user");
    assert_eq!(code_of(&mut edge, Ok(spring()), Err(Refusal::InvalidUser)), "invalid_user");
    assert_eq!(code_of(&mut edge, Ok(spring()), user("u1")), "admitted");
}

#[test]
fn outside_its_hours_nobody_reaches_the_origin() {
    let mut edge = Edge::written(5, MORNING);
    assert_eq!(edge.code(0, "u1"), "not_started");
    edge.wait(rounds().0.closes_ms() + HOUR - MORNING);
    assert_eq!(edge.code(1, "u1"), "outside_hours");
    edge.wait(24 * HOUR);
    assert_eq!(edge.code(0, "u1"), "ended");
}

#[test]
fn the_last_coupon_shuts_every_worker_at_once() {
    let mut edge = Edge::written(2, NOW);
    for (worker, name) in [(0, "u1"), (1, "u2")] {
        let pass = edge.admit(worker, name);
        assert_eq!(pass.round, Some(rounds().0.id));
        edge.settle(worker, &pass, notice(Outcome::Issued, 1 + worker as u64, 2, 0));
    }
    for worker in [0, 1] {
        assert_eq!(edge.code(worker, "u4"), "sold_out");
        assert!(edge.workers[worker].refuse_at_once(&Ok(spring())).is_some(), "without shared data from now on");
    }
}

#[test]
fn a_winner_is_known_to_every_worker() {
    let mut edge = Edge::written(5, NOW);
    let pass = edge.admit(0, "u1");
    edge.settle(0, &pass, notice(Outcome::Issued, 1, 5, 0));
    assert_eq!(edge.code(1, "u1"), "already_issued");
    let pass = edge.admit(1, "u2");
    edge.settle(1, &pass, notice(Outcome::Refused, 1, 5, 0));
    assert_eq!(edge.code(0, "u2"), "busy", "its credit is held for a while");
    edge.wait(1_000);
    assert_eq!(edge.code(0, "u2"), "admitted", "a refusal confirms no coupon");
}

#[test]
fn a_winner_who_asks_again_costs_no_shared_data_until_the_round_is_sold_out() {
    let mut edge = Edge::synced(2, NOW);
    edge.sync(vec![told(1, 2, 0, NOW)], true);
    let pass = edge.admit(0, "u1");
    edge.settle(0, &pass, notice(Outcome::Issued, 1, 2, 1));
    let again = |edge: &mut Edge, shared: &dyn SharedData| {
        let gate = &mut edge.workers[1];
        assert!(gate.refuse_at_once(&Ok(spring())).is_none());
        gate.refuse_again(&Ok(spring()), &user("u1"), shared).map(|reply| code(&reply))
    };
    let nobody_asks = Forbidden;
    assert_eq!(again(&mut edge, &nobody_asks), None, "not found in the table yet");
    assert_eq!(edge.code(1, "u1"), "already_issued");
    let shared = edge.shared.clone();
    assert_eq!(again(&mut edge, &shared).as_deref(), Some("already_issued"));
    assert_eq!(again(&mut edge, &nobody_asks).as_deref(), Some("already_issued"));
    assert_eq!(edge.workers[1].refuse_again(&Ok(spring()), &user("u2"), &nobody_asks), None);

    let last = edge.admit(0, "u2");
    edge.settle(0, &last, notice(Outcome::Issued, 2, 2, 1));
    edge.wait(50);
    assert_eq!(edge.code(1, "u1"), "sold_out", "which comes before the user, within a tick");
}

/// Shared data that must not be asked.
struct Forbidden;

impl SharedData for Forbidden {
    fn get(&self, key: &str) -> Option<crate::host::Versioned> {
        unreachable!("{key} is asked for")
    }
    fn replace(&self, key: &str, _: &[u8], _: u32) -> Result<(), crate::host::Changed> {
        unreachable!("{key} is written")
    }
    fn create(&self, key: &str, _: &[u8]) -> Result<(), crate::host::Changed> {
        unreachable!("{key} is written")
    }
}

#[test]
fn each_coupon_is_claimed_by_one_request_at_a_time() {
    let mut edge = Edge::synced(2, NOW);
    edge.sync(vec![told(1, 2, 0, NOW)], true);
    let first = edge.admit(0, "u1");
    let second = edge.admit(1, "u2");
    assert_eq!(edge.code(0, "u3"), "busy");
    edge.settle(0, &first, notice(Outcome::AlreadyIssued, 0, 2, 1));
    let third = edge.admit(1, "u4");
    edge.settle(1, &second, None);
    assert_eq!(edge.code(0, "u5"), "busy", "a failure keeps its credit");
    edge.wait(1_000);
    edge.sync(vec![told(1, 2, 0, NOW)], true);
    edge.settle(0, &third, None);
    assert_eq!(edge.code(0, "u6"), "admitted");
}

#[test]
fn a_raised_quota_and_a_pause_take_effect_with_the_next_tick() {
    let mut edge = Edge::synced(2, NOW);
    edge.sync(vec![told(1, 1, 1, NOW)], true);
    assert_eq!(edge.code(1, "u1"), "sold_out");
    edge.sync(vec![told(2, 2, 1, NOW)], true);
    assert_eq!(edge.code(1, "u1"), "admitted");
    let mut paused = told(3, 2, 1, NOW);
    paused.paused = true;
    edge.sync(vec![paused], true);
    assert_eq!(edge.code(1, "u2"), "paused");
}

#[test]
fn sold_out_does_not_reopen_when_envoy_is_reconfigured() {
    let mut edge = Edge::synced(2, NOW);
    edge.sync(vec![told(1, 1, 0, NOW)], true);
    let pass = edge.admit(0, "u1");
    edge.settle(0, &pass, notice(Outcome::Issued, 1, 1, 1));
    edge.workers = vec![edge.configure(), edge.configure()];
    assert_eq!(edge.code(0, "u2"), "sold_out");
    assert_eq!(edge.code(1, "u1"), "sold_out");
}

#[test]
fn before_its_first_sync_an_edge_admits_a_few() {
    let mut edge = Edge::synced(2, NOW);
    let passes: Vec<Pass> = (0..16).map(|n| edge.admit(n % 2, &format!("u{n}"))).collect();
    assert_eq!(edge.code(0, "u99"), "busy");
    assert!(passes.iter().all(|pass| pass.round.is_none()));
    edge.settle(1, &passes[0], notice(Outcome::Issued, 1, 5, 1));
    assert_eq!(edge.code(0, "u98"), "admitted");
    edge.sync(vec![told(1, 5, 1, NOW)], true);
    assert_eq!(edge.code(0, "u0"), "already_issued", "also learnt while warming");
}

#[test]
fn only_a_young_and_complete_snapshot_knows_that_a_campaign_does_not_exist() {
    let other = || CampaignId::parse("other").map_err(|_| Refusal::InvalidCampaign);
    let mut edge = Edge::synced(1, NOW);
    edge.sync(vec![told(1, 5, 0, NOW)], true);
    assert!(matches!(edge.ask(0, other(), user("u1")), Decision::Refuse(reply) if code(&reply) == "unknown_campaign"));
    edge.wait(1_000);
    assert!(matches!(edge.ask(0, other(), user("u1")), Decision::Admit(_)));
    edge.sync(vec![told(1, 5, 0, NOW)], false);
    assert!(matches!(edge.ask(0, other(), user("u2")), Decision::Admit(_)));
}

/// The gateway has started a moment ago. Both campaigns exist; clients also ask for invented ones.
#[test]
fn invented_campaigns_use_nothing_that_others_could_use() {
    let campaign = |name: &str| CampaignId::parse(name).map_err(|_| Refusal::InvalidCampaign);
    let mut edge = Edge::synced(2, NOW);
    let pass = edge.admit(0, "u1");
    edge.settle(0, &pass, notice(Outcome::Issued, 1, 5, 1));
    for number in 0..200 {
        let _ = edge.ask(number % 2, campaign(&format!("invented-{number}")), user(&format!("v{number}")));
    }
    let invented = edge.ask(0, campaign("invented"), user("v"));
    assert!(matches!(invented, Decision::Refuse(reply) if code(&reply) == "busy"));
    for worker in [0, 1] {
        assert_eq!(edge.code(worker, &format!("w{worker}")), "admitted", "an origin has confirmed it");
    }
}

/// What the origin says of one campaign after a sync does not reach another one.
#[test]
fn late_answers_reach_their_own_campaign_alone() {
    let mut edge = Edge::synced(1, NOW);
    let other = CampaignId::parse("other").unwrap();
    let about = |campaign: &CampaignId, outcome, issued| {
        let round = Some(rounds().0.id);
        Some(Notice { outcome, campaign: campaign.clone(), round, issued, quota: Some(5), version: 1, hold: true })
    };
    let admit = |edge: &mut Edge, campaign: &CampaignId, name: &str| match edge.ask(0, Ok(campaign.clone()), user(name))
    {
        Decision::Admit(pass) => pass,
        Decision::Refuse(reply) => panic!("{}", code(&reply)),
    };
    let [sold_out, late, later] =
        [(&spring(), "u1"), (&other, "u2"), (&other, "u3")].map(|(campaign, name)| admit(&mut edge, campaign, name));
    edge.settle(0, &sold_out, about(&spring(), Outcome::SoldOut, 5));
    let second = SyncCampaign { id: other.clone(), ..told(1, 5, 0, NOW) };
    edge.sync(vec![told(1, 5, 5, NOW), second], true);
    edge.settle(0, &late, about(&other, Outcome::Issued, 1));
    assert_eq!(edge.code(0, "u4"), "sold_out");
    let pass = admit(&mut edge, &other, "u5");
    edge.settle(0, &pass, about(&other, Outcome::Issued, 2));
    // It has its own account now, which learns from a request that was admitted before.
    edge.settle(0, &later, about(&other, Outcome::SoldOut, 5));
    let refused = edge.ask(0, Ok(other), user("u6"));
    assert!(matches!(refused, Decision::Refuse(reply) if code(&reply) == "sold_out"));
}

#[test]
fn past_the_rounds_it_was_told_an_edge_is_warming_and_not_ended() {
    let mut edge = Edge::synced(1, NOW);
    let (first, last) = rounds();
    let mut campaign = told(1, 5, 0, NOW);
    campaign.timetable.rounds = vec![first];
    campaign.timetable.more = true;
    edge.sync(vec![campaign], true);
    edge.wait(last.opens_ms() + HOUR - NOW);
    assert_eq!(edge.admit(0, "u1").round, None);
}

#[test]
fn without_the_backend_latches_are_probed_once_a_second() {
    let mut edge = Edge::synced(2, NOW);
    edge.sync(vec![told(1, 1, 1, NOW)], true);
    assert_eq!(edge.code(0, "u1"), "sold_out");
    edge.wait(5_001);
    let probe = edge.admit(0, "u2");
    assert_eq!(edge.code(0, "u3"), "sold_out");
    assert_eq!(edge.code(1, "u3"), "sold_out");
    // An operator has raised the quota meanwhile; the probe finds out.
    edge.settle(0, &probe, notice(Outcome::Issued, 2, 5, 2));
    edge.wait(50);
    assert_eq!(edge.code(1, "u4"), "admitted");
}

#[test]
fn around_an_opening_a_few_find_out_and_the_first_answer_ends_the_doubt() {
    let (first, _) = rounds();
    let mut edge = Edge::synced(2, first.opens_ms() - 1);
    edge.sync(vec![told(1, 100, 0, first.opens_ms() - 1)], true);
    let mut passes: Vec<Pass> = (0..16).map(|n| edge.admit(n % 2, &format!("u{n}"))).collect();
    assert_eq!(edge.code(0, "u99"), "busy");
    let pass = passes.swap_remove(0);
    edge.settle(0, &pass, notice(Outcome::Issued, 1, 100, 1));
    assert_eq!(edge.admit(1, "u98").round, Some(first.id));
    edge.wait(10_000);
    assert_eq!(edge.code(0, "u97"), "admitted");
}

#[test]
fn a_round_that_closes_refuses_nobody_of_the_next_one() {
    // Open all day: one round closes as the next one opens.
    let config = r#"{"campaigns": [{"id": "spring", "quota": 1, "schedule": {"timezone": "UTC",
        "first_day": "2026-05-01", "last_day": "2026-05-03", "opens": "00:00", "closes": "24:00"}}]}"#;
    let midnight = DateTime::parse_from_rfc3339("2026-05-02T00:00:00Z").unwrap().timestamp_millis();
    let mut edge = Edge::start(config, 1, midnight - HOUR);
    let pass = edge.admit(0, "u1");
    let yesterday =
        notice(Outcome::Issued, 1, 1, 0).map(|notice| Notice { round: "2026-05-01".parse().ok(), ..notice });
    edge.settle(0, &pass, yesterday);
    assert_eq!(edge.code(0, "u2"), "sold_out");
    edge.wait(HOUR);
    let pass = edge.admit(0, "u1");
    assert_eq!(pass.round, None, "neither the latch nor the table of winners holds here");
    edge.wait(HOUR);
    edge.settle(0, &pass, None);
    edge.wait(1_000);
    assert_eq!(edge.admit(0, "u1").round.unwrap().to_string(), "2026-05-02");
}

#[test]
fn an_answer_about_another_campaign_is_no_answer() {
    let mut edge = Edge::written(1, NOW);
    let pass = edge.admit(0, "u1");
    let other = notice(Outcome::SoldOut, 1, 1, 0)
        .map(|notice| Notice { campaign: CampaignId::parse("other").unwrap(), ..notice });
    edge.settle(0, &pass, other);
    edge.wait(1_000);
    assert_eq!(edge.code(1, "u1"), "admitted");
}

#[test]
fn a_backend_that_lags_behind_takes_no_version_back() {
    let mut edge = Edge::synced(2, NOW);
    edge.sync(vec![told(1, 1, 1, NOW)], true);
    edge.sync(vec![told(2, 2, 1, NOW)], true);
    edge.sync(vec![told(1, 1, 1, NOW)], true);
    assert_eq!(edge.code(1, "u1"), "admitted");
}

#[test]
fn a_backend_that_lags_behind_brings_back_no_latch() {
    let mut edge = Edge::synced(1, NOW);
    edge.sync(vec![told(1, 1, 0, NOW)], true);
    let pass = edge.admit(0, "u1");
    edge.settle(0, &pass, notice(Outcome::Issued, 1, 2, 2));
    let response = SyncResponse {
        now_ms: NOW,
        uncertainty_ms: 1,
        gateways: 1,
        complete: true,
        campaigns: vec![told(1, 1, 1, NOW)],
    };
    let clock = OriginClock { offset_ms: 0, uncertainty_ms: 2 };
    edge.workers[0].accept(Snapshot { number: 99, received_ms: NOW, wall_ahead_ms: 0, clock, response }, &edge.shared);
    assert_eq!(edge.code(0, "u2"), "admitted", "before its next tick");
}

#[test]
fn a_campaign_that_is_written_and_synced_keeps_its_counts() {
    let config = r#"{"sync": {"cluster": "control"}, "campaigns": [{"id": "spring", "quota": null, "schedule": {"timezone": "Asia/Seoul",
        "first_day": "2026-05-01", "last_day": "2026-05-02", "opens": "13:00", "closes": "15:00"}}]}"#;
    let mut edge = Edge::start(config, 1, NOW);
    edge.sync(vec![told(1, 1, 1, NOW)], true);
    assert_eq!(edge.code(0, "u1"), "sold_out");
    edge.sync(vec![told(1, 1, 1, NOW)], true);
    assert_eq!(edge.flush(0), [("spring".to_owned(), "sold_out", 1)]);
}

#[test]
fn a_pending_request_of_which_no_sync_will_tell_ages_in_its_slot() {
    let campaign = r#"{"id": "spring", "quota": 1, "schedule": {"timezone": "Asia/Seoul",
        "first_day": "2026-05-01", "last_day": "2026-05-02", "opens": "13:00", "closes": "15:00"}}"#;
    let beside_a_sync = format!(r#"{{"sync": {{"cluster": "control"}}, "campaigns": [{campaign}]}}"#);
    let warming = r#"{"sync": {"cluster": "control"}, "credits": {"warming": 1}}"#;
    for config in [&beside_a_sync, warming] {
        let mut edge = Edge::start(config, 1, NOW);
        let pass = edge.admit(0, "u1");
        edge.settle(0, &pass, notice(Outcome::Pending, 0, 1, 0));
        edge.wait(11_000);
        edge.sync(vec![], false);
        assert!(matches!(edge.ask(0, Ok(spring()), user("u2")), Decision::Admit(_)), "{config}");
    }
}

#[test]
fn another_campaign_in_the_same_account_is_not_mistaken_for_this_one() {
    let mut edge = Edge::synced(1, NOW);
    edge.sync(vec![told(1, 1, 0, NOW)], true);
    let late = edge.admit(0, "u1");
    // Its account goes to a campaign that is sold out, while the worker has yet to hear of it.
    let key = late.credit.as_ref().unwrap().account.clone();
    state::update_account(&edge.shared, &key, 0, &mut 0, |account| {
        *account = CreditAccount { round: Some(rounds().0.id), sold_out: true, ..CreditAccount::new(99) };
    });
    edge.settle(0, &late, None);
    assert!(edge.workers[0].refuse_at_once(&Ok(spring())).is_none());
}

#[test]
fn no_limit_admits_everybody_but_winners() {
    let mut edge = Edge::synced(1, NOW);
    edge.sync(vec![SyncCampaign { quota: None, ..told(1, 1, 0, NOW) }], true);
    for n in 0..1_000 {
        let pass = edge.admit(0, &format!("u{n}"));
        let told = notice(Outcome::Issued, n + 1, 1, 1).map(|notice| Notice { quota: None, ..notice });
        edge.settle(0, &pass, told);
    }
    assert_eq!(edge.code(0, "u7"), "already_issued");
}

#[test]
fn counts_are_handed_out_once() {
    let mut edge = Edge::written(5, NOW);
    edge.admit(0, "u1");
    let _ = edge.ask(0, Ok(spring()), Err(Refusal::MissingUser));
    let _ = edge.ask(0, Err(Refusal::InvalidCampaign), user("u1"));
    let counted = [("-", "invalid_campaign", 1), ("spring", "admitted", 1), ("spring", "missing_user", 1)];
    assert_eq!(edge.flush(0), counted.map(|(name, decision, count)| (name.to_owned(), decision, count)));
    assert_eq!(edge.flush(0), []);
}

#[test]
fn five_thousand_deleted_campaigns_leave_a_bounded_number_of_series() {
    let most = 200;
    let mut edge = Edge::start(r#"{"sync": {"cluster": "control", "max_campaigns": 4}}"#, 2, NOW);
    let mut series = std::collections::BTreeSet::new();
    let mut counted = 0;
    for number in 0..5_000 {
        let id = CampaignId::parse(&format!("drop-{number}")).unwrap();
        edge.sync(vec![SyncCampaign { id: id.clone(), ..told(1, 5, 0, NOW) }], true);
        for worker in [0, 1] {
            let _ = edge.ask(worker, Ok(id.clone()), Err(Refusal::MissingUser));
            for (name, _, count) in edge.flush(worker) {
                series.insert(name);
                counted += count;
            }
        }
    }
    assert_eq!(counted, 10_000, "all are counted somewhere");
    assert_eq!(series.len(), most + 1, "of both workers together, and one for the others");
    assert!(series.contains("drop-0") && series.contains("_other"));
    // A new configuration names the same ones.
    edge.workers[0] = edge.configure();
    for (number, name) in [(0, "drop-0"), (4_999, "_other")] {
        let id = CampaignId::parse(&format!("drop-{number}")).unwrap();
        edge.sync(vec![SyncCampaign { id: id.clone(), ..told(1, 5, 0, NOW) }], true);
        let _ = edge.ask(0, Ok(id), Err(Refusal::MissingUser));
        assert_eq!(edge.flush(0), [(name.to_owned(), "missing_user", 1)]);
    }
}

#[test]
fn totals_are_reported_until_the_backend_has_answered() {
    let mut edge = Edge::synced(2, NOW);
    edge.sync(vec![told(1, 5, 0, NOW)], true);
    let sync = edge.config.sync.clone().unwrap();
    for worker in [0, 1] {
        let _ = edge.ask(worker, Ok(spring()), Err(Refusal::MissingUser));
        edge.flush(worker);
    }
    let reported = |edge: &mut Edge| {
        let body = edge.workers[0].ask(90, &sync, &edge.shared, at(edge.now_ms));
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        body["totals"].clone()
    };
    let totals = serde_json::json!([{"campaign": "spring", "round": "2026-05-01", "decisions": {"missing_user": 2}}]);
    assert_eq!(reported(&mut edge), totals);
    assert_eq!(reported(&mut edge), totals, "nobody has answered");
    edge.sync(vec![told(1, 5, 0, NOW)], true);
    assert_eq!(reported(&mut edge), serde_json::Value::Null);
}

#[test]
fn the_count_comes_from_the_snapshot_while_that_is_young() {
    let mut edge = Edge::synced(2, NOW);
    assert!(
        edge.workers[1].count(&Ok(spring()), &At { shared: &edge.shared, now_ms: edge.now_ms }).is_none(),
        "before the first sync"
    );
    edge.sync(vec![told(1, 5, 2, NOW)], true);
    let pass = edge.admit(0, "u1");
    edge.settle(0, &pass, notice(Outcome::Issued, 3, 5, 1));
    let reply = edge.workers[1].count(&Ok(spring()), &At { shared: &edge.shared, now_ms: edge.now_ms }).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((&body["state"], &body["issued"], &body["remaining"]), (&"open".into(), &3.into(), &2.into()));
    edge.wait(5_001);
    assert!(
        edge.workers[1].count(&Ok(spring()), &At { shared: &edge.shared, now_ms: edge.now_ms }).is_none(),
        "too old"
    );
    let mut written = Edge::written(5, NOW);
    assert!(
        written.workers[0].count(&Ok(spring()), &At { shared: &written.shared, now_ms: NOW }).is_none(),
        "only its origin knows"
    );
}

/// Three requests at a gateway whose clocks have moved since its last tick.
fn after_a_stop(edge: &mut Edge, passed_ms: i64, wall_ahead_ms: i64) -> Vec<String> {
    let time = HostTime { host_ms: edge.now_ms + passed_ms, wall_ahead_ms };
    let host = crate::host::model::Apart { shared: &edge.shared, time };
    let ask = |name| edge.workers[0].decide(&Ok(spring()), || user(name), &host);
    let code = |decision| match decision {
        Decision::Refuse(reply) => code(&reply),
        Decision::Admit(_) => "admitted".to_owned(),
    };
    ["u1", "u2", "u3"].map(ask).map(code).into()
}

#[test]
fn requests_after_a_stop_are_not_decided_with_the_last_tick() {
    let before_ms = 10_000;
    for (stopped_ms, suspended_ms) in [(20_000, 0), (0, 20_000)] {
        let opens_ms = rounds().0.opens_ms();
        let mut edge = Edge::synced(1, opens_ms - before_ms);
        edge.sync(vec![told(1, 2, 0, edge.now_ms)], true);
        assert_eq!(edge.code(0, "u1"), "not_started");
        let codes = after_a_stop(&mut edge, stopped_ms, suspended_ms);
        assert!(!codes.iter().any(|code| code == "not_started"), "{stopped_ms} {suspended_ms}: {codes:?}");
    }
}

#[test]
fn wall_clock_that_is_set_refuses_nothing_for_good_until_the_next_sync() {
    for set_ms in [-7 * HOUR, -50_000, 50_000, 7 * HOUR] {
        let mut edge = Edge::synced(1, NOW);
        edge.sync(vec![told(1, 100, 0, NOW)], true);
        assert_eq!(edge.code(0, "u9"), "admitted");
        let codes = after_a_stop(&mut edge, 50, set_ms);
        let waits = |code: &String| ["admitted", "busy"].contains(&code.as_str());
        assert!(codes.iter().all(waits), "{set_ms}: {codes:?}");
    }
}

#[test]
fn uncertainty_above_the_skew_makes_the_edge_less_certain() {
    let opens_ms = rounds().0.opens_ms();
    let mut edge = Edge::synced(1, opens_ms - 900);
    edge.sync(vec![told(1, 5, 0, edge.now_ms)], true);
    assert_eq!(edge.code(0, "u1"), "not_started");
    // A slow answer: more than `skew_ms` is unknown.
    let campaigns = vec![told(1, 5, 0, edge.now_ms)];
    let now_ms = edge.now_ms;
    let response = SyncResponse { now_ms, uncertainty_ms: 1, gateways: 1, complete: true, campaigns };
    let clock = OriginClock { offset_ms: 0, uncertainty_ms: 1_000 };
    let snapshot = Snapshot { number: 9, received_ms: now_ms, wall_ahead_ms: 0, clock, response };
    edge.workers[0].accept(snapshot, &edge.shared);
    edge.wait(0);
    assert_eq!(edge.code(0, "u2"), "admitted");
}

#[test]
fn a_ticket_proves_what_was_admitted() {
    let mut edge = Edge::start(r#"{"sync": {"cluster": "control"}, "ticket": {}}"#, 1, NOW);
    edge.sync(vec![told(1, 5, 0, NOW)], true);
    let pass = edge.admit(0, "u1");
    let ticket = edge.workers[0].ticket(&pass, &At { shared: &edge.shared, now_ms: NOW }).unwrap();
    let user = user("u1").unwrap();
    let admitted = Admitted { campaign: &spring(), round: "2026-05-01", user: &user };
    assert_eq!(ticket::check(&ticket, [SECRET.as_bytes()], &admitted, NOW), Ok(()));
}
