//! Settings that sessions must have: those that the backend sets for its own, and those that only
//! an operator can set.

use sqlx::{Executor, PgConnection};

use super::{DatabaseError, Postgres};

/// Sets what the defaults of the role, the database or the server may have otherwise. Commits rely
/// on reading what was committed before them, and 201 on a commit that survives a crash.
/// `remote_apply` is stricter than `on` and stays.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    connection
        .execute(
            "SELECT set_config('default_transaction_isolation', 'read committed', false),
                    CASE WHEN current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')
                         THEN set_config('synchronous_commit', 'on', false) END",
        )
        .await?;
    Ok(())
}

/// Settings of a session of the backend.
#[derive(Debug, Clone, sqlx::FromRow)]
struct Settings {
    fsync: String,
    full_page_writes: String,
    synchronous_commit: String,
    isolation: String,
}

impl Settings {
    /// The first setting by which committed coupons could be lost, with its remedy.
    fn weakness(&self) -> Option<String> {
        let Self { fsync, full_page_writes, synchronous_commit, isolation } = self;
        let override_it = "or set database_durability = \"ignore\" for data that may be lost";
        if fsync != "on" {
            let remedy = "set fsync = on in postgresql.conf";
            Some(format!("fsync is {fsync}, so a crash can lose coupons: {remedy}, {override_it}"))
        } else if full_page_writes != "on" {
            let remedy = "set full_page_writes = on in postgresql.conf";
            let damage = "so a crash can damage tables";
            Some(format!("full_page_writes is {full_page_writes}, {damage}: {remedy}, {override_it}"))
        } else if !matches!(synchronous_commit.as_str(), "on" | "remote_apply") {
            let remedy = "set it to on for the role (ALTER ROLE ... SET synchronous_commit = on)";
            Some(format!(
                "synchronous_commit is {synchronous_commit} although the backend sets it for its \
                 sessions, as behind a pooler: {remedy}, {override_it}"
            ))
        } else if isolation != "read committed" {
            Some(format!(
                "default_transaction_isolation is {isolation} although the backend sets it for its \
                 sessions, as behind a pooler: set it to read committed for the role (ALTER ROLE \
                 ... SET default_transaction_isolation = 'read committed')"
            ))
        } else {
            None
        }
    }
}

impl Postgres {
    /// Whether PostgreSQL answers, and the first of its settings by which committed coupons could
    /// be lost.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn weakness(&self) -> Result<Option<String>, DatabaseError> {
        let asking = sqlx::query_as(
            "SELECT current_setting('fsync') AS fsync,
                    current_setting('full_page_writes') AS full_page_writes,
                    current_setting('synchronous_commit') AS synchronous_commit,
                    current_setting('default_transaction_isolation') AS isolation",
        );
        let settings: Settings = self.within(asking.fetch_one(&self.pool)).await?;
        Ok(settings.weakness())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_weak_setting_is_named_with_its_remedy() {
        let named = |fsync: &str, pages: &str, commit: &str, isolation: &str| {
            let settings = Settings {
                fsync: fsync.to_owned(),
                full_page_writes: pages.to_owned(),
                synchronous_commit: commit.to_owned(),
                isolation: isolation.to_owned(),
            };
            let weakness = settings.weakness();
            weakness.map(|text| text.split_once(" is ").map(|(name, _)| name.to_owned()))
        };
        let read_committed = "read committed";
        assert_eq!(named("on", "on", "on", read_committed), None);
        assert_eq!(named("on", "on", "remote_apply", read_committed), None);
        for (name, fsync, pages, commit, isolation) in [
            ("fsync", "off", "on", "on", read_committed),
            ("full_page_writes", "on", "off", "on", read_committed),
            ("synchronous_commit", "on", "on", "off", read_committed),
            ("synchronous_commit", "on", "on", "local", read_committed),
            ("synchronous_commit", "on", "on", "remote_write", read_committed),
            ("default_transaction_isolation", "on", "on", "on", "serializable"),
        ] {
            assert_eq!(named(fsync, pages, commit, isolation), Some(Some(name.to_owned())));
        }
    }
}
