//! One worker with what it has under way.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use doorbuster_domain::id::{RoundId, UserId};
use doorbuster_domain::notice::Notice;
use doorbuster_domain::wire::SyncResponse;

use super::calls::{Answer, one_call};
use super::origin::{User, spring};
use super::{Broken, Scenario};
use crate::credits::Ending;
use crate::gate::{Decision, Gate, Pass};
use crate::host::model::Model;
use crate::host::{Changed, SharedData, Versioned};
use crate::state::{self, LedgerKey};
use crate::sync::Snapshot;

/// How much of a campaign's versions somebody knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Heard {
    /// The newest version that a notice or a sync told.
    pub(super) any: u64,
    /// The newest one that a sync told: only a sync tells of a pause.
    pub(super) synced: u64,
}

/// By what right a request was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Ordinary,
    Probe,
    /// The clock could not tell the round.
    Unclear,
    /// The worker did not know the campaign.
    Unknown,
}

impl Kind {
    fn of(pass: &Pass) -> Self {
        match &pass.credit {
            Some(credit) if credit.account == LedgerKey::unknown() => Self::Unknown,
            Some(credit) if credit.permit.probe => Self::Probe,
            _ if pass.round.is_none() => Self::Unclear,
            _ => Self::Ordinary,
        }
    }
}

/// A request with the origin.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub(super) user: User,
    pub(super) kind: Kind,
    pub(super) since_ms: i64,
    /// What the origin has answered, on its way back.
    pub(super) answer: Option<Notice>,
    pub(super) pass: Rc<Pass>,
}

impl Flight {
    pub(super) fn new(user: User, pass: Pass, since_ms: i64) -> Self {
        Self { user, kind: Kind::of(&pass), since_ms, answer: None, pass: Rc::new(pass) }
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.user, self.kind, self.since_ms, self.pass.round).hash(&mut hasher);
        let answer = self.answer.as_ref();
        answer.map(|told| (told.outcome, told.round, told.issued, told.quota, told.version)).hash(&mut hasher);
        hasher.finish()
    }
}

/// A sync under way.
#[derive(Debug, Clone)]
pub(super) enum Sync {
    Asked,
    Answered(Rc<SyncResponse>),
}

/// What a worker does in one go.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Request(User),
    Settle(Flight),
    /// With what the gateway had heard when the tick began.
    Tick(Heard),
    Ask,
    Accept(Rc<SyncResponse>),
    /// A new VM.
    Start,
}

impl Step {
    /// Runs the code under test.
    fn run(&self, gate: &mut Gate, shared: &dyn SharedData, scenario: &Scenario, now_ms: i64) -> Option<Decision> {
        match self {
            Self::Request(user) => {
                let (campaign, user) = (Ok(spring()), Ok(user_id(*user)));
                let mixed_up = (scenario.broken == Some(Broken::MixesUpUsers)).then(|| Ok(user_id(0)));
                let again = mixed_up.as_ref().unwrap_or(&user);
                let refused = gate.refuse_at_once(&campaign).or_else(|| gate.refuse_again(&campaign, again, shared));
                return Some(match refused {
                    Some(reply) => Decision::Refuse(reply),
                    None => gate.decide(&campaign, &user, shared, now_ms, 0),
                });
            }
            Self::Settle(flight) => {
                let times = if scenario.broken == Some(Broken::SettlesTwice) { 2 } else { 1 };
                for _ in 0..times {
                    let ending = flight.answer.clone().map_or(Ending::Silent, Ending::Told);
                    gate.settle(&flight.pass, ending, shared, now_ms);
                }
            }
            Self::Tick(_) if scenario.broken == Some(Broken::TicksWithoutLooking) => {}
            Self::Tick(_) => gate.tick(shared, now_ms),
            Self::Ask => {
                if let Some(sync) = &scenario.config.sync {
                    gate.ask(sync, shared, now_ms);
                }
            }
            Self::Accept(response) => {
                let clock = scenario.clock();
                gate.accept(Snapshot { received_ms: now_ms, clock, response: response.as_ref().clone() }, shared);
            }
            Self::Start => *gate = start(scenario, shared, now_ms),
        }
        None
    }

    fn fingerprint(&self) -> impl Hash {
        match self {
            Self::Request(user) => (0, u64::from(*user)),
            Self::Settle(flight) => (1, flight.fingerprint()),
            Self::Tick(heard) => (2, heard.any * 1_000 + heard.synced),
            Self::Ask => (3, 0),
            Self::Accept(response) => (4, response_fingerprint(response)),
            Self::Start => (5, 0),
        }
    }
}

/// A step between two calls.
#[derive(Debug, Clone)]
struct Running {
    step: Step,
    answers: Vec<Answer>,
}

/// One worker.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) gate: Gate,
    pub(super) flights: Vec<Flight>,
    pub(super) sync: Option<Sync>,
    /// What the gateway had heard when this worker last ticked: of older versions it may not speak any more.
    pub(super) obliged: Heard,
    running: Option<Running>,
}

impl Worker {
    pub(super) fn start(scenario: &Scenario, shared: &dyn SharedData, now_ms: i64) -> Self {
        let gate = start(scenario, shared, now_ms);
        Self { gate, flights: Vec::new(), sync: None, obliged: Heard::default(), running: None }
    }

    /// Whether it is between two calls of a step.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Does the whole of `step`.
    pub(super) fn run(&mut self, step: &Step, model: &Model, scenario: &Scenario, now_ms: i64) -> Option<Decision> {
        step.run(&mut self.gate, &Writes { model, broken: scenario.broken }, scenario, now_ms)
    }

    pub(super) fn begin(&mut self, step: Step) {
        self.running = Some(Running { step, answers: Vec::new() });
    }

    /// What it was doing, and had under way, is lost with its VM.
    pub(super) fn lose(&mut self) -> Vec<Flight> {
        self.running = None;
        self.sync = None;
        std::mem::take(&mut self.flights)
    }

    /// Makes one call of the step that runs. The step and what it came to, if that was the last one.
    pub(super) fn go_on(
        &mut self,
        model: &Model,
        scenario: &Scenario,
        now_ms: i64,
    ) -> Option<(Step, Option<Decision>)> {
        let mut running = self.running.take()?;
        let mut gate = self.gate.clone();
        let shared = Writes { model, broken: scenario.broken };
        let done =
            one_call(&shared, &mut running.answers, |shared| running.step.run(&mut gate, shared, scenario, now_ms));
        match done {
            Some(decision) => {
                self.gate = gate;
                Some((running.step, decision))
            }
            None => {
                self.running = Some(running);
                None
            }
        }
    }

    /// Equal for workers that go on alike. `generation`: of the snapshot in shared data.
    pub(super) fn fingerprint(&self, model: &Model, generation: u64, now_ms: i64) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.gate.campaigns.get(&spring()).map(|campaign| campaign.essence(now_ms)).hash(&mut hasher);
        self.gate.remembered.essence().hash(&mut hasher);
        self.gate.synced.map(|synced| synced.received_ms).hash(&mut hasher);
        (self.gate.generation == generation).hash(&mut hasher);
        let mut flights: Vec<u64> = self.flights.iter().map(Flight::fingerprint).collect();
        flights.sort_unstable();
        (flights, self.obliged).hash(&mut hasher);
        match &self.sync {
            None => 0_u64.hash(&mut hasher),
            Some(Sync::Asked) => 1_u64.hash(&mut hasher),
            Some(Sync::Answered(response)) => response_fingerprint(response).hash(&mut hasher),
        }
        if let Some(running) = &self.running {
            running.step.fingerprint().hash(&mut hasher);
            for answer in &running.answers {
                match answer {
                    // Of the number of a change only this matters: whether it is still the last one.
                    Answer::Got(key, Some((value, number))) => {
                        let newest = model.get(key).is_some_and(|(_, newest)| newest == *number);
                        (key, value, newest).hash(&mut hasher);
                    }
                    other => other.hash(&mut hasher),
                }
            }
        }
        hasher.finish()
    }
}

/// The model's shared data, or a broken one.
struct Writes<'a> {
    model: &'a Model,
    broken: Option<Broken>,
}

impl SharedData for Writes<'_> {
    fn get(&self, key: &str) -> Option<Versioned> {
        self.model.get(key)
    }

    fn replace(&self, key: &str, value: &[u8], seen: u32) -> Result<(), Changed> {
        let seen = if self.broken == Some(Broken::WritesBlindly) { 0 } else { seen };
        self.model.set(key, value, seen)
    }

    fn create(&self, key: &str, value: &[u8]) -> Result<(), Changed> {
        self.model.create(key, value)
    }
}

fn start(scenario: &Scenario, shared: &dyn SharedData, now_ms: i64) -> Gate {
    let process = state::process(shared, [1, 2, 3, 4]);
    Gate::new(Rc::clone(&scenario.config), process, shared, now_ms)
}

pub(super) fn user_id(user: User) -> UserId {
    UserId::parse(&format!("u{user}")).unwrap()
}

fn response_fingerprint(response: &SyncResponse) -> u64 {
    let mut hasher = DefaultHasher::new();
    response.now_ms.hash(&mut hasher);
    for told in &response.campaigns {
        let round: Option<RoundId> = told.round;
        (told.version, told.paused, told.quota, round, told.issued, told.reserved).hash(&mut hasher);
    }
    hasher.finish()
}
