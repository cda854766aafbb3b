//! PostgreSQL servers of a test's own, which it can stop, bring back to an earlier state and
//! replace.

use std::path::PathBuf;

use doorbuster_e2e::ports::free_port;
use doorbuster_e2e::postgres::Postgres;
use doorbuster_e2e::programs::from_env;
use doorbuster_e2e::server::{Running, Server};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::task::block_in_place;

use crate::world::World;

const PASSWORD: &str = "only-for-this-test";

/// The database of the backends.
const DATABASE: &str = "shop";

/// More than one server has the name `postgres`.
struct Named {
    postgres: Postgres,
    name: String,
}

impl Server for Named {
    fn name(&self) -> &str {
        &self.name
    }

    fn launch(&self) -> anyhow::Result<doorbuster_e2e::process::Launch> {
        self.postgres.launch()
    }

    fn probe(&self) -> anyhow::Result<()> {
        self.postgres.probe()
    }
}

/// The servers, in the order of their start.
pub(crate) struct Primaries {
    folder: PathBuf,
    servers: Vec<(Postgres, Running)>,
}

impl Primaries {
    /// One primary with an empty database.
    pub(crate) async fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("primaries-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut primaries = Self { folder, servers: Vec::new() };
        let first = primaries.new_server();
        primaries.run(first);
        let mut admin = PgConnection::connect(&primaries.servers[0].0.url("postgres")).await.unwrap();
        sqlx::query("CREATE DATABASE shop").execute(&mut admin).await.unwrap();
        primaries
    }

    fn new_server(&self) -> Postgres {
        Postgres {
            bin: from_env("DOORBUSTER_POSTGRES_BIN").unwrap().into(),
            home: self.folder.join(format!("postgres-{}", self.servers.len())),
            port: free_port().unwrap(),
            password: PASSWORD.to_owned(),
        }
    }

    fn run(&mut self, postgres: Postgres) {
        let name = format!("postgres-{}", self.servers.len());
        let server = Box::new(Named { postgres: postgres.clone(), name });
        self.servers.push((postgres, block_in_place(|| Running::start(server, &self.folder)).unwrap()));
    }

    pub(crate) fn url(&self, at: usize) -> String {
        self.servers[at].0.url(DATABASE)
    }

    /// Stops a server in good order, copies its files and starts it again.
    pub(crate) fn save(&mut self, at: usize) {
        let (postgres, running) = &mut self.servers[at];
        block_in_place(|| {
            running.stop();
            postgres.save("saved").unwrap();
            running.start_again().unwrap();
            running.wait_ready().unwrap();
        });
    }

    /// Kills a server and starts it with the files that were saved.
    pub(crate) fn restore(&mut self, at: usize) {
        let (postgres, running) = &mut self.servers[at];
        block_in_place(|| {
            running.crash();
            postgres.restore("saved").unwrap();
            running.start_again().unwrap();
            running.wait_ready().unwrap();
        });
    }

    /// Has a world's backends, and its own look into the database, use a server.
    pub(crate) async fn lead(&self, world: &mut World, at: usize) {
        world.database_url = self.url(at);
        world.pool.close().await;
        // The world cleans up behind the server, too.
        world.pool = pool(&self.url(at));
    }
}

fn pool(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(2).connect_lazy(url).unwrap()
}

impl Drop for Primaries {
    fn drop(&mut self) {
        self.servers.clear();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
