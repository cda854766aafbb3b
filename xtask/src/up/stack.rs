//! The parts of the stack, their start and their end.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use doorbuster_e2e::backend::Backend;
use doorbuster_e2e::envoy_config::Rendering;
use doorbuster_e2e::envoy_variant::Variant;
use doorbuster_e2e::gateway::{EDGE_TOKEN, Gateway};
use doorbuster_e2e::operator::Operator;
use doorbuster_e2e::postgres::{self, Postgres};
use doorbuster_e2e::redis::Redis;
use serde_json::json;

use super::local::{self, Local};
use super::ports::Ports;
use super::stack_file::StackFile;
use super::supervisor::{Supervisor, Wait};
use super::welcome;
use crate::checkout::Checkout;
use crate::console::{interrupt_flag, step};
use crate::setup::Servers;

const DATABASE: &str = "doorbuster";

/// Everything a stack is made of, before its start.
pub(super) struct Stack<'a> {
    pub(super) checkout: &'a Checkout,
    pub(super) servers: Servers,
    pub(super) backend_program: PathBuf,
    pub(super) filter_wasm: PathBuf,
    pub(super) local: Local,
    pub(super) ports: Ports,
    pub(super) workers: usize,
}

impl Stack<'_> {
    /// Starts everything, tells about it, and keeps it up until a signal comes.
    pub(super) fn serve(&self) -> anyhow::Result<()> {
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
        println!("  all URLs, tokens and pids   {}", self.checkout.stack_file().display());
        println!("  logs                        {}", self.checkout.logs().display());
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
                health_port: self.ports.health(index),
                origin_ports: (0..self.ports.backends).map(|backend| self.ports.backend(backend)).collect(),
                control_ports: (0..self.ports.backends).map(|backend| self.ports.ops(backend)).collect(),
                filter_wasm: self.filter_wasm.clone(),
                plugin: json!({ "default_campaign": welcome::CAMPAIGN }),
                variant: Variant::Shipped,
            },
            folder: self.checkout.private(),
            secrets: vec![(EDGE_TOKEN, self.local.edge_token.clone())],
            entrypoint: None,
        };
        (0..self.ports.gateways).map(gateway).collect()
    }
}
