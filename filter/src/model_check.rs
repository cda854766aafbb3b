//! The edge, model-checked: the code that decides, over every order of events that a bounded gateway can meet.
//!
//! A [`World`](world::World) is one gateway of a few workers, each a real [`Worker`](crate::worker::Worker) over a model of Envoy's
//! shared data, with an honest [`origin`] and the time. [`search`] visits every state that some number of events lead
//! to, and [`rules`] say what must hold: they know the origin's books and what the gateway was told, and nothing of how
//! the code keeps its accounts. Under [`Grain::Calls`] an event is not a whole step of a worker but one of its [`calls`]
//! of shared data, so that other workers act in the middle of a compare-and-swap.
//!
//! `DOORBUSTER_PROOF_DEEPER=2 cargo test --release` looks two events further than there is time for each day.
//!
//! That the rules notice what they are there for is shown with [`faults`], each of which must be found out.

mod calls;
mod events;
mod faults;
mod origin;
mod owed;
mod rules;
mod search;
mod worker;
mod world;

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use doorbuster_domain::schedule::{Round, Schedule, ScheduleSpec};

use self::events::Event::{self, *};
use self::origin::{Edition, User};
use self::search::explore;
use self::world::World;
use crate::config::Config;
use crate::sync::OriginClock;

/// What an event of a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grain {
    /// All that it does in one go.
    Steps,
    /// One call of shared data.
    Calls,
}

/// A fault that the rules must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// A shell that settles each request twice.
    SettlesTwice,
    /// A tick that looks at nothing.
    TicksWithoutLooking,
    /// Shared data that takes every write.
    WritesBlindly,
    /// A shell that asks for another user whether he asks again.
    MixesUpUsers,
    /// An origin that takes places which are merely held for coupons.
    TakesPendingForIssued,
    /// A backend that goes on telling of places which were given back.
    PlacesNeverComeBack,
}

/// A campaign.
#[derive(Debug, Clone)]
struct DropSpec {
    rounds: Vec<Round>,
    first: Edition,
    /// The backend does not know it.
    unlisted: bool,
}

/// What a search is about.
#[derive(Debug)]
struct Scenario {
    config: Rc<Config>,
    drops: Vec<DropSpec>,
    grain: Grain,
    workers: usize,
    /// Syncs under way at once.
    most_syncs: usize,
    users: User,
    gateways: u32,
    /// What an operator may change to.
    editions: Vec<Edition>,
    most_versions: usize,
    start_ms: i64,
    /// How much the origin's clock is ahead of the gateway's, and how uncertain the gateway is of it.
    origin_ahead_ms: i64,
    uncertainty_ms: i64,
    /// For how long the process may be stopped or the machine suspended.
    stops_ms: Vec<i64>,
    /// By how much the gateway's wall clock may be set, once.
    sets_ms: Vec<i64>,
    /// Pauses that may pass at any time, and instants of which the next one may come.
    waits_ms: Vec<i64>,
    instants_ms: Vec<i64>,
    /// The age at which a credit that nobody settles is expected to be gone.
    ttl_ms: i64,
    /// Which events may happen.
    may: fn(&Event) -> bool,
    broken: Option<Broken>,
    /// What has been judged already, by fingerprint.
    aftermaths: RefCell<HashSet<u64>>,
}

impl Scenario {
    /// What a sync finds out: how far the origin's clock is ahead, nearly.
    fn clock(&self, offset_ms: i64) -> OriginClock {
        OriginClock { offset_ms, uncertainty_ms: self.uncertainty_ms }
    }

    /// The same with another quota of the first campaign.
    fn beginning(mut self, first: Edition) -> Self {
        self.drops[0].first = first;
        self
    }

    /// Whether the campaign is written in the plugin configuration.
    fn is_written(&self) -> bool {
        !self.config.campaigns.is_empty()
    }
}

const HOUR: i64 = 3_600_000;
/// 2026-05-01T00:00:00Z.
const MIDNIGHT: i64 = 1_777_593_600_000;

const CREDITS: &str = r#""credits": {"hold_ms": 400, "request_timeout_ms": 2000, "ttl_ms": 3000, "warming": 2},
    "boundary": {"grey_cap": 2, "skew_ms": 250}, "duplicates_bytes": 1024"#;
const SYNC: &str = r#""sync": {"cluster": "control", "max_campaigns": 1}"#;
const SYNC_TWO: &str = r#""sync": {"cluster": "control", "max_campaigns": 2}"#;

fn written(quota: u64, opens: &str, closes: &str) -> String {
    format!(
        r#""campaigns": [{{"id": "spring", "quota": {quota}, "schedule": {{"timezone": "UTC",
            "first_day": "2026-05-01", "last_day": "2026-05-02", "opens": "{opens}", "closes": "{closes}"}}}}]"#
    )
}

fn config(parts: &[&str]) -> Rc<Config> {
    let json = format!("{{{}}}", parts.join(", "));
    Rc::new(Config::parse(json.as_bytes(), |_| Some("a token of some length".into())).unwrap())
}

fn rounds(first_day: &str, opens: &str, closes: &str) -> Vec<Round> {
    let spec = ScheduleSpec {
        timezone: "UTC".into(),
        first_day: first_day.into(),
        last_day: "2026-05-02".into(),
        opens: opens.into(),
        closes: closes.into(),
        weekdays: None,
    };
    let schedule = Schedule::compile(&spec).unwrap();
    let (first, last) = (schedule.first_round(), schedule.last_round());
    if first.id == last.id { vec![first] } else { vec![first, last] }
}

fn scenario(opens: &str, closes: &str, config: &[&str]) -> Scenario {
    let drop = DropSpec { rounds: rounds("2026-05-01", opens, closes), first: open(2), unlisted: false };
    Scenario {
        config: self::config(config),
        drops: vec![drop],
        grain: Grain::Steps,
        workers: 3,
        most_syncs: 1,
        users: 3,
        gateways: 1,
        editions: Vec::new(),
        most_versions: 1,
        start_ms: MIDNIGHT + 12 * HOUR,
        origin_ahead_ms: 0,
        uncertainty_ms: 2,
        stops_ms: Vec::new(),
        sets_ms: Vec::new(),
        waits_ms: Vec::new(),
        instants_ms: Vec::new(),
        ttl_ms: 3_000,
        may: |_| true,
        broken: None,
        aftermaths: RefCell::default(),
    }
}

/// Of a campaign that is synced, in the middle of a round.
fn rush() -> Scenario {
    Scenario { waits_ms: vec![600, 3_500], ..scenario("08:00", "20:00", &[SYNC, CREDITS]) }
}

const fn open(quota: u64) -> Edition {
    Edition { quota, paused: false }
}

const PAUSED: Edition = Edition { quota: 2, paused: true };

/// A request of `user` at `worker`, the first one there, up to its answer.
const fn request(worker: usize, user: User, committing: bool) -> [Event; 3] {
    [Request { worker, user, drop: 0 }, Decide { worker, flight: 0, committing }, Settle { worker, flight: 0 }]
}

/// A sync with a backend that knows `version`.
const fn sync(version: u64) -> [Event; 3] {
    [Ask { worker: 0 }, Answer { worker: 0, sync: 0, version }, Accept { worker: 0, sync: 0 }]
}

/// No state that at most `depth` events lead to breaks a rule; and there are at least `states` of them, or something has
/// kept the search from its work.
fn proves(name: &str, starts: Vec<World>, depth: usize, states: usize) {
    let began = std::time::Instant::now();
    let deeper: usize = std::env::var("DOORBUSTER_PROOF_DEEPER").map_or(0, |deeper| deeper.parse().unwrap());
    let explored = explore(starts, depth + deeper).unwrap_or_else(|found| panic!("{name}: {found}"));
    println!("{name}: {explored} in {:.1} s", began.elapsed().as_secs_f64());
    assert!(explored.states >= states, "{name}: only {explored}");
}

#[test]
fn three_workers_in_a_rush() {
    let scenario = Scenario { may: |event| !matches!(event, IssueElsewhere { .. }), ..rush() };
    let fresh = World::start(scenario).synced();
    let one_left = fresh.following(&request(0, 0, true));
    let starts = vec![
        one_left.following(&request(1, 1, true)),
        one_left.following(&[Request { worker: 1, user: 1, drop: 0 }, Trap { worker: 1 }]),
        one_left.following(&request(1, 1, false)),
        one_left.following(&[Ask { worker: 2 }, Request { worker: 1, user: 1, drop: 0 }]),
        one_left,
        fresh,
    ];
    proves("a rush", starts, 6, 12_000);
}

#[test]
fn several_gateways_share_a_campaign() {
    let scenario = Scenario { gateways: 2, ..rush() }.beginning(open(3));
    let fresh = World::start(scenario).synced();
    let starts = vec![fresh.following(&[IssueElsewhere { drop: 0, user: 0 }]), fresh];
    proves("two gateways", starts, 5, 8_000);
}

#[test]
fn an_operator_changes_the_campaign() {
    let scenario = Scenario {
        editions: vec![open(2), open(1), PAUSED],
        most_versions: 3,
        may: |event| !matches!(event, IssueElsewhere { .. } | Trap { .. } | Decide { committing: false, .. }),
        ..rush()
    }
    .beginning(open(1));
    let fresh = World::start(scenario).synced();
    let sold_out = fresh.following(&request(0, 0, true));
    let latched =
        sold_out.following(&[Request { worker: 1, user: 1, drop: 0 }, Request { worker: 2, user: 1, drop: 0 }]);
    let starts = vec![
        latched.following(&[Change { drop: 0, to: 0 }]),
        latched.following(&[Change { drop: 0, to: 2 }]).following(&sync(2)),
        latched,
        fresh.following(&[Request { worker: 0, user: 0, drop: 0 }, Change { drop: 0, to: 0 }]),
    ];
    proves("changes", starts, 6, 8_000);
}

#[test]
fn a_backend_lags_behind() {
    let scenario = Scenario {
        editions: vec![open(3), PAUSED],
        most_versions: 3,
        users: 1,
        may: |event| {
            matches!(event, Request { .. } | Change { .. } | Ask { .. } | Answer { .. } | Accept { .. } | Tick { .. })
        },
        ..rush()
    }
    .beginning(open(0));
    proves("a lagging backend", vec![World::start(scenario).synced()], 10, 1_300);
}

/// A worker does not wait for the answer to a sync before it sends the next one, and two workers may sync at the same time
/// for a while.
#[test]
fn syncs_overlap() {
    let scenario = Scenario {
        workers: 2,
        most_syncs: 2,
        users: 2,
        editions: vec![open(3), PAUSED],
        most_versions: 2,
        waits_ms: vec![600],
        may: |event| !matches!(event, Trap { .. } | Abandon { .. } | Fail { .. } | LoseSync { .. }),
        ..rush()
    };
    let fresh = World::start(scenario).synced();
    let pending = [Request { worker: 1, user: 1, drop: 0 }, Decide { worker: 1, flight: 0, committing: false }];
    let asked = fresh.following(&pending).following(&[Ask { worker: 0 }, Settle { worker: 1, flight: 0 }]);
    let changed = fresh.following(&[Change { drop: 0, to: 1 }, Ask { worker: 0 }, Ask { worker: 1 }]);
    proves("overlapping syncs", vec![asked, changed, fresh], 5, 8_000);
}

#[test]
fn before_the_first_sync() {
    proves("warming", vec![World::start(rush())], 6, 9_000);
}

#[test]
fn any_origin() {
    let scenario = Scenario {
        editions: vec![open(3)],
        most_versions: 2,
        waits_ms: vec![600, 1_100, 3_500],
        ..scenario("08:00", "20:00", &[&written(2, "08:00", "20:00"), CREDITS])
    };
    let fresh = World::start(scenario);
    let sold_out = fresh.following(&request(0, 0, true)).following(&request(1, 1, true));
    let starts = vec![sold_out.following(&[Change { drop: 0, to: 0 }]), sold_out, fresh];
    proves("any origin", starts, 5, 14_000);
}

#[test]
fn a_campaign_that_only_the_configuration_knows() {
    let mut scenario = Scenario {
        waits_ms: vec![600, 1_100, 3_500],
        ..scenario("08:00", "20:00", &[&written(2, "08:00", "20:00"), SYNC, CREDITS])
    };
    scenario.drops[0].unlisted = true;
    proves("written beside a sync", vec![World::start(scenario).synced()], 5, 9_000);
}

/// A gateway starts while one campaign is open and nearly sold out. Of the other one a coupon is left, or it opens on the
/// next day.
#[test]
fn a_gateway_starts_during_two_campaigns() {
    for first_day in ["2026-05-01", "2026-05-02"] {
        let mut scenario = Scenario {
            workers: 2,
            users: 2,
            waits_ms: vec![600],
            may: |event| !matches!(event, IssueElsewhere { .. } | Decide { committing: false, .. } | Trap { .. }),
            ..scenario("08:00", "20:00", &[SYNC_TWO, CREDITS])
        }
        .beginning(open(1));
        scenario.drops.push(DropSpec { rounds: rounds(first_day, "08:00", "20:00"), first: open(1), unlisted: false });
        let starting = World::start(scenario);
        let both = starting.following(&[
            Request { worker: 0, user: 0, drop: 0 },
            Request { worker: 0, user: 1, drop: 1 },
            Decide { worker: 0, flight: 0, committing: true },
        ]);
        let starts = vec![
            both.following(&[Settle { worker: 0, flight: 0 }]).following(&sync(1)),
            both.following(&sync(1)),
            both,
            starting,
        ];
        proves(&format!("two campaigns, the second from {first_day}"), starts, 4, 3_000);
    }
}

#[test]
fn two_campaigns_in_a_rush() {
    let mut scenario = Scenario {
        workers: 2,
        may: |event| !matches!(event, IssueElsewhere { .. } | GiveBack { .. } | Commit { .. }),
        ..scenario("08:00", "20:00", &[SYNC_TWO, CREDITS])
    }
    .beginning(open(1));
    scenario.drops.push(DropSpec { rounds: rounds("2026-05-01", "08:00", "20:00"), first: open(2), unlisted: false });
    let fresh = World::start(scenario).synced();
    let sold_out = fresh.following(&request(0, 0, true));
    proves("two campaigns", vec![sold_out, fresh], 5, 8_000);
}

/// At an opening, a closing, and where one round closes as the next one opens.
#[test]
fn rounds_change() {
    let (gap, no_gap) = (("08:00", "20:00"), ("00:00", "24:00"));
    for (hours, boundary_h) in [(gap, 8), (gap, 20), (gap, 44), (no_gap, 24)] {
        for origin_ahead_ms in [-2, 0, 2] {
            let boundary_ms = MIDNIGHT + boundary_h * HOUR;
            let scenario = Scenario {
                start_ms: boundary_ms - 1_500,
                instants_ms: [-2, -1, 0, 1, 2, 3, 600].map(|ms| boundary_ms + ms).into(),
                origin_ahead_ms,
                may: |event| !matches!(event, Trap { .. } | LoseSync { .. } | Decide { committing: false, .. }),
                ..scenario(hours.0, hours.1, &[SYNC, CREDITS])
            }
            .beginning(open(1));
            let fresh = World::start(scenario).synced();
            let waits = |ms: i64| Wait { ms };
            let starts = vec![fresh.following(&[waits(1_498)]), fresh.following(&[waits(1_500)]), fresh];
            proves(&format!("{boundary_h} h, {origin_ahead_ms} ms ahead"), starts, 5, 1_300);
        }
    }
}

/// Around an opening and a closing the process is stopped, the machine suspended and the wall clock set.
#[test]
fn clocks_that_are_stopped_and_set() {
    for boundary_h in [8, 20] {
        let boundary_ms = MIDNIGHT + boundary_h * HOUR;
        for synced in [SYNC.to_owned(), written(1, "08:00", "20:00")] {
            let sets_ms = if synced == SYNC { vec![-7 * HOUR, -50_000, 50_000, 7 * HOUR] } else { Vec::new() };
            let scenario = Scenario {
                workers: 2,
                users: 2,
                start_ms: boundary_ms - 60_000,
                stops_ms: vec![57_000, 61_000, 25 * HOUR],
                waits_ms: vec![600],
                sets_ms,
                may: |event| !matches!(event, Trap { .. } | IssueElsewhere { .. } | Decide { committing: false, .. }),
                ..scenario("08:00", "20:00", &[&synced, CREDITS])
            }
            .beginning(open(1));
            let is_synced = scenario.config.sync.is_some();
            let starting = World::start(scenario);
            let fresh = if is_synced { starting.synced() } else { starting };
            proves(&format!("clocks, {boundary_h} h, synced: {is_synced}"), vec![fresh], 4, 300);
        }
    }
}

/// Workers remember winners, and answer by themselves when they ask again.
#[test]
fn winners_ask_again_from_round_to_round() {
    let scenario = Scenario {
        workers: 2,
        users: 2,
        waits_ms: vec![50, 24 * HOUR],
        editions: vec![open(3)],
        most_versions: 2,
        may: |event| !matches!(event, Trap { .. } | LoseSync { .. } | Fail { .. } | Decide { committing: false, .. }),
        ..rush()
    };
    let won = World::start(scenario).synced().following(&request(0, 0, true));
    let remembered = won.following(&[Request { worker: 0, user: 0, drop: 0 }, Request { worker: 1, user: 0, drop: 0 }]);
    let next_day = remembered.following(&[Wait { ms: 24 * HOUR }]);
    proves("winners ask again", vec![next_day.following(&sync(1)), remembered], 5, 5_000);
}

/// Steps of several workers whose calls of shared data fall between each other's.
#[test]
fn between_two_calls() {
    let scenario = Scenario {
        grain: Grain::Calls,
        workers: 2,
        users: 2,
        editions: vec![open(3)],
        most_versions: 2,
        may: |event| !matches!(event, IssueElsewhere { .. } | Wait { .. } | Decide { committing: false, .. }),
        ..rush()
    };
    let fresh = World::start(scenario).synced();
    let both = fresh.following(&[Request { worker: 0, user: 0, drop: 0 }, Request { worker: 1, user: 1, drop: 0 }]);
    let decided = [0, 1].map(|worker| Decide { worker, flight: 0, committing: true });
    let sold_out = both.following(&decided).following(&[0, 1].map(|worker| Settle { worker, flight: 0 }));
    let starts = vec![
        both.following(&decided),
        both,
        sold_out.following(&[Change { drop: 0, to: 0 }, Ask { worker: 0 }, Answer { worker: 0, sync: 0, version: 2 }]),
        fresh,
    ];
    proves("between calls", starts, 8, 20_000);
}

#[test]
fn three_workers_between_two_calls() {
    let scenario = Scenario {
        grain: Grain::Calls,
        may: |event| {
            matches!(
                event,
                Request { .. } | GoOn { .. } | Decide { committing: true, .. } | Settle { .. } | Fail { .. }
            )
        },
        ..rush()
    };
    proves("three between calls", vec![World::start(scenario).synced()], 13, 17_000);
}
