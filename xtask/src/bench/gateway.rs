//! One Envoy that runs a configuration which a benchmark has put together.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use doorbuster_e2e::envoy_config::Rendering;
use doorbuster_e2e::envoy_variant::Variant;
use doorbuster_e2e::process::Launch;
use doorbuster_e2e::server::Server;
use doorbuster_e2e::{EnvoyAdmin, Stack, http};
use serde_json::Value;

/// An Envoy to be started.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) workers: usize,
    pub(super) admin_port: u16,
    pub(super) config: Value,
    /// Where the configuration is written.
    pub(super) folder: PathBuf,
    pub(super) edge_token: String,
}

impl Gateway {
    pub(super) fn admin(&self) -> EnvoyAdmin {
        EnvoyAdmin::new(format!("http://127.0.0.1:{}", self.admin_port))
    }
}

impl Server for Gateway {
    fn name(&self) -> &str {
        &self.name
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        let path = self.folder.join(format!("{}.json", self.name));
        let json = serde_json::to_vec_pretty(&self.config).context("cannot write the configuration as JSON")?;
        fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Launch::new(&self.program)
            .args(["-c".to_owned(), path.display().to_string()])
            .args(["--concurrency".to_owned(), self.workers.to_string()])
            .args(["--disable-hot-restart", "--log-level", "warning", "--component-log-level", "wasm:info"])
            .env("DOORBUSTER_EDGE_TOKEN", &self.edge_token))
    }

    fn probe(&self) -> anyhow::Result<()> {
        let ready = http::get(&format!("{}/ready", self.admin().url()))?;
        ensure!(ready.status == 200, "/ready says {}", ready.body.trim());
        Ok(())
    }
}

/// `envoy/envoy.yaml` in front of a stack's backend.
pub(super) fn shipped(
    root: &Path,
    stack: &Stack,
    filter_wasm: &Path,
    ports: (u16, u16),
    plugin: Value,
) -> anyhow::Result<Rendering> {
    Ok(Rendering {
        template: root.join("envoy/envoy.yaml"),
        port: ports.0,
        admin_port: ports.1,
        health_port: doorbuster_e2e::ports::free_port()?,
        origin_ports: vec![port_of(&stack.backend(0))?],
        control_ports: vec![port_of(&stack.ops(0))?],
        filter_wasm: filter_wasm.to_owned(),
        plugin,
        variant: Variant::Shipped,
    })
}

fn port_of(url: &str) -> anyhow::Result<u16> {
    let port = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.with_context(|| format!("{url:?} has no port"))
}

/// The connection manager of the `index`th listener of a configuration.
pub(super) fn connection_manager(listener: &mut Value) -> anyhow::Result<&mut Value> {
    listener.pointer_mut("/filter_chains/0/filters/0/typed_config").context("a listener without a connection manager")
}

/// The list of a connection manager's HTTP filters.
pub(super) fn http_filters(manager: &mut Value) -> anyhow::Result<&mut Vec<Value>> {
    let filters = manager.get_mut("http_filters").and_then(Value::as_array_mut);
    filters.context("a connection manager without HTTP filters")
}

/// Without a user a gateway answers by itself. Its workers learn one after the other: a few answers in a row tell of all.
pub(super) fn wait_until_known(url: &str, campaign: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut in_a_row = 0;
    while in_a_row < 10 {
        let reply = http::send("POST", &format!("{url}/v1/coupon/issue?campaign={campaign}"), &[], None);
        let known = reply.context("a gateway does not answer")?.code() == "missing_user";
        in_a_row = if known { in_a_row + 1 } else { 0 };
        ensure!(Instant::now() < deadline, "{url} does not hear of the campaign {campaign}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
