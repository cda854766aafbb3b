//! A gateway that takes its listener from a file, as from a control plane: replacing the file is a configuration push.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::process::Launch;
use crate::server::Server;

/// A [`Gateway`] whose listener can be replaced while it runs.
#[derive(Debug, Clone)]
pub(crate) struct PushedGateway(pub(crate) Gateway);

impl PushedGateway {
    /// Replaces the listener by what the gateway's rendering now gives.
    pub(crate) fn push(&self) -> anyhow::Result<()> {
        let (_, listener) = self.split()?;
        // By rename: Envoy watches for a file that is moved to this place.
        let written = self.listener_path().with_extension("new");
        write(&written, &listener)?;
        fs::rename(&written, self.listener_path()).context("cannot replace the listener's file")
    }

    fn listener_path(&self) -> PathBuf {
        self.0.folder.join(format!("{}.listener.json", self.0.name))
    }

    /// The bootstrap, and the listener that is taken out of it.
    fn split(&self) -> anyhow::Result<(Value, Value)> {
        let mut bootstrap = self.0.rendering.render()?;
        let mut listeners = bootstrap.pointer_mut("/static_resources/listeners").context("no listeners")?.take();
        for listener in listeners.as_array_mut().into_iter().flatten() {
            if let Some(listener) = listener.as_object_mut() {
                listener.insert("@type".to_owned(), json!("type.googleapis.com/envoy.config.listener.v3.Listener"));
            }
        }
        if let Some(bootstrap) = bootstrap.as_object_mut() {
            bootstrap.insert("node".to_owned(), json!({"id": self.0.name, "cluster": "doorbuster"}));
            bootstrap.insert(
                "dynamic_resources".to_owned(),
                json!({"lds_config": {"path_config_source": {"path": self.listener_path()}}}),
            );
        }
        Ok((bootstrap, json!({ "resources": listeners })))
    }
}

impl Server for PushedGateway {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        let launch = self.0.launch()?;
        let (bootstrap, listener) = self.split()?;
        write(&self.listener_path(), &listener)?;
        write(&self.0.config_path(), &bootstrap)?;
        Ok(launch)
    }

    fn probe(&self) -> anyhow::Result<()> {
        self.0.probe()
    }
}

fn write(path: &Path, config: &Value) -> anyhow::Result<()> {
    let json = serde_json::to_vec_pretty(config).context("cannot write the configuration as JSON")?;
    fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}
