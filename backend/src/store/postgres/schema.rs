//! The schema: applying migrations, and whether this release can work with the schema that the
//! database has.
//!
//! The rule is "expand, then contract" (docs/operating.md, "Upgrades"). Migrations that this
//! release does not know are those of a later one, and are ignored, unless `release_floor` says
//! that this release is too old for them.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError, Migration, Migrator};
use sqlx::{Executor, PgConnection};
use tokio::time::Instant;

use super::Postgres;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Where sqlx records applied migrations.
const RECORD: &str = "_sqlx_migrations";

/// PostgreSQL is given so long to be reachable.
const REACH_DEADLINE: Duration = Duration::from_secs(30);

/// Between two attempts to reach it, or looks at what another process has applied.
const REACH_AGAIN: Duration = Duration::from_millis(250);

/// A migration waits so long for a table's lock. Requests queue behind a waiting migration, so it
/// has to be shorter than their deadlines.
const LOCK_TIMEOUT: &str = "500ms";

/// Between two attempts to get a lock. Requests that queued behind the last attempt are served
/// meanwhile.
const LOCK_AGAIN: Duration = Duration::from_secs(2);

/// Locks are tried for so long before the attempt to migrate is given up.
const LOCK_DEADLINE: Duration = Duration::from_secs(600);

/// Why the schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The database has a schema for later releases only.
    #[error(
        "the database needs Doorbuster {release} or later (with migration {floor}); this is \
         Doorbuster {} (up to migration {newest}): install that release",
        env!("CARGO_PKG_VERSION")
    )]
    TooOld {
        /// The migration that a release must contain.
        floor: i64,
        /// The first release that does.
        release: String,
        /// The newest migration of this release.
        newest: i64,
    },
    /// A migration that was applied is not the one that this release knows by that number.
    #[error(
        "migration {0} was applied in another form than the one of this release: the database \
         belongs to another program or to a build of another branch"
    )]
    Foreign(i64),
    /// The role may not do what is to be done.
    #[error(
        "migrations {pending:?} are to be applied and the role of database_url may not do that \
         ({cause}): run `doorbuster-backend migrate` with a database_url whose role owns the schema"
    )]
    NotAllowed {
        /// Migrations to apply.
        pending: Vec<i64>,
        /// What PostgreSQL said.
        cause: sqlx::Error,
    },
    /// Another process applies migrations.
    #[error("another process is applying migrations; wait until it has ended")]
    Elsewhere,
    /// Another session has a lock that is needed.
    #[error(
        "a lock that migration {0} needs was not free: end long transactions (pg_stat_activity \
         shows them) or try again when they have ended"
    )]
    Locked(i64),
    /// A migration failed.
    #[error("migration {0} failed: {1}")]
    Failed(i64, MigrateError),
    /// PostgreSQL cannot be asked.
    #[error("PostgreSQL: {0}")]
    Database(#[from] sqlx::Error),
}

/// What the database says about its schema.
#[derive(Debug, Default)]
struct State {
    /// The checksums of applied migrations.
    applied: HashMap<i64, Vec<u8>>,
    /// The floor's migration and release.
    floor: Option<(i64, String)>,
}

impl Postgres {
    /// Brings the schema up to date and returns the migrations that were applied. Waits for a
    /// server that is still starting, and for locks. Several processes may do so at once. Where
    /// nothing is to be applied, nothing but reading rights on `_sqlx_migrations` and
    /// `release_floor` is needed.
    ///
    /// # Errors
    /// If the database cannot be reached for half a minute, or its schema cannot be used.
    pub async fn migrate(&self) -> Result<Vec<i64>, SchemaError> {
        let began = Instant::now();
        let mut applied = Vec::new();
        loop {
            let pause = match self.migrate_once(&mut applied).await {
                Ok(()) => return Ok(applied),
                Err(SchemaError::Database(error)) if is_absence(&error) && began.elapsed() < REACH_DEADLINE => {
                    tracing::warn!(%error, "PostgreSQL cannot be reached yet");
                    REACH_AGAIN
                }
                Err(SchemaError::Elsewhere) if began.elapsed() < LOCK_DEADLINE => REACH_AGAIN,
                Err(error @ SchemaError::Locked(_)) if began.elapsed() < LOCK_DEADLINE => {
                    tracing::warn!(%error, "the schema cannot be migrated yet");
                    LOCK_AGAIN
                }
                Err(error) => return Err(error),
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn migrate_once(&self, applied: &mut Vec<i64>) -> Result<(), SchemaError> {
        let mut connection = self.pool.acquire().await?;
        let outcome = bring_up_to_date(&mut connection, applied).await;
        // The session has settings and locks that are not for requests.
        let _ended = connection.close().await;
        outcome
    }
}

async fn bring_up_to_date(connection: &mut PgConnection, applied: &mut Vec<i64>) -> Result<(), SchemaError> {
    let state = State::read(connection).await?;
    state.check_floor()?;
    if state.pending()?.is_empty() {
        return Ok(());
    }
    // A migration may take longer than any request's statement.
    connection.execute("SET statement_timeout = 0").await?;
    // Not a wait inside PostgreSQL: a waiting statement has a snapshot, which CREATE INDEX
    // CONCURRENTLY would wait for.
    let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended('doorbuster migrations', 0))")
        .fetch_one(&mut *connection)
        .await?;
    if !locked {
        return Err(SchemaError::Elsewhere);
    }
    // Another process may have migrated before the lock was free.
    let state = State::read(connection).await?;
    state.check_floor()?;
    let pending = state.pending()?;
    let versions: Vec<i64> = pending.iter().map(|migration| migration.version).collect();
    set_lock_timeout(connection, LOCK_TIMEOUT).await?;
    if state.applied.is_empty() {
        connection.ensure_migrations_table(RECORD).await.map_err(|error| failure(0, &versions, error))?;
    }
    for migration in pending {
        // CREATE INDEX CONCURRENTLY waits for every transaction that is open, and nothing waits
        // behind it meanwhile.
        let timeout = if migration.no_tx { "10min" } else { LOCK_TIMEOUT };
        set_lock_timeout(connection, timeout).await?;
        let version = migration.version;
        tracing::info!(version, description = &*migration.description, "migrating the schema");
        let took = connection.apply(RECORD, migration).await.map_err(|error| failure(version, &versions, error))?;
        tracing::info!(version, took_ms = took.as_millis(), "migrated the schema");
        applied.push(version);
    }
    Ok(())
}

async fn set_lock_timeout(connection: &mut PgConnection, timeout: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT set_config('lock_timeout', $1, false)").bind(timeout).execute(connection).await?;
    Ok(())
}

impl State {
    async fn read(connection: &mut PgConnection) -> Result<Self, SchemaError> {
        let exists = "SELECT to_regclass($1) IS NOT NULL";
        let mut state = Self::default();
        if sqlx::query_scalar(exists).bind(RECORD).fetch_one(&mut *connection).await? {
            let rows: Vec<(i64, Vec<u8>)> =
                sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations").fetch_all(&mut *connection).await?;
            state.applied = rows.into_iter().collect();
        }
        if sqlx::query_scalar(exists).bind("release_floor").fetch_one(&mut *connection).await? {
            state.floor =
                sqlx::query_as("SELECT migration, release FROM release_floor").fetch_optional(connection).await?;
        }
        Ok(state)
    }

    fn check_floor(&self) -> Result<(), SchemaError> {
        let newest = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
        match &self.floor {
            Some((floor, release)) if *floor > newest => {
                Err(SchemaError::TooOld { floor: *floor, release: release.clone(), newest })
            }
            _ => Ok(()),
        }
    }

    /// The migrations of this release that are not applied, in order.
    fn pending(&self) -> Result<Vec<&'static Migration>, SchemaError> {
        let mut pending = Vec::new();
        for migration in MIGRATIONS.iter() {
            match self.applied.get(&migration.version) {
                None => pending.push(migration),
                Some(checksum) if *checksum != *migration.checksum => {
                    return Err(SchemaError::Foreign(migration.version));
                }
                Some(_) => {}
            }
        }
        Ok(pending)
    }
}

/// Why migration `version` of those `pending` failed.
fn failure(version: i64, pending: &[i64], error: MigrateError) -> SchemaError {
    let (MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)) = error else {
        return SchemaError::Failed(version, error);
    };
    let sqlstate = cause.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
    match sqlstate.as_str() {
        // No lock in time; chosen as the victim of a deadlock.
        "55P03" | "40P01" => SchemaError::Locked(version),
        "42501" => SchemaError::NotAllowed { pending: pending.to_vec(), cause },
        _ if is_absence(&cause) => SchemaError::Database(cause),
        _ => SchemaError::Failed(version, MigrateError::ExecuteMigration(cause, version)),
    }
}

/// Whether waiting may help: nothing listens, nothing answers, or the server says that it is
/// starting or stopping.
fn is_absence(error: &sqlx::Error) -> bool {
    match error {
        // So rustls calls a certificate that is not valid; it will not be by waiting.
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::InvalidData,
        // So sqlx calls a connection that ends before the server has answered.
        sqlx::Error::Protocol(_) => true,
        sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an older release could notice, by the beginning or a part of a statement.
    const CONTRACTIONS: [&str; 9] = [
        "DROP ",
        " RENAME ",
        " SET NOT NULL",
        " TYPE ",
        " ADD CONSTRAINT ",
        " ADD CHECK ",
        "CREATE UNIQUE INDEX ",
        "REVOKE ",
        "TRUNCATE ",
    ];

    fn contractions(sql: &str) -> Vec<String> {
        let bare: String = sql
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"))
            .fold(String::new(), |text, line| text + " " + line);
        let statements = bare.split(';').map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
        let changes = statements.filter(|text| {
            let text = text.to_uppercase();
            ["ALTER ", "DROP ", "CREATE UNIQUE ", "REVOKE ", "TRUNCATE "].iter().any(|verb| text.starts_with(verb))
                && CONTRACTIONS.iter().any(|part| text.contains(part))
        });
        changes.collect()
    }

    /// The rule that docs/operating.md states under "Upgrades".
    #[test]
    fn a_contracting_migration_raises_the_floor_or_says_why_it_does_not() {
        for migration in MIGRATIONS.iter().filter(|migration| migration.version > 7) {
            let sql = migration.sql.as_str();
            let raises = sql.contains("UPDATE release_floor");
            let explains = sql.lines().any(|line| line.starts_with("-- Compatible: "));
            let found = contractions(sql);
            assert!(
                found.is_empty() || raises || explains,
                "migration {} may break the release before it: {found:?}. Keep what that release \
                 uses and remove it in a later release, together with `UPDATE release_floor`; or \
                 write `-- Compatible: ` and why that release does not notice",
                migration.version
            );
        }
    }

    #[test]
    fn contractions_are_recognised() {
        for sql in [
            "ALTER TABLE a DROP COLUMN b",
            "alter table a\n  rename b to c",
            "ALTER TABLE a ALTER b SET NOT NULL",
            "ALTER TABLE a ADD CONSTRAINT b CHECK (c > 0)",
            "SELECT 1; DROP FUNCTION f(text)",
        ] {
            assert_eq!(contractions(sql).len(), 1, "{sql}");
        }
        for sql in [
            "ALTER TABLE a ADD COLUMN b text",
            "-- DROP TABLE a;\nCREATE TABLE a (b text NOT NULL, CONSTRAINT c UNIQUE (b))",
            "CREATE OR REPLACE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT 'drop it' $$",
        ] {
            assert_eq!(contractions(sql), [""; 0], "{sql}");
        }
    }

    #[test]
    fn a_release_below_the_floor_is_named() {
        let floor = |migration| State { floor: Some((migration, "9.1.0".to_owned())), ..State::default() };
        assert!(floor(1).check_floor().is_ok() && State::default().check_floor().is_ok());
        let error = floor(9_001).check_floor().unwrap_err().to_string();
        assert!(error.contains("9.1.0") && error.contains(env!("CARGO_PKG_VERSION")) && error.contains("9001"));
    }
}
