//! One gateway, its origin and the time: what may happen, and what follows.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use doorbuster_domain::id::RoundId;
use doorbuster_domain::notice::{Notice, Outcome};

use super::events::Event;
use super::origin::{Book, Edition, Origin, open_round, spring, timetable};
use super::owed::Owed;
use super::search::{System, Violation};
use super::worker::{Answered, Flight, Heard, Kind, Step, Sync, Worker, user_id};
use super::{Broken, Grain, Scenario};
use crate::host::model::Model;
use crate::state;

/// The filter gives up a sync after this, milliseconds.
const SYNC_TIMEOUT_MS: i64 = 2_000;

/// A state.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) scenario: Rc<Scenario>,
    pub(super) now_ms: i64,
    pub(super) shared: Model,
    pub(super) workers: Vec<Rc<Worker>>,
    pub(super) origin: Origin,
    pub(super) heard: Heard,
    /// The most committed coupons that the campaign's account was told of, by round.
    pub(super) heard_issued: BTreeMap<RoundId, u64>,
    pub(super) owed: Owed,
    pub(super) owed_unknown: Owed,
    /// Requests admitted around each opening or closing.
    pub(super) unclear: BTreeMap<i64, u32>,
    pub(super) probed_ms: Option<i64>,
}

impl World {
    /// A gateway that has just started.
    pub(super) fn start(scenario: Scenario) -> Self {
        let shared = Model::default();
        let now_ms = scenario.start_ms;
        let worker = || Rc::new(Worker::start(&scenario, &shared, now_ms));
        let workers = (0..scenario.workers).map(|_| worker()).collect();
        Self {
            now_ms,
            shared,
            workers,
            origin: Origin::new(scenario.first),
            heard: Heard::default(),
            heard_issued: BTreeMap::new(),
            owed: Owed::default(),
            owed_unknown: Owed::default(),
            unclear: BTreeMap::new(),
            probed_ms: None,
            scenario: Rc::new(scenario),
        }
    }

    /// The same after its first sync.
    pub(super) fn synced(mut self) -> Self {
        self.sync().unwrap();
        self
    }

    /// The same after these events, none of them interrupted.
    pub(super) fn following(&self, events: &[Event]) -> Self {
        let mut world = self.clone();
        for event in events {
            world.apply(*event).unwrap();
            let running = |world: &Self| world.workers.iter().position(|worker| worker.is_running());
            while let Some(worker) = running(&world) {
                world.go_on(worker).unwrap();
            }
        }
        world
    }

    /// The origin's clock.
    pub(super) fn origin_ms(&self) -> i64 {
        self.now_ms + self.scenario.origin_ahead_ms
    }

    /// One worker syncs and all tick, none of them interrupted.
    pub(super) fn sync(&mut self) -> Result<(), Violation> {
        self.step_whole(0, Step::Ask)?;
        let response = self.origin_answers(self.origin.version());
        self.owed.is_told();
        self.step_whole(0, Step::Accept(Rc::new(response)))?;
        Rc::make_mut(&mut self.workers[0]).sync = None;
        self.tick_all()
    }

    fn origin_answers(&self, version: u64) -> doorbuster_domain::wire::SyncResponse {
        let scenario = &self.scenario;
        let mut response = self.origin.sync(&scenario.rounds, version, scenario.gateways, self.origin_ms());
        if scenario.broken == Some(Broken::PlacesNeverComeBack) && !self.origin.books.is_empty() {
            response.campaigns.iter_mut().for_each(|told| told.reserved = scenario.first.quota);
        }
        response.campaigns.retain(|_| !scenario.unlisted);
        response
    }

    pub(super) fn tick_all(&mut self) -> Result<(), Violation> {
        (0..self.workers.len()).try_for_each(|worker| self.step_whole(worker, Step::Tick(self.heard)))
    }

    /// Time passes, of which no worker makes use.
    pub(super) fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        let now_ms = self.now_ms;
        self.owed.forget(now_ms);
        self.owed_unknown.forget(now_ms);
        if ms > SYNC_TIMEOUT_MS {
            for worker in &mut self.workers {
                Rc::make_mut(worker).sync = None;
            }
        }
    }

    /// Takes everything from a worker that its VM held.
    pub(super) fn lose(&mut self, worker: usize) {
        let ttl_ms = self.scenario.ttl_ms;
        for flight in Rc::make_mut(&mut self.workers[worker]).lose() {
            self.owed_for(flight.kind).leaked.push(flight.since_ms + ttl_ms);
        }
    }

    fn owed_for(&mut self, kind: Kind) -> &mut Owed {
        if kind == Kind::Unknown { &mut self.owed_unknown } else { &mut self.owed }
    }

    /// Begins a step: does the whole of it, or its first call.
    fn step(&mut self, worker: usize, step: Step) -> Result<(), Violation> {
        match self.scenario.grain {
            Grain::Steps => self.step_whole(worker, step),
            Grain::Calls => {
                Rc::make_mut(&mut self.workers[worker]).begin(step);
                self.go_on(worker)
            }
        }
    }

    fn go_on(&mut self, worker: usize) -> Result<(), Violation> {
        let scenario = Rc::clone(&self.scenario);
        match Rc::make_mut(&mut self.workers[worker]).go_on(&self.shared, &scenario, self.now_ms) {
            Some((step, answered)) => self.finish(worker, step, answered),
            None => Ok(()),
        }
    }

    pub(super) fn step_whole(&mut self, worker: usize, step: Step) -> Result<(), Violation> {
        let scenario = Rc::clone(&self.scenario);
        let answered = Rc::make_mut(&mut self.workers[worker]).run(&step, &self.shared, &scenario, self.now_ms);
        self.finish(worker, step, answered)
    }

    /// Keeps account of what a step has come to.
    fn finish(&mut self, worker: usize, step: Step, answered: Option<Answered>) -> Result<(), Violation> {
        match step {
            Step::Request(user) => match answered {
                Some(Answered::Admitted(flight)) => {
                    self.judge_admission(flight.kind)?;
                    match flight.kind {
                        Kind::Probe => self.probed_ms = Some(self.now_ms),
                        Kind::Unclear => *self.unclear.entry(self.nearest_boundary()).or_default() += 1,
                        Kind::Ordinary | Kind::Unknown => {}
                    }
                    Rc::make_mut(&mut self.workers[worker]).flights.push(flight);
                }
                Some(Answered::Refused(reply)) => self.judge_refusal(worker, user, &reply)?,
                None => {}
            },
            Step::Settle(flight) => self.settled(&flight),
            Step::Tick(heard) => Rc::make_mut(&mut self.workers[worker]).obliged = heard,
            Step::Ask => {
                Rc::make_mut(&mut self.workers[worker]).sync = Some(Sync::Asked);
                self.owed.pending.iter_mut().for_each(|asked| *asked = true);
            }
            Step::Accept(response) => {
                for told in &response.campaigns {
                    self.heard.synced = self.heard.synced.max(told.version);
                    if told.version < self.heard.any {
                        continue;
                    }
                    self.heard.any = told.version;
                    let open = open_round(&self.scenario.rounds, response.now_ms).map(|round| round.id);
                    if let Some(round) = told.round.filter(|round| open == Some(*round)) {
                        self.hear_issued(round, told.issued);
                    }
                }
            }
            Step::Start => {}
        }
        Ok(())
    }

    fn settled(&mut self, flight: &Flight) {
        let (now_ms, ttl_ms, hold_ms) = (self.now_ms, self.scenario.ttl_ms, self.scenario.config.credits.hold_ms);
        let tells = self.scenario.config.sync.is_some() && !self.scenario.is_written();
        let owed = self.owed_for(flight.kind);
        match flight.answer.as_ref().map(|told| told.outcome) {
            Some(Outcome::Issued | Outcome::AlreadyIssued | Outcome::SoldOut) => {}
            Some(Outcome::Pending) if tells && flight.kind != Kind::Unknown => owed.pending.push(false),
            Some(Outcome::Pending) => owed.leaked.push(flight.since_ms + ttl_ms),
            Some(Outcome::Refused) | None => owed.held.push(now_ms + hold_ms),
        }
        if let Some(told) = flight.answer.as_ref().filter(|_| flight.kind != Kind::Unknown) {
            self.hear(told);
        }
    }

    /// A notice of an older version, or of another round, changes nothing.
    fn hear(&mut self, told: &Notice) {
        let open = open_round(&self.scenario.rounds, self.origin_ms()).map(|round| round.id);
        if let Some(round) = told.round.filter(|round| open == Some(*round) && told.version >= self.heard.any) {
            self.heard.any = told.version;
            self.hear_issued(round, told.issued);
        }
    }

    fn hear_issued(&mut self, round: RoundId, issued: u64) {
        let most = self.heard_issued.entry(round).or_default();
        *most = issued.max(*most);
    }

    /// The opening or closing that the clock is nearest to.
    pub(super) fn nearest_boundary(&self) -> i64 {
        let timetable = timetable(&self.scenario.rounds, self.now_ms);
        let rounds = timetable.previous.iter().chain(&timetable.rounds);
        let boundaries = rounds.flat_map(|round| [round.opens_ms(), round.closes_ms()]);
        boundaries.min_by_key(|boundary_ms| boundary_ms.abs_diff(self.now_ms)).unwrap_or_default()
    }

    fn apply(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Request { worker, user } => self.step(worker, Step::Request(user)),
            Event::GoOn { worker } => self.go_on(worker),
            Event::Decide { worker, flight, committing } => {
                let (now_ms, broken) = (self.origin_ms(), self.scenario.broken);
                let flight = &mut Rc::make_mut(&mut self.workers[worker]).flights[flight];
                let rounds = &self.scenario.rounds;
                flight.answer = Some(self.origin.decide(rounds, flight.user, committing, now_ms, broken));
                Ok(())
            }
            Event::Settle { worker, flight } => {
                let flight = Rc::make_mut(&mut self.workers[worker]).flights.swap_remove(flight);
                self.step(worker, Step::Settle(flight))
            }
            Event::Fail { worker, flight } => {
                let flight = Rc::make_mut(&mut self.workers[worker]).flights.swap_remove(flight);
                self.step(worker, Step::Settle(Flight { answer: None, ..flight }))
            }
            Event::Trap { worker } => {
                self.lose(worker);
                self.step(worker, Step::Start)
            }
            Event::Tick { worker } => self.step(worker, Step::Tick(self.heard)),
            Event::Ask { worker } => self.step(worker, Step::Ask),
            Event::Answer { worker, version } => {
                let response = self.origin_answers(version);
                Rc::make_mut(&mut self.workers[worker]).sync = Some(Sync::Answered(Rc::new(response)));
                Ok(())
            }
            Event::Accept { worker } => {
                let sync = Rc::make_mut(&mut self.workers[worker]).sync.take();
                let Some(Sync::Answered(response)) = sync else { return Ok(()) };
                self.owed.is_told();
                self.step(worker, Step::Accept(response))
            }
            Event::LoseSync { worker } => {
                Rc::make_mut(&mut self.workers[worker]).sync = None;
                Ok(())
            }
            Event::Change { to } => {
                let edition: Edition = self.scenario.editions[to];
                self.origin.editions.push(edition);
                Ok(())
            }
            Event::Commit { user } => {
                self.each_open_book(|book| {
                    book.pending.remove(&user);
                    book.committed.insert(user);
                });
                Ok(())
            }
            Event::GiveBack { user } => {
                self.each_open_book(|book| {
                    book.pending.remove(&user);
                });
                Ok(())
            }
            Event::IssueElsewhere { user } => {
                self.each_open_book(|book| {
                    book.committed.insert(user);
                });
                Ok(())
            }
            Event::Wait { ms } => {
                self.pass(ms);
                self.tick_all()
            }
        }
    }

    fn each_open_book(&mut self, change: impl FnOnce(&mut Book)) {
        if let Some(round) = open_round(&self.scenario.rounds, self.origin_ms()) {
            change(self.origin.books.entry(round.id).or_default());
        }
    }
}

impl System for World {
    type Event = Event;

    fn events(&self) -> Vec<Event> {
        self.possible_events()
    }

    fn after(&self, event: Event) -> Result<Self, Violation> {
        let mut after = self.clone();
        after.apply(event)?;
        Ok(after)
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.now_ms, &self.origin, self.heard, &self.heard_issued, &self.unclear).hash(&mut hasher);
        self.probed_ms.filter(|probed_ms| self.now_ms - probed_ms < 1_000).hash(&mut hasher);
        for owed in [&self.owed, &self.owed_unknown] {
            let mut owed = owed.clone();
            owed.forget(self.now_ms);
            owed.hash(&mut hasher);
        }
        for account in self.accounts() {
            account.hash(&mut hasher);
        }
        state::snapshot(&self.shared).hash(&mut hasher);
        if let Some(worker) = self.workers.first() {
            for (round, book) in &self.origin.books {
                for user in book.committed.union(&book.pending) {
                    let holder = worker.subject.gate.process().hash_key.holder(&spring(), *round, &user_id(*user));
                    worker.subject.gate.is_known_winner(&self.shared, holder).hash(&mut hasher);
                }
            }
        }
        // Workers are alike: it does not matter which one is which.
        let generation = state::generation(&self.shared);
        let fingerprint = |worker: &Rc<Worker>| worker.fingerprint(&self.shared, generation, self.now_ms);
        let mut workers: Vec<u64> = self.workers.iter().map(fingerprint).collect();
        workers.sort_unstable();
        workers.hash(&mut hasher);
        hasher.finish()
    }

    fn judge(&self) -> Result<(), Violation> {
        self.judge_credits()?;
        self.judge_aftermath()
    }
}
