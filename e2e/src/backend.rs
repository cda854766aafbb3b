//! One backend.

use std::path::PathBuf;

use anyhow::ensure;

use crate::http;
use crate::process::Launch;
use crate::server::Server;

/// A `doorbuster-backend` with its two listeners on 127.0.0.1.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Such as `backend-1`.
    pub name: String,
    /// `doorbuster-backend`
    pub program: PathBuf,
    /// Port of the listener for `/v1`.
    pub public_port: u16,
    /// Port of the operations listener.
    pub ops_port: u16,
    /// Its configuration as in its TOML file: key and value.
    pub settings: Vec<(String, String)>,
}

impl Backend {
    /// URL of the listener for `/v1`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.public_port)
    }

    /// URL of the operations listener.
    #[must_use]
    pub fn ops_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ops_port)
    }
}

impl Server for Backend {
    fn name(&self) -> &str {
        &self.name
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        let mut launch = Launch::new(&self.program)
            .env("DOORBUSTER_PUBLIC_ADDR", format!("127.0.0.1:{}", self.public_port))
            .env("DOORBUSTER_OPS_ADDR", format!("127.0.0.1:{}", self.ops_port));
        for (key, value) in &self.settings {
            launch = launch.env(format!("DOORBUSTER_{}", key.to_uppercase()), value);
        }
        Ok(launch)
    }

    fn probe(&self) -> anyhow::Result<()> {
        let reply = http::get(&format!("{}/readyz", self.ops_url()))?;
        ensure!(reply.status == 200, "/readyz says {} {}", reply.status, reply.body);
        Ok(())
    }
}
