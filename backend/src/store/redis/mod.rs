//! The only Redis: key names, scripts and the connection.
//!
//! All keys of a campaign share the hash tag `{campaign}`, so that its scripts run in a Redis Cluster.

mod audit;
mod clock;
mod gateways;
mod keys;
mod latency;
mod lease;
mod link;
mod places;
mod rounds;
mod totals;

use std::time::Duration;

use redis::{Client, Cmd, FromRedisValue, Pipeline, ScriptInvocation, TlsCertificates};

pub use audit::Places;
pub use clock::{Clock, Reading};
pub use latency::Latency;
pub use lease::Lease;
pub use places::{Ask, Decision, Held, Verdict};
pub use rounds::{RoundCounts, Staging, Swap};

use link::Link;

/// Redis did not answer in time, or not sensibly. What was asked may have happened all the same.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// It said no, or the connection broke.
    #[error("Redis: {0}")]
    Failed(#[from] redis::RedisError),
    /// It said nothing within the deadline, milliseconds.
    #[error("Redis did not answer within {0} ms")]
    Late(u128),
    /// The last attempt to connect failed a moment ago.
    #[error("Redis cannot be reached")]
    Away,
}

/// The connection to Redis, shared by everybody; each call has the same deadline.
#[derive(Debug)]
pub struct Redis {
    link: Link,
    prefix: String,
    deadline: Duration,
    latency: Latency,
}

impl Redis {
    /// Whether a text is the address of a Redis that this program can speak to.
    #[must_use]
    pub fn is_url(text: &str) -> bool {
        Client::open(text).is_ok()
    }

    /// Whether connections to this address are encrypted.
    #[must_use]
    pub fn is_tls(url: &str) -> bool {
        url.starts_with("rediss://")
    }

    /// Prepares a connection, which is made by the first call. `ca`: certificates in PEM, one of which must have signed
    /// the server's; without them, the system's are trusted.
    ///
    /// # Errors
    /// If the URL or the certificates make no sense.
    pub fn new(url: &str, ca: Option<&[u8]>, prefix: &str, deadline: Duration) -> Result<Self, RedisError> {
        let client = match ca {
            Some(ca) => {
                Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert: Some(ca.to_vec()) })?
            }
            None => Client::open(url)?,
        };
        Ok(Self { link: Link::new(client), prefix: prefix.to_owned(), deadline, latency: latency::new() })
    }

    async fn invoke<T: FromRedisValue>(&self, invocation: &ScriptInvocation<'_>) -> Result<T, RedisError> {
        let exchange = async |mut connection| invocation.invoke_async(&mut connection).await;
        latency::timed(&self.latency, latency::SCRIPT, self.link.within(self.deadline, exchange)).await
    }

    async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let exchange = async |mut connection| command.query_async(&mut connection).await;
        latency::timed(&self.latency, latency::COMMAND, self.link.within(self.deadline, exchange)).await
    }

    async fn pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, RedisError> {
        let exchange = async |mut connection| pipeline.query_async(&mut connection).await;
        latency::timed(&self.latency, latency::PIPELINE, self.link.within(self.deadline, exchange)).await
    }

    /// How long exchanges take by their kind, connecting included, seconds.
    #[must_use]
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// Whether Redis answers, and what it does when its memory is full.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn eviction_policy(&self) -> Result<String, RedisError> {
        // CONFIG GET is forbidden on many managed servers; INFO tells it too.
        let info: String = self.command(redis::cmd("INFO").arg("memory")).await?;
        let policy = info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"));
        Ok(policy.unwrap_or("unknown").trim().to_owned())
    }
}
