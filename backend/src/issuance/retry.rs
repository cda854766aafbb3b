//! An operator's retry of a failed issuance: the normal path, with the quota and the one-per-user rule as they are now.

use doorbuster_domain::refusal::Refusal;

use super::Issuance;
use super::request::{Answer, Circumstances, Door};
use crate::operators::Operator;
use crate::store::postgres::{Coupon, DatabaseError, Failure};

/// What became of a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    /// The user has a coupon of the round: by this retry, by an earlier one, or by asking again.
    Issued(Box<Coupon>),
    /// A place is held; PostgreSQL did not say in time whether it took it. The sweeper goes on.
    Pending,
    /// PostgreSQL refused again.
    Failed,
    /// The rules say no, or not now.
    Refused(Refusal),
}

impl Retried {
    /// One word for it: the contract's code where there is one.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Issued(_) => "issued",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Refused(refusal) => refusal.code(),
        }
    }
}

impl Issuance {
    /// Tries a failed issuance again for an operator; none if there is no such failure. Safe to repeat, and to run twice at once: a user
    /// gets one coupon of the round at most, whoever asks for it.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn retry(&self, by: &Operator, id: i64) -> Result<Option<(Failure, Retried)>, DatabaseError> {
        let Some(failure) = self.postgres.failure(id).await? else { return Ok(None) };
        let Failure { campaign, round, user, .. } = &failure;
        // First, since a round that is sold out says so to its winners too.
        if let Some(coupon) = self.postgres.coupon_of(user, campaign, *round).await? {
            return Ok(Some((failure, Retried::Issued(Box::new(coupon)))));
        }
        self.postgres.note_retry(by, &failure).await?;
        let reply = self.decide(Circumstances::new(campaign, Door::Operator(*round)), Ok(user.clone())).await;
        let retried = match reply.answer {
            Answer::Issued(coupon) | Answer::Refused(_, Some(coupon)) => Retried::Issued(coupon),
            Answer::Pending(_) => Retried::Pending,
            Answer::Failed(_) => Retried::Failed,
            Answer::Refused(problem, None) => Retried::Refused(problem.refusal),
        };
        Ok(Some((failure, retried)))
    }
}
