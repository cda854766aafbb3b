//! `doorbuster check-config`.

use std::path::PathBuf;

use clap::Args;
use doorbuster_backend::config::Config;
use doorbuster_domain::schedule::FieldError;
use serde_json::json;

use crate::answer::{Answer, Failure};
use crate::campaign::data;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The backend's configuration file
    file: PathBuf,
    /// With the DOORBUSTER_ variables of this environment, as a backend started from it would read them
    #[arg(long)]
    with_environment: bool,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<Answer, Failure> {
        let text = std::fs::read_to_string(&self.file).map_err(|error| Failure::no_input(&self.file, &error))?;
        let environment = std::env::vars_os().filter(|_| self.with_environment);
        let environment =
            environment.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        match Config::parse(&text, environment) {
            Ok(_) => Ok(Answer::new("it holds\n".to_owned(), json!({"valid": true}))),
            Err(error) => Err(data(&self.file, vec![FieldError::new("", error.to_string())])),
        }
    }
}
