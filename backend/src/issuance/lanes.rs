//! Group commit: reservations of a round that wait together go into PostgreSQL together.
//!
//! A round has a lane while something waits in it. Whoever finds no lane opens one and its task commits, batch after
//! batch, until nothing waits; the next batch gathers while one commits. There is no timer. The task is nobody's
//! request: a client that goes away stops nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::counts::Counts;
use super::progress::Progress;
use super::{Place, RoundKey};
use crate::lineage::Lineage;
use crate::store::postgres::{Coupon, DatabaseError, Fault, Outcome, Postgres, Reservation};
use crate::store::redis::Redis;
use crate::telemetry::Metrics;

/// Largest batch; beyond it a commit's time grows with its size.
const LARGEST_BATCH: usize = 500;

/// Refusals after which a reservation is given up where the reason is unclear. At most one a second counts, so that with
/// the sweeper's patience it is given up well within ten seconds.
const ATTEMPTS: u32 = 5;

/// What became of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Committed {
    /// Its coupon exists.
    Issued(Box<Coupon>),
    /// The user has this other coupon of the round.
    UserTaken(Box<Coupon>),
    /// Its number is another coupon's, or above any quota the round has had: Redis is behind.
    NumberTaken,
    /// Its code is another coupon's.
    CodeTaken,
    /// Its epoch is over.
    Stale,
    /// The round does not exist.
    Gone,
    /// PostgreSQL does not take it: a failed issuance, recorded as such.
    Failed,
    /// Nobody knows; committing again tells.
    Unknown,
}

impl Committed {
    /// For log lines.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Issued(_) => "issued",
            Self::UserTaken(_) => "user_taken",
            Self::NumberTaken => "number_taken",
            Self::CodeTaken => "code_taken",
            Self::Stale => "stale",
            Self::Gone => "gone",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl From<Outcome> for Committed {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Issued(coupon) => Self::Issued(coupon),
            Outcome::UserTaken(coupon) => Self::UserTaken(coupon),
            Outcome::NumberTaken => Self::NumberTaken,
            Outcome::CodeTaken => Self::CodeTaken,
            Outcome::Stale => Self::Stale,
            Outcome::Gone => Self::Gone,
            Outcome::Unknown => Self::Unknown,
        }
    }
}

#[derive(Debug)]
struct Job {
    reservation: Reservation,
    reply: oneshot::Sender<Committed>,
    /// Kept until the commit has ended, whoever still waits for it: what waits in the lanes is bounded.
    _place: Option<Place>,
}

/// Closes a lane whose task panics, so that the next reservation opens another. Those that waited are swept.
struct LaneGuard<'a> {
    lanes: &'a Lanes,
    key: &'a RoundKey,
}

impl Drop for LaneGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.lanes.waiting().remove(self.key);
        }
    }
}

#[derive(Debug)]
pub(super) struct Lanes {
    postgres: Postgres,
    redis: Arc<Redis>,
    lineage: Arc<Lineage>,
    progress: Arc<Progress>,
    counts: Arc<Counts>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    waiting: Mutex<HashMap<RoundKey, Vec<Job>>>,
}

impl Lanes {
    pub(super) fn new(
        postgres: Postgres,
        redis: Arc<Redis>,
        lineage: Arc<Lineage>,
        progress: Arc<Progress>,
        counts: Arc<Counts>,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
    ) -> Self {
        Self { postgres, redis, lineage, progress, counts, metrics, tasks, waiting: Mutex::default() }
    }

    /// Has a reservation committed. Submitting it twice does no harm. Without a place: for whoever bounds by other means
    /// how much is submitted at once.
    pub(super) fn submit(
        self: &Arc<Self>,
        key: &RoundKey,
        reservation: Reservation,
        place: Option<Place>,
    ) -> oneshot::Receiver<Committed> {
        let (reply, answer) = oneshot::channel();
        let job = Job { reservation, reply, _place: place };
        match self.waiting().entry(key.clone()) {
            Entry::Occupied(mut lane) => lane.get_mut().push(job),
            Entry::Vacant(lane) => {
                lane.insert(vec![job]);
                self.tasks.spawn(Arc::clone(self).run(key.clone()));
            }
        }
        answer
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<RoundKey, Vec<Job>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>, key: RoundKey) {
        let _guard = LaneGuard { lanes: &self, key: &key };
        while let Some(batch) = self.next_batch(&key) {
            // Places are reserved.
            self.counts.touch(&key);
            self.commit(&key, batch).await;
        }
    }

    /// The longest waiting jobs; none, and the lane is closed, if nothing waits.
    fn next_batch(&self, key: &RoundKey) -> Option<Vec<Job>> {
        let mut waiting = self.waiting();
        let lane = waiting.get_mut(key)?;
        if lane.is_empty() {
            waiting.remove(key);
            return None;
        }
        Some(lane.drain(..lane.len().min(LARGEST_BATCH)).collect())
    }

    async fn commit(&self, key: &RoundKey, mut batch: Vec<Job>) {
        let reservations: Vec<Reservation> = batch.iter().map(|job| job.reservation.clone()).collect();
        match self.write(key, &reservations).await {
            Ok(outcomes) => self.answer(key, batch.into_iter().zip(outcomes).collect()).await,
            Err(error) if error.fault() == Fault::Server => self.give_up_waiting(key, &error, batch),
            Err(_) => {
                // One of them spoils the batch. Alone, in the order of their numbers, the others go in.
                batch.sort_unstable_by_key(|job| job.reservation.number);
                let mut rest = batch.into_iter();
                while let Some(job) = rest.next() {
                    match self.write(key, std::slice::from_ref(&job.reservation)).await {
                        Ok(outcomes) => self.answer(key, std::iter::once(job).zip(outcomes).collect()).await,
                        Err(error) if error.fault() == Fault::Server => {
                            return self.give_up_waiting(key, &error, std::iter::once(job).chain(rest).collect());
                        }
                        Err(error) => {
                            let outcome = self.note_refused(key, &job.reservation, &error).await;
                            self.answer(key, vec![(job, outcome)]).await;
                        }
                    }
                }
            }
        }
    }

    /// Whoever waits behind would wait for the same failure.
    fn give_up_waiting(&self, key: &RoundKey, error: &DatabaseError, batch: Vec<Job>) {
        tracing::warn!(%error, campaign = %key.campaign, round = %key.round, places = batch.len(), "a commit failed");
        let behind = self.waiting().get_mut(key).map(std::mem::take).unwrap_or_default();
        for job in batch.into_iter().chain(behind) {
            let _ = job.reply.send(Committed::Unknown);
        }
    }

    /// PostgreSQL answered, and refused this one reservation. It is recorded before its place goes back.
    async fn note_refused(&self, key: &RoundKey, refused: &Reservation, error: &DatabaseError) -> Committed {
        if error.is_above_quota() {
            return Committed::NumberTaken;
        }
        let bound = match error.fault() {
            Fault::Row => 1,
            Fault::Unclear => ATTEMPTS,
            Fault::Internal | Fault::Server => {
                let code = refused.code;
                tracing::warn!(
                    %error, campaign = %key.campaign, round = %key.round, %code,
                    "a commit failed, and the place stays with its user"
                );
                return Committed::Unknown;
            }
        };
        let noted = self.postgres.note_refused(&key.campaign, key.round, refused, &error.cause(), bound).await;
        match noted {
            Ok(true) => {
                self.metrics.failed.inc();
                let code = refused.code;
                tracing::error!(%error, campaign = %key.campaign, round = %key.round, %code, "an issuance failed");
                Committed::Failed
            }
            Ok(false) => Committed::Unknown,
            Err(unnoted) => {
                tracing::warn!(%error, %unnoted, campaign = %key.campaign, round = %key.round, "a commit failed");
                Committed::Unknown
            }
        }
    }

    async fn write(&self, key: &RoundKey, batch: &[Reservation]) -> Result<Vec<Outcome>, DatabaseError> {
        let (began, since) = (Instant::now(), self.lineage.generation());
        let span = tracing::info_span!("commit", campaign = %key.campaign, round = %key.round, places = batch.len());
        let outcome = self.postgres.commit(&key.campaign, key.round, batch).instrument(span).await;
        self.metrics.note_commit(began.elapsed());
        match outcome {
            Ok(commit) => {
                #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
                self.metrics.batch_size.observe(batch.len() as f64);
                self.progress.hear(key, commit.issued, since);
                Ok(commit.outcomes)
            }
            Err(error) => {
                self.metrics.commit_failures.inc();
                Err(error)
            }
        }
    }

    /// Settles what is committed, behind the replies but on its way before them: a client that asks again at once finds
    /// its coupon committed.
    async fn answer<O: Into<Committed>>(&self, key: &RoundKey, answers: Vec<(Job, O)>) {
        let answers: Vec<(Job, Committed)> = answers.into_iter().map(|(job, outcome)| (job, outcome.into())).collect();
        let rows: Vec<_> = answers
            .iter()
            .filter_map(|(job, committed)| match committed {
                Committed::Issued(coupon) => Some((job.reservation.user.clone(), coupon.code, coupon.number)),
                _ => None,
            })
            .collect();
        let send = || {
            for (job, committed) in answers {
                // Whoever does not wait any more was answered with 202, or is gone.
                let _ = job.reply.send(committed);
            }
        };
        if rows.is_empty() {
            return send();
        }
        let (redis, counts, key) = (Arc::clone(&self.redis), Arc::clone(&self.counts), key.clone());
        let mut settling = Box::pin(async move {
            if let Err(error) = redis.settle(&key.campaign, key.round, &rows).await {
                tracing::warn!(%error, campaign = %key.campaign, round = %key.round, "not settled; the sweeper will");
            }
            counts.touch(&key);
        });
        let under_way = poll_fn(|context| Poll::Ready(pin!(&mut settling).poll(context).is_pending())).await;
        send();
        if under_way {
            self.tasks.spawn(settling);
        }
    }
}
