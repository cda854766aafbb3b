//! A PostgreSQL server of a test's own, with settings that the shared one must not have.

use std::path::PathBuf;

use doorbuster_e2e::ports::free_port;
use doorbuster_e2e::postgres::Postgres;
use doorbuster_e2e::process::Launch;
use doorbuster_e2e::programs::from_env;
use doorbuster_e2e::server::{Running, Server};
use tokio::task::block_in_place;

struct Configured {
    postgres: Postgres,
    settings: Vec<String>,
}

impl Server for Configured {
    fn name(&self) -> &str {
        self.postgres.name()
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        Ok(self.postgres.launch()?.args(&self.settings))
    }

    fn probe(&self) -> anyhow::Result<()> {
        self.postgres.probe()
    }
}

/// The server and its files.
pub(crate) struct Database {
    folder: PathBuf,
    running: Option<Running>,
    /// Of the database that every server has.
    pub(crate) url: String,
}

impl Database {
    /// Starts one with these settings.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("database-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&folder).unwrap();
        let postgres = Postgres {
            bin: from_env("DOORBUSTER_POSTGRES_BIN").unwrap().into(),
            home: folder.join("postgres"),
            port: free_port().unwrap(),
            password: "only-for-this-test".to_owned(),
        };
        let url = postgres.url("postgres");
        let settings = settings.iter().flat_map(|setting| ["-c", setting].map(str::to_owned));
        let server = Box::new(Configured { postgres, settings: settings.collect() });
        let running = block_in_place(|| Running::start(server, &folder)).unwrap();
        Self { folder, running: Some(running), url }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // It ends before its files do.
        drop(self.running.take());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
