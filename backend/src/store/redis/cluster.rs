//! The nodes of a Redis Cluster: who holds which slot, and a [`Link`] to each.
//!
//! redis-rs has a cluster client. It keeps a connection on which nothing arrives any more, loads a script only where
//! every primary answers, and lets all requests wait while it looks for a node that does not; see docs/architecture.md.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crc::{CRC_16_XMODEM, Crc};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::seq::SliceRandom;
use redis::{Client, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, ServerErrorKind, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::RedisError;
use super::link::{Link, is_at_an_end};
use super::places::unreadable;
use super::request::{Deadline, Request, Wire};

/// Slots of every cluster.
const SLOTS: usize = 16_384;

/// Nodes that send a request on to one another do not know yet who holds its slot.
const REDIRECTIONS: u32 = 5;

/// Between two looks at who holds what, so that a crowd does not make them.
const PAUSE: Duration = Duration::from_millis(100);

/// Nodes that a look asks at the same time; each has the time of an exchange.
const ASKED_AT_ONCE: usize = 3;

/// Where a node listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Address {
    host: String,
    port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) address: Address,
    pub(super) link: Link,
}

#[derive(Debug)]
pub(super) struct Cluster {
    /// How to log in and to encrypt. Its address is replaced by a node's.
    login: ConnectionInfo,
    /// The nodes that the configuration names.
    named: Vec<Address>,
    view: RwLock<View>,
    /// When the nodes were last asked who holds what; locked while they are.
    asked: Mutex<Option<Instant>>,
}

/// What the nodes have told.
#[derive(Default)]
struct View {
    /// By slot; empty before the first answer.
    owners: Vec<Option<Arc<Node>>>,
    /// Replicas too: one of them may know what became of the others.
    nodes: HashMap<Address, Arc<Node>>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("nodes", &self.nodes.keys()).finish_non_exhaustive()
    }
}

/// Slots `first` to `last`, and who holds them.
type Range = (usize, usize, Address);

impl Cluster {
    /// `clients`: one for each node that the configuration names, all alike but for the address.
    pub(super) fn new(clients: &[Client]) -> Option<Self> {
        let login = clients.first()?.get_connection_info().clone();
        let named = clients.iter().filter_map(|client| address(client.get_connection_info())).collect();
        Some(Self { login, named, view: RwLock::default(), asked: Mutex::new(None) })
    }

    /// Has the node that holds the keys tagged `{tag}` answer.
    pub(super) async fn send<T: FromRedisValue>(
        self: &Arc<Self>,
        tag: &str,
        request: Request<'_>,
        deadline: Deadline,
    ) -> Result<T, RedisError> {
        let slot = slot(tag);
        let mut node = self.owner(slot, deadline).await?;
        let mut wire: fn(_) -> Wire = Wire::Plain;
        let mut redirections = 0;
        loop {
            let error = match node.link.send(request, wire, deadline).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            redirections += 1;
            match redirection(&error, &node.address) {
                _ if redirections > REDIRECTIONS => return Err(error),
                Some(Redirection::Moved(address)) => (node, wire) = (self.note(slot, &address)?, Wire::Plain),
                Some(Redirection::Ask(address)) => (node, wire) = (self.node(&address)?, Wire::Asking),
                None => {
                    self.doubt(&node, &error, deadline);
                    return Err(error);
                }
            }
        }
    }

    /// Every node that holds slots.
    pub(super) async fn primaries(self: &Arc<Self>, deadline: Deadline) -> Result<Vec<Arc<Node>>, RedisError> {
        self.have_view(deadline).await?;
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let owners: HashMap<_, _> = view.owners.iter().flatten().map(|node| (&node.address, node)).collect();
        if owners.is_empty() { Err(RedisError::Away) } else { Ok(owners.into_values().cloned().collect()) }
    }

    /// Looks again who holds what if this error means that somebody else may; behind the answer, since it may take a
    /// while.
    pub(super) fn doubt(self: &Arc<Self>, node: &Node, error: &RedisError, deadline: Deadline) {
        let may_have_changed = match error {
            RedisError::Late(_) | RedisError::Away => true,
            RedisError::Barred(_) => false,
            RedisError::Failed(error) => {
                use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown};
                // One that loads its file, or lost its own primary, may have been replaced.
                is_at_an_end(error) || matches!(error.kind(), ErrorKind::Server(BusyLoading | ClusterDown | MasterDown))
            }
        };
        // Somebody is looking, or has just looked.
        if !may_have_changed || !self.asked.try_lock().is_ok_and(|asked| !is_recent(*asked)) {
            return;
        }
        let (this, suspect) = (Arc::clone(self), node.address.clone());
        tokio::spawn(async move {
            if let Err(error) = this.look(Some(&suspect), deadline.length).await {
                tracing::debug!(%error, "no node of the cluster tells who holds what");
            }
        });
    }

    async fn owner(self: &Arc<Self>, slot: usize, deadline: Deadline) -> Result<Arc<Node>, RedisError> {
        self.have_view(deadline).await?;
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        // Whoever is asked sends on, or says that nobody holds the slot.
        let owner = view.owners.get(slot).and_then(Option::as_ref).or_else(|| view.nodes.values().next());
        owner.cloned().ok_or(RedisError::Away)
    }

    async fn have_view(self: &Arc<Self>, deadline: Deadline) -> Result<(), RedisError> {
        if !self.view.read().unwrap_or_else(PoisonError::into_inner).owners.is_empty() {
            return Ok(());
        }
        deadline.keep(self.look(None, deadline.length)).await?
    }

    /// Remembers who holds a slot, as told by the node that held it before.
    fn note(&self, slot: usize, address: &Address) -> Result<Arc<Node>, RedisError> {
        let node = self.node(address)?;
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = view.owners.get_mut(slot) {
            *owner = Some(Arc::clone(&node));
        }
        Ok(node)
    }

    fn node(&self, address: &Address) -> Result<Arc<Node>, RedisError> {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = view.nodes.get(address) {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(self.way_to(address)?);
        view.nodes.insert(address.clone(), Arc::clone(&node));
        Ok(node)
    }

    fn way_to(&self, address: &Address) -> Result<Node, RedisError> {
        let (host, port) = (address.host.clone(), address.port);
        let there = match self.login.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        let link = Link::new(Client::open(self.login.clone().set_addr(there))?);
        Ok(Node { address: address.clone(), link })
    }

    /// Asks a few nodes at a time who holds what, until one answers: in any order, and the one that has just failed last.
    /// Those who come meanwhile wait and are content with what is found. Nodes that answer late are heard all the same.
    async fn look(self: &Arc<Self>, suspect: Option<&Address>, length: Duration) -> Result<(), RedisError> {
        let came = Instant::now();
        let mut asked = self.asked.lock().await;
        if is_recent(*asked) || asked.is_some_and(|at| at >= came) {
            return Ok(());
        }
        let known: Vec<Address> =
            self.view.read().unwrap_or_else(PoisonError::into_inner).nodes.keys().cloned().collect();
        let unlisted = self.named.iter().filter(|named| !known.contains(named));
        let (suspects, mut others): (Vec<Address>, Vec<Address>) =
            known.iter().chain(unlisted).cloned().partition(|address| Some(address) == suspect);
        others.shuffle(&mut rand::rng());
        let mut outcome = Err(RedisError::Away);
        for few in others.chunks(ASKED_AT_ONCE).chain([suspects.as_slice()]) {
            let mut asking: FuturesUnordered<_> =
                few.iter().map(|address| tokio::spawn(Arc::clone(self).ask(address.clone(), length))).collect();
            while let Some(answered) = asking.next().await {
                outcome = answered.unwrap_or(Err(RedisError::Away));
                if outcome.is_ok() {
                    break;
                }
            }
            if outcome.is_ok() {
                break;
            }
        }
        *asked = Some(Instant::now());
        outcome
    }

    /// Takes over what one node knows. `CLUSTER SHARDS` would tell more, but only Redis 7 has it.
    async fn ask(self: Arc<Self>, address: Address, length: Duration) -> Result<(), RedisError> {
        let node = self.node(&address)?;
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let told: Value = node.link.send(Request::Command(&command), Wire::Plain, Deadline::after(length)).await?;
        let (ranges, replicas) = parse(&told, &address).ok_or_else(|| unreadable("CLUSTER SLOTS"))?;
        if ranges.is_empty() {
            return Err(RedisError::Away);
        }
        let mut owners = vec![None; SLOTS];
        for (first, last, owner) in &ranges {
            let owner = self.node(owner)?;
            if let Some(held) = owners.get_mut(*first..=*last) {
                held.fill(Some(owner));
            }
        }
        for replica in &replicas {
            self.node(replica)?;
        }
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        view.nodes
            .retain(|address, _| ranges.iter().any(|(_, _, owner)| owner == address) || replicas.contains(address));
        view.owners = owners;
        Ok(())
    }
}

fn is_recent(asked: Option<Instant>) -> bool {
    asked.is_some_and(|at| at.elapsed() < PAUSE)
}

/// The slot of keys tagged `{tag}`.
fn slot(tag: &str) -> usize {
    const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
    usize::from(CRC.checksum(tag.as_bytes())) % SLOTS
}

fn address(info: &ConnectionInfo) -> Option<Address> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some(Address { host: host.clone(), port: *port })
        }
        _ => None,
    }
}

/// Where a node sends a request on to.
#[derive(Debug, PartialEq, Eq)]
enum Redirection {
    /// It holds the slot.
    Moved(Address),
    /// It is taking over the slot and may have these keys already.
    Ask(Address),
}

fn redirection(error: &RedisError, from: &Address) -> Option<Redirection> {
    let RedisError::Failed(error) = error else { return None };
    // Of a transaction, one command after the other is refused.
    error.clone().into_server_errors()?.iter().find_map(|(_, error)| {
        let redirect = match error.kind()? {
            ServerErrorKind::Moved => Redirection::Moved,
            ServerErrorKind::Ask => Redirection::Ask,
            _ => return None,
        };
        // Slot and address. Without a host the one that answers is meant.
        let (host, port) = error.details()?.split_whitespace().nth(1)?.rsplit_once(':')?;
        let host = if host.is_empty() { from.host.clone() } else { host.to_owned() };
        Some(redirect(Address { host, port: port.parse().ok()? }))
    })
}

/// Reads a reply to `CLUSTER SLOTS`: first and last slot, then `[host, port, ...]` of their owner and of its replicas, for
/// each range. `from` has answered.
fn parse(told: &Value, from: &Address) -> Option<(Vec<Range>, Vec<Address>)> {
    let address = |node: &Value| {
        let [host, Value::Int(port), ..] = node.as_sequence()? else { return None };
        let host = match host {
            Value::Nil => "",
            Value::BulkString(host) => std::str::from_utf8(host).ok()?,
            Value::SimpleString(host) => host,
            _ => return None,
        };
        // `?` is said of a node that has not told its name yet.
        let host = if host.is_empty() { from.host.as_str() } else { host };
        (host != "?").then_some(Address { host: host.to_owned(), port: u16::try_from(*port).ok()? })
    };
    let (mut ranges, mut replicas) = (Vec::new(), Vec::new());
    for range in told.as_sequence()? {
        let [Value::Int(first), Value::Int(last), owner, others @ ..] = range.as_sequence()? else { return None };
        if let Some(owner) = address(owner) {
            ranges.push((usize::try_from(*first).ok()?, usize::try_from(*last).ok()?, owner));
        }
        replicas.extend(others.iter().filter_map(address));
    }
    Some((ranges, replicas))
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        // `CLUSTER KEYSLOT` says so.
        assert_eq!([slot("123456789"), slot("foo"), slot("spring")], [12_739, 12_182, 2_169]);
    }

    #[test]
    fn a_node_may_leave_its_host_out() {
        let told = b"*2\r\n*4\r\n:0\r\n:99\r\n*3\r\n$1\r\na\r\n:1\r\n$1\r\ni\r\n*3\r\n$0\r\n\r\n:2\r\n$1\r\nj\r\n\
            *4\r\n:100\r\n:200\r\n*3\r\n$-1\r\n:3\r\n$1\r\nk\r\n*3\r\n$1\r\n?\r\n:4\r\n$1\r\nl\r\n";
        let told = parse_redis_value(told).unwrap();
        let (ranges, replicas) = parse(&told, &at("here", 9)).unwrap();
        assert_eq!(ranges, [(0, 99, at("a", 1)), (100, 200, at("here", 3))]);
        assert_eq!(replicas, [at("here", 2)]);
    }

    #[test]
    fn redirections_are_read_from_errors_and_from_transactions() {
        for (told, expected) in [
            ("-MOVED 1 10.0.0.1:7001\r\n", Some(Redirection::Moved(at("10.0.0.1", 7001)))),
            ("-ASK 1 ::1:7001\r\n", Some(Redirection::Ask(at("::1", 7001)))),
            ("-MOVED 1 :7001\r\n", Some(Redirection::Moved(at("here", 7001)))),
            ("-TRYAGAIN split\r\n", None),
        ] {
            let error = parse_redis_value(told.as_bytes()).unwrap().extract_error().unwrap_err();
            assert_eq!(redirection(&error.into(), &at("here", 9)), expected, "{told}");
        }
    }
}
