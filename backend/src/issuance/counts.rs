//! What is known of rounds' counts, asked of the stores only when they can have changed.
//!
//! A backend marks a round in Redis after it has changed something there. A round without a mark is
//! looked at again after some seconds, since a backend may die before it sets one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::RoundKey;
use crate::lineage::{Generation, Lineage};
use crate::store::redis::{Clock, Redis, RedisError, RoundCounts};

/// A round in which nothing happens is looked at again after so long. A place whose backend died
/// before it marked the round must be found well within ten seconds.
const QUIET: Duration = Duration::from_secs(4);

/// The same for a round that has been closed for a while and in which nothing is pending.
const CLOSED: Duration = Duration::from_secs(60);

/// A round is closed for good when it closed so long ago, milliseconds.
pub(super) const SETTLED_MS: i64 = 120_000;

/// A mark says for so long that its round is at work, milliseconds. It covers the differences
/// between the backends' readings of Redis's clock.
const MARKED_MS: i64 = 1_500;

/// Between two writes of marks.
const MARK_AGAIN: Duration = Duration::from_millis(50);

/// What failed is tried again after so long.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The coupons of a cold round are counted in PostgreSQL again after so long.
const COLD: Duration = Duration::from_secs(1);

/// A round that was not asked for since then is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// A round whose counts are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) key: RoundKey,
    /// The last instant at which a place may have been reserved in it, Unix milliseconds.
    pub(super) closes_ms: i64,
}

impl Watched {
    /// Whether nothing can change in it any more, retries of failed issuances excepted.
    pub(super) fn is_settled(&self, now_ms: i64) -> bool {
        self.closes_ms + SETTLED_MS <= now_ms
    }
}

#[derive(Debug, Clone, Copy)]
struct Look {
    /// When it began.
    at: Instant,
    counts: RoundCounts,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The last look in Redis; none if it failed.
    look: Option<Look>,
    /// When that began.
    tried: Option<Instant>,
    /// When PostgreSQL was last asked, and how many coupons it had.
    row: Option<(Instant, u64)>,
    /// When a backend last changed something, as far as this one knows.
    touched: Option<Instant>,
    wanted: Instant,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self { look: None, tried: None, row: None, touched: None, wanted: now }
    }

    /// Whether this is content for somebody who wants what was known at `since`.
    fn is_as_of(&self, since: Instant) -> bool {
        self.tried.is_some_and(|at| at >= since)
    }

    /// Whether Redis must be asked, by somebody who is content with what was known at `since`.
    fn wants_look(&self, watched: &Watched, now_ms: i64, now: Instant, since: Instant) -> bool {
        if self.is_as_of(since) {
            return false;
        }
        let Some(Look { at, counts }) = self.look else {
            // A node of a cluster that is away must not slow down each look at the others.
            return self.tried.is_none_or(|at| now.saturating_duration_since(at) >= AFTER_FAILURE);
        };
        let cold = !counts.warm && now_ms < watched.closes_ms;
        let touched = self.touched.is_some_and(|touched| touched >= at);
        let rest = if watched.is_settled(now_ms) { CLOSED } else { QUIET };
        cold || touched || counts.pending > 0 || now.saturating_duration_since(at) >= rest
    }

    /// Whether PostgreSQL must be asked for a round that Redis does not know, or keeps no more.
    fn wants_row(&self, watched: &Watched, now_ms: i64, now: Instant) -> bool {
        let Some((at, _)) = self.row else { return true };
        let touched = self.touched.is_some_and(|touched| touched >= at);
        let rest = if watched.is_settled(now_ms) { Duration::MAX } else { COLD };
        touched || now.saturating_duration_since(at) >= rest
    }
}

/// What was learnt under one lineage of the database.
#[derive(Debug, Default)]
struct Known {
    generation: Generation,
    entries: HashMap<RoundKey, Entry>,
}

/// What this process knows of rounds' counts.
#[derive(Debug)]
pub(super) struct Counts {
    redis: Arc<Redis>,
    lineage: Arc<Lineage>,
    known: Mutex<Known>,
    /// One look at a time: those who come meanwhile share the next. When the last one that failed
    /// began.
    looking: tokio::sync::Mutex<Option<Instant>>,
    /// When PostgreSQL last did not answer.
    no_rows: Mutex<Option<Instant>>,
    /// Rounds whose marks are not written yet.
    unmarked: Mutex<HashSet<RoundKey>>,
    touch: Notify,
}

impl Counts {
    pub(super) fn new(redis: Arc<Redis>, lineage: Arc<Lineage>) -> Self {
        Self {
            redis,
            lineage,
            known: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            no_rows: Mutex::default(),
            unmarked: Mutex::default(),
            touch: Notify::new(),
        }
    }

    /// What was learnt under the current lineage.
    fn known(&self) -> MutexGuard<'_, Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.lineage.generation();
        if known.generation != generation {
            *known = Known { generation, entries: HashMap::new() };
        }
        known
    }

    fn unmarked(&self) -> MutexGuard<'_, HashSet<RoundKey>> {
        self.unmarked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process is changing, or has changed, a round in Redis.
    pub(super) fn touch(&self, key: &RoundKey) {
        self.note_touched([key]);
        self.unmarked().insert(key.clone());
        self.touch.notify_one();
    }

    fn note_touched<'a>(&self, keys: impl IntoIterator<Item = &'a RoundKey>) {
        let now = Instant::now();
        let mut known = self.known();
        for key in keys {
            if let Some(entry) = known.entries.get_mut(key) {
                entry.touched = Some(now);
            }
        }
    }

    /// Marks in Redis what was touched, until `stop`.
    pub(super) async fn mark(&self, clock: &Clock, stop: CancellationToken) {
        let marking = async {
            loop {
                self.touch.notified().await;
                let touched = std::mem::take(&mut *self.unmarked());
                let rest = match self.write_marks(clock, &touched).await {
                    Ok(()) => MARK_AGAIN,
                    Err(error) => {
                        tracing::debug!(%error, "rounds cannot be marked as busy yet");
                        self.unmarked().extend(touched);
                        self.touch.notify_one();
                        AFTER_FAILURE
                    }
                };
                tokio::time::sleep(rest).await;
            }
        };
        stop.run_until_cancelled(marking).await;
    }

    async fn write_marks(&self, clock: &Clock, touched: &HashSet<RoundKey>) -> Result<(), RedisError> {
        let reading = clock.now(&self.redis).await?;
        let rounds: Vec<_> = touched.iter().map(|key| (key.campaign.clone(), key.round)).collect();
        self.redis.mark_busy(&rounds, reading.now_ms).await
    }

    /// What Redis knows of each round, as of `since` or later; none where that cannot be known.
    ///
    /// # Errors
    /// If Redis cannot be reached at all.
    pub(super) async fn look(
        &self,
        watched: &[Watched],
        now_ms: i64,
        since: Instant,
    ) -> Result<Vec<Option<RoundCounts>>, RedisError> {
        if watched.is_empty() {
            return Ok(Vec::new());
        }
        let mut failed = self.looking.lock().await;
        // The exchange that this request waited for has failed: it does not wait for another one.
        if failed.is_some_and(|at| at >= since) {
            return Err(RedisError::Away);
        }
        let began = Instant::now();
        let looked = self.look_alone(watched, now_ms, began, since).await;
        if looked.is_err() {
            *failed = Some(began);
        }
        looked
    }

    async fn look_alone(
        &self,
        watched: &[Watched],
        now_ms: i64,
        began: Instant,
        since: Instant,
    ) -> Result<Vec<Option<RoundCounts>>, RedisError> {
        let all_fresh = {
            let known = self.known();
            watched.iter().all(|watched| known.entries.get(&watched.key).is_some_and(|entry| entry.is_as_of(since)))
        };
        if !all_fresh {
            self.hear_marks(now_ms).await?;
        }
        let (since_generation, due): (Generation, Vec<&Watched>) = {
            let mut known = self.known();
            let generation = known.generation;
            let is_due = |watched: &&Watched| {
                let entry = known.entries.entry(watched.key.clone()).or_insert_with(|| Entry::new(began));
                entry.wanted = began;
                entry.wants_look(watched, now_ms, began, since)
            };
            (generation, watched.iter().filter(is_due).collect())
        };
        let asked: Vec<_> = due.iter().map(|watched| (&watched.key.campaign, watched.key.round)).collect();
        let counted = self.redis.counts(&asked).await?;
        let mut known = self.known();
        // What was read before the lineage changed is of no account.
        let counted = due.iter().zip(counted).filter(|_| known.generation == since_generation);
        for (watched, counts) in counted.collect::<Vec<_>>() {
            if let Some(entry) = known.entries.get_mut(&watched.key) {
                entry.tried = Some(began);
                entry.look = counts.map(|counts| Look { at: began, counts });
            }
        }
        Ok(watched.iter().map(|watched| Some(known.entries.get(&watched.key)?.look?.counts)).collect())
    }

    async fn hear_marks(&self, now_ms: i64) -> Result<(), RedisError> {
        let marked = match self.redis.busy_since(now_ms.saturating_sub(MARKED_MS)).await {
            Ok(marked) => marked,
            // The node that keeps marks may be away, and the rounds of others not.
            Err(error) if self.redis.is_cluster() => {
                tracing::debug!(%error, "which rounds are busy is not known");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let keys: Vec<_> = marked.into_iter().map(|(campaign, round)| RoundKey { campaign, round }).collect();
        self.note_touched(&keys);
        Ok(())
    }

    /// Those of `watched` whose coupons PostgreSQL must be asked for.
    pub(super) fn without_row<'a>(&self, watched: &[&'a Watched], now_ms: i64) -> Vec<&'a RoundKey> {
        let now = Instant::now();
        let no_rows = *self.no_rows.lock().unwrap_or_else(PoisonError::into_inner);
        if no_rows.is_some_and(|at| now.saturating_duration_since(at) < AFTER_FAILURE) {
            return Vec::new();
        }
        let mut known = self.known();
        let is_due = |watched: &&&Watched| {
            let entry = known.entries.entry(watched.key.clone()).or_insert_with(|| Entry::new(now));
            entry.wanted = now;
            entry.wants_row(watched, now_ms, now)
        };
        watched.iter().filter(is_due).map(|watched| &watched.key).collect()
    }

    /// PostgreSQL was asked at `asked` and had so many coupons of each round.
    pub(super) fn note_rows<'a>(&self, rows: impl IntoIterator<Item = (&'a RoundKey, u64)>, asked: Instant) {
        let mut known = self.known();
        for (key, issued) in rows {
            if let Some(entry) = known.entries.get_mut(key) {
                entry.row = Some((asked, issued));
            }
        }
    }

    /// PostgreSQL was asked at `asked` and did not answer.
    pub(super) fn note_no_rows(&self, asked: Instant) {
        *self.no_rows.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
    }

    /// What PostgreSQL last said of a round; 0 before it was asked.
    pub(super) fn row(&self, key: &RoundKey) -> u64 {
        self.known().entries.get(key).and_then(|entry| entry.row).map_or(0, |(_, issued)| issued)
    }

    /// The rounds that Redis knew at the last look, and what it knew.
    pub(super) fn looks(&self) -> Vec<(RoundKey, RoundCounts)> {
        let known = self.known();
        let warm = |(key, entry): (&RoundKey, &Entry)| {
            let counts = entry.look?.counts;
            counts.warm.then(|| (key.clone(), counts))
        };
        known.entries.iter().filter_map(warm).collect()
    }

    /// Removes rounds that were not asked for lately.
    pub(super) fn forget_unwanted(&self) {
        let now = Instant::now();
        self.known().entries.retain(|_, entry| now.saturating_duration_since(entry.wanted) < FORGOTTEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSES_MS: i64 = 1_000_000;

    fn watched() -> Watched {
        let campaign = doorbuster_domain::id::CampaignId::parse("spring").unwrap();
        Watched { key: RoundKey { campaign, round: "2026-05-01".parse().unwrap() }, closes_ms: CLOSES_MS }
    }

    fn entry(at: Instant, pending: u64) -> Entry {
        let counts = RoundCounts { warm: true, epoch: 1, committed: 5, pending };
        Entry { look: Some(Look { at, counts }), tried: Some(at), ..Entry::new(at) }
    }

    #[test]
    fn a_quiet_round_is_looked_at_every_few_seconds_and_one_at_work_each_time() {
        let at = Instant::now();
        let after = |ms| at + Duration::from_millis(ms);
        let wants = |entry: &Entry, now_ms, ms| entry.wants_look(&watched(), now_ms, after(ms), after(ms));
        let open_ms = CLOSES_MS - 1;
        assert!(!wants(&entry(at, 0), open_ms, 3_999) && wants(&entry(at, 0), open_ms, 4_000));
        assert!(wants(&entry(at, 1), open_ms, 1));
        assert!(wants(&Entry { touched: Some(at), ..entry(at, 0) }, open_ms, 1));
        // Before the look: it has seen that.
        let before = at.checked_sub(Duration::from_millis(1));
        assert!(!wants(&Entry { touched: before, ..entry(at, 0) }, open_ms, 1));
        // Whoever is content with what this look found does not make another one.
        assert!(!entry(at, 1).wants_look(&watched(), open_ms, after(9_000), at));
        let mut cold = entry(at, 0);
        cold.look = cold.look.map(|look| Look { counts: RoundCounts::default(), ..look });
        assert!(wants(&cold, open_ms, 1) && !wants(&cold, CLOSES_MS, 1));
        let settled_ms = CLOSES_MS + SETTLED_MS;
        assert!(!wants(&entry(at, 0), settled_ms, 59_999) && wants(&entry(at, 0), settled_ms, 60_000));
        assert!(wants(&entry(at, 1), settled_ms, 1));
    }

    #[test]
    fn a_round_that_is_over_is_asked_of_postgresql_once() {
        let at = Instant::now();
        let later = at + Duration::from_secs(1_000);
        let known = Entry { row: Some((at, 5)), ..Entry::new(at) };
        let settled_ms = CLOSES_MS + SETTLED_MS;
        assert!(Entry::new(at).wants_row(&watched(), settled_ms, at));
        assert!(!known.wants_row(&watched(), settled_ms, later));
        assert!(Entry { touched: Some(later), ..known }.wants_row(&watched(), settled_ms, later));
        assert!(known.wants_row(&watched(), settled_ms - 1, later));
    }
}
