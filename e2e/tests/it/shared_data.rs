//! Envoy's shared data does what the filter's model of it does: both answer one table of calls.

use std::collections::HashSet;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use doorbuster_e2e::http;
use doorbuster_e2e::ports::free_port;
use doorbuster_e2e::process::Launch;
use doorbuster_e2e::programs::{Programs, from_env};
use doorbuster_e2e::server::{Running, Server};
use doorbuster_e2e::token::random_token;
use doorbuster_probe::CASES;
use serde_json::{Value, json};

use crate::support::eventually;

const WORKERS: usize = 2;

/// An Envoy whose only filter is the probe.
struct Probe {
    envoy: PathBuf,
    wasm: PathBuf,
    folder: PathBuf,
    port: u16,
}

impl Probe {
    fn config(&self) -> Value {
        let plugin = json!({
            "vm_config": { "runtime": "envoy.wasm.runtime.v8", "code": { "local": { "filename": self.wasm } } },
        });
        let manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "probe",
            "route_config": { "virtual_hosts": [{ "name": "probe", "domains": ["*"], "routes": [] }] },
            "http_filters": [
                { "name": "probe", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", "config": plugin } },
                { "name": "router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } },
            ],
        });
        json!({ "static_resources": { "listeners": [{
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": self.port } },
            "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }],
        }] } })
    }
}

impl Server for Probe {
    fn name(&self) -> &str {
        "probe"
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        let path = self.folder.join("probe.json");
        std::fs::write(&path, self.config().to_string())?;
        Ok(Launch::new(&self.envoy)
            .args(["-c".to_owned(), path.display().to_string()])
            .args(["--concurrency".to_owned(), WORKERS.to_string()])
            .args(["--disable-hot-restart", "--log-level", "warning"]))
    }

    fn probe(&self) -> anyhow::Result<()> {
        let reply = http::get(&format!("http://127.0.0.1:{}/", self.port))?;
        ensure!(reply.body == "ready", "{}", reply.body);
        Ok(())
    }
}

#[test]
fn envoy_answers_the_table_that_the_model_answers() {
    let folder = std::env::temp_dir().join(format!("doorbuster-probe-{}", &random_token().unwrap()[..8]));
    std::fs::create_dir_all(&folder).unwrap();
    let probe = Probe {
        envoy: Programs::from_env().unwrap().envoy,
        wasm: from_env("DOORBUSTER_PROBE_WASM").unwrap().into(),
        folder: folder.clone(),
        port: free_port().unwrap(),
    };
    let url = format!("http://127.0.0.1:{}", probe.port);
    let running = Running::start(Box::new(probe), &folder).unwrap();

    // Each connection goes to a worker that the kernel picks.
    let mut workers = HashSet::new();
    let mut run = 0;
    eventually(Duration::from_secs(30), "every worker has played the table", || {
        run += 1;
        let reply = http::get(&format!("{url}/play/run-{run}-")).unwrap();
        let differs = CASES.lines().zip(reply.body.lines()).find(|(case, answer)| case != answer);
        assert_eq!(differs, None, "the table's line, and Envoy's");
        assert_eq!(reply.body, CASES);
        workers.insert(reply.header("x-vm").unwrap().to_owned());
        workers.len() == WORKERS
    });

    // No update is lost between workers.
    let adding: Vec<_> = (0..8)
        .map(|_| {
            let url = format!("{url}/add/counter/5000");
            thread::spawn(move || http::get(&url).unwrap())
        })
        .collect();
    let added: Vec<_> = adding.into_iter().map(|adding| adding.join().unwrap()).collect();
    let total = http::get(&format!("{url}/add/counter/1")).unwrap().body;
    assert_eq!(total, (8 * 5_000 + 1).to_string(), "{added:?}");
    drop(running);
    std::fs::remove_dir_all(&folder).unwrap();
}
