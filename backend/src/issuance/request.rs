//! One issue request, from the campaign to the reply, in the contract's order of checks.

use std::sync::Arc;

use chrono::DateTime;
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{CampaignId, UserId};
use doorbuster_domain::notice::{Notice, Outcome};
use doorbuster_domain::refusal::{Problem, Refusal};
use doorbuster_domain::schedule::{Phase, Round};
use tokio::time::Instant;

use super::hydration::Hydrated;
use super::lanes::Committed;
use super::{Issuance, RoundKey};
use crate::campaign::Campaign;
use crate::store::postgres::{Coupon, Reservation};
use crate::store::redis::{Ask, Held, Verdict};

/// So near to an opening or closing Redis is asked for its time before somebody is refused by it.
const BOUNDARY_MS: i64 = 1_000;

/// Between two attempts to hydrate a cold round.
const HYDRATE_AGAIN: std::time::Duration = std::time::Duration::from_millis(50);

/// What a client is told.
#[derive(Debug)]
pub enum Answer {
    /// The coupon is committed.
    Issued(Box<Coupon>),
    /// A place is held under this code.
    Pending(CouponCode),
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
struct Circumstances<'a> {
    campaign: &'a CampaignId,
    known: Option<Arc<Campaign>>,
    round: Option<Round>,
    issued: u64,
}

impl Circumstances<'_> {
    fn reply(&self, outcome: Outcome, answer: Answer) -> Reply {
        let notice = Notice {
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
        let outcome = match problem.refusal {
            Refusal::SoldOut => Outcome::SoldOut,
            Refusal::AlreadyIssued => Outcome::AlreadyIssued,
            _ => Outcome::Refused,
        };
        self.reply(outcome, Answer::Refused(Box::new(problem), None))
    }

    /// `busy` or `unavailable`.
    fn ask_again(&self, refusal: Refusal) -> Reply {
        self.refuse(Problem::ask_again(refusal, Some(self.campaign), rand::random()))
    }

    fn about(&self, refusal: Refusal) -> Reply {
        self.refuse(Problem::about(refusal, self.campaign))
    }
}

/// How one look at Redis ends.
enum Step {
    Reply(Reply),
    /// Things have changed; look again.
    Again,
}

impl Issuance {
    /// Answers an issue request. `user` is looked at where the order of checks comes to it.
    pub async fn issue(&self, campaign: &CampaignId, user: Result<UserId, Refusal>) -> Reply {
        let until = Instant::now() + self.deadlines.commit;
        let mut code = CouponCode::from_random(rand::random());
        let mut circumstances = Circumstances { campaign, known: None, round: None, issued: 0 };
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
        let id = circumstances.campaign;
        let snapshot = self.catalog.snapshot();
        let Some(campaign) = snapshot.campaigns.get(id).cloned() else {
            let unknown = snapshot.is_fresh();
            return Step::Reply(if unknown {
                circumstances.about(Refusal::UnknownCampaign)
            } else {
                circumstances.ask_again(Refusal::Unavailable)
            });
        };
        circumstances.known = Some(Arc::clone(&campaign));

        let Some((phase, now_ms)) = self.phase(&campaign).await else {
            return Step::Reply(circumstances.ask_again(Refusal::Unavailable));
        };
        let ended = matches!(phase, Phase::Ended { .. });
        if campaign.paused && !ended {
            return Step::Reply(circumstances.about(Refusal::Paused));
        }
        let Phase::Open { round } = phase else {
            let refused = Problem::outside(id, &phase, now_ms).unwrap_or_else(|| Problem::about(Refusal::Ended, id));
            return Step::Reply(circumstances.refuse(refused));
        };
        let key = RoundKey { campaign: id.clone(), round: round.id };
        circumstances.round = Some(round);
        circumstances.issued = self.progress.hear(&key, 0);

        let ask = Ask {
            campaign: id,
            round: round.id,
            user: user.as_ref().ok(),
            code: *code,
            version: campaign.version,
            quota: campaign.spec.quota,
            window_ms: (round.opens_ms(), round.closes_ms()),
        };
        let decision = match self.redis.issue(&ask).await {
            Ok(decision) => decision,
            Err(error) => {
                tracing::debug!(%error, campaign = %id, "an issue request cannot be decided");
                return Step::Reply(circumstances.ask_again(Refusal::Unavailable));
            }
        };
        circumstances.issued = self.progress.hear(&key, decision.committed);
        match decision.verdict {
            Verdict::Cold => self.warm(&key, circumstances, until).await,
            Verdict::Stale { version } => match self.changes.catch_up(id, version).await {
                Ok(()) => Step::Again,
                Err(error) => {
                    tracing::debug!(%error, campaign = %id, "cannot catch up with a newer version");
                    Step::Reply(circumstances.ask_again(Refusal::Unavailable))
                }
            },
            // The clock here was off by a little; with a new sample it agrees with the script's.
            Verdict::Outside => match self.clock.sample(&self.redis).await {
                Ok(_) => Step::Again,
                Err(_) => Step::Reply(circumstances.ask_again(Refusal::Unavailable)),
            },
            Verdict::SoldOut => Step::Reply(self.sold_out(circumstances, &campaign, round, decision.now_ms)),
            Verdict::Open => {
                let refusal = user.as_ref().err().copied().unwrap_or(Refusal::MissingUser);
                Step::Reply(circumstances.about(refusal))
            }
            // Settled here or elsewhere while this request was under way, or before it.
            Verdict::AlreadyIssued(held) => {
                Step::Reply(self.already_issued(circumstances, round, user, held, held == *code).await)
            }
            // What is not settled in Redis yet may be committed all the same.
            Verdict::Busy if campaign.spec.quota.is_some_and(|quota| circumstances.issued >= quota) => {
                Step::Reply(self.sold_out(circumstances, &campaign, round, decision.now_ms))
            }
            Verdict::Busy => Step::Reply(circumstances.ask_again(Refusal::Busy)),
            Verdict::Pending(held) | Verdict::Reserved(held) => {
                self.commit(circumstances, &campaign, &key, round, held, code, until).await
            }
        }
    }

    /// Where Redis's clock stands in the schedule, and what it shows; none if it cannot be had.
    async fn phase(&self, campaign: &Campaign) -> Option<(Phase, i64)> {
        if let Some(reading) = self.clock.at(Instant::now()) {
            let phase = campaign.schedule.phase(reading.now_ms);
            let is_open = |at_ms| matches!(campaign.schedule.phase(at_ms), Phase::Open { .. });
            let reach_ms = BOUNDARY_MS + i64::from(reading.uncertainty_ms);
            let near = || is_open(reading.now_ms - reach_ms) || is_open(reading.now_ms + reach_ms);
            if matches!(phase, Phase::Open { .. }) || !near() {
                return Some((phase, reading.now_ms));
            }
        }
        let reading = self.clock.sample(&self.redis).await.ok()?;
        Some((campaign.schedule.phase(reading.now_ms), reading.now_ms))
    }

    async fn warm(&self, key: &RoundKey, circumstances: &Circumstances<'_>, until: Instant) -> Step {
        loop {
            match tokio::time::timeout_at(until, self.hydrations.hydrate(key)).await {
                Ok(Hydrated::Done) => return Step::Again,
                // Deleted, or its schedule changed: the catalog will say which.
                Ok(Hydrated::Gone) => {
                    return match self.catalog.refresh().await {
                        Ok(()) => Step::Again,
                        Err(_) => Step::Reply(circumstances.ask_again(Refusal::Unavailable)),
                    };
                }
                Ok(Hydrated::Failed) if Instant::now() + HYDRATE_AGAIN < until => {
                    tokio::time::sleep(HYDRATE_AGAIN).await;
                }
                Ok(Hydrated::Failed) | Err(_) => {
                    return Step::Reply(circumstances.ask_again(Refusal::Unavailable));
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the circumstances of one request, used once")]
    async fn commit(
        &self,
        circumstances: &mut Circumstances<'_>,
        campaign: &Campaign,
        key: &RoundKey,
        round: Round,
        held: Held,
        code: &mut CouponCode,
        until: Instant,
    ) -> Step {
        let answer = self.lanes.submit(key, reservation(campaign, &held));
        let committed = match tokio::time::timeout_at(until, answer).await {
            Ok(Ok(committed)) => committed,
            Ok(Err(_)) | Err(_) => Committed::Unknown,
        };
        circumstances.issued = self.progress.hear(key, 0);
        if let Err(error) = self.resolve(key, &held, &committed).await {
            tracing::debug!(%error, campaign = %key.campaign, "a conflict cannot be resolved; the sweeper will");
            return Step::Reply(circumstances.ask_again(Refusal::Unavailable));
        }
        match committed {
            Committed::Issued(coupon) => Step::Reply(circumstances.reply(Outcome::Issued, Answer::Issued(coupon))),
            Committed::UserTaken(coupon) => {
                let problem = Problem::already_issued(circumstances.campaign, round.id);
                let answer = Answer::Refused(Box::new(problem), Some(coupon));
                Step::Reply(circumstances.reply(Outcome::AlreadyIssued, answer))
            }
            Committed::Unknown => Step::Reply(self.pending(circumstances, round, held.code).await),
            Committed::Rejected => Step::Reply(circumstances.ask_again(Refusal::Unavailable)),
            Committed::NumberTaken | Committed::Stale => Step::Again,
            Committed::CodeTaken => {
                *code = CouponCode::from_random(rand::random());
                Step::Again
            }
            Committed::Gone => match self.catalog.refresh().await {
                Ok(()) => Step::Again,
                Err(_) => Step::Reply(circumstances.ask_again(Refusal::Unavailable)),
            },
        }
    }

    async fn pending(&self, circumstances: &Circumstances<'_>, round: Round, code: CouponCode) -> Reply {
        let pointed = self.redis.point(circumstances.campaign, round.id, code, round.closes_ms()).await;
        if let Err(error) = pointed {
            tracing::debug!(%error, %code, "the location of a pending coupon will not find it before it is committed");
        }
        circumstances.reply(Outcome::Pending, Answer::Pending(code))
    }

    fn sold_out(&self, circumstances: &mut Circumstances<'_>, campaign: &Campaign, round: Round, now_ms: i64) -> Reply {
        let next_opens = campaign.opens_after(round);
        circumstances.refuse(Problem::sold_out(circumstances.campaign, round.id, next_opens, now_ms))
    }

    /// `own`: the code is the one that this very request drew.
    async fn already_issued(
        &self,
        circumstances: &Circumstances<'_>,
        round: Round,
        user: &Result<UserId, Refusal>,
        code: CouponCode,
        own: bool,
    ) -> Reply {
        let coupon = match user {
            Ok(user) => self.postgres.coupon(user, code).await.ok().flatten().map(Box::new),
            Err(_) => None,
        };
        match coupon {
            Some(coupon) if own => circumstances.reply(Outcome::Issued, Answer::Issued(coupon)),
            None if own => self.pending(circumstances, round, code).await,
            coupon => {
                let problem = Problem::already_issued(circumstances.campaign, round.id);
                circumstances.reply(Outcome::AlreadyIssued, Answer::Refused(Box::new(problem), coupon))
            }
        }
    }
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
