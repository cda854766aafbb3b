//! Whose this Redis and prefix are. Two installations on one prefix would undo each other's work.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::{Cmd, Script};

use super::keys::INSTALLATION;
use super::link::Link;
use super::places::unreadable;
use super::request::{Deadline, Request, Wire};
use super::{ASKED_AT_ONCE, Redis, RedisError, Servers, latency};

static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("claim.lua")));

/// A database that no backend has claimed Redis for during this time is not in use any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keys looked for at a time.
const PAGE: usize = 1_000;

/// What a backend claims Redis and the prefix for.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The installation.
    pub installation: &'a str,
    /// The lineage of its database.
    pub lineage: &'a str,
    /// The lineage that it replaces, if that is shown.
    pub replaces: Option<&'a str>,
    /// The highest committed version.
    pub version: i64,
    /// Tells the database from its copies.
    pub place: &'a str,
    /// The database's address, without a password.
    pub address: &'a str,
    /// The backend that claims.
    pub holder: &'a str,
}

/// Who uses this Redis and prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its installation.
    pub installation: String,
    /// The address of its database.
    pub address: String,
    /// When one of its backends was last here.
    pub idle: Duration,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { installation, address, idle } = self;
        write!(f, "the installation {installation} (database {address}, last used {} s ago)", idle.as_secs())
    }
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// This Redis and prefix are the installation's.
    Ours {
        /// The lineage that Redis shows now.
        lineage: String,
        /// The highest committed version that Redis was told before.
        version: i64,
    },
    /// They are another installation's.
    Foreign(Owner),
    /// They are used with another database of the same installation: one is a copy of the other.
    Copy(Owner),
}

/// Installation, address, and when it was last seen, Unix milliseconds.
type Told = (Option<String>, Option<String>, Option<i64>);

/// Begins the reason why nothing is sent to a Redis that was never claimed.
const NOT_CLAIMED: &str = "it was not claimed yet";

impl Redis {
    /// The first part of every key.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Claims this Redis and prefix. From now on nothing else is sent to it if they are somebody
    /// else's.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, RedisError> {
        if self.barred.load().is_some() {
            // To a client that must log in first, Redis explains that only if the command is short.
            let time = redis::cmd("TIME");
            let _: (i64, i64) = self.exchange_unbarred(INSTALLATION, Request::Command(&time), latency::COMMAND).await?;
        }
        let mut invocation = CLAIM.key(self.owner_key());
        invocation
            .arg(claim.installation)
            .arg(claim.lineage)
            .arg(claim.replaces.unwrap_or_default())
            .arg(claim.version)
            .arg(claim.place)
            .arg(claim.address)
            .arg(claim.holder)
            .arg(PATIENCE.as_millis().to_string());
        let (status, installation, lineage, version, address, idle_ms): (String, String, String, i64, String, u64) =
            self.exchange_unbarred(INSTALLATION, Request::Script(&invocation), latency::SCRIPT).await?;
        let owner = Owner { installation, address, idle: Duration::from_millis(idle_ms) };
        let claimed = match status.as_str() {
            "ours" => Claimed::Ours { lineage, version },
            "foreign" => Claimed::Foreign(owner),
            "copy" => Claimed::Copy(owner),
            _ => return Err(unreadable("a claim")),
        };
        match &claimed {
            Claimed::Ours { .. } => self.barred.store(None),
            Claimed::Foreign(owner) | Claimed::Copy(owner) => self.bar(&format!("it is used by {owner}")),
        }
        Ok(claimed)
    }

    /// Sends nothing but claims until one succeeds.
    fn bar(&self, reason: &str) {
        self.barred.store(Some(Arc::new(reason.to_owned())));
    }

    /// Redis could not be claimed yet: the reason that is shown is the newest one. One that was
    /// claimed before stays in use.
    pub fn explain_missing_claim(&self, error: &RedisError) {
        let unclaimed = self.barred.load().as_ref().is_some_and(|reason| reason.starts_with(NOT_CLAIMED));
        if unclaimed {
            self.bar_unclaimed(error);
        }
    }

    /// Sends nothing but claims until one succeeds, since the first one has failed.
    pub fn bar_unclaimed(&self, error: &impl std::fmt::Display) {
        self.bar(&format!("{NOT_CLAIMED}: {error}"));
    }

    pub(super) fn check_barred(&self) -> Result<(), RedisError> {
        match &*self.barred.load() {
            None => Ok(()),
            Some(reason) => Err(RedisError::Barred(Arc::clone(reason))),
        }
    }

    /// Who uses this Redis and prefix; none if nobody does.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn owner(&self) -> Result<Option<Owner>, RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.hmget(self.owner_key(), &["installation", "address", "seen"]).cmd("TIME");
        let ((installation, address, seen_ms), (seconds, _)): (Told, (i64, i64)) =
            self.transaction(INSTALLATION, &mut pipeline).await?;
        let idle_ms = (seconds * 1_000).saturating_sub(seen_ms.unwrap_or(0));
        let idle = Duration::from_millis(u64::try_from(idle_ms).unwrap_or(0));
        Ok(installation.map(|installation| Owner { installation, address: address.unwrap_or_default(), idle }))
    }

    /// Deletes every key of the prefix, whoever wrote it.
    ///
    /// # Errors
    /// If Redis cannot be reached; some keys may be deleted all the same.
    pub async fn wipe(&self) -> Result<(), RedisError> {
        let nodes = match &self.servers {
            Servers::One(link) => return self.wipe_node(link).await,
            Servers::Cluster(cluster) => cluster.primaries(Deadline::after(self.deadline)).await?,
        };
        for node in nodes {
            self.wipe_node(&node.link).await?;
        }
        Ok(())
    }

    async fn wipe_node(&self, link: &Link) -> Result<(), RedisError> {
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            // A prefix has no character that means something in a pattern.
            scan.arg(cursor).arg("MATCH").arg(format!("{}:*", self.prefix)).arg("COUNT").arg(PAGE);
            let deadline = Deadline::after(self.deadline);
            let (next, keys): (u64, Vec<String>) = link.send(Request::Command(&scan), Wire::Plain, deadline).await?;
            // One by one: in a cluster they are in different slots.
            let unlinks: Vec<Cmd> = keys.iter().map(redis::Cmd::unlink).collect();
            let unlinked = unlinks.iter().map(|unlink| link.send(Request::Command(unlink), Wire::Plain, deadline));
            stream::iter(unlinked).buffered(ASKED_AT_ONCE).try_for_each(|_: i64| async { Ok(()) }).await?;
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}
