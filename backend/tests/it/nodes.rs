//! Redis servers of a test's own: one with a replica, or a cluster of three.

use std::path::PathBuf;

use doorbuster_e2e::ports::free_port;
use doorbuster_e2e::process::Launch;
use doorbuster_e2e::programs::from_env;
use doorbuster_e2e::redis::Redis;
use doorbuster_e2e::server::{Running, Server};
use redis::{FromRedisValue, RedisResult};
use tokio::task::block_in_place;

use crate::world::eventually;

const SLOTS: u16 = 16_384;

/// The nodes of a cluster that hold slots at first.
pub(crate) const PRIMARIES: usize = 3;

struct Node {
    redis: Redis,
    name: String,
    settings: Vec<String>,
}

impl Server for Node {
    fn name(&self) -> &str {
        &self.name
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        Ok(self.redis.launch()?.args(&self.settings))
    }

    fn probe(&self) -> anyhow::Result<()> {
        self.redis.probe()
    }
}

/// The servers, their files, and their ports by the order of their start.
pub(crate) struct Nodes {
    folder: PathBuf,
    running: Vec<Running>,
    pub(crate) ports: Vec<u16>,
}

impl Nodes {
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("nodes-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder, running: Vec::new(), ports: Vec::new() }
    }

    /// A cluster whose slots are spread evenly over [`PRIMARIES`] nodes.
    pub(crate) async fn cluster() -> Self {
        let mut nodes = Self::new();
        for at in 0..PRIMARIES {
            nodes.start_member();
            let epoch = (at + 1).to_string();
            nodes.tell(at, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
            let share = SLOTS / 3 + 1;
            let first = share * u16::try_from(at).unwrap();
            let last = (first + share - 1).min(SLOTS - 1);
            nodes.tell(at, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await;
        }
        nodes.introduce().await;
        nodes
    }

    /// Starts a node that holds no slots.
    fn start_member(&mut self) -> usize {
        let bus = free_port().unwrap().to_string();
        self.start(&[
            ["--cluster-enabled", "yes"],
            ["--cluster-config-file", "nodes.conf"],
            ["--cluster-node-timeout", "2000"],
            // What is away must not take away what is there.
            ["--cluster-require-full-coverage", "no"],
            ["--cluster-port", &bus],
            // However long it has been cut off.
            ["--cluster-replica-validity-factor", "0"],
        ])
    }

    /// Gives a node of the cluster a replica, and waits until the two agree.
    pub(crate) async fn add_replica(&mut self, of: usize) -> usize {
        let replica = self.start_member();
        self.introduce().await;
        let id = self.id(of).await;
        self.tell(replica, &["CLUSTER", "REPLICATE", &id]).await;
        self.until_in_sync(replica).await;
        replica
    }

    pub(crate) async fn until_in_sync(&self, replica: usize) {
        self.until_says(replica, &["INFO", "replication"], "master_link_status:up").await;
    }

    /// Has every node know every other.
    async fn introduce(&self) {
        for at in 1..self.ports.len() {
            let bus: Vec<String> = self.ask(at, &["CONFIG", "GET", "cluster-port"]).await.unwrap();
            let port = self.ports[at].to_string();
            self.tell(0, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus[1]]).await;
        }
        for at in 0..self.ports.len() {
            let known = format!("cluster_known_nodes:{}\r\n", self.ports.len());
            self.until_says(at, &["CLUSTER", "INFO"], &known).await;
            self.until_says(at, &["CLUSTER", "INFO"], "cluster_state:ok").await;
            self.until_says(at, &["CLUSTER", "INFO"], "cluster_slots_assigned:16384").await;
        }
    }

    pub(crate) fn start(&mut self, settings: &[[&str; 2]]) -> usize {
        let (at, port) = (self.ports.len(), free_port().unwrap());
        let name = format!("redis-{at}");
        let redis =
            Redis { program: from_env("DOORBUSTER_REDIS_SERVER").unwrap().into(), data: self.folder.join(&name), port };
        let settings = settings.as_flattened().iter().map(ToString::to_string).collect();
        let node = Box::new(Node { redis, name, settings });
        self.running.push(block_in_place(|| Running::start(node, &self.folder)).unwrap());
        self.ports.push(port);
        at
    }

    pub(crate) fn kill(&mut self, at: usize) {
        self.running[at].kill();
    }

    /// Starts a killed one again, with its file.
    pub(crate) fn restart(&mut self, at: usize) {
        block_in_place(|| self.running[at].restart()).unwrap();
    }

    /// What the backends' configuration says.
    pub(crate) fn url(&self) -> String {
        let named: Vec<_> = self.ports.iter().take(PRIMARIES).map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+cluster://{}", named.join(","))
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, at: usize, words: &[&str]) -> RedisResult<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.ports[at]))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
    }

    /// As [`Nodes::ask`], of which only the success matters.
    pub(crate) async fn tell(&self, at: usize, words: &[&str]) {
        self.ask::<redis::Value>(at, words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }

    pub(crate) async fn until_says(&self, at: usize, words: &[&str], expected: &str) {
        eventually(expected, async || {
            self.ask::<String>(at, words).await.is_ok_and(|said| said.contains(expected)).then_some(())
        })
        .await;
    }

    async fn id(&self, at: usize) -> String {
        self.ask(at, &["CLUSTER", "MYID"]).await.unwrap()
    }

    /// The slot of keys tagged `{tag}`.
    pub(crate) async fn slot(&self, tag: &str) -> u16 {
        self.ask(0, &["CLUSTER", "KEYSLOT", &format!("{{{tag}}}")]).await.unwrap()
    }

    /// Which of the first [`PRIMARIES`] nodes is given this tag's slot at first.
    pub(crate) async fn home(&self, tag: &str) -> usize {
        usize::from(self.slot(tag).await / (SLOTS / 3 + 1))
    }

    /// Begins to move a slot: from now on its keys may be at either.
    pub(crate) async fn open_slot(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        self.tell(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from).await]).await;
        self.tell(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to).await]).await;
    }

    /// Moves some of its keys; how many.
    pub(crate) async fn move_keys(&self, slot: u16, from: usize, to: usize, limit: u32) -> usize {
        let words = ["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), &limit.to_string()];
        let keys: Vec<String> = self.ask(from, &words).await.unwrap();
        if !keys.is_empty() {
            let port = self.ports[to].to_string();
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            self.tell(from, &words).await;
        }
        keys.len()
    }

    /// Ends what [`Nodes::open_slot`] began.
    pub(crate) async fn close_slot(&self, slot: u16, from: usize, to: usize) {
        let (slot, id) = (slot.to_string(), self.id(to).await);
        for at in [to, from] {
            self.tell(at, &["CLUSTER", "SETSLOT", &slot, "NODE", &id]).await;
        }
    }

    /// Cuts a replica of this node off, for good: it can neither go on nor begin again.
    pub(crate) async fn cut_replicas_off(&self, of: usize) {
        self.tell(of, &["ACL", "SETUSER", "default", "-psync", "-sync"]).await;
        self.tell(of, &["CLIENT", "KILL", "TYPE", "replica"]).await;
    }

    pub(crate) async fn until_cut_off(&self, replica: usize) {
        self.until_says(replica, &["INFO", "replication"], "master_link_status:down").await;
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.running.clear();
        let _left_behind = std::fs::remove_dir_all(&self.folder);
    }
}
