//! One worker with what it has under way.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use doorbuster_domain::id::{RoundId, UserId};
use doorbuster_domain::notice::{Notice, RESULT_HEADER};
use doorbuster_domain::request::USER_HEADER;
use doorbuster_domain::wire::SyncResponse;

use super::calls::{Answer, one_call};
use super::origin::{Drop, User, campaign_id};
use super::{Broken, Scenario};
use crate::exchange::{Action, Exchange};
use crate::gate::Pass;
use crate::host::model::{Apart, Model, ModelHeaders};
use crate::host::{Changed, HostTime, SharedData, Versioned};
use crate::reply::Reply;
use crate::state::Namespace;
use crate::sync::Snapshot;
use crate::worker::Worker as Subject;

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
    /// The worker did not know the campaign, and no origin had confirmed it.
    Unconfirmed,
    /// The worker did not know the campaign; an origin had confirmed it.
    Confirmed,
}

impl Kind {
    fn of(pass: &Pass, names: &Namespace) -> Self {
        match &pass.credit {
            Some(credit) if credit.account == names.unconfirmed() => Self::Unconfirmed,
            Some(credit) if credit.account == names.confirmed() => Self::Confirmed,
            Some(credit) if credit.permit.probe => Self::Probe,
            _ if pass.round.is_none() => Self::Unclear,
            _ => Self::Ordinary,
        }
    }
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Ends {
    /// With a response: the origin's, or one that says nothing.
    Answered,
    /// Its client resets it.
    Abandoned,
}

/// A request with the origin.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub(super) drop: Drop,
    pub(super) user: User,
    pub(super) kind: Kind,
    pub(super) since_ms: i64,
    /// What the origin has answered, on its way back.
    pub(super) answer: Option<Notice>,
    pub(super) ends: Ends,
    pub(super) round: Option<RoundId>,
    pub(super) exchange: Exchange,
}

impl Flight {
    fn new(drop: Drop, user: User, exchange: Exchange, kind: Kind, since_ms: i64) -> Self {
        let round = exchange.pass().and_then(|pass| pass.round);
        Self { drop, user, kind, since_ms, answer: None, ends: Ends::Answered, round, exchange }
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.drop, self.user, self.kind, self.since_ms, self.ends, self.round).hash(&mut hasher);
        let answer = self.answer.as_ref();
        answer.map(|told| (told.outcome, told.round, told.issued, told.quota, told.version)).hash(&mut hasher);
        hasher.finish()
    }
}

/// The clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time {
    pub(super) host: HostTime,
    /// What a sync finds: the origin's clock less the monotonic one, but for what it cannot know.
    pub(super) origin_offset_ms: i64,
}

/// A sync under way.
#[derive(Debug, Clone)]
pub(super) struct Sync {
    pub(super) number: u64,
    pub(super) answer: Option<Rc<SyncResponse>>,
}

/// What a worker does in one go.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Request(Drop, User),
    Settle(Flight),
    /// With what the gateway had heard of each campaign when the tick began.
    Tick(Rc<[Heard]>),
    /// With the sync's number.
    Ask(u64),
    Accept(u64, Rc<SyncResponse>),
    /// A new VM.
    Start,
}

/// What a request has come to.
#[derive(Debug)]
pub(super) enum Answered {
    /// It goes to the origin.
    Admitted(Flight),
    /// The gateway answered it.
    Refused(Rc<Reply>),
}

impl Step {
    /// Runs the code under test.
    fn run(&self, subject: &mut Subject, shared: &dyn SharedData, scenario: &Scenario, time: Time) -> Option<Answered> {
        let (host, now_ms) = (Apart { shared, time: time.host }, time.host.host_ms);
        match self {
            Self::Request(drop, user) => {
                let mut exchange = Exchange::default();
                let sender = if scenario.broken == Some(Broken::MixesUpUsers) { 0 } else { *user };
                let path = format!("/v1/coupon/issue?campaign={}", campaign_id(*drop));
                let sender = user_id(sender);
                let headers = [(":method", "POST"), (":path", path.as_str()), (USER_HEADER, sender.as_str())];
                let mut headers = ModelHeaders::new(headers);
                return Some(match exchange.request_headers(subject, &mut headers, &host, true) {
                    Action::Reply(reply) => Answered::Refused(reply),
                    Action::Continue | Action::Pause => {
                        let pass = exchange.pass().expect("a guarded request is admitted or refused");
                        let kind = Kind::of(pass, subject.gate.namespace());
                        Answered::Admitted(Flight::new(*drop, *user, exchange, kind, now_ms))
                    }
                });
            }
            Self::Settle(flight) => {
                let mut exchange = flight.exchange.clone();
                if flight.ends == Ends::Answered {
                    let notice = flight.answer.as_ref().map(Notice::to_string);
                    let mut headers = ModelHeaders::new(notice.as_deref().map(|notice| (RESULT_HEADER, notice)));
                    exchange.response_headers(subject, &mut headers, &host);
                }
                if scenario.broken == Some(Broken::SettlesTwice) {
                    flight.exchange.clone().ended(subject, &host);
                }
                exchange.ended(subject, &host);
            }
            Self::Tick(_) if scenario.broken == Some(Broken::TicksWithoutLooking) => {}
            Self::Tick(_) => subject.gate.tick(shared, time.host),
            Self::Ask(number) => {
                if let Some(sync) = &scenario.config.sync {
                    subject.gate.ask(*number, sync, shared, time.host);
                }
            }
            Self::Accept(number, response) => {
                let (number, clock) = (*number, scenario.clock(time.origin_offset_ms));
                let (wall_ahead_ms, response) = (time.host.wall_ahead_ms, response.as_ref().clone());
                let snapshot = Snapshot { number, received_ms: now_ms, wall_ahead_ms, clock, response };
                subject.gate.accept(snapshot, shared);
            }
            Self::Start => *subject = start(scenario, shared, time),
        }
        None
    }

    /// Numbers of syncs count from the newest one, `asked`.
    fn fingerprint(&self, asked: u64) -> impl Hash {
        match self {
            Self::Request(drop, user) => (0, *drop as u64 * 1_000 + u64::from(*user)),
            Self::Settle(flight) => (1, flight.fingerprint()),
            Self::Tick(heard) => (2, heard.iter().fold(0, |sum, heard| sum * 10_000 + heard.any * 100 + heard.synced)),
            Self::Ask(number) => (3, asked - number),
            Self::Accept(number, response) => (4, (asked - number) ^ response_fingerprint(response)),
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
    pub(super) subject: Subject,
    pub(super) flights: Vec<Flight>,
    pub(super) syncs: Vec<Sync>,
    /// What the gateway had heard when this worker last ticked: of older versions it may not speak any more.
    pub(super) obliged: Rc<[Heard]>,
    running: Option<Running>,
}

impl Worker {
    pub(super) fn start(scenario: &Scenario, shared: &dyn SharedData, time: Time) -> Self {
        let subject = start(scenario, shared, time);
        let obliged = scenario.drops.iter().map(|_| Heard::default()).collect();
        Self { subject, flights: Vec::new(), syncs: Vec::new(), obliged, running: None }
    }

    /// Whether it is between two calls of a step.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The user whose request it is about to decide.
    pub(super) fn asking(&self) -> Option<User> {
        match self.running.as_ref()?.step {
            Step::Request(_, user) => Some(user),
            _ => None,
        }
    }

    /// Does the whole of `step`.
    pub(super) fn run(&mut self, step: &Step, model: &Model, scenario: &Scenario, time: Time) -> Option<Answered> {
        step.run(&mut self.subject, &Writes { model, broken: scenario.broken }, scenario, time)
    }

    pub(super) fn begin(&mut self, step: Step) {
        self.running = Some(Running { step, answers: Vec::new() });
    }

    /// What it was doing, and had under way, is lost with its VM.
    pub(super) fn lose(&mut self) -> Vec<Flight> {
        self.running = None;
        self.syncs.clear();
        std::mem::take(&mut self.flights)
    }

    /// Makes one call of the step that runs. The step and what it came to, if that was the last one.
    pub(super) fn go_on(&mut self, model: &Model, scenario: &Scenario, time: Time) -> Option<(Step, Option<Answered>)> {
        let mut running = self.running.take()?;
        let mut subject = self.subject.clone();
        let shared = Writes { model, broken: scenario.broken };
        let done =
            one_call(&shared, &mut running.answers, |shared| running.step.run(&mut subject, shared, scenario, time));
        match done {
            Some(decision) => {
                self.subject = subject;
                Some((running.step, decision))
            }
            None => {
                self.running = Some(running);
                None
            }
        }
    }

    /// Equal for workers that go on alike. `generation`: of the snapshot in shared data.
    pub(super) fn fingerprint(&self, model: &Model, generation: u64, asked: u64, now_ms: i64) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.subject.gate.essence(now_ms, generation).hash(&mut hasher);
        let mut flights: Vec<u64> = self.flights.iter().map(Flight::fingerprint).collect();
        flights.sort_unstable();
        (flights, &self.obliged).hash(&mut hasher);
        let answer = |sync: &Sync| sync.answer.as_ref().map(|response| response_fingerprint(response));
        let mut syncs: Vec<_> = self.syncs.iter().map(|sync| (asked - sync.number, answer(sync))).collect();
        syncs.sort_unstable();
        syncs.hash(&mut hasher);
        if let Some(running) = &self.running {
            running.step.fingerprint(asked).hash(&mut hasher);
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

fn start(scenario: &Scenario, shared: &dyn SharedData, time: Time) -> Subject {
    Subject::new(Rc::clone(&scenario.config), &Apart { shared, time: time.host })
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
