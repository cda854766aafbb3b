//! A whole stack of its own: Redis, PostgreSQL, backends and gateways on free ports.

mod builder;
mod database;
mod faults;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::backend::Backend;
use crate::envoy_admin::EnvoyAdmin;
use crate::envoy_config::merge;
use crate::envoy_variant::Variant;
use crate::gateway::Gateway;
use crate::http::{self, Reply};
use crate::operator::Operator;
use crate::postgres;
use crate::programs::Programs;
use crate::proxy::Proxy;
use crate::pushed::PushedGateway;
use crate::server::{Running, log_path};
pub use builder::Builder;
use database::Database;

/// A running stack. Dropping it stops the servers and removes their files; after a failed test the logs stay.
pub struct Stack {
    /// In the order of their start.
    servers: Vec<Running>,
    database: Database,
    programs: Programs,
    home: PathBuf,
    redis_url: String,
    gateways: Vec<Gateway>,
    backends: Vec<Backend>,
    admin_token: String,
    edge_token: String,
    /// By name, where the builder was asked for them.
    proxies: Vec<(String, Proxy)>,
    /// Whether files outlast it.
    kept: bool,
}

impl Stack {
    /// One gateway with two workers, one backend, one Redis, one database.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The client URL of gateway `index` (from 0), without a trailing slash.
    #[must_use]
    pub fn url(&self, index: usize) -> String {
        self.gateways.get(index).map(Gateway::url).unwrap_or_default()
    }

    /// The URL of the second listener of gateway `index` (from 0), where the builder was asked for one.
    #[must_use]
    pub fn second_url(&self, index: usize) -> String {
        match self.gateways.get(index).map(|gateway| &gateway.rendering.variant) {
            Some(Variant::SecondListener { port, .. }) => format!("http://127.0.0.1:{port}"),
            _ => String::new(),
        }
    }

    /// The URL of the listener for load balancers of gateway `index` (from 0), without a trailing slash.
    #[must_use]
    pub fn health_url(&self, index: usize) -> String {
        let port = self.gateways.get(index).map_or(0, |gateway| gateway.rendering.health_port);
        format!("http://127.0.0.1:{port}")
    }

    /// Envoy's admin interface of gateway `index` (from 0).
    #[must_use]
    pub fn admin(&self, index: usize) -> EnvoyAdmin {
        self.gateways.get(index).map_or_else(|| EnvoyAdmin::new(String::new()), Gateway::admin)
    }

    /// The public URL of backend `index` (from 0), past the gateway.
    #[must_use]
    pub fn backend(&self, index: usize) -> String {
        self.backends.get(index).map(Backend::url).unwrap_or_default()
    }

    /// The operations URL of backend `index` (from 0).
    #[must_use]
    pub fn ops(&self, index: usize) -> String {
        self.backends.get(index).map(Backend::ops_url).unwrap_or_default()
    }

    /// The operator API of the first backend.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator::new(self.ops(0), self.admin_token.clone())
    }

    /// The operator's token.
    #[must_use]
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// The gateways' token for sync.
    #[must_use]
    pub fn edge_token(&self) -> &str {
        &self.edge_token
    }

    /// Redis's URL.
    #[must_use]
    pub fn redis_url(&self) -> &str {
        &self.redis_url
    }

    /// The URL of this stack's database.
    #[must_use]
    pub fn database_url(&self) -> &str {
        &self.database.url
    }

    /// Asks the database; every value as text.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn sql(&self, sql: &str) -> anyhow::Result<Vec<Vec<String>>> {
        postgres::query(&self.database.bin, &self.database.url, sql)
    }

    /// Asks for a coupon through the first gateway.
    ///
    /// # Errors
    /// When there is no HTTP answer.
    pub fn issue(&self, campaign: &str, user: &str) -> anyhow::Result<Reply> {
        let url = format!("{}/v1/coupon/issue?campaign={campaign}", self.url(0));
        http::send("POST", &url, &[("x-user-id", user)], None)
    }

    /// Creates or replaces a campaign and waits until every backend and every gateway has heard of it.
    ///
    /// # Errors
    /// When the backend does not accept it, or somebody does not hear of it within 10 s.
    pub fn announce(&self, id: &str, campaign: &Value) -> anyhow::Result<()> {
        self.operator().put_campaign(id, campaign)?;
        for backend in &self.backends {
            let count = format!("{}/v1/coupon/count?campaign={id}", backend.url());
            wait_until(&backend.name, id, || Ok(http::get(&count)?.status == 200))?;
        }
        for gateway in &self.gateways {
            // Without a user the gateway answers by itself, and only if it knows the campaign, with something else
            // than `unknown_campaign`. Its workers learn one after the other: a few answers in a row tell of all.
            let issue = format!("{}/v1/coupon/issue?campaign={id}", gateway.url());
            let mut in_a_row = 0;
            wait_until(&gateway.name, id, || {
                let known = http::send("POST", &issue, &[], None)?.code() != "unknown_campaign";
                in_a_row = if known { in_a_row + 1 } else { 0 };
                Ok(in_a_row == 10)
            })?;
        }
        Ok(())
    }

    /// POSTs of the issue route that reached the backends, as they count them.
    ///
    /// # Errors
    /// When a backend does not answer.
    pub fn issue_requests(&self) -> anyhow::Result<u64> {
        self.backends.iter().map(Backend::issue_requests).sum()
    }

    /// One metric of the backends by its whole name, summed over them and its labels.
    ///
    /// # Errors
    /// When a backend does not answer.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        self.backends.iter().map(|backend| backend.metric(name)).sum()
    }

    /// The log of a server so far, such as `gateway-1` or `backend-2`.
    ///
    /// # Errors
    /// When there is none.
    pub fn log(&self, name: &str) -> anyhow::Result<String> {
        let path = log_path(&self.home.join("logs"), name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The pid of a server: `redis`, `postgres` (its own one only), `backend-1`, `gateway-1` and so on.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn pid(&mut self, name: &str) -> anyhow::Result<u32> {
        self.server(name).map(|server| server.pid())
    }

    /// Kills a server as `kill -9` would.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        self.server(name)?.kill();
        Ok(())
    }

    /// Stops a server in good order.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        self.server(name)?.stop();
        Ok(())
    }

    /// Holds a server still (SIGSTOP), with every process it has started, until [`Stack::unfreeze`].
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn freeze(&mut self, name: &str) -> anyhow::Result<()> {
        self.server(name)?.freeze();
        Ok(())
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn unfreeze(&mut self, name: &str) -> anyhow::Result<()> {
        self.server(name)?.unfreeze();
        Ok(())
    }

    /// Starts a server again with its data and waits until it serves.
    ///
    /// # Errors
    /// When there is none of that name, or it does not start.
    pub fn restart(&mut self, name: &str) -> anyhow::Result<()> {
        self.server(name)?.restart()
    }

    /// Replaces a gateway's listener while it runs, its plugin configuration changed by this patch (RFC 7396) on top of
    /// the earlier ones. The stack was built with [`Builder::pushes`].
    ///
    /// # Errors
    /// When there is no such gateway, or its file cannot be replaced.
    pub fn push(&mut self, index: usize, plugin: &Value) -> anyhow::Result<()> {
        let gateway = self.gateways.get_mut(index).with_context(|| format!("this stack has no gateway {index}"))?;
        merge(&mut gateway.rendering.plugin, plugin);
        PushedGateway(gateway.clone()).push()
    }

    /// Stops the servers and leaves all files where they are: data, configurations, logs.
    #[must_use]
    pub fn keep(mut self) -> PathBuf {
        self.kept = true;
        self.home.clone()
    }

    /// The folder of all its files.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The folder of Redis's append-only file, for tests that lose it.
    #[must_use]
    pub fn redis_data(&self) -> PathBuf {
        self.home.join("redis")
    }

    fn server(&mut self, name: &str) -> anyhow::Result<&mut Running> {
        let Some(index) = self.servers.iter().position(|server| server.name() == name) else {
            bail!("this stack has no server {name}");
        };
        self.servers.get_mut(index).context("a server was found above")
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // Gateways first, stores last: nobody loses the server it is talking to.
        while let Some(server) = self.servers.pop() {
            drop(server);
        }
        let removed = if self.kept {
            Vec::new()
        } else if thread::panicking() {
            eprintln!("the servers' logs are in {}", self.home.join("logs").display());
            vec![self.home.join("postgres"), self.home.join("redis")]
        } else {
            vec![self.home.clone()]
        };
        for folder in removed {
            let _left_in_the_temporary_folder = fs::remove_dir_all(folder);
        }
    }
}

fn wait_until(who: &str, campaign: &str, mut heard: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !heard()? {
        ensure!(Instant::now() < deadline, "{who} does not hear of the campaign {campaign}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
