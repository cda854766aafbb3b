//! The decision: may this request go to the origin?
//!
//! A [`Gate`] is what one worker keeps, and [`Gate::decide`] its only entry. Most refusals come from the gate alone: no
//! lock, no shared data, no clock but the tick's. The others, and every admission, go through the accounts that all
//! workers share.

mod campaign;
mod knowledge;
mod report;
mod series;
mod tally;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use doorbuster_domain::id::{CampaignId, RoundId, UserId};
use doorbuster_domain::notice::Outcome;
use doorbuster_domain::refusal::{Problem, Refusal};
use doorbuster_domain::ticket::{self, Admitted};

use self::campaign::{Campaign, Moment, Standing};
use self::series::NamedSeries;
use self::tally::Tally;
use crate::config::Config;
use crate::credits::{Admission, BlindLimit, CreditAccount, Ending, Permit, SlotLayout, Terms, UserMark};
use crate::duplicates::Remembered;
use crate::host::{Host, HostTime, Random, SharedData};
use crate::reply::Reply;
use crate::state::{self, AccountKey, Duplicates, Namespace, Process};
use crate::sync::OriginClock;

/// The tick's clock is used for this long, milliseconds: a worker may be too busy to tick. Nearer to an opening or
/// a closing than this, the clock is read for each request.
const TICK_SLACK_MS: i64 = 2_000;

/// A complete snapshot younger than this holds every campaign there is, milliseconds.
const COMPLETE_FOR_MS: i64 = 1_000;

/// What one worker knows, and decides by.
#[derive(Debug, Clone)]
pub struct Gate {
    config: Rc<Config>,
    names: Namespace,
    layout: SlotLayout,
    process: Process,
    duplicates: Duplicates,
    remembered: Remembered,
    campaigns: BTreeMap<CampaignId, Campaign>,
    generation: u64,
    /// Whether a campaign of the configuration or the snapshot has no account.
    lacks_accounts: bool,
    synced: Option<Synced>,
    /// This machine's clocks at the last tick.
    ticked: HostTime,
    /// Counts of requests that name no known campaign.
    unknown_tally: Tally,
    named: NamedSeries,
    cas_retries: u64,
    /// How far this worker has looked through the table of winners, and how many it has found.
    surveyed: (usize, usize),
    /// How many decisions of a round the backend knows of, if this worker syncs; and will, once it answers.
    reported: HashMap<(CampaignId, RoundId), u64>,
    reporting: Vec<((CampaignId, RoundId), u64)>,
}

/// What stands in the newest snapshot besides the campaigns.
#[derive(Debug, Clone, Copy)]
struct Synced {
    received_ms: i64,
    wall_ahead_ms: i64,
    clock: OriginClock,
    complete: bool,
}

/// What became of a request.
#[derive(Debug)]
pub enum Decision {
    /// It is answered here.
    Refuse(Rc<Reply>),
    /// It goes to the origin.
    Admit(Pass),
}

/// An admitted request: what is needed to settle it.
#[derive(Debug)]
pub struct Pass {
    /// The campaign it is for.
    pub campaign: CampaignId,
    /// The round the edge admits to, if it knows it.
    pub round: Option<RoundId>,
    user: UserId,
    /// This machine's monotonic clock at the admission, milliseconds.
    admitted_ms: i64,
    pub(crate) credit: Option<Credit>,
}

/// What an admitted request holds.
#[derive(Debug)]
pub(crate) struct Credit {
    pub(crate) account: AccountKey,
    tag: u64,
    pub(crate) permit: Permit,
}

/// A request for a coupon of a known campaign.
#[derive(Debug, Clone, Copy)]
struct Asking<'a> {
    id: &'a CampaignId,
    user: &'a UserId,
    /// The round that is open, where that is known.
    round: Option<RoundId>,
    moment: &'a Moment,
}

impl Gate {
    /// A worker's gate. Campaigns written in the configuration are known at once.
    #[must_use]
    pub fn new(config: Rc<Config>, names: Namespace, process: Process, shared: &dyn SharedData, now: HostTime) -> Self {
        let mut gate = Self {
            layout: SlotLayout::new(&config.credits),
            duplicates: Duplicates::new(&names, config.duplicates_bytes),
            names,
            lacks_accounts: false,
            remembered: Remembered::default(),
            config,
            process,
            campaigns: BTreeMap::new(),
            generation: 0,
            synced: None,
            ticked: now,
            unknown_tally: Tally::default(),
            named: NamedSeries::default(),
            cas_retries: 0,
            surveyed: (0, 0),
            reported: HashMap::new(),
            reporting: Vec::new(),
        };
        let snapshot = gate.stored_snapshot(shared);
        gate.claim_accounts(shared, snapshot.as_ref());
        gate.load(shared, snapshot);
        gate
    }

    /// Brings the worker up to date; called every 50 ms. A sold-out latch outlives a newer version by one tick.
    pub fn tick(&mut self, shared: &dyn SharedData, now: HostTime) {
        self.ticked = now;
        if self.lacks_accounts || state::generation(shared, &self.names) != self.generation {
            let snapshot = self.stored_snapshot(shared);
            if self.lacks_accounts {
                self.claim_accounts(shared, snapshot.as_ref());
            }
            self.load(shared, snapshot);
        }
        let clock = self.clock(now);
        for campaign in self.campaigns.values_mut() {
            campaign.refresh(clock.at(now.host_ms));
            campaign.look_at_latch(shared);
        }
    }

    /// Decides a request. The order of the checks is the contract's. `user` and the monotonic clock
    /// are asked for only where the decision depends on them.
    pub fn decide(
        &mut self,
        campaign: &Result<CampaignId, Refusal>,
        user: impl FnOnce() -> Result<UserId, Refusal>,
        host: &dyn Host,
    ) -> Decision {
        let wall_ms = self.catch_up(host);
        if let Some(reply) = self.refuse_at_once(campaign) {
            return Decision::Refuse(reply);
        }
        let user = user();
        match self.refuse_again(campaign, &user, host) {
            Some(reply) => Decision::Refuse(reply),
            None => {
                let now = HostTime::at_wall(host, wall_ms);
                self.decide_exactly(campaign, &user, host, now, host.random())
            }
        }
    }

    /// Ticks if the last tick is too long ago: the process may have been stopped, and a host may
    /// hand over the requests that have waited before it ticks. Only the wall clock also shows that
    /// the machine was suspended. Returns the wall clock, Unix milliseconds.
    fn catch_up(&mut self, host: &dyn Host) -> i64 {
        let wall_ms = host.now_ms();
        if wall_ms.abs_diff(self.ticked.wall_ms()) > TICK_SLACK_MS.unsigned_abs() {
            self.tick(host, HostTime::at_wall(host, wall_ms));
        }
        wall_ms
    }

    /// The answer to a request that this worker can refuse from what it keeps.
    fn refuse_at_once(&mut self, campaign: &Result<CampaignId, Refusal>) -> Option<Rc<Reply>> {
        let id = match campaign {
            Ok(id) => id,
            Err(refusal) => return Some(self.refuse_unknown(*refusal, None, 0)),
        };
        let moment = self.last_tick();
        self.campaigns.get_mut(id)?.refuse_at_once(&moment)
    }

    /// The answer to a winner who asks again, if this worker remembers that it has found him in the table. That the round
    /// is sold out meanwhile, which comes before it, is noticed once per tick.
    fn refuse_again(
        &mut self,
        campaign: &Result<CampaignId, Refusal>,
        user: &Result<UserId, Refusal>,
        shared: &dyn SharedData,
    ) -> Option<Rc<Reply>> {
        let (Ok(id), Ok(user)) = (campaign, user) else { return None };
        let moment = self.last_tick();
        let known = self.campaigns.get_mut(id)?;
        let round = known.open_at_once(&moment)?;
        let remembered = self.remembered.contains(self.process.hash_key.holder(id, round, user));
        (remembered && !known.is_sold_out_this_tick(round, &moment, shared)).then(|| known.refuse_already_issued(round))
    }

    /// When the last tick was, for answers that need no better clock: within `uncertainty_ms` is whatever may have passed
    /// since.
    fn last_tick(&self) -> Moment {
        let (clock, host_ms) = (self.clock(self.ticked), self.ticked.host_ms);
        Moment {
            host_ms,
            now_ms: clock.at(host_ms),
            uncertainty_ms: TICK_SLACK_MS + clock.uncertainty_ms,
            stale: self.is_stale(host_ms),
        }
    }

    /// Decides a request that [`Gate::refuse_at_once`] let through, with the clocks just read.
    fn decide_exactly(
        &mut self,
        campaign: &Result<CampaignId, Refusal>,
        user: &Result<UserId, Refusal>,
        shared: &dyn SharedData,
        now: HostTime,
        random: u64,
    ) -> Decision {
        let id = match campaign {
            Ok(id) => id,
            Err(refusal) => return Decision::Refuse(self.refuse_unknown(*refusal, None, random)),
        };
        let (clock, host_ms) = (self.clock(now), now.host_ms);
        let moment = Moment {
            host_ms,
            now_ms: clock.at(host_ms),
            uncertainty_ms: clock.uncertainty_ms,
            stale: self.is_stale(host_ms),
        };
        let standing = match self.campaigns.get_mut(id) {
            Some(known) => known.standing(&moment, shared),
            None => Standing::Unknown,
        };
        match (standing, user) {
            (Standing::Refused(reply), _) => Decision::Refuse(reply),
            (Standing::Unknown, user) => self.decide_blind(id, user, &moment, shared, random),
            (Standing::Unclear { .. }, Err(refusal)) => Decision::Refuse(self.refuse_known(*refusal, id, random)),
            (Standing::Unclear { boundary_ms }, Ok(user)) => {
                let cap = self.config.boundary.grey_cap;
                let asking = Asking { id, user, round: None, moment: &moment };
                self.admit(&asking, shared, random, |account, tag, user, layout| {
                    account.admit_unclear(tag, boundary_ms, cap, user, layout, host_ms)
                })
            }
            (Standing::Open { terms, probing }, user) => {
                self.decide_open(id, user, &terms, probing, &moment, shared, random)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is a value the decision depends on")]
    fn decide_open(
        &mut self,
        id: &CampaignId,
        user: &Result<UserId, Refusal>,
        terms: &Terms,
        probing: bool,
        moment: &Moment,
        shared: &dyn SharedData,
        random: u64,
    ) -> Decision {
        let Some(known) = self.campaigns.get_mut(id) else {
            return self.decide_blind(id, user, moment, shared, random);
        };
        let holder = user.as_ref().ok().map(|user| self.process.hash_key.holder(id, terms.round, user));
        let winner = holder.filter(|holder| self.duplicates.contains(shared, *holder));
        // Sold out comes before the user. A worker that has not heard of it yet looks here, unless it will when it asks
        // for a credit.
        let asks_for_credit = user.is_ok() && winner.is_none() && terms.quota.is_some();
        if !asks_for_credit && known.hears_sold_out(terms.round, shared) && !probing {
            return Decision::Refuse(known.refuse_sold_out(terms.round, moment.now_ms));
        }
        let user = match user {
            Ok(user) => user,
            Err(refusal) => return Decision::Refuse(known.refuse(*refusal)),
        };
        if let Some(holder) = winner {
            self.remembered.insert(holder);
            return Decision::Refuse(known.refuse_already_issued(terms.round));
        }
        let paused = known.paused;
        if probing {
            known.probed(moment.host_ms);
        } else if terms.quota.is_none() {
            // Nothing is counted where there is no limit.
            known.tally.admitted += 1;
            return Decision::Admit(Pass {
                campaign: id.clone(),
                round: Some(terms.round),
                user: user.clone(),
                admitted_ms: moment.host_ms,
                credit: None,
            });
        }
        let asking = Asking { id, user, round: Some(terms.round), moment };
        self.admit(&asking, shared, random, |account, _, user, layout| {
            // A stale pause is passed by probes alone.
            let ordinary = if paused { Admission::Busy } else { account.admit(terms, user, layout, moment.host_ms) };
            match ordinary {
                Admission::SoldOut | Admission::Busy if probing => {
                    account.probe(terms, user, layout, moment.host_ms).map_or(ordinary, Admission::Granted)
                }
                decided => decided,
            }
        })
    }

    /// Takes a credit from a known campaign's account and says what follows.
    fn admit(
        &mut self,
        asking: &Asking<'_>,
        shared: &dyn SharedData,
        random: u64,
        mut ask: impl FnMut(&mut CreditAccount, u64, UserMark, &SlotLayout) -> Admission,
    ) -> Decision {
        let Asking { id, user, round, moment } = *asking;
        let (layout, mark) = (self.layout, self.process.hash_key.in_flight(id, user));
        let Some(known) = self.campaigns.get_mut(id) else {
            return Decision::Refuse(self.refuse_unknown(Refusal::Busy, Some(id), random));
        };
        let (account, tag) = (known.account.clone(), known.tag);
        let asked = state::update_account(shared, &account, tag, &mut self.cas_retries, |account| {
            ask(account, tag, mark, &layout)
        });
        match (asked, round) {
            (Some(Admission::Granted(permit)), _) => {
                known.tally.admitted += 1;
                let credit = Some(Credit { account, tag, permit });
                let admitted_ms = moment.host_ms;
                Decision::Admit(Pass { campaign: id.clone(), round, user: user.clone(), admitted_ms, credit })
            }
            (Some(Admission::SoldOut), Some(round)) => {
                known.latch(round);
                Decision::Refuse(known.refuse_sold_out(round, moment.now_ms))
            }
            _ if known.paused => Decision::Refuse(known.refuse(Refusal::Paused)),
            _ => Decision::Refuse(known.refuse_busy(random)),
        }
    }

    /// A request of a campaign whose terms this worker does not know. The origin decides it; how many it is asked for is
    /// limited. A campaign of which the worker only knows no more rounds uses an account of its own.
    fn decide_blind(
        &mut self,
        id: &CampaignId,
        user: &Result<UserId, Refusal>,
        moment: &Moment,
        shared: &dyn SharedData,
        random: u64,
    ) -> Decision {
        let credits = &self.config.credits;
        let limit = BlindLimit { at_once: credits.warming, per_second: credits.warming_per_s };
        if self.campaigns.contains_key(id) {
            return match user {
                Ok(user) => {
                    let asking = Asking { id, user, round: None, moment };
                    self.admit(&asking, shared, random, |account, tag, user, layout| {
                        account.admit_blind(tag, limit, user, layout, moment.host_ms)
                    })
                }
                Err(refusal) => Decision::Refuse(self.refuse_known(*refusal, id, random)),
            };
        }
        if self.knows_all_campaigns(moment.host_ms) {
            return Decision::Refuse(self.refuse_unknown(Refusal::UnknownCampaign, Some(id), random));
        }
        let user = match user {
            Ok(user) => user,
            Err(refusal) => return Decision::Refuse(self.refuse_unknown(*refusal, Some(id), random)),
        };
        let (mark, layout) = (self.process.hash_key.in_flight(id, user), self.layout);
        let account = self.blind_account(id, shared);
        let asked = state::update_account(shared, &account, 0, &mut self.cas_retries, |account| {
            account.admit_blind(0, limit, mark, &layout, moment.host_ms)
        });
        match asked {
            Some(Admission::Granted(permit)) => {
                self.unknown_tally.admitted += 1;
                let credit = Some(Credit { account, tag: 0, permit });
                let (campaign, user, admitted_ms) = (id.clone(), user.clone(), moment.host_ms);
                Decision::Admit(Pass { campaign, round: None, user, admitted_ms, credit })
            }
            _ => Decision::Refuse(self.refuse_unknown(Refusal::Busy, Some(id), random)),
        }
    }

    /// Whether a campaign that this worker does not know does not exist.
    fn knows_all_campaigns(&self, host_ms: i64) -> bool {
        match self.synced {
            Some(synced) => synced.complete && host_ms.abs_diff(synced.received_ms) < COMPLETE_FOR_MS.unsigned_abs(),
            None => self.config.sync.is_none(),
        }
    }

    /// Ids that a client has invented use nothing that campaigns which exist could use.
    fn blind_account(&self, id: &CampaignId, shared: &dyn SharedData) -> AccountKey {
        let exists = self.config.default_campaign.as_ref() == Some(id)
            || state::is_confirmed(shared, &self.names, self.process.hash_key.campaign(id));
        if exists { self.names.confirmed() } else { self.names.unconfirmed() }
    }

    /// A refusal of a request that names no campaign this worker knows. Rendered each time: a client chooses the name.
    fn refuse_unknown(&mut self, refusal: Refusal, id: Option<&CampaignId>, random: u64) -> Rc<Reply> {
        self.unknown_tally.refuse(refusal);
        let problem = match (refusal, id) {
            (Refusal::Busy, _) => Problem::ask_again(refusal, id, random),
            (_, Some(id)) => Problem::about(refusal, id),
            (_, None) => Problem::new(refusal),
        };
        Rc::new(Reply::render(&problem))
    }

    /// A refusal that is the same for everybody who asks for a campaign.
    fn refuse_known(&mut self, refusal: Refusal, id: &CampaignId, random: u64) -> Rc<Reply> {
        match self.campaigns.get_mut(id) {
            Some(known) => known.refuse(refusal),
            None => self.refuse_unknown(refusal, Some(id), random),
        }
    }

    /// Where a campaign stands, if the snapshot is young enough to tell and the origin need not be asked.
    pub fn count(&mut self, campaign: &Result<CampaignId, Refusal>, host: &dyn Host) -> Option<Rc<Reply>> {
        let id = campaign.as_ref().ok().filter(|_| self.config.answer_count)?;
        self.catch_up(host);
        let (clock, host_ms) = (self.clock(self.ticked), self.ticked.host_ms);
        if self.is_stale(host_ms) {
            return None;
        }
        self.campaigns.get_mut(id)?.count(clock.at(host_ms), clock.uncertainty_ms, host)
    }

    /// The proof of its admission that goes with a request, where tickets are configured.
    #[must_use]
    pub fn ticket(&self, pass: &Pass, random: &(impl Random + ?Sized)) -> Option<String> {
        let secret = self.config.ticket_secret.as_ref()?;
        let round = pass.round.map(|round| round.to_string()).unwrap_or_default();
        let admitted = Admitted { campaign: &pass.campaign, round: &round, user: &pass.user };
        Some(ticket::mint(secret.as_bytes(), &admitted, self.clock(self.ticked).at(pass.admitted_ms), random.random()))
    }

    /// A request body that is too large, whatever it is for.
    pub fn refuse_body(&mut self) -> Rc<Reply> {
        self.refuse_unknown(Refusal::BodyTooLarge, None, 0)
    }

    /// Settles an admitted request: exactly once, with what the origin told or with its silence.
    pub fn settle(&mut self, pass: &Pass, ending: Ending, shared: &dyn SharedData, host_ms: i64) {
        // What an origin says of another campaign says nothing of this request.
        let ending = match ending {
            Ending::Told(notice) if notice.campaign != pass.campaign => Ending::Silent,
            ending => ending,
        };
        if let Some(credit) = &pass.credit {
            let known = self.campaigns.get(&pass.campaign);
            let own = known.is_some_and(|known| known.account == credit.account && known.tag == credit.tag);
            if own {
                self.settle_own(&pass.campaign, credit, &ending, shared, host_ms);
            } else {
                self.settle_blind(&pass.campaign, credit, &ending, shared, host_ms);
            }
        }
        if let Ending::Told(notice) = ending
            && matches!(notice.outcome, Outcome::Issued | Outcome::AlreadyIssued)
            && let Some(round) = notice.round
        {
            let holder = self.process.hash_key.holder(&pass.campaign, round, &pass.user);
            self.duplicates.insert(shared, holder, &mut self.cas_retries);
        }
    }
}

impl Gate {
    /// Settles a credit of the campaign's own account.
    fn settle_own(&mut self, id: &CampaignId, credit: &Credit, ending: &Ending, shared: &dyn SharedData, host_ms: i64) {
        let Some(known) = self.campaigns.get_mut(id) else { return };
        let (rounds, synced, layout) = (known.rounds(), known.is_synced(), self.layout);
        let latched = state::update_account(shared, &credit.account, credit.tag, &mut self.cas_retries, |account| {
            // The account may have gone to another campaign since.
            if account.tag != credit.tag {
                return None;
            }
            account.settle(&credit.permit, ending, &rounds, &layout, host_ms, synced);
            account.round.filter(|_| account.sold_out)
        });
        if let Some(Some(round)) = latched {
            known.latch(round);
        }
    }

    /// Settles a credit that was taken while the campaign had no account of its own. The account from which it was taken
    /// is of several campaigns and learns nothing; the campaign's own one learns, if it has one now.
    fn settle_blind(
        &mut self,
        id: &CampaignId,
        credit: &Credit,
        ending: &Ending,
        shared: &dyn SharedData,
        host_ms: i64,
    ) {
        let layout = self.layout;
        let _ = state::update_account(shared, &credit.account, credit.tag, &mut self.cas_retries, |account| {
            if account.tag == credit.tag {
                account.release(&credit.permit, ending, &layout, host_ms, false);
            }
        });
        let Ending::Told(notice) = ending else { return };
        if notice.round.is_some() {
            state::confirm(shared, &self.names, self.process.hash_key.campaign(id));
        }
        let Some(known) = self.campaigns.get_mut(id) else { return };
        let (tag, rounds, synced) = (known.tag, known.rounds(), known.is_synced());
        let latched = state::update_account(shared, &known.account, tag, &mut self.cas_retries, |account| {
            if account.tag != tag {
                return None;
            }
            account.learn(notice, &rounds, false, synced);
            account.round.filter(|_| account.sold_out)
        });
        if let Some(Some(round)) = latched {
            known.latch(round);
        }
    }

    /// How the origin's clock stands; without a sync, this machine's wall clock within the skew that is assumed.
    fn clock(&self, now: HostTime) -> OriginClock {
        let skew_ms = self.config.boundary.skew_ms;
        match self.synced {
            Some(Synced { received_ms, wall_ahead_ms, clock, .. }) => {
                clock.after(now.host_ms.saturating_sub(received_ms), now.wall_ahead_ms.saturating_sub(wall_ahead_ms))
            }
            None => OriginClock { offset_ms: now.wall_ahead_ms, uncertainty_ms: skew_ms },
        }
    }

    fn is_stale(&self, host_ms: i64) -> bool {
        match (&self.config.sync, self.synced) {
            (Some(sync), Some(synced)) => host_ms.abs_diff(synced.received_ms) > sync.stale_ms.unsigned_abs(),
            _ => true,
        }
    }
}

/// For the model checker.
#[cfg(test)]
impl Gate {
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.names
    }

    pub(crate) fn slot_layout(&self) -> &SlotLayout {
        &self.layout
    }

    pub(crate) fn is_known_winner(&self, shared: &dyn SharedData, holder: u64) -> bool {
        self.duplicates.contains(shared, holder)
    }

    /// What this worker's decisions at `host_ms` and later depend on, besides shared data. `generation`: of the snapshot
    /// there.
    pub(crate) fn essence(&self, host_ms: i64, generation: u64) -> impl std::hash::Hash + use<> {
        let campaigns: Vec<_> = self.campaigns.values().map(|campaign| campaign.essence(host_ms)).collect();
        let synced = self.synced.map(|synced| synced.received_ms);
        (
            campaigns,
            self.remembered.essence(),
            synced,
            self.ticked.wall_ahead_ms,
            host_ms - self.ticked.host_ms,
            self.generation == generation,
        )
    }
}

#[cfg(test)]
mod tests;
