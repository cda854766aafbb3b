//! What operators changed.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};

use super::{DatabaseError, Postgres};
use crate::operators::Operator;

/// A change, on its way into the audit log.
#[derive(Debug)]
pub struct Record<'a> {
    /// Who makes it.
    pub by: &'a Operator,
    /// What is done, such as `campaign.paused`.
    pub action: &'static str,
    /// What it is done to, such as `campaign/spring`.
    pub subject: String,
    /// How that was; none if there was nothing.
    pub before: Option<Value>,
    /// How it is now; none if there is nothing any more.
    pub after: Option<Value>,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct Entry {
    /// Later entries have larger ones.
    pub id: i64,
    /// When the change was made; it took effect a moment later, at its commit.
    pub at: DateTime<Utc>,
    /// As in [`Record`], here and below.
    pub operator: String,
    /// What was done.
    pub action: String,
    /// What it was done to.
    pub subject: String,
    /// How that was.
    pub before: Option<Value>,
    /// How it was then.
    pub after: Option<Value>,
}

/// Writes an entry, in the transaction of the change that it tells of.
pub(super) async fn record(transaction: &mut PgConnection, record: &Record<'_>) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO audit_log (operator, action, subject, before, after) VALUES ($1, $2, $3, $4, $5)")
        .bind(&record.by.name)
        .bind(record.action)
        .bind(&record.subject)
        .bind(&record.before)
        .bind(&record.after)
        .execute(transaction)
        .await?;
    Ok(())
}

impl Postgres {
    /// Up to `limit` entries below the id `below`, newest first, about one subject or all.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn audit_log(
        &self,
        subject: Option<&str>,
        below: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Entry>, DatabaseError> {
        // Two statements: one for both would have a plan that suits neither.
        let statement = match subject {
            Some(_) => {
                "SELECT id, at, operator, action, subject, before, after FROM audit_log
                  WHERE id < $1 AND subject = $3 ORDER BY id DESC LIMIT $2"
            }
            None => {
                "SELECT id, at, operator, action, subject, before, after FROM audit_log
                  WHERE id < $1 ORDER BY id DESC LIMIT $2"
            }
        };
        let mut query = sqlx::query_as(statement).bind(below.unwrap_or(i64::MAX)).bind(i64::from(limit));
        if let Some(subject) = subject {
            query = query.bind(subject);
        }
        self.within(query.fetch_all(&self.pool)).await
    }
}
