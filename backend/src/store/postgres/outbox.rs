//! What waits for a sink, and the connection by which one backend at a time works it off.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{ConnectOptions, Connection, FromRow, PgConnection};

use super::{DatabaseError, Postgres, session, signed, within};
use crate::events::Event;

/// The server ends a lease whose holder has said nothing for so long: it is paused, or cut off.
const SILENT_HOLDER: &str = "30s";

/// An event at the head of a sink's outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Fresh {
    /// The outbox's row.
    pub row: i64,
    /// Its place in the row, from 1.
    pub place: i64,
    /// How many events the row holds.
    pub size: i64,
    /// The event; its data is null if its coupon is gone.
    pub event: Event,
    /// Whether an earlier event of the same subject is parked: this one must wait behind it.
    pub behind: bool,
}

/// A parked event that is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// The parked event's row.
    pub id: i64,
    /// Attempts that failed.
    pub attempts: u32,
    /// The event.
    pub event: Event,
}

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedDelivery {
    /// For the operator.
    pub error: String,
    /// How long to wait for the next attempt; none if it was the last.
    pub wait: Option<Duration>,
}

impl FailedDelivery {
    fn wait_ms(&self) -> Option<i64> {
        self.wait.map(|wait| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
    }
}

/// What came of one pass over a sink's events.
#[derive(Debug, Default)]
pub struct Settlement {
    /// Parked events that were delivered.
    pub delivered: Vec<i64>,
    /// Parked events that failed again.
    pub failed: Vec<(i64, FailedDelivery)>,
    /// Fresh events to park, in order; without a failure they wait behind an earlier one.
    pub parked: Vec<(Event, Option<FailedDelivery>)>,
    /// Rows of the outbox of which nothing is left. By name: one with a lower id may be committed at any time.
    pub emptied: Vec<i64>,
    /// A row of which only so many first events are done with.
    pub begun: Option<(i64, i64)>,
    /// Subjects of parked events that were delivered, and of events that wait behind others.
    pub touched: Vec<String>,
}

/// A connection for one sink's outbox. Whoever gets the lease keeps it as long as this connection lives; after any error
/// the connection is done with.
#[derive(Debug)]
pub struct Outbox {
    connection: PgConnection,
    sink: &'static str,
    deadline: Duration,
}

#[derive(FromRow)]
struct FreshRow {
    id: i64,
    place: i64,
    size: i64,
    kind: String,
    subject: String,
    event_id: String,
    time: DateTime<Utc>,
    data: Option<Json<serde_json::Value>>,
    behind: bool,
}

impl Postgres {
    /// Connects, outside the pool, for a sink's outbox.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn outbox(&self, sink: &'static str) -> Result<Outbox, DatabaseError> {
        let options = self.pool.connect_options().as_ref().clone().application_name("doorbuster relay").options([
            // A host that vanished would otherwise hold its lease for hours.
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
            ("idle_session_timeout", SILENT_HOLDER),
            // Every look-up here is by an index, whatever the planner knows of tables that fill and empty in seconds.
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
        ]);
        let connecting = async {
            let mut connection = options.connect().await?;
            session::prepare(&mut connection).await?;
            Ok(connection)
        };
        let connection = self.within(connecting).await?;
        Ok(Outbox { connection, sink, deadline: self.deadline })
    }
}

impl Outbox {
    /// Tries to become the one that works off this outbox.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn lease(&mut self) -> Result<bool, DatabaseError> {
        let asking = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended('events ' || $1, 0))")
            .bind(self.sink)
            .fetch_one(&mut self.connection);
        within(self.deadline, asking).await
    }

    /// Tells the server that we are there.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn ping(&mut self) -> Result<(), DatabaseError> {
        within(self.deadline, self.connection.ping()).await
    }

    /// Up to `limit` parked events whose time has come; of a subject only the first.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn due(&mut self, limit: usize) -> Result<Vec<Due>, DatabaseError> {
        let asking = sqlx::query_as(
            "SELECT id, attempts, event FROM parked_events
              WHERE sink = $1 AND next_at <= now() ORDER BY next_at LIMIT $2",
        )
        .bind(self.sink)
        .bind(signed(limit as u64))
        .fetch_all(&mut self.connection);
        let rows: Vec<(i64, i32, Json<Event>)> = within(self.deadline, asking).await?;
        let due = |(id, attempts, Json(event))| Due { id, attempts: u32::try_from(attempts).unwrap_or(0), event };
        Ok(rows.into_iter().map(due).collect())
    }

    /// The first events of the outbox, up to `limit`.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn head(&mut self, limit: usize) -> Result<Vec<Fresh>, DatabaseError> {
        let asking = sqlx::query_as(
            "WITH head AS (
                 SELECT *, sum(size) OVER (ORDER BY id) - size AS ahead
                   FROM (SELECT * FROM outbox WHERE sink = $1 ORDER BY id LIMIT $2) first
             )
             SELECT head.id, each.place, head.size, head.type AS kind, each.subject,
                    coalesce(head.event_id, 'issued-' || each.subject) AS event_id,
                    coalesce(coupon.issued_at, head.at) AS time,
                    coalesce(head.data, coupon.data) AS data,
                    EXISTS (SELECT FROM parked_events parked
                             WHERE parked.sink = $1 AND parked.subject = each.subject) AS behind
               FROM head
              CROSS JOIN LATERAL unnest(head.subjects[:($2 - head.ahead)::integer])
                                 WITH ORDINALITY AS each (subject, place)
               LEFT JOIN LATERAL (
                    SELECT issued_at,
                           jsonb_build_object(
                               'code', code, 'campaign', campaign, 'round', round, 'number', number, 'user', user_id,
                               'issued_at', issued_at, 'redeemable_from', redeemable_from,
                               'redeemable_until', redeemable_until, 'version', version) || terms AS data
                      FROM coupons WHERE head.type = 'coupon.issued' AND coupons.code = each.subject
                    ) coupon ON true
              WHERE head.ahead < $2
              ORDER BY head.id, each.place",
        )
        .bind(self.sink)
        .bind(signed(limit as u64))
        .fetch_all(&mut self.connection);
        let rows: Vec<FreshRow> = within(self.deadline, asking).await?;
        Ok(rows.into_iter().map(FreshRow::into_fresh).collect())
    }

    /// Writes down what came of a pass, all of it or nothing.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn settle(&mut self, settlement: &Settlement) -> Result<(), DatabaseError> {
        let sink = self.sink;
        within(self.deadline, async {
            let mut transaction = self.connection.begin().await?;
            if !settlement.delivered.is_empty() {
                sqlx::query("DELETE FROM parked_events WHERE id = ANY ($1)")
                    .bind(&settlement.delivered)
                    .execute(&mut *transaction)
                    .await?;
            }
            if !settlement.failed.is_empty() {
                let failures = settlement.failed.iter();
                let (ids, failures): (Vec<i64>, Vec<&FailedDelivery>) =
                    failures.map(|(id, failure)| (*id, failure)).unzip();
                sqlx::query(
                    "UPDATE parked_events
                        SET attempts = attempts + 1, last_error = failure.error,
                            next_at = now() + failure.wait_ms * interval '1 millisecond',
                            dead_at = CASE WHEN failure.wait_ms IS NULL THEN now() END
                       FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS failure (id, error, wait_ms)
                      WHERE parked_events.id = failure.id",
                )
                .bind(ids)
                .bind(failures.iter().map(|failure| failure.error.as_str()).collect::<Vec<_>>())
                .bind(failures.iter().map(|failure| failure.wait_ms()).collect::<Vec<_>>())
                .execute(&mut *transaction)
                .await?;
            }
            if !settlement.parked.is_empty() {
                let parked = &settlement.parked;
                let errors = parked.iter().map(|(_, failure)| failure.as_ref().map(|failure| failure.error.as_str()));
                sqlx::query(
                    "INSERT INTO parked_events (sink, subject, event, attempts, last_error, next_at, dead_at)
                     SELECT $1, event ->> 'subject', event, num_nonnulls(error), error,
                            now() + wait_ms * interval '1 millisecond',
                            CASE WHEN error IS NOT NULL AND wait_ms IS NULL THEN now() END
                       FROM unnest($2::jsonb[], $3::text[], $4::bigint[])
                            WITH ORDINALITY AS parked (event, error, wait_ms, place)
                      ORDER BY place",
                )
                .bind(sink)
                .bind(parked.iter().map(|(event, _)| Json(event)).collect::<Vec<_>>())
                .bind(errors.collect::<Vec<_>>())
                .bind(parked.iter().map(|(_, failure)| failure.as_ref()?.wait_ms()).collect::<Vec<_>>())
                .execute(&mut *transaction)
                .await?;
            }
            if !settlement.touched.is_empty() {
                sqlx::query("SELECT advance_parked_events($1, $2)")
                    .bind(sink)
                    .bind(&settlement.touched)
                    .execute(&mut *transaction)
                    .await?;
            }
            if !settlement.emptied.is_empty() {
                sqlx::query("DELETE FROM outbox WHERE sink = $1 AND id = ANY ($2)")
                    .bind(sink)
                    .bind(&settlement.emptied)
                    .execute(&mut *transaction)
                    .await?;
            }
            if let Some((row, done)) = settlement.begun {
                sqlx::query(
                    "UPDATE outbox SET subjects = subjects[$3::integer + 1:], size = size - $3
                      WHERE sink = $1 AND id = $2",
                )
                .bind(sink)
                .bind(row)
                .bind(done)
                .execute(&mut *transaction)
                .await?;
            }
            transaction.commit().await
        })
        .await
    }
}

impl FreshRow {
    fn into_fresh(self) -> Fresh {
        let data = self.data.map_or(serde_json::Value::Null, |Json(data)| data);
        let event = Event { id: self.event_id, kind: self.kind, subject: self.subject, time: self.time, data };
        Fresh { row: self.id, place: self.place, size: self.size, event, behind: self.behind }
    }
}
