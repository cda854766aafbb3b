//! Starts a stack.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use super::Stack;
use super::database::Database;
use crate::backend::Backend;
use crate::clock::WrongClock;
use crate::envoy_config::Rendering;
use crate::envoy_variant::Variant;
use crate::gateway::{EDGE_TOKEN, Gateway, TICKET_SECRET};
use crate::ports::free_port;
use crate::postgres::Postgres;
use crate::programs::{Programs, from_env};
use crate::proxy::Proxy;
use crate::pushed::PushedGateway;
use crate::redis::Redis;
use crate::server::{Running, Server};
use crate::token::random_token;

/// What a stack shall consist of.
#[derive(Debug, Clone)]
pub struct Builder {
    gateways: usize,
    backends: usize,
    workers: usize,
    own_postgres: bool,
    plugin: Value,
    mesh: Option<String>,
    drains: bool,
    second_listener: Option<Value>,
    template: PathBuf,
    origin: Option<u16>,
    settings: Vec<(String, String)>,
    ticket_secret: Option<String>,
    pushes: bool,
    gateway_clock_s: i64,
    backend_clock_s: i64,
    programs: Option<Programs>,
    proxied: bool,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            gateways: 1,
            backends: 1,
            workers: 2,
            own_postgres: false,
            plugin: json!({}),
            mesh: None,
            drains: false,
            second_listener: None,
            template: Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/envoy.yaml"),
            origin: None,
            settings: Vec::new(),
            ticket_secret: None,
            pushes: false,
            gateway_clock_s: 0,
            backend_clock_s: 0,
            programs: None,
            proxied: false,
        }
    }

    /// How many gateways (1).
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// How many backends (1). Without any there is no Redis and no database either.
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

    /// Gateways have the configuration that meshes generate, with this `vm_id`.
    #[must_use]
    pub fn mesh(mut self, vm_id: &str) -> Self {
        self.mesh = Some(vm_id.to_owned());
        self
    }

    /// Gateways run as in their container: SIGTERM drains them.
    #[must_use]
    pub fn drains(mut self) -> Self {
        self.drains = true;
        self
    }

    /// Gateways have a second listener, into whose plugin configuration this is merged: [`Stack::second_url`].
    #[must_use]
    pub fn second_listener(mut self, patch: Value) -> Self {
        self.second_listener = Some(patch);
        self
    }

    fn variant(&self) -> anyhow::Result<Variant> {
        Ok(match (&self.mesh, &self.second_listener) {
            (Some(vm_id), _) => Variant::Mesh { vm_id: vm_id.clone() },
            (None, Some(plugin)) => Variant::SecondListener { port: free_port()?, plugin: plugin.clone() },
            (None, None) => Variant::Shipped,
        })
    }

    /// Another configuration than `envoy/envoy.yaml`.
    #[must_use]
    pub fn template(mut self, path: impl Into<PathBuf>) -> Self {
        self.template = path.into();
        self
    }

    /// An origin of the test's own on this port of 127.0.0.1, beside or instead of backends.
    #[must_use]
    pub fn origin(mut self, port: u16) -> Self {
        self.origin = Some(port);
        self
    }

    /// One key of the backends' configuration, such as `("commit_timeout_ms", "200")`.
    #[must_use]
    pub fn backend_setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Gateways have this secret to sign tickets with, none by default.
    #[must_use]
    pub fn ticket_secret(mut self, secret: &str) -> Self {
        self.ticket_secret = Some(secret.to_owned());
        self
    }

    /// Gateways take their listener from a control plane's file, so that [`Stack::push`] can replace it while they run.
    #[must_use]
    pub fn pushes(mut self) -> Self {
        self.pushes = true;
        self
    }

    /// The gateways' wall clocks are ahead by so many seconds, or behind if below zero.
    #[must_use]
    pub fn gateway_clock_s(mut self, ahead: i64) -> Self {
        self.gateway_clock_s = ahead;
        self
    }

    /// The backends' wall clocks are ahead by so many seconds, or behind if below zero.
    #[must_use]
    pub fn backend_clock_s(mut self, ahead: i64) -> Self {
        self.backend_clock_s = ahead;
        self
    }

    /// Between the servers there are ways that can be cut: `backend-1 to redis`, `backend-1 to postgres`, and for what
    /// gateways ask of a backend `gateways to backend-1` and, for sync, `gateways to backend-1, sync`.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
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
            proxies: Vec::new(),
            kept: false,
        };
        if self.backends > 0 {
            stack.start_stores(&self)?;
        }
        stack.start_backends(&self)?;
        stack.start_gateways(&self)?;
        Ok(stack)
    }
}

impl Stack {
    fn start_server(&mut self, server: impl Server + 'static) -> anyhow::Result<()> {
        self.start_server_at(server, 0)
    }

    /// With its wall clock ahead by so many seconds.
    fn start_server_at(&mut self, server: impl Server + 'static, clock_s: i64) -> anyhow::Result<()> {
        let mut server: Box<dyn Server> = Box::new(server);
        if clock_s != 0 {
            server = Box::new(WrongClock::new(server, clock_s, &self.home)?);
        }
        self.servers.push(Running::start(server, &self.home.join("logs"))?);
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
            let name = format!("backend-{index}");
            let (mut redis_url, mut database_url) = (self.redis_url.clone(), self.database.url.clone());
            if builder.proxied {
                redis_url = self.by_proxy(&format!("{name} to redis"), &redis_url)?;
                database_url = self.by_proxy(&format!("{name} to postgres"), &database_url)?;
            }
            let mut settings: Vec<(String, String)> = [
                ("redis_url", redis_url.as_str()),
                ("database_url", &database_url),
                ("admin_token", &self.admin_token),
                ("edge_token", &self.edge_token),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
            settings.extend(builder.settings.iter().cloned());
            let backend = Backend {
                name,
                program: self.programs.backend.clone(),
                public_port: free_port()?,
                ops_port: free_port()?,
                settings,
            };
            self.backends.push(backend.clone());
            self.start_server_at(backend, builder.backend_clock_s)?;
        }
        Ok(())
    }

    /// Makes a way to the server of a URL, which may end with a database's name, and tells the URL by that way.
    fn by_proxy(&mut self, name: &str, url: &str) -> anyhow::Result<String> {
        let (host, rest) = url.rsplit_once(':').with_context(|| format!("a URL without a port, for {name}"))?;
        let (port, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let port = port.parse().with_context(|| format!("a URL without a port, for {name}"))?;
        Ok(format!("{host}:{}{path}", self.lead(name, port)?))
    }

    /// Makes a way to a port and tells the port by that way.
    fn lead(&mut self, name: &str, port: u16) -> anyhow::Result<u16> {
        let proxy = Proxy::to(port)?;
        let port = proxy.port();
        self.proxies.push((name.to_owned(), proxy));
        Ok(port)
    }

    fn start_gateways(&mut self, builder: &Builder) -> anyhow::Result<()> {
        let mut origin_ports: Vec<u16> = self.backends.iter().map(|backend| backend.public_port).collect();
        let mut control_ports: Vec<u16> = self.backends.iter().map(|backend| backend.ops_port).collect();
        if builder.proxied {
            for (index, (origin, control)) in (1..).zip(origin_ports.iter_mut().zip(&mut control_ports)) {
                *origin = self.lead(&format!("gateways to backend-{index}"), *origin)?;
                *control = self.lead(&format!("gateways to backend-{index}, sync"), *control)?;
            }
        }
        origin_ports.extend(builder.origin);
        for index in 1..=builder.gateways {
            let gateway = Gateway {
                name: format!("gateway-{index}"),
                program: self.programs.envoy.clone(),
                workers: builder.workers,
                rendering: Rendering {
                    template: builder.template.clone(),
                    port: free_port()?,
                    admin_port: free_port()?,
                    health_port: free_port()?,
                    origin_ports: origin_ports.clone(),
                    control_ports: control_ports.clone(),
                    filter_wasm: self.programs.filter_wasm.clone(),
                    plugin: builder.plugin.clone(),
                    variant: builder.variant()?,
                },
                folder: self.home.clone(),
                entrypoint: builder
                    .drains
                    .then(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/entrypoint.sh")),
                secrets: [(EDGE_TOKEN, Some(self.edge_token.clone())), (TICKET_SECRET, builder.ticket_secret.clone())]
                    .into_iter()
                    .filter_map(|(name, secret)| Some((name, secret?)))
                    .collect(),
            };
            self.gateways.push(gateway.clone());
            if builder.pushes {
                self.start_server_at(PushedGateway(gateway), builder.gateway_clock_s)?;
            } else {
                self.start_server_at(gateway, builder.gateway_clock_s)?;
            }
        }
        Ok(())
    }
}
