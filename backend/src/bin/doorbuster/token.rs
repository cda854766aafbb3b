//! `doorbuster token`.

use clap::Subcommand;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::answer::Answer;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Draw a token: 256 random bits, shown this once, and what to write into the backends' configuration
    New {
        /// The name under which the audit log shall know its owner
        #[arg(long, default_value = "ann")]
        name: String,
        /// What the owner may do
        #[arg(long, default_value = "operator", value_parser = ["viewer", "cashier", "operator"])]
        role: String,
    },
}

impl Command {
    pub(crate) fn run(self) -> Answer {
        let Self::New { name, role } = self;
        let token = hex(&rand::random::<[u8; 32]>());
        let sha256 = hex(&Sha256::digest(token.as_bytes()));
        let people = format!(
            "The token, for its owner alone. It is not shown again:\n\n  {token}\n\n\
             For the configuration of every backend:\n\n  [[operator_tokens]]\n  name = \"{name}\"\n  \
             role = \"{role}\"\n  sha256 = \"{sha256}\"\n"
        );
        Answer::new(people, json!({"token": token, "name": name, "role": role, "sha256": sha256}))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
