//! Sinks: which there are, what waits for them, what they never took.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::FromRow;
use sqlx::types::Json;

use super::audit_log::{self, Record};
use super::{DatabaseError, Postgres, unsigned};
use crate::events::Event;
use crate::operators::Operator;

/// Rows deleted in one statement.
const DELETED_AT_ONCE: i64 = 1_000;

/// What waits for a sink.
#[derive(Debug, Clone, PartialEq)]
pub struct Backlog {
    /// The sink.
    pub sink: String,
    /// Events in the outbox, not tried yet.
    pub waiting: u64,
    /// Age of the oldest of them, seconds.
    pub age_s: f64,
    /// Events that failed and are tried again, or wait behind such a one or behind a dead letter.
    pub parked: u64,
    /// Dead letters.
    pub dead: u64,
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its name among the dead letters.
    pub id: i64,
    /// The sink that did not take it.
    pub sink: String,
    /// The event.
    pub event: Event,
    /// Attempts that failed.
    pub attempts: u64,
    /// Why the last one did.
    pub error: String,
    /// When it was given up.
    pub dead_at: DateTime<Utc>,
    /// Later events of the same subject, which wait for it.
    pub behind: u64,
}

#[derive(FromRow)]
struct BacklogRow {
    sink: String,
    waiting: i64,
    age_s: f64,
    parked: i64,
    dead: i64,
}

#[derive(FromRow)]
struct DeadLetterRow {
    id: i64,
    sink: String,
    event: Json<Event>,
    attempts: i32,
    last_error: Option<String>,
    dead_at: DateTime<Utc>,
    behind: i64,
}

impl DeadLetterRow {
    fn into_dead_letter(self) -> DeadLetter {
        DeadLetter {
            id: self.id,
            sink: self.sink,
            event: self.event.0,
            attempts: unsigned(self.attempts.into()),
            error: self.last_error.unwrap_or_default(),
            dead_at: self.dead_at,
            behind: unsigned(self.behind),
        }
    }
}

impl Postgres {
    /// Says that a backend is configured with these sinks. From now on events are kept for them.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn keep_sinks(&self, sinks: &[&str]) -> Result<(), DatabaseError> {
        self.within(
            // Once a minute is enough, and spares the row that every commit reads.
            sqlx::query(
                "INSERT INTO event_sinks (name) SELECT unnest($1::text[]) ON CONFLICT (name) DO UPDATE
                 SET seen_at = now() WHERE event_sinks.seen_at < now() - interval '1 minute'",
            )
            .bind(sinks)
            .execute(&self.pool),
        )
        .await?;
        Ok(())
    }

    /// Goes on with forgetting sinks that no backend has been configured with for a week: what waits for them first, some
    /// at a time. True if there is more to do.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn forget_sinks(&self) -> Result<bool, DatabaseError> {
        self.within(async {
            let stale: Option<String> =
                sqlx::query_scalar("SELECT name FROM event_sinks WHERE seen_at < now() - interval '7 days' LIMIT 1")
                    .fetch_optional(&self.pool)
                    .await?;
            let Some(sink) = stale else { return Ok(false) };
            let mut deleted = 0;
            for delete in [
                "DELETE FROM outbox WHERE sink = $1 AND id IN (SELECT id FROM outbox WHERE sink = $1 LIMIT $2)",
                "DELETE FROM parked_events WHERE id IN (SELECT id FROM parked_events WHERE sink = $1 LIMIT $2)",
            ] {
                let done = sqlx::query(delete).bind(&sink).bind(DELETED_AT_ONCE).execute(&self.pool).await?;
                deleted += done.rows_affected();
            }
            if deleted == 0 {
                sqlx::query("DELETE FROM event_sinks WHERE name = $1 AND seen_at < now() - interval '7 days'")
                    .bind(&sink)
                    .execute(&self.pool)
                    .await?;
                tracing::warn!(
                    sink,
                    "no backend has had this sink for a week: it is forgotten, with what waited for it"
                );
            }
            Ok(true)
        })
        .await
    }

    /// What waits for each sink.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn backlogs(&self) -> Result<Vec<Backlog>, DatabaseError> {
        let rows: Vec<BacklogRow> = self
            .within(
                sqlx::query_as(
                    "SELECT name AS sink,
                            (SELECT coalesce(sum(size), 0)::bigint FROM outbox WHERE sink = name) AS waiting,
                            coalesce((SELECT extract(epoch FROM now() - at)::double precision
                                        FROM outbox WHERE sink = name ORDER BY id LIMIT 1), 0) AS age_s,
                            (SELECT count(*) FROM parked_events WHERE sink = name AND dead_at IS NULL) AS parked,
                            (SELECT count(*) FROM parked_events WHERE sink = name AND dead_at IS NOT NULL) AS dead
                       FROM event_sinks ORDER BY name",
                )
                .fetch_all(&self.pool),
            )
            .await?;
        let backlog = |row: BacklogRow| Backlog {
            sink: row.sink,
            waiting: unsigned(row.waiting),
            age_s: row.age_s.max(0.0),
            parked: unsigned(row.parked),
            dead: unsigned(row.dead),
        };
        Ok(rows.into_iter().map(backlog).collect())
    }

    /// Up to `limit` dead letters after the one called `after`, in the order of their ids.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn dead_letters(&self, after: i64, limit: u32) -> Result<Vec<DeadLetter>, DatabaseError> {
        let rows: Vec<DeadLetterRow> = self
            .within(
                sqlx::query_as(
                    "SELECT id, sink, event, attempts, last_error, dead_at,
                            (SELECT count(*) FROM parked_events later
                              WHERE later.sink = dead.sink AND later.subject = dead.subject AND later.id > dead.id)
                            AS behind
                       FROM parked_events dead
                      WHERE dead_at IS NOT NULL AND id > $1 ORDER BY id LIMIT $2",
                )
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all(&self.pool),
            )
            .await?;
        Ok(rows.into_iter().map(DeadLetterRow::into_dead_letter).collect())
    }

    /// Has a dead letter sent again, with all its attempts before it. False if there is no such dead letter.
    ///
    /// # Errors
    /// If PostgreSQL does not answer; it may be sent all the same.
    pub async fn retry_dead_letter(&self, by: &Operator, id: i64) -> Result<bool, DatabaseError> {
        self.within(async {
            let mut transaction = self.pool.begin().await?;
            let before: Option<(String, Value)> = sqlx::query_as(
                "SELECT event ->> 'id', jsonb_build_object('sink', sink, 'attempts', attempts, 'error', last_error)
                   FROM parked_events WHERE id = $1 AND dead_at IS NOT NULL FOR UPDATE",
            )
            .bind(id)
            .fetch_optional(&mut *transaction)
            .await?;
            let Some((event, before)) = before else { return Ok(false) };
            sqlx::query("UPDATE parked_events SET dead_at = NULL, attempts = 0, next_at = now() WHERE id = $1")
                .bind(id)
                .execute(&mut *transaction)
                .await?;
            let subject = format!("event/{event}");
            let record = Record { by, action: "event.retried", subject, before: Some(before), after: None };
            audit_log::record(&mut transaction, &record).await?;
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }
}
