//! A whole stack of its own: Redis, PostgreSQL, backends and gateways on free ports.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::envoy_admin::EnvoyAdmin;
use crate::envoy_config::Rendering;
use crate::gateway::Gateway;
use crate::http::{self, Reply};
use crate::operator::Operator;
use crate::ports::free_port;
use crate::postgres::{self, Postgres};
use crate::process::Signal;
use crate::programs::{Programs, from_env};
use crate::redis::Redis;
use crate::server::{Running, Server, log_path};
use crate::token::random_token;

/// What a stack shall consist of.
#[derive(Debug, Clone)]
pub struct Builder {
    gateways: usize,
    backends: usize,
    workers: usize,
    own_postgres: bool,
    plugin: Value,
    template: PathBuf,
    settings: Vec<(String, String)>,
    programs: Option<Programs>,
}

impl Builder {
    /// How many gateways (1).
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// How many backends (1).
    #[must_use]
    pub fn backends(mut self, count: usize) -> Self {
        self.backends = count;
        self
    }

    /// Workers of each gateway (2).
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// A PostgreSQL of its own, for tests that kill it. Otherwise the stack has a database of its own in the one that
    /// `cargo xtask test` has started.
    #[must_use]
    pub fn own_postgres(mut self) -> Self {
        self.own_postgres = true;
        self
    }

    /// Merged into the filter's plugin configuration (RFC 7396: null removes).
    #[must_use]
    pub fn plugin(mut self, patch: Value) -> Self {
        self.plugin = patch;
        self
    }

    /// Another configuration than `envoy/envoy.yaml`.
    #[must_use]
    pub fn template(mut self, path: impl Into<PathBuf>) -> Self {
        self.template = path.into();
        self
    }

    /// One key of the backends' configuration, such as `("commit_timeout_ms", "200")`.
    #[must_use]
    pub fn backend_setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// These binaries instead of those that `cargo xtask test` names in the environment.
    #[must_use]
    pub fn programs(mut self, programs: Programs) -> Self {
        self.programs = Some(programs);
        self
    }

    /// Starts everything and returns when it serves.
    ///
    /// # Errors
    /// When a server does not start; the message holds its last words. Or when not run by `cargo xtask test`.
    pub fn start(self) -> anyhow::Result<Stack> {
        let programs = self.programs.clone().map_or_else(Programs::from_env, Ok)?;
        let name = format!("doorbuster-{}-{}", std::process::id(), &random_token()?[..8]);
        let home = std::env::temp_dir().join(&name);
        fs::create_dir_all(home.join("logs")).with_context(|| format!("cannot create {}", home.display()))?;
        let mut stack = Stack {
            servers: Vec::new(),
            database: Database::of(&programs, &name),
            programs,
            home,
            redis_url: String::new(),
            gateways: Vec::new(),
            backends: Vec::new(),
            admin_token: random_token()?,
            edge_token: random_token()?,
        };
        stack.start_stores(&self)?;
        stack.start_backends(&self)?;
        stack.start_gateways(&self)?;
        Ok(stack)
    }
}

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
}

/// The database of a stack, and the server it lies in.
#[derive(Debug)]
struct Database {
    bin: PathBuf,
    name: String,
    url: String,
    /// Of the shared server, when the database is to be dropped there.
    shared_url: Option<String>,
}

impl Database {
    fn of(programs: &Programs, stack: &str) -> Self {
        Self { bin: programs.postgres_bin.clone(), name: stack.replace('-', "_"), url: String::new(), shared_url: None }
    }

    fn create_in(&mut self, server_url: &str) -> anyhow::Result<()> {
        postgres::query(&self.bin, server_url, &format!("CREATE DATABASE {}", self.name))?;
        let (server, _) = server_url.rsplit_once('/').context("a database URL ends with the database's name")?;
        self.url = format!("{server}/{}", self.name);
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(server_url) = &self.shared_url {
            let _left_for_the_end_of_the_run =
                postgres::query(&self.bin, server_url, &format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

impl Stack {
    /// One gateway with two workers, one backend, one Redis, one database.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            gateways: 1,
            backends: 1,
            workers: 2,
            own_postgres: false,
            plugin: json!({}),
            template: Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/envoy.yaml"),
            settings: Vec::new(),
            programs: None,
        }
    }

    /// The client URL of gateway `index` (from 0), without a trailing slash.
    #[must_use]
    pub fn url(&self, index: usize) -> String {
        self.gateways.get(index).map(Gateway::url).unwrap_or_default()
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

    /// Holds a server still (SIGSTOP) until [`Stack::unfreeze`].
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn freeze(&mut self, name: &str) -> anyhow::Result<()> {
        self.server(name)?.signal(Signal::STOP);
        Ok(())
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn unfreeze(&mut self, name: &str) -> anyhow::Result<()> {
        self.server(name)?.signal(Signal::CONT);
        Ok(())
    }

    /// Starts a server again with its data and waits until it serves.
    ///
    /// # Errors
    /// When there is none of that name, or it does not start.
    pub fn restart(&mut self, name: &str) -> anyhow::Result<()> {
        self.server(name)?.restart()
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

    fn start_server(&mut self, server: impl Server + 'static) -> anyhow::Result<()> {
        self.servers.push(Running::start(Box::new(server), &self.home.join("logs"))?);
        Ok(())
    }

    fn start_stores(&mut self, builder: &Builder) -> anyhow::Result<()> {
        let redis = Redis { program: self.programs.redis_server.clone(), data: self.redis_data(), port: free_port()? };
        self.redis_url = redis.url();
        self.start_server(redis)?;
        if !builder.own_postgres {
            let server_url = from_env("DOORBUSTER_TEST_DATABASE_URL")?;
            self.database.create_in(&server_url)?;
            self.database.shared_url = Some(server_url);
            return Ok(());
        }
        let own = Postgres {
            bin: self.programs.postgres_bin.clone(),
            home: self.home.join("postgres"),
            port: free_port()?,
            password: random_token()?,
        };
        let server_url = own.url("postgres");
        self.start_server(own)?;
        self.database.create_in(&server_url)
    }

    fn start_backends(&mut self, builder: &Builder) -> anyhow::Result<()> {
        for index in 1..=builder.backends {
            let mut settings: Vec<(String, String)> = [
                ("redis_url", self.redis_url.as_str()),
                ("database_url", &self.database.url),
                ("admin_token", &self.admin_token),
                ("edge_token", &self.edge_token),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
            settings.extend(builder.settings.iter().cloned());
            let backend = Backend {
                name: format!("backend-{index}"),
                program: self.programs.backend.clone(),
                public_port: free_port()?,
                ops_port: free_port()?,
                settings,
            };
            self.backends.push(backend.clone());
            self.start_server(backend)?;
        }
        Ok(())
    }

    fn start_gateways(&mut self, builder: &Builder) -> anyhow::Result<()> {
        for index in 1..=builder.gateways {
            let gateway = Gateway {
                name: format!("gateway-{index}"),
                program: self.programs.envoy.clone(),
                workers: builder.workers,
                rendering: Rendering {
                    template: builder.template.clone(),
                    port: free_port()?,
                    admin_port: free_port()?,
                    origin_ports: self.backends.iter().map(|backend| backend.public_port).collect(),
                    control_ports: self.backends.iter().map(|backend| backend.ops_port).collect(),
                    filter_wasm: self.programs.filter_wasm.clone(),
                    plugin: builder.plugin.clone(),
                },
                folder: self.home.clone(),
                edge_token: self.edge_token.clone(),
            };
            self.gateways.push(gateway.clone());
            self.start_server(gateway)?;
        }
        Ok(())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // Gateways first, stores last: nobody loses the server it is talking to.
        while let Some(server) = self.servers.pop() {
            drop(server);
        }
        if std::thread::panicking() {
            eprintln!("the servers' logs are in {}", self.home.join("logs").display());
        } else {
            let _left_in_the_temporary_folder = fs::remove_dir_all(&self.home);
        }
    }
}
