//! One issue request, from the campaign to the reply, in the contract's order of checks.

use std::sync::Arc;

use chrono::DateTime;
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{CampaignId, RoundId, UserId};
use doorbuster_domain::notice::{Notice, Outcome};
use doorbuster_domain::refusal::{Problem, Refusal};
use doorbuster_domain::schedule::{Phase, Round};
use tokio::time::Instant;
use tracing::Instrument;

use super::hydration::Hydrated;
use super::lanes::Committed;
use super::{Issuance, Place, RoundKey};
use crate::campaign::Campaign;
use crate::store::postgres::{Coupon, Reservation};
use crate::store::redis::{Ask, Held, Verdict};

/// So near to an opening or closing Redis is asked for its time before somebody is refused by it.
const BOUNDARY_MS: i64 = 1_000;

/// A round that is over is open to an operator's retry for so long.
const REOPENED_MS: i64 = 3_600_000;

/// Before a request asks again about what others have to do first.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_millis(50);

/// What a client is told.
#[derive(Debug)]
pub enum Answer {
    /// The coupon is committed.
    Issued(Box<Coupon>),
    /// A place is held under this code.
    Pending(CouponCode),
    /// PostgreSQL does not take the coupon; for the client this is `unavailable`.
    Failed(Box<Problem>),
    /// No; the coupon is the one that the user already has.
    Refused(Box<Problem>, Option<Box<Coupon>>),
}

/// What a client is told, and what the edge is.
#[derive(Debug)]
pub struct Reply {
    /// For the client.
    pub answer: Answer,
    /// For the edge; none where no campaign was named.
    pub notice: Option<Notice>,
}

/// The circumstances of one request, for its reply.
pub(super) struct Circumstances<'a> {
    pub(super) campaign: &'a CampaignId,
    pub(super) door: Door,
    place: Option<Place>,
    known: Option<Arc<Campaign>>,
    round: Option<Round>,
    issued: u64,
}

/// Through which a request comes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Door {
    /// The client's, open while a round is.
    Client,
    /// The operator's, open from the opening of this round on, also after its closing.
    Operator(RoundId),
}

impl<'a> Circumstances<'a> {
    pub(super) fn new(campaign: &'a CampaignId, door: Door) -> Self {
        Self { campaign, door, place: None, known: None, round: None, issued: 0 }
    }

    fn reply(&self, outcome: Outcome, answer: Answer) -> Reply {
        // A round that has not begun, or a campaign that does not exist, is no fault that the edge should wait for.
        let nothing_is_wrong = match &answer {
            Answer::Refused(problem, _) => {
                matches!(problem.refusal, Refusal::NotStarted | Refusal::OutsideHours | Refusal::UnknownCampaign)
            }
            _ => false,
        };
        let notice = Notice {
            hold: !nothing_is_wrong,
            outcome,
            campaign: self.campaign.clone(),
            round: self.round.map(|round| round.id),
            issued: self.issued,
            quota: self.known.as_ref().and_then(|known| known.spec.quota),
            version: self.known.as_ref().and_then(|known| u64::try_from(known.version).ok()).unwrap_or(0),
        };
        Reply { answer, notice: Some(notice) }
    }

    fn refuse(&self, problem: Problem) -> Reply {
        let outcome = if problem.refusal == Refusal::SoldOut { Outcome::SoldOut } else { Outcome::Refused };
        self.reply(outcome, Answer::Refused(Box::new(problem), None))
    }

    /// `busy` or `unavailable`.
    fn ask_again(&self, refusal: Refusal) -> Reply {
        self.refuse(Problem::ask_again(refusal, Some(self.campaign), rand::random()))
    }

    fn already_issued(&self, round: Round, coupon: Option<Box<Coupon>>) -> Reply {
        let problem = Problem::already_issued(self.campaign, round.id);
        self.reply(Outcome::AlreadyIssued, Answer::Refused(Box::new(problem), coupon))
    }

    fn failed(&self) -> Reply {
        let problem = Problem::ask_again(Refusal::Unavailable, Some(self.campaign), rand::random());
        self.reply(Outcome::Refused, Answer::Failed(Box::new(problem)))
    }

    fn about(&self, refusal: Refusal) -> Reply {
        self.refuse(Problem::about(refusal, self.campaign))
    }
}

/// The round that a request is decided in.
struct Opening {
    campaign: Arc<Campaign>,
    round: Round,
    key: RoundKey,
    quota: Option<u64>,
    /// First instant at which nobody is let in any more, Unix milliseconds.
    closes_ms: i64,
}

/// How one attempt to decide ends.
enum Step {
    Reply(Reply),
    /// Things have changed; look again.
    Again,
}

impl Issuance {
    /// Answers an issue request. `user` is looked at where the order of checks comes to it. What was begun is finished,
    /// also when nobody waits for the answer any more: a client that goes away takes no commit with it.
    pub async fn issue(self: &Arc<Self>, campaign: CampaignId, user: Result<UserId, Refusal>, place: Place) -> Reply {
        let (this, id) = (Arc::clone(self), campaign.clone());
        let issuing = async move {
            let circumstances = Circumstances { place: Some(place), ..Circumstances::new(&id, Door::Client) };
            this.decide(circumstances, user).await
        };
        match self.tasks.spawn(issuing.in_current_span()).await {
            Ok(reply) => reply,
            // It panicked.
            Err(_) => Circumstances::new(&campaign, Door::Client).ask_again(Refusal::Unavailable),
        }
    }

    pub(super) async fn decide(&self, mut circumstances: Circumstances<'_>, user: Result<UserId, Refusal>) -> Reply {
        let until = Instant::now() + self.deadlines.commit;
        let mut code = CouponCode::from_random(rand::random());
        loop {
            match self.attempt(&mut circumstances, &user, &mut code, until).await {
                Step::Reply(reply) => return reply,
                Step::Again if Instant::now() < until => {}
                Step::Again => return circumstances.ask_again(Refusal::Unavailable),
            }
        }
    }

    async fn attempt(
        &self,
        circumstances: &mut Circumstances<'_>,
        user: &Result<UserId, Refusal>,
        code: &mut CouponCode,
        until: Instant,
    ) -> Step {
        let opening = match self.opening(circumstances).await {
            Ok(opening) => opening,
            Err(refused) => return Step::Reply(refused),
        };
        let Opening { campaign, round, key, quota, closes_ms } = &opening;
        circumstances.round = Some(*round);
        circumstances.issued = self.progress.of(key);
        let since = self.lineage.generation();
        let ask = Ask {
            campaign: &campaign.id,
            round: round.id,
            user: user.as_ref().ok(),
            code: *code,
            version: campaign.version,
            quota: *quota,
            window_ms: (round.opens_ms(), *closes_ms),
        };
        let decision = match self.redis.issue(&ask).await {
            Ok(decision) => decision,
            Err(error) => {
                tracing::debug!(%error, campaign = %campaign.id, "an issue request cannot be decided");
                return Step::Reply(circumstances.ask_again(Refusal::Unavailable));
            }
        };
        circumstances.issued = self.progress.hear(key, decision.committed, since);
        match decision.verdict {
            Verdict::Cold => self.warm(circumstances, key, until).await,
            Verdict::Stale { version } => {
                again_after(circumstances, until, self.changes.catch_up(&campaign.id, version)).await
            }
            // The clock here was off by a little, or in a cluster stands between those of the nodes: the script's decides.
            Verdict::Outside => {
                let phase = campaign.schedule.phase(decision.now_ms);
                match Problem::outside(&campaign.id, &phase, decision.now_ms) {
                    Some(refused) => {
                        circumstances.round = None;
                        Step::Reply(circumstances.refuse(refused))
                    }
                    // Between two rounds that adjoin: the clock here has to come to the one that the script sees.
                    None => {
                        let later = async {
                            tokio::time::sleep(ASK_AGAIN).await;
                            self.clock.sample(&self.redis).await
                        };
                        again_after(circumstances, until, later).await
                    }
                }
            }
            Verdict::SoldOut => Step::Reply(sold_out(circumstances, &opening, decision.now_ms)),
            Verdict::Open => {
                let refusal = user.as_ref().err().copied().unwrap_or(Refusal::MissingUser);
                Step::Reply(circumstances.about(refusal))
            }
            Verdict::AlreadyIssued(held) => {
                let own = held == *code;
                Step::Reply(self.already_issued(circumstances, &opening, user.as_ref().ok(), held, own).await)
            }
            // What is not settled in Redis yet may be committed all the same.
            Verdict::Busy if quota.is_some_and(|quota| circumstances.issued >= quota) => {
                Step::Reply(sold_out(circumstances, &opening, decision.now_ms))
            }
            Verdict::Busy => Step::Reply(circumstances.ask_again(Refusal::Busy)),
            Verdict::Pending(held) | Verdict::Reserved(held) => {
                self.commit(circumstances, &opening, held, code, until).await
            }
        }
    }

    /// The checks that need no look at the round: campaign, ended, paused, phase.
    async fn opening(&self, circumstances: &mut Circumstances<'_>) -> Result<Opening, Reply> {
        let id = circumstances.campaign;
        let snapshot = self.catalog.snapshot();
        let Some(campaign) = snapshot.campaigns.get(id).cloned() else {
            return Err(match snapshot.absence(id) {
                Refusal::Unavailable => circumstances.ask_again(Refusal::Unavailable),
                absence => circumstances.about(absence),
            });
        };
        circumstances.known = Some(Arc::clone(&campaign));
        if let Door::Operator(round) = circumstances.door {
            return self.reopening(circumstances, campaign, round).await;
        }
        let Some((phase, now_ms)) = self.phase(&campaign).await else {
            return Err(circumstances.ask_again(Refusal::Unavailable));
        };
        match phase {
            Phase::Ended { .. } => {}
            _ if campaign.paused => return Err(circumstances.about(Refusal::Paused)),
            Phase::Open { round } => {
                let key = RoundKey { campaign: id.clone(), round: round.id };
                let quota = campaign.spec.quota;
                return Ok(Opening { campaign, closes_ms: round.closes_ms(), round, key, quota });
            }
            Phase::NotStarted { .. } | Phase::OutsideHours { .. } => {}
        }
        let refused = Problem::outside(id, &phase, now_ms).unwrap_or_else(|| Problem::about(Refusal::Ended, id));
        Err(circumstances.refuse(refused))
    }

    /// An operator's retry comes late by nature, so a round that is over is open to it. A pause holds for it too.
    async fn reopening(
        &self,
        circumstances: &Circumstances<'_>,
        campaign: Arc<Campaign>,
        round: RoundId,
    ) -> Result<Opening, Reply> {
        let key = RoundKey { campaign: campaign.id.clone(), round };
        let Some(round) = campaign.schedule.round(round) else { return Err(circumstances.about(Refusal::Ended)) };
        if campaign.paused {
            return Err(circumstances.about(Refusal::Paused));
        }
        let Ok(reading) = self.now().await else { return Err(circumstances.ask_again(Refusal::Unavailable)) };
        if reading.now_ms < round.opens_ms() {
            return Err(circumstances.about(Refusal::NotStarted));
        }
        let closes_ms = round.closes_ms().max(reading.now_ms.saturating_add(REOPENED_MS));
        // One that is over keeps its quota.
        let quota = match self.postgres.past_round(&campaign.id, round.id).await {
            Ok(Some(past)) if past.closes.timestamp_millis() <= reading.now_ms => past.quota,
            Ok(_) => campaign.spec.quota,
            Err(_) => return Err(circumstances.ask_again(Refusal::Unavailable)),
        };
        Ok(Opening { campaign, round, key, quota, closes_ms })
    }

    /// Where Redis's clock stands in the schedule, and what it shows; none if it cannot be had.
    async fn phase(&self, campaign: &Campaign) -> Option<(Phase, i64)> {
        if let Some(reading) = self.clock.at(Instant::now()) {
            let phase = campaign.schedule.phase(reading.now_ms);
            let is_open = |at_ms| matches!(campaign.schedule.phase(at_ms), Phase::Open { .. });
            let reach_ms = BOUNDARY_MS + i64::from(reading.uncertainty_ms);
            let near = || is_open(reading.now_ms - reach_ms) || is_open(reading.now_ms + reach_ms);
            // Where the round seems open, the script has the last word.
            if matches!(phase, Phase::Open { .. }) || !near() {
                return Some((phase, reading.now_ms));
            }
        }
        let reading = self.clock.sample(&self.redis).await.ok()?;
        Some((campaign.schedule.phase(reading.now_ms), reading.now_ms))
    }

    async fn warm(&self, circumstances: &Circumstances<'_>, key: &RoundKey, until: Instant) -> Step {
        match tokio::time::timeout_at(until, self.hydrations.hydrate(key)).await {
            Ok(Hydrated::Done) => Step::Again,
            // Deleted, or its schedule changed: the catalog will say which.
            Ok(Hydrated::Gone) => again_after(circumstances, until, self.catalog.refresh()).await,
            // Another backend may have filled it all the same.
            Ok(Hydrated::Failed) if Instant::now() + ASK_AGAIN < until => {
                tokio::time::sleep(ASK_AGAIN).await;
                Step::Again
            }
            Ok(Hydrated::Failed) | Err(_) => Step::Reply(circumstances.ask_again(Refusal::Unavailable)),
        }
    }

    async fn commit(
        &self,
        circumstances: &mut Circumstances<'_>,
        opening: &Opening,
        held: Held,
        code: &mut CouponCode,
        until: Instant,
    ) -> Step {
        let Opening { campaign, round, key, closes_ms, .. } = opening;
        let answer = self.lanes.submit(key, reservation(campaign, &held), circumstances.place.clone());
        let committed = match tokio::time::timeout_at(until, answer).await {
            Ok(Ok(committed)) => committed,
            Ok(Err(_)) | Err(_) => Committed::Unknown,
        };
        circumstances.issued = self.progress.of(key);
        if let Err(error) = self.resolve(key, &held, &committed).await {
            tracing::debug!(%error, campaign = %campaign.id, "a conflict cannot be resolved; the sweeper will");
            return Step::Reply(circumstances.ask_again(Refusal::Unavailable));
        }
        match committed {
            Committed::Issued(coupon) => Step::Reply(circumstances.reply(Outcome::Issued, Answer::Issued(coupon))),
            Committed::UserTaken(coupon) => Step::Reply(circumstances.already_issued(*round, Some(coupon))),
            Committed::Unknown => Step::Reply(self.pending(circumstances, key, held.code, *closes_ms).await),
            Committed::Failed => Step::Reply(circumstances.failed()),
            Committed::NumberTaken | Committed::Stale => Step::Again,
            Committed::CodeTaken => {
                *code = CouponCode::from_random(rand::random());
                Step::Again
            }
            Committed::Gone => again_after(circumstances, until, self.catalog.refresh()).await,
        }
    }

    async fn pending(
        &self,
        circumstances: &Circumstances<'_>,
        key: &RoundKey,
        code: CouponCode,
        closes_ms: i64,
    ) -> Reply {
        let pointed = self.redis.point(&key.campaign, key.round, code, closes_ms).await;
        if let Err(error) = pointed {
            tracing::debug!(%error, %code, "the location of a pending coupon will not find it before it is committed");
        }
        circumstances.reply(Outcome::Pending, Answer::Pending(code))
    }

    /// `own`: the code is the one that this very request drew, so the coupon is its own.
    async fn already_issued(
        &self,
        circumstances: &Circumstances<'_>,
        opening: &Opening,
        user: Option<&UserId>,
        code: CouponCode,
        own: bool,
    ) -> Reply {
        let coupon = match user {
            Some(user) => match self.postgres.coupon(user, code).await {
                Ok(Some(coupon)) => Some(Box::new(coupon)),
                Ok(None) => {
                    self.contradicted(&opening.key).await;
                    return circumstances.ask_again(Refusal::Unavailable);
                }
                Err(_) => None,
            },
            None => None,
        };
        match coupon {
            Some(coupon) if own => circumstances.reply(Outcome::Issued, Answer::Issued(coupon)),
            None if own => self.pending(circumstances, &opening.key, code, opening.closes_ms).await,
            coupon => circumstances.already_issued(opening.round, coupon),
        }
    }
}

/// Looks again once `work` is done.
async fn again_after<T, E: std::fmt::Display>(
    circumstances: &Circumstances<'_>,
    until: Instant,
    work: impl Future<Output = Result<T, E>>,
) -> Step {
    match tokio::time::timeout_at(until, work).await {
        Ok(Ok(_)) => return Step::Again,
        Ok(Err(error)) => tracing::debug!(%error, campaign = %circumstances.campaign, "cannot catch up with a change"),
        Err(_) => tracing::debug!(campaign = %circumstances.campaign, "cannot catch up with a change in time"),
    }
    Step::Reply(circumstances.ask_again(Refusal::Unavailable))
}

fn sold_out(circumstances: &Circumstances<'_>, opening: &Opening, now_ms: i64) -> Reply {
    let next_opens = opening.campaign.opens_after(opening.round);
    circumstances.refuse(Problem::sold_out(circumstances.campaign, opening.round.id, next_opens, now_ms))
}

/// What the coupon of a held place will hold.
pub(super) fn reservation(campaign: &Campaign, held: &Held) -> Reservation {
    let redeeming = campaign.spec.validity.redeeming(&campaign.schedule, held.since_ms);
    Reservation {
        code: held.code,
        user: held.user.clone(),
        number: held.number,
        epoch: held.epoch,
        issued_at: DateTime::from_timestamp_millis(held.since_ms).unwrap_or_default(),
        redeemable_from: redeeming.from.into(),
        redeemable_until: redeeming.until.into(),
        terms: campaign.spec.terms(),
        version: campaign.version,
    }
}
