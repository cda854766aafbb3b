//! `doorbuster installation`: asks the stores themselves, since a backend may refuse to start on
//! them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use doorbuster_backend::lineage::command;

use crate::answer::Failure;
use crate::target::stores;

#[derive(Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// A backend's configuration file, which tells where PostgreSQL and Redis are [default: the
    /// DOORBUSTER_ variables of this environment, else the local stack]
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: command::Command,
}

impl Arguments {
    pub(crate) fn run(self, json: bool) -> ExitCode {
        let config = match stores(self.config.as_deref()) {
            Ok(config) => config,
            Err(failure) => return failure.tell(json),
        };
        match tokio::runtime::Runtime::new() {
            Ok(runtime) => runtime.block_on(command::run(&config, self.command, json)),
            Err(error) => Failure::Unavailable(format!("no thread can be started: {error}")).tell(json),
        }
    }
}
