//! `doorbuster audit`: the library's audit, which asks the stores themselves.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use doorbuster_backend::audit;

use crate::answer::Failure;
use crate::target::stores;

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
        let config = match stores(self.config.as_deref()) {
            Ok(config) => config,
            Err(failure) => return failure.tell(json),
        };
        let arguments = if json { self.audit.in_json() } else { self.audit };
        match tokio::runtime::Runtime::new() {
            Ok(runtime) => runtime.block_on(audit::run(&config, &arguments)),
            Err(error) => Failure::Unavailable(format!("no thread can be started: {error}")).tell(json),
        }
    }
}
