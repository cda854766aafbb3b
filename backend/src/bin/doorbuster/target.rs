//! Which backend is meant, and with which token.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use doorbuster_backend::config::Config;
use serde::Deserialize;

use crate::answer::Failure;
use crate::api::Api;

/// Where `cargo xtask up` writes what it has started, in the checkout.
const STACK_FILE: &str = ".doorbuster/stack.json";

/// How to reach a backend's operations listener.
#[derive(Args)]
pub(crate) struct Target {
    /// The operations listener [default: that of the local stack, from .doorbuster/stack.json here or above]
    #[arg(long, global = true, env = "DOORBUSTER_URL")]
    url: Option<String>,
    /// The operator's token; others on this machine see a command's arguments, but not its environment
    #[arg(long, global = true, env = "DOORBUSTER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Seconds to wait for an answer
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,
}

/// What is needed of a local stack's file.
#[derive(Deserialize)]
struct Stack {
    ops: Vec<String>,
    redis_url: String,
    database_url: String,
    admin_token: String,
    edge_token: String,
}

impl Stack {
    /// As the variables of its backends.
    fn settings(self) -> [(String, String); 4] {
        [
            ("DATABASE_URL", self.database_url),
            ("REDIS_URL", self.redis_url),
            ("ADMIN_TOKEN", self.admin_token),
            ("EDGE_TOKEN", self.edge_token),
        ]
        .map(|(key, value)| (format!("DOORBUSTER_{key}"), value))
    }
}

impl Target {
    pub(crate) fn api(&self) -> Result<Api, Failure> {
        let timeout = Duration::from_secs(self.timeout);
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        match (given(&self.url), given(&self.token)) {
            (Some(url), Some(token)) => Ok(Api::new(&url, &token, timeout)),
            // The local stack's token is for nobody else's eyes.
            (Some(_), None) => Err(usage("no token: set DOORBUSTER_TOKEN, or leave --url out to mean the local stack")),
            (None, token) => {
                let stack = local_stack()?;
                let url = stack.ops.first().ok_or_else(|| usage("the local stack has no backend"))?;
                Ok(Api::new(url, &token.unwrap_or(stack.admin_token), timeout))
            }
        }
    }
}

fn usage(text: &str) -> Failure {
    Failure::Usage(text.to_owned())
}

/// A backend's configuration, for commands that ask the stores themselves: a file, else the
/// `DOORBUSTER_` variables of this environment, else the local stack.
pub(crate) fn stores(file: Option<&Path>) -> Result<Config, Failure> {
    let mut environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    if file.is_none() && !environment.iter().any(|(name, _)| name == "DOORBUSTER_DATABASE_URL") {
        environment.extend(local_stack()?.settings());
    }
    Config::load(file, environment).map_err(|error| Failure::Usage(error.to_string()))
}

/// The stack of this checkout.
fn local_stack() -> Result<Stack, Failure> {
    let path = stack_file().ok_or_else(|| {
        usage("no backend: set DOORBUSTER_URL and DOORBUSTER_TOKEN, or start a local stack with `cargo xtask up`")
    })?;
    let text = fs::read_to_string(&path).map_err(|error| Failure::no_input(&path, &error))?;
    serde_json::from_str(&text).map_err(|error| Failure::NoInput(format!("{}: {error}", path.display())))
}

fn stack_file() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().map(|folder| folder.join(STACK_FILE)).find(|file| file.is_file())
}
