//! The only Redis: key names, scripts and the connection.
//!
//! All keys of a campaign share the hash tag `{campaign}`, so that its scripts run in a Redis Cluster: each exchange names
//! the tag of its keys, by which it finds its node.

mod audit;
mod busy;
mod clock;
mod cluster;
mod gateways;
mod keys;
mod latency;
mod lease;
mod link;
mod owner;
mod places;
mod request;
mod rounds;
mod totals;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use redis::{Client, Cmd, FromRedisValue, Pipeline, RedisResult, ScriptInvocation, TlsCertificates};
use tokio::time::Instant;

pub use audit::Places;
pub use clock::{Clock, Reading};
pub use latency::Latency;
pub use lease::Lease;
pub use owner::{Claim, Claimed, Owner};
pub use places::{Ask, Decision, Held, Verdict};
pub use rounds::{RoundCounts, Staging, Swap};

use cluster::Cluster;
use gateways::LastKnown;
use latency::Exchange;
use link::Link;
use request::{Deadline, Request, Wire};

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
    /// It may not be used, for this reason.
    #[error("Redis: {0}")]
    Barred(Arc<String>),
}

/// The way to Redis, shared by everybody; each call has the same deadline.
#[derive(Debug)]
pub struct Redis {
    servers: Servers,
    prefix: String,
    deadline: Duration,
    latency: Latency,
    gateways: LastKnown,
    /// Why nothing but a claim is sent; none while this Redis may be used.
    barred: ArcSwapOption<String>,
}

#[derive(Debug)]
enum Servers {
    One(Box<Link>),
    Cluster(Arc<Cluster>),
}

/// What one of several servers has answered.
struct Answer<T> {
    value: T,
    /// Which one: ` at HOST:PORT` in a cluster, else nothing.
    place: String,
    asked: Instant,
    answered: Instant,
}

impl Redis {
    /// Whether a text is the address of a Redis, or of nodes of a Redis Cluster, that this program can speak to.
    #[must_use]
    pub fn is_url(text: &str) -> bool {
        clients(text, None).is_ok()
    }

    /// Whether connections to this address are encrypted.
    #[must_use]
    pub fn is_tls(url: &str) -> bool {
        url.starts_with("rediss://") || url.starts_with("rediss+cluster://")
    }

    /// Whether some of the campaigns may be out of reach while others are not.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self.servers, Servers::Cluster(_))
    }

    /// Prepares connections, which are made by the first calls. `url`: `redis://` or `rediss://` and one server;
    /// `redis+cluster://` or `rediss+cluster://` and any nodes of a cluster, with commas between them. `ca`: certificates in
    /// PEM, one of which must have signed the servers'; without them, the system's are trusted.
    ///
    /// # Errors
    /// If the URL or the certificates make no sense.
    pub fn new(url: &str, ca: Option<&[u8]>, prefix: &str, deadline: Duration) -> Result<Self, RedisError> {
        let servers = match clients(url, ca)? {
            Clients::One(client) => Servers::One(Box::new(Link::new(*client))),
            Clients::Cluster(clients) => Servers::Cluster(Arc::new(Cluster::new(&clients).ok_or(RedisError::Away)?)),
        };
        Ok(Self {
            servers,
            prefix: prefix.to_owned(),
            deadline,
            latency: latency::new(),
            gateways: LastKnown::default(),
            barred: ArcSwapOption::empty(),
        })
    }

    /// Runs a script, whose keys are tagged `{tag}`.
    async fn invoke<T: FromRedisValue>(&self, tag: &str, script: &ScriptInvocation<'_>) -> Result<T, RedisError> {
        self.exchange(tag, Request::Script(script), latency::SCRIPT).await
    }

    async fn command<T: FromRedisValue>(&self, tag: &str, command: &Cmd) -> Result<T, RedisError> {
        self.exchange(tag, Request::Command(command), latency::COMMAND).await
    }

    async fn transaction<T: FromRedisValue>(&self, tag: &str, pipeline: &mut Pipeline) -> Result<T, RedisError> {
        self.exchange(tag, Request::Transaction(pipeline.atomic()), latency::PIPELINE).await
    }

    async fn exchange<T: FromRedisValue>(
        &self,
        tag: &str,
        request: Request<'_>,
        kind: Exchange,
    ) -> Result<T, RedisError> {
        self.check_barred()?;
        self.exchange_unbarred(tag, request, kind).await
    }

    async fn exchange_unbarred<T: FromRedisValue>(
        &self,
        tag: &str,
        request: Request<'_>,
        kind: Exchange,
    ) -> Result<T, RedisError> {
        let deadline = Deadline::after(self.deadline);
        let exchange = async {
            match &self.servers {
                Servers::One(link) => link.send(request, Wire::Plain, deadline).await,
                Servers::Cluster(cluster) => cluster.send(tag, request, deadline).await,
            }
        };
        latency::timed(&self.latency, kind, exchange).await
    }

    /// Has every server that holds keys answer. In a cluster, those that do not are left out while one does: they decide
    /// nothing meanwhile.
    async fn each<T: FromRedisValue>(&self, command: &Cmd) -> Result<Vec<Answer<T>>, RedisError> {
        self.check_barred()?;
        let deadline = Deadline::after(self.deadline);
        let request = Request::Command(command);
        let ask = async |link: &Link, place: String| {
            let asked = Instant::now();
            let exchange = link.send(request, Wire::Plain, deadline);
            let value = latency::timed(&self.latency, latency::COMMAND, exchange).await?;
            Ok(Answer { value, place, asked, answered: Instant::now() })
        };
        let cluster = match &self.servers {
            Servers::One(link) => return Ok(vec![ask(link, String::new()).await?]),
            Servers::Cluster(cluster) => cluster,
        };
        let nodes = cluster.primaries(deadline).await?;
        let answers = join_all(nodes.iter().map(async |node| {
            let answer = ask(&node.link, format!(" at {}", node.address)).await;
            answer.inspect_err(|error| cluster.doubt(node, error, deadline))
        }));
        Ok(some_known(answers.await)?.into_iter().flatten().collect())
    }

    /// How long exchanges take by their kind, connecting included, seconds.
    #[must_use]
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// What Redis does when its memory is full; of a cluster's nodes that answer, the first that evicts tells.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn eviction_policy(&self) -> Result<String, RedisError> {
        // CONFIG GET is forbidden on many managed servers; INFO tells it too.
        let answers = self.each::<String>(redis::cmd("INFO").arg("memory")).await?;
        let policies = answers.iter().map(|answer| {
            let policy = answer.value.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"));
            (policy.unwrap_or("unknown").trim(), &answer.place)
        });
        let evicting = policies.into_iter().find(|(policy, _)| *policy != NO_EVICTION);
        Ok(evicting.map_or_else(|| NO_EVICTION.to_owned(), |(policy, place)| format!("{policy}{place}")))
    }
}

/// The policy of a Redis that keeps what it is given.
pub const NO_EVICTION: &str = "noeviction";

/// Campaigns asked about at once.
const ASKED_AT_ONCE: usize = 200;

/// Asks about each of many; none where that fails, the last failure if nothing was learnt of any.
async fn of_each<T>(asked: Vec<impl Future<Output = Result<T, RedisError>>>) -> Result<Vec<Option<T>>, RedisError> {
    some_known(stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await)
}

/// What was learnt of each; the last failure if nothing was learnt of any.
fn some_known<T>(outcomes: Vec<Result<T, RedisError>>) -> Result<Vec<Option<T>>, RedisError> {
    let mut failure = None;
    let known: Vec<Option<T>> =
        outcomes.into_iter().map(|outcome| outcome.map_err(|error| failure = Some(error)).ok()).collect();
    match failure {
        Some(error) if known.iter().all(Option::is_none) => Err(error),
        _ => Ok(known),
    }
}

enum Clients {
    One(Box<Client>),
    /// One for each node that is named.
    Cluster(Vec<Client>),
}

fn clients(url: &str, ca: Option<&[u8]>) -> RedisResult<Clients> {
    let client = |url: &str| match ca {
        Some(ca) => Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert: Some(ca.to_vec()) }),
        None => Client::open(url),
    };
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let Some(scheme) = scheme.strip_suffix("+cluster") else {
        return client(url).map(|client| Clients::One(Box::new(client)));
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (login, nodes) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let clients = nodes.split(',').map(|node| client(&format!("{scheme}://{login}{node}{path}")));
    let clients: Vec<Client> = clients.collect::<RedisResult<_>>()?;
    if clients.iter().any(|client| client.get_connection_info().redis_settings().db() != 0) {
        return Err((redis::ErrorKind::InvalidClientConfig, "a cluster has no database but 0").into());
    }
    Ok(Clients::Cluster(clients))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_named_by_some_of_its_nodes() {
        for url in [
            "redis://h",
            "rediss://u:p@h:1/2",
            "redis+cluster://h",
            "redis+cluster://h:1,h:2,[::1]:3",
            "rediss+cluster://u:p%2C@h:1,h:2/0",
        ] {
            assert!(Redis::is_url(url), "{url}");
        }
        for url in ["", "h", "http+cluster://h", "redis+cluster://", "redis+cluster://h,,i", "redis+cluster://h:1/2"] {
            assert!(!Redis::is_url(url), "{url}");
        }
        let Ok(Clients::Cluster(clients)) = clients("rediss+cluster://u:p@h:1,i:2", None) else { panic!() };
        let infos: Vec<_> = clients.iter().map(Client::get_connection_info).collect();
        assert_eq!(infos.iter().map(|info| info.addr().to_string()).collect::<Vec<_>>(), ["h:1", "i:2"]);
        assert!(infos.iter().all(|info| info.redis_settings().password() == Some("p")));
    }
}
