//! One gateway, its origin and the time: what may happen, and what follows.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use doorbuster_domain::id::RoundId;
use doorbuster_domain::notice::{Notice, Outcome};
use doorbuster_domain::schedule::Round;
use doorbuster_domain::wire::SyncResponse;

use super::events::Event;
use super::origin::{Book, Drop, Edition, Origin, campaign_id, open_round, timetable};
use super::owed::{Owed, Pending};
use super::search::{System, Violation};
use super::worker::{Answered, Ends, Flight, Heard, Kind, Step, Sync, Time, Worker, user_id};
use super::{Broken, Grain, Scenario};
use crate::host::HostTime;
use crate::host::model::Model;
use crate::state::{self, Namespace};

/// The filter gives up a sync after this, milliseconds.
const SYNC_TIMEOUT_MS: i64 = 2_000;

/// A state.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) scenario: Rc<Scenario>,
    /// The gateway's monotonic clock.
    pub(super) now_ms: i64,
    /// How long the machine was suspended.
    pub(super) suspended_ms: i64,
    /// By how much its wall clock was set.
    pub(super) set_ms: i64,
    pub(super) shared: Model,
    /// How many syncs have been sent; the number of the newest one.
    pub(super) asked: u64,
    pub(super) workers: Vec<Rc<Worker>>,
    /// By campaign.
    pub(super) origins: Vec<Origin>,
    /// By campaign.
    pub(super) records: Vec<Record>,
    /// Of the accounts of campaigns that are not known: the unconfirmed, and the confirmed ones.
    pub(super) owed_blind: [Owed; 2],
}

/// What the gateway was told of a campaign, and did with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Record {
    pub(super) heard: Heard,
    /// The most committed coupons that the campaign's account was told of, by round.
    pub(super) heard_issued: BTreeMap<RoundId, u64>,
    pub(super) owed: Owed,
    /// Requests admitted around each opening or closing.
    pub(super) unclear: BTreeMap<i64, u32>,
    pub(super) probed_ms: Option<i64>,
}

impl Record {
    fn hear_issued(&mut self, round: RoundId, issued: u64) {
        let most = self.heard_issued.entry(round).or_default();
        *most = issued.max(*most);
    }
}

impl World {
    /// A gateway that has just started.
    pub(super) fn start(scenario: Scenario) -> Self {
        let shared = Model::default();
        let now_ms = scenario.start_ms;
        let host = HostTime { host_ms: now_ms, wall_ahead_ms: 0 };
        let time = Time { host, origin_offset_ms: 0 };
        let worker = || Rc::new(Worker::start(&scenario, &shared, time));
        let workers = (0..scenario.workers).map(|_| worker()).collect();
        Self {
            now_ms,
            suspended_ms: 0,
            set_ms: 0,
            shared,
            asked: 0,
            workers,
            origins: scenario.drops.iter().enumerate().map(|(at, drop)| Origin::new(at, drop.first)).collect(),
            records: scenario.drops.iter().map(|_| Record::default()).collect(),
            owed_blind: Default::default(),
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
        self.now_ms + self.suspended_ms + self.scenario.origin_ahead_ms
    }

    fn time(&self) -> Time {
        let wall_ahead_ms = self.suspended_ms + self.set_ms;
        let host = HostTime { host_ms: self.now_ms, wall_ahead_ms };
        Time { host, origin_offset_ms: self.suspended_ms }
    }

    /// One worker syncs and all tick, none of them interrupted.
    pub(super) fn sync(&mut self) -> Result<(), Violation> {
        self.asked += 1;
        let number = self.asked;
        self.step_whole(0, Step::Ask(number))?;
        let response = self.origin_answers(self.origins[0].version());
        self.records.iter_mut().for_each(|record| record.owed.is_told(number));
        self.step_whole(0, Step::Accept(number, Rc::new(response)))?;
        Rc::make_mut(&mut self.workers[0]).syncs.clear();
        self.tick_all()
    }

    /// What a backend answers that knows `version` of the first campaign.
    fn origin_answers(&self, version: u64) -> SyncResponse {
        let (scenario, now_ms) = (&self.scenario, self.origin_ms());
        let campaigns = self.origins.iter().zip(&scenario.drops).enumerate().filter(|(_, (_, drop))| !drop.unlisted);
        let campaigns = campaigns.map(|(at, (origin, drop))| {
            let version = if at == 0 { version } else { origin.version() };
            let mut told = origin.sync(&drop.rounds, version, now_ms);
            if scenario.broken == Some(Broken::PlacesNeverComeBack) && !origin.books.is_empty() {
                told.reserved = drop.first.quota;
            }
            told
        });
        let (gateways, campaigns) = (scenario.gateways, campaigns.collect());
        SyncResponse { now_ms, uncertainty_ms: 0, gateways, complete: true, campaigns }
    }

    /// The rounds of a campaign.
    pub(super) fn rounds(&self, drop: Drop) -> &[Round] {
        &self.scenario.drops[drop].rounds
    }

    fn heard(&self) -> Rc<[Heard]> {
        self.records.iter().map(|record| record.heard).collect()
    }

    pub(super) fn tick_all(&mut self) -> Result<(), Violation> {
        (0..self.workers.len()).try_for_each(|worker| self.step_whole(worker, Step::Tick(self.heard())))
    }

    /// Time passes, of which no worker makes use.
    pub(super) fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        let now_ms = self.now_ms;
        self.all_owed().for_each(|owed| owed.forget(now_ms));
        if ms > SYNC_TIMEOUT_MS {
            for worker in &mut self.workers {
                Rc::make_mut(worker).syncs.clear();
            }
        }
    }

    /// Takes everything from a worker that its VM held.
    pub(super) fn lose(&mut self, worker: usize) {
        let ttl_ms = self.scenario.ttl_ms;
        for flight in Rc::make_mut(&mut self.workers[worker]).lose() {
            self.owed_for(&flight).leaked.push(flight.since_ms + ttl_ms);
        }
    }

    fn all_owed(&mut self) -> impl Iterator<Item = &mut Owed> {
        self.records.iter_mut().map(|record| &mut record.owed).chain(&mut self.owed_blind)
    }

    fn owed_for(&mut self, flight: &Flight) -> &mut Owed {
        match flight.kind {
            Kind::Unconfirmed => &mut self.owed_blind[0],
            Kind::Confirmed => &mut self.owed_blind[1],
            Kind::Ordinary | Kind::Probe | Kind::Unclear => &mut self.records[flight.drop].owed,
        }
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
        let time = self.time();
        match Rc::make_mut(&mut self.workers[worker]).go_on(&self.shared, &scenario, time) {
            Some((step, answered)) => self.finish(worker, step, answered),
            None => Ok(()),
        }
    }

    pub(super) fn step_whole(&mut self, worker: usize, step: Step) -> Result<(), Violation> {
        let scenario = Rc::clone(&self.scenario);
        let time = self.time();
        let answered = Rc::make_mut(&mut self.workers[worker]).run(&step, &self.shared, &scenario, time);
        self.finish(worker, step, answered)
    }

    /// Keeps account of what a step has come to.
    fn finish(&mut self, worker: usize, step: Step, answered: Option<Answered>) -> Result<(), Violation> {
        match step {
            Step::Request(drop, user) => match answered {
                Some(Answered::Admitted(flight)) => {
                    self.judge_admission(&flight)?;
                    let boundary_ms = self.nearest_boundary(drop);
                    let record = &mut self.records[drop];
                    match flight.kind {
                        Kind::Probe => record.probed_ms = Some(self.now_ms),
                        Kind::Unclear => *record.unclear.entry(boundary_ms).or_default() += 1,
                        Kind::Ordinary | Kind::Unconfirmed | Kind::Confirmed => {}
                    }
                    Rc::make_mut(&mut self.workers[worker]).flights.push(flight);
                }
                Some(Answered::Refused(reply)) => self.judge_refusal(worker, drop, user, &reply)?,
                None => {}
            },
            Step::Settle(flight) => self.settled(&flight),
            Step::Tick(heard) => Rc::make_mut(&mut self.workers[worker]).obliged = heard,
            Step::Ask(number) => {
                Rc::make_mut(&mut self.workers[worker]).syncs.push(Sync { number, answer: None });
                for pending in self.records.iter_mut().flat_map(|record| &mut record.owed.pending) {
                    pending.asked = pending.asked.or(Some(number));
                }
            }
            Step::Accept(_, response) => {
                for told in &response.campaigns {
                    let drop = (0..self.origins.len()).find(|drop| campaign_id(*drop) == told.id).unwrap();
                    let open = open_round(self.rounds(drop), response.now_ms).map(|round| round.id);
                    let record = &mut self.records[drop];
                    record.heard.synced = record.heard.synced.max(told.version);
                    if told.version < record.heard.any {
                        continue;
                    }
                    record.heard.any = told.version;
                    if let Some(round) = told.round.filter(|round| open == Some(*round)) {
                        record.hear_issued(round, told.issued);
                    }
                }
            }
            Step::Start => {}
        }
        Ok(())
    }

    fn settled(&mut self, flight: &Flight) {
        let (now_ms, ttl_ms) = (self.now_ms, self.scenario.ttl_ms);
        let credits = self.scenario.config.credits;
        let synced = self.scenario.config.sync.is_some() && !self.scenario.is_written();
        let blind = matches!(flight.kind, Kind::Unconfirmed | Kind::Confirmed);
        let owed = self.owed_for(flight);
        match flight.answer.as_ref().map(|told| told.outcome) {
            _ if flight.ends == Ends::Abandoned => owed.held.push(now_ms + credits.brief_hold_ms()),
            Some(Outcome::Issued | Outcome::AlreadyIssued | Outcome::SoldOut) => {}
            Some(Outcome::Pending) if synced && !blind => {
                owed.pending.push(Pending { asked: None, until_ms: now_ms + ttl_ms });
            }
            Some(Outcome::Pending) => owed.leaked.push(flight.since_ms + ttl_ms),
            Some(Outcome::Refused) | None => owed.held.push(now_ms + credits.hold_ms),
        }
        if let Some(told) = flight.answer.as_ref().filter(|_| !blind && flight.ends == Ends::Answered) {
            self.hear(flight.drop, told);
        }
    }

    /// A notice of an older version, or of another round, changes nothing.
    fn hear(&mut self, drop: Drop, told: &Notice) {
        let open = open_round(self.rounds(drop), self.origin_ms()).map(|round| round.id);
        let record = &mut self.records[drop];
        if let Some(round) = told.round.filter(|round| open == Some(*round) && told.version >= record.heard.any) {
            record.heard.any = told.version;
            record.hear_issued(round, told.issued);
        }
    }

    /// The opening or closing that the clock is nearest to.
    pub(super) fn nearest_boundary(&self, drop: Drop) -> i64 {
        let now_ms = self.now_ms + self.suspended_ms;
        let timetable = timetable(self.rounds(drop), now_ms);
        let rounds = timetable.previous.iter().chain(&timetable.rounds);
        let boundaries = rounds.flat_map(|round| [round.opens_ms(), round.closes_ms()]);
        boundaries.min_by_key(|boundary_ms| boundary_ms.abs_diff(now_ms)).unwrap_or_default()
    }

    fn apply(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Request { worker, user, drop } => self.step(worker, Step::Request(drop, user)),
            Event::GoOn { worker } => self.go_on(worker),
            Event::Decide { worker, flight, committing } => {
                let (now_ms, broken) = (self.origin_ms(), self.scenario.broken);
                let flight = &mut Rc::make_mut(&mut self.workers[worker]).flights[flight];
                let rounds = &self.scenario.drops[flight.drop].rounds;
                let origin = &mut self.origins[flight.drop];
                flight.answer = Some(origin.decide(rounds, flight.user, committing, now_ms, broken));
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
            Event::Abandon { worker, flight } => {
                let flight = Rc::make_mut(&mut self.workers[worker]).flights.swap_remove(flight);
                self.step(worker, Step::Settle(Flight { ends: Ends::Abandoned, ..flight }))
            }
            Event::Trap { worker } => {
                self.lose(worker);
                self.step(worker, Step::Start)
            }
            Event::Tick { worker } => self.step(worker, Step::Tick(self.heard())),
            Event::Ask { worker } => {
                self.asked += 1;
                self.step(worker, Step::Ask(self.asked))
            }
            Event::Answer { worker, sync, version } => {
                let response = Rc::new(self.origin_answers(version));
                Rc::make_mut(&mut self.workers[worker]).syncs[sync].answer = Some(response);
                Ok(())
            }
            Event::Accept { worker, sync } => {
                let Sync { number, answer } = Rc::make_mut(&mut self.workers[worker]).syncs.swap_remove(sync);
                let Some(response) = answer else { return Ok(()) };
                self.records.iter_mut().for_each(|record| record.owed.is_told(number));
                self.step(worker, Step::Accept(number, response))
            }
            Event::LoseSync { worker, sync } => {
                Rc::make_mut(&mut self.workers[worker]).syncs.swap_remove(sync);
                Ok(())
            }
            Event::Change { drop, to } => {
                let edition: Edition = self.scenario.editions[to];
                self.origins[drop].editions.push(edition);
                Ok(())
            }
            Event::Commit { drop, user } => {
                self.change_open_book(drop, |book| {
                    book.pending.remove(&user);
                    book.committed.insert(user);
                });
                Ok(())
            }
            Event::GiveBack { drop, user } => {
                self.change_open_book(drop, |book| {
                    book.pending.remove(&user);
                });
                Ok(())
            }
            Event::IssueElsewhere { drop, user } => {
                self.change_open_book(drop, |book| {
                    book.committed.insert(user);
                });
                Ok(())
            }
            Event::Stop { ms } => {
                self.pass(ms);
                Ok(())
            }
            Event::Suspend { ms } => {
                self.suspended_ms += ms;
                Ok(())
            }
            Event::SetClock { by_ms } => {
                self.set_ms = by_ms;
                self.tick_all()
            }
            Event::Wait { ms } => {
                self.pass(ms);
                self.tick_all()
            }
        }
    }

    /// The snapshot in shared data, with its number, which comes first, counted from the newest sync.
    fn snapshot_fingerprint(&self, names: &Namespace) -> Option<(u64, Vec<u8>)> {
        let stored = state::snapshot(&self.shared, names)?;
        let end = stored.iter().position(|c| *c == b',')?;
        let number = std::str::from_utf8(&stored[..end]).unwrap().strip_prefix(r#"{"number":"#).unwrap();
        Some((self.asked - number.parse::<u64>().unwrap(), stored[end..].to_vec()))
    }

    fn change_open_book(&mut self, drop: Drop, change: impl FnOnce(&mut Book)) {
        if let Some(round) = open_round(self.rounds(drop), self.origin_ms()) {
            change(self.origins[drop].books.entry(round.id).or_default());
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
        (self.now_ms, self.suspended_ms, self.set_ms, &self.origins).hash(&mut hasher);
        for record in &self.records {
            let mut record = record.clone();
            record.probed_ms = record.probed_ms.filter(|probed_ms| self.now_ms - probed_ms < 1_000);
            record.owed.forget(self.now_ms);
            record.owed.count_from(self.asked);
            record.hash(&mut hasher);
        }
        for mut owed in self.owed_blind.clone() {
            owed.forget(self.now_ms);
            owed.hash(&mut hasher);
        }
        for account in self.accounts() {
            account.map(|account| account.count_from(self.asked)).hash(&mut hasher);
        }
        let mut generation = 0;
        if let Some(worker) = self.workers.first() {
            let gate = &worker.subject.gate;
            generation = state::generation(&self.shared, gate.namespace());
            self.snapshot_fingerprint(gate.namespace()).hash(&mut hasher);
            for (drop, origin) in self.origins.iter().enumerate() {
                let id = campaign_id(drop);
                state::is_confirmed(&self.shared, gate.namespace(), gate.process().hash_key.campaign(&id))
                    .hash(&mut hasher);
                for (round, book) in &origin.books {
                    for user in book.committed.union(&book.pending) {
                        let holder = gate.process().hash_key.holder(&id, *round, &user_id(*user));
                        gate.is_known_winner(&self.shared, holder).hash(&mut hasher);
                    }
                }
            }
        }
        // Workers are alike: it does not matter which one is which.
        let fingerprint = |worker: &Rc<Worker>| worker.fingerprint(&self.shared, generation, self.asked, self.now_ms);
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
