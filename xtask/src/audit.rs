//! `cargo xtask audit`: whether a round of the running stack adds up. The backend's own command asks and judges.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use clap::Args;
use doorbuster_e2e::Stack;
use doorbuster_e2e::process::forget_own_settings;
use serde::Deserialize;
use serde_json::Value;

use crate::build::{self, Profile};
use crate::checkout::Checkout;

/// Which round of which stack.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The stack's file, which `cargo xtask up` writes [default: .doorbuster/stack.json]
    #[arg(long, value_name = "FILE")]
    stack: Option<PathBuf>,
    /// Handed to `doorbuster-backend audit`: CAMPAIGN [ROUND] [--seen FILE] [--json]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

/// Where an audit reads.
#[derive(Debug, Deserialize)]
struct Sources {
    redis_url: String,
    database_url: String,
    admin_token: String,
    edge_token: String,
}

impl Sources {
    /// Those of a stack of ours, past its proxies.
    fn of_stack(stack: &Stack) -> Self {
        Self {
            redis_url: stack.redis_url().to_owned(),
            database_url: stack.database_url().to_owned(),
            admin_token: stack.admin_token().to_owned(),
            edge_token: stack.edge_token().to_owned(),
        }
    }

    fn command(&self, backend: &Path, arguments: &[String]) -> Command {
        let mut command = Command::new(backend);
        forget_own_settings(&mut command);
        command
            .arg("audit")
            .args(arguments)
            .env("DOORBUSTER_REDIS_URL", &self.redis_url)
            .env("DOORBUSTER_DATABASE_URL", &self.database_url)
            .env("DOORBUSTER_ADMIN_TOKEN", &self.admin_token)
            .env("DOORBUSTER_EDGE_TOKEN", &self.edge_token);
        command
    }
}

/// Audits a round of the stack that runs, with the exit code of the backend's command.
pub(crate) fn run(checkout: &Checkout, options: &Options) -> anyhow::Result<ExitCode> {
    let file = options.stack.clone().unwrap_or_else(|| checkout.stack_file());
    let text = fs::read_to_string(&file)
        .with_context(|| format!("{} cannot be read: start a stack with `cargo xtask up`", file.display()))?;
    let sources: Sources =
        serde_json::from_str(&text).with_context(|| format!("{} is no stack's file", file.display()))?;
    let backend = build::backend(checkout, Profile::Dev)?;
    let status = sources.command(&backend, &options.arguments).status().context("cannot run the backend's audit")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The report on a campaign's current round, as JSON, once clients have told what they saw: `USER CODE` in each line.
pub(crate) fn with_sightings(backend: &Path, stack: &Stack, campaign: &str, sightings: &str) -> anyhow::Result<Value> {
    let seen = stack.home().join("seen.txt");
    fs::write(&seen, sightings).with_context(|| format!("cannot write {}", seen.display()))?;
    let arguments = [campaign, "--json", "--seen", &seen.display().to_string()].map(ToOwned::to_owned);
    let command = Sources::of_stack(stack).command(backend, &arguments).output();
    let output = command.context("cannot run the backend's audit")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(matches!(output.status.code(), Some(0 | 1)), "the audit failed ({}): {}", output.status, said.trim());
    serde_json::from_slice(&output.stdout).context("the audit's report is not JSON")
}

/// What a report finds broken.
pub(crate) fn complaints(report: &Value) -> Vec<String> {
    let defects = report.get("defects").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut complaints: Vec<String> = defects.iter().map(|defect| format!("audit: {defect}")).collect();
    if report.get("clean") != Some(&Value::Bool(true)) && complaints.is_empty() {
        complaints.push(format!("the audit is not clean: {report}"));
    }
    complaints
}
