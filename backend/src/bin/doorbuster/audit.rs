//! `doorbuster audit`: the library's audit, which asks the stores themselves.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use doorbuster_backend::audit;
use doorbuster_backend::config::Config;

use crate::answer::Failure;
use crate::target::local_stack;

#[derive(Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// A backend's configuration file, which tells where PostgreSQL and Redis are [default: the DOORBUSTER_ variables of
    /// this environment, else the local stack]
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    audit: audit::Arguments,
}

impl Arguments {
    /// The report goes to the standard output, and the exit code says whether the round adds up.
    pub(crate) fn run(self, json: bool) -> ExitCode {
        let config = match self.config() {
            Ok(config) => config,
            Err(failure) => return failure.tell(json),
        };
        let arguments = if json { self.audit.in_json() } else { self.audit };
        match tokio::runtime::Runtime::new() {
            Ok(runtime) => runtime.block_on(audit::run(&config, &arguments)),
            Err(error) => Failure::Unavailable(format!("no thread can be started: {error}")).tell(json),
        }
    }

    fn config(&self) -> Result<Config, Failure> {
        let mut environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        if self.config.is_none() && !environment.iter().any(|(name, _)| name == "DOORBUSTER_DATABASE_URL") {
            environment.extend(local_stack()?.settings());
        }
        Config::load(self.config.as_deref(), environment).map_err(|error| Failure::Usage(error.to_string()))
    }
}
