//! `cargo xtask up`: a local stack that stays until Ctrl-C.

mod local;
mod ports;
mod stack_file;
mod supervisor;
mod welcome;

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;
use doorbuster_e2e::backend::Backend;
use doorbuster_e2e::envoy_config::Rendering;
use doorbuster_e2e::gateway::Gateway;
use doorbuster_e2e::operator::Operator;
use doorbuster_e2e::postgres::Postgres;
use doorbuster_e2e::redis::Redis;
use doorbuster_e2e::{http, postgres};
use serde_json::json;

use crate::build::{self, Profile};
use crate::checkout::Checkout;
use crate::console::{interrupt_flag, step};
use crate::setup::{self, Servers};
use local::Local;
use ports::Ports;
use stack_file::StackFile;
use supervisor::{Supervisor, Wait};

const DATABASE: &str = "doorbuster";

/// What to start.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many gateways (Envoy)
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    gateways: u16,
    /// How many backends
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    backends: u16,
    /// Workers of each gateway (Envoy's --concurrency) [default: the number of cores, at least 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Port of the first gateway; others take the next ones
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    gateway_port: u16,
    /// Port of the first gateway's Envoy admin interface; others take the next ones
    #[arg(long, default_value_t = 9901, value_name = "PORT")]
    admin_port: u16,
    /// Port of the first backend's public listener, its operations listener on the next one; others are 10 higher each
    #[arg(long, default_value_t = 8000, value_name = "PORT")]
    backend_port: u16,
    /// Build the backend with optimisations: a longer build, a quicker backend
    #[arg(long)]
    release: bool,
    /// Forget all data of earlier starts
    #[arg(long)]
    fresh: bool,
}

/// Runs until a signal comes.
pub(crate) fn run(checkout: &Checkout, options: &Options) -> anyhow::Result<ExitCode> {
    checkout.create_private()?;
    let lock = checkout.lock()?;
    let ports = Ports::of(options)?;
    ports.ensure_free()?;
    if options.fresh {
        step("forgetting the data of earlier starts");
        local::forget(checkout)?;
    }
    let servers = setup::servers(checkout)?;
    let compiler = setup::wasm::compiler(checkout)?;
    let profile = if options.release { Profile::Release } else { Profile::Dev };
    let stack = Stack {
        backend_program: build::backend(checkout, profile)?,
        filter_wasm: build::filter(checkout, compiler)?,
        local: Local::load_or_create(checkout)?,
        workers: options.workers.map_or_else(default_workers, usize::from),
        servers,
        ports,
        checkout,
    };
    let outcome = stack.serve();
    drop(lock);
    outcome?;
    Ok(ExitCode::SUCCESS)
}

fn default_workers() -> usize {
    thread::available_parallelism().map_or(2, |cores| cores.get().max(2))
}

struct Stack<'a> {
    checkout: &'a Checkout,
    servers: Servers,
    backend_program: std::path::PathBuf,
    filter_wasm: std::path::PathBuf,
    local: Local,
    ports: Ports,
    workers: usize,
}

impl Stack<'_> {
    /// Starts everything, tells about it, and keeps it up until a signal comes.
    fn serve(&self) -> anyhow::Result<()> {
        let mut supervisor = Supervisor::new(self.checkout.logs(), interrupt_flag()?);
        let served = self.start(&mut supervisor).and_then(|wait| match wait {
            Wait::Interrupted => Ok(()),
            Wait::Over => self.keep_up(&mut supervisor),
        });
        let _never_written = fs::remove_file(self.checkout.stack_file());
        println!();
        step("stopping");
        supervisor.stop();
        served
    }

    fn start(&self, supervisor: &mut Supervisor) -> anyhow::Result<Wait> {
        let postgres = self.postgres();
        step("starting Redis and PostgreSQL");
        supervisor.start(Box::new(self.redis()));
        supervisor.start(Box::new(postgres.clone()));
        if supervisor.wait_until_ready()? == Wait::Interrupted {
            return Ok(Wait::Interrupted);
        }
        let exists = format!("SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'");
        if postgres::query(&postgres.bin, &postgres.url("postgres"), &exists)?.is_empty() {
            postgres.create_database(DATABASE)?;
        }
        step("starting backends");
        self.backends().into_iter().for_each(|backend| supervisor.start(Box::new(backend)));
        if supervisor.wait_until_ready()? == Wait::Interrupted {
            return Ok(Wait::Interrupted);
        }
        let operator = Operator::new(self.ports.ops_url(0), self.local.admin_token.clone());
        welcome::create(&operator, &postgres, DATABASE)?;
        step("starting gateways");
        self.gateways().into_iter().for_each(|gateway| supervisor.start(Box::new(gateway)));
        if supervisor.wait_until_ready()? == Wait::Interrupted {
            return Ok(Wait::Interrupted);
        }
        let urls = self.ports.gateway_urls();
        supervisor.wait_until("the gateways to know the campaign", || urls.iter().all(|url| welcome::is_known_at(url)))
    }

    fn keep_up(&self, supervisor: &mut Supervisor) -> anyhow::Result<()> {
        self.write_stack_file(supervisor)?;
        self.tell();
        while !supervisor.interrupted() {
            if supervisor.tick() {
                self.write_stack_file(supervisor)?;
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn write_stack_file(&self, supervisor: &Supervisor) -> anyhow::Result<()> {
        let file = StackFile {
            gateways: self.ports.gateway_urls(),
            envoy_admins: self.ports.admin_urls(),
            backends: self.ports.backend_urls(),
            ops: self.ports.ops_urls(),
            redis_url: self.redis().url(),
            database_url: self.postgres().url(DATABASE),
            admin_token: self.local.admin_token.clone(),
            edge_token: self.local.edge_token.clone(),
            pids: supervisor.pids(),
        };
        file.write(&self.checkout.stack_file())
    }

    fn tell(&self) {
        let gateway = self.ports.gateway_url(0);
        println!("\nThe stack serves. Ctrl-C stops it; the next start finds its data again.\n");
        self.ports.tell();
        println!("  all URLs, tokens and pids  {}", self.checkout.stack_file().display());
        println!("  logs                       {}", self.checkout.logs().display());
        println!("\nWin a coupon, then ask again and be refused:\n");
        for _ in 0..2 {
            println!(
                "  curl -i -X POST -H 'x-user-id: alice' '{gateway}/v1/coupon/issue?campaign={}'",
                welcome::CAMPAIGN
            );
        }
        println!();
    }

    fn redis(&self) -> Redis {
        Redis {
            program: self.servers.redis_server.clone(),
            data: local::redis_data(self.checkout),
            port: self.local.redis_port,
        }
    }

    fn postgres(&self) -> Postgres {
        Postgres {
            bin: self.servers.postgres_bin.clone(),
            home: local::postgres_home(self.checkout),
            port: self.local.postgres_port,
            password: self.local.postgres_password.clone(),
        }
    }

    fn backends(&self) -> Vec<Backend> {
        let settings = [
            ("redis_url", self.redis().url()),
            ("database_url", self.postgres().url(DATABASE)),
            ("admin_token", self.local.admin_token.clone()),
            ("edge_token", self.local.edge_token.clone()),
            ("default_campaign", welcome::CAMPAIGN.to_owned()),
        ];
        let backend = |index: u16| Backend {
            name: format!("backend-{}", index + 1),
            program: self.backend_program.clone(),
            public_port: self.ports.backend(index),
            ops_port: self.ports.ops(index),
            settings: settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
        };
        (0..self.ports.backends).map(backend).collect()
    }

    fn gateways(&self) -> Vec<Gateway> {
        let gateway = |index: u16| Gateway {
            name: format!("gateway-{}", index + 1),
            program: self.servers.envoy.clone(),
            workers: self.workers,
            rendering: Rendering {
                template: self.checkout.root().join("envoy/envoy.yaml"),
                port: self.ports.gateway(index),
                admin_port: self.ports.admin(index),
                origin_ports: (0..self.ports.backends).map(|backend| self.ports.backend(backend)).collect(),
                control_ports: (0..self.ports.backends).map(|backend| self.ports.ops(backend)).collect(),
                filter_wasm: self.filter_wasm.clone(),
                plugin: json!({ "default_campaign": welcome::CAMPAIGN }),
            },
            folder: self.checkout.private(),
            edge_token: self.local.edge_token.clone(),
        };
        (0..self.ports.gateways).map(gateway).collect()
    }
}
