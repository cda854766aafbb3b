//! One Envoy with the filter.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::envoy_admin::EnvoyAdmin;
use crate::envoy_config::Rendering;
use crate::http;
use crate::process::Launch;
use crate::server::Server;

/// The variable with the token for sync.
pub const EDGE_TOKEN: &str = "DOORBUSTER_EDGE_TOKEN";
/// The variable with the secret that signs tickets.
pub const TICKET_SECRET: &str = "DOORBUSTER_TICKET_SECRET";

/// An Envoy that runs a configuration from `envoy/`, adapted to local ports.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// Such as `gateway-1`.
    pub name: String,
    /// `envoy`
    pub program: PathBuf,
    /// Envoy's number of workers.
    pub workers: usize,
    /// What to run.
    pub rendering: Rendering,
    /// Where the rendered configuration is written: a folder of this stack alone.
    pub folder: PathBuf,
    /// Secrets that the filter finds in its environment, by the variables' names.
    pub secrets: Vec<(&'static str, String)>,
    /// The entrypoint of the container's image, which drains Envoy on SIGTERM; none runs Envoy itself.
    pub entrypoint: Option<PathBuf>,
}

impl Gateway {
    /// URL for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.rendering.port)
    }

    /// Envoy's admin interface.
    #[must_use]
    pub fn admin(&self) -> EnvoyAdmin {
        EnvoyAdmin::new(format!("http://127.0.0.1:{}", self.rendering.admin_port))
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.name))
    }
}

impl Server for Gateway {
    fn name(&self) -> &str {
        &self.name
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        let path = self.config_path();
        write_config(&self.rendering, &path)?;
        let launch = match &self.entrypoint {
            Some(entrypoint) => Launch::new(entrypoint)
                .args([self.program.display().to_string()])
                .env("DOORBUSTER_ADMIN_PORT", self.rendering.admin_port.to_string())
                .env("DOORBUSTER_DRAIN_NOTICE_S", "1"),
            None => Launch::new(&self.program),
        };
        let launch = launch
            .args(["-c".to_owned(), path.display().to_string()])
            .args(["--concurrency".to_owned(), self.workers.to_string()])
            // Hot restart would make gateways on one machine share memory by their base id.
            .args(["--disable-hot-restart", "--log-level", "warning", "--component-log-level", "wasm:info"]);
        Ok(self.secrets.iter().fold(launch, |launch, (name, secret)| launch.env(*name, secret)))
    }

    fn probe(&self) -> anyhow::Result<()> {
        let ready = http::get(&format!("{}/ready", self.admin().url()))?;
        ensure!(ready.status == 200, "/ready says {}", ready.body.trim());
        // The listener answers, whatever it says: a campaign may not exist yet.
        http::get(&format!("{}/v1/coupon/count", self.url())).map(drop)
    }
}

/// Writes a rendered configuration for Envoy to read.
///
/// # Errors
/// When it cannot be rendered or written.
pub fn write_config(rendering: &Rendering, path: &Path) -> anyhow::Result<()> {
    let json = serde_json::to_vec_pretty(&rendering.render()?).context("cannot write the configuration as JSON")?;
    fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}
