//! Where the servers' binaries are.

use std::path::PathBuf;

use anyhow::Context;

/// Everything a stack runs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `envoy`
    pub envoy: PathBuf,
    /// `redis-server`
    pub redis_server: PathBuf,
    /// The folder that holds `initdb`, `postgres` and `psql`.
    pub postgres_bin: PathBuf,
    /// `doorbuster-backend`
    pub backend: PathBuf,
    /// The finished filter module.
    pub filter_wasm: PathBuf,
}

impl Programs {
    /// The variables in which `cargo xtask test` tells tests where the binaries are, with the fields they fill.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, &PathBuf); 5] {
        [
            ("DOORBUSTER_ENVOY", &self.envoy),
            ("DOORBUSTER_REDIS_SERVER", &self.redis_server),
            ("DOORBUSTER_POSTGRES_BIN", &self.postgres_bin),
            ("DOORBUSTER_BACKEND_BIN", &self.backend),
            ("DOORBUSTER_FILTER_WASM", &self.filter_wasm),
        ]
    }

    /// Reads those variables.
    ///
    /// # Errors
    /// When one is missing: the tests were not started by `cargo xtask test`.
    pub fn from_env() -> anyhow::Result<Self> {
        Ok(Self {
            envoy: from_env("DOORBUSTER_ENVOY")?.into(),
            redis_server: from_env("DOORBUSTER_REDIS_SERVER")?.into(),
            postgres_bin: from_env("DOORBUSTER_POSTGRES_BIN")?.into(),
            backend: from_env("DOORBUSTER_BACKEND_BIN")?.into(),
            filter_wasm: from_env("DOORBUSTER_FILTER_WASM")?.into(),
        })
    }
}

/// A variable that `cargo xtask test` sets.
///
/// # Errors
/// When it is missing.
pub fn from_env(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run `cargo xtask test`"))
}
