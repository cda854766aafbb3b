//! Doorbuster's backend: decides exactly who gets which coupon, in Redis, and commits to PostgreSQL before it says yes.
//!
//! PostgreSQL is the truth; Redis only makes it fast and may be lost at any time. Any number of backends run side by
//! side and hold no state of their own. The way of a request is told in [`issuance`].

pub mod agenda;
pub mod audit;
pub mod campaign;
pub mod catalog;
pub mod changes;
pub mod config;
pub mod events;
mod fields;
pub mod http;
pub mod issuance;
pub mod lineage;
pub mod operators;
pub mod settlement;
pub mod store;
pub mod telemetry;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::serve::ListenerExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use catalog::Catalog;
use changes::Changes;
use config::Config;
use http::{App, FailedTries};
use issuance::{Deadlines, Issuance, Parts};
use lineage::{Lineage, Watch};
use settlement::Settlement;
use store::postgres::Postgres;
use store::redis::{Clock, Redis};
use telemetry::Metrics;

/// Requests served at once on the operations listener: many times what gateways, operators and scrapers ask.
const OPS_PLACES: usize = 256;

/// What is under way at a shutdown has so long to end.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Where requests come in.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub public: TcpListener,
    /// For operators, gateways and machines.
    pub ops: TcpListener,
}

impl Listeners {
    /// Binds the configured addresses.
    ///
    /// # Errors
    /// If one cannot be bound; the error names it.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let bind = async |field: &str, address| {
            TcpListener::bind(address).await.with_context(|| format!("{field}: {address} cannot be listened on"))
        };
        Ok(Self {
            public: bind("public_addr", config.public_addr).await?,
            ops: bind("ops_addr", config.ops_addr).await?,
        })
    }
}

fn postgres(config: &Config) -> anyhow::Result<Postgres> {
    let (url, ca) = (config.database_url.expose(), config.database_ca.as_deref());
    Postgres::new(url, ca, config.database_pool, config.postgres_timeout).context("database_url")
}

/// Applies the migrations that the database lacks, without serving, and returns their numbers.
///
/// # Errors
/// If the database cannot be reached, or this release cannot work with its schema.
pub async fn migrate(config: &Config) -> anyhow::Result<Vec<i64>> {
    postgres(config)?.migrate().await.context("database_url: the schema cannot be used")
}

/// Serves until `stop`, then finishes what is under way.
///
/// # Errors
/// If the database cannot be had, or a listener breaks.
pub async fn run(config: Config, listeners: Listeners, stop: CancellationToken) -> anyhow::Result<()> {
    let postgres = postgres(&config)?;
    let Some(migrated) = stop.run_until_cancelled(postgres.migrate()).await else { return Ok(()) };
    migrated.context("database_url: the schema cannot be used")?;
    if let Ok(Some(weakness)) = postgres.weakness().await {
        tracing::warn!(weakness, durability = ?config.durability, "PostgreSQL may lose coupons");
    }

    let (url, ca) = (config.redis_url.expose(), config.redis_ca.as_deref());
    let redis = Redis::new(url, ca, &config.redis_prefix, config.redis_timeout).context("redis_url, redis_ca_file")?;
    let redis = Arc::new(redis);
    let clock = Arc::new(Clock::default());
    let Some(lineage) = stop.run_until_cancelled(Lineage::read(&postgres)).await else { return Ok(()) };
    let lineage = Arc::new(lineage.context("database_url")?);
    let catalog = Arc::new(Catalog::new(postgres.clone(), Arc::clone(&lineage)));
    let watch = Watch::new(
        postgres.clone(),
        Arc::clone(&redis),
        Arc::clone(&clock),
        Arc::clone(&catalog),
        Arc::clone(&lineage),
    );
    let Some(begun) = stop.run_until_cancelled(watch.begin()).await else { return Ok(()) };
    begun.context("redis_url, redis_prefix")?;
    let changes = Arc::new(Changes::new(postgres.clone(), Arc::clone(&redis), Arc::clone(&catalog)));
    let metrics = Arc::new(Metrics::new(&redis, &postgres, &lineage));
    let tasks = TaskTracker::new();
    let issuance = Arc::new(Issuance::new(Parts {
        redis: Arc::clone(&redis),
        postgres: postgres.clone(),
        clock,
        catalog: Arc::clone(&catalog),
        lineage: Arc::clone(&lineage),
        changes: Arc::clone(&changes),
        metrics: Arc::clone(&metrics),
        deadlines: Deadlines { commit: config.commit_timeout, sweep_after: config.sweep_after },
        tasks: tasks.clone(),
    }));
    // Before the first request, which without it hears `unavailable`. The catalog goes on asking.
    if let Err(error) = catalog.refresh().await {
        tracing::warn!(%error, "campaigns cannot be read yet");
    }
    tasks.spawn(Arc::clone(&catalog).run(stop.clone()));
    tasks.spawn(watch.run(stop.clone()));
    tasks.spawn(Arc::clone(&issuance).keep_time(stop.clone()));
    tasks.spawn(Arc::clone(&issuance).mark_busy_rounds(stop.clone()));
    tasks.spawn(Arc::clone(&issuance).sweep(stop.clone()));
    // Before the first request, so that no event of it is missed.
    events::start(&config.events, &postgres, &metrics, &tasks, &stop).await?;

    // Half of the connections: the others are for those who issue.
    let settlement = Settlement::new(postgres.clone(), config.database_pool as usize / 2, config.postgres_timeout);
    let places = Arc::new(Semaphore::new(config.max_in_flight));
    let app = Arc::new(App {
        config,
        catalog,
        lineage,
        changes,
        issuance,
        settlement,
        redis,
        postgres: postgres.clone(),
        metrics,
        places,
        ops_places: Arc::new(Semaphore::new(OPS_PLACES)),
        failed_tries: FailedTries::default(),
        started: Instant::now(),
    });
    tracing::info!(public = %listeners.public.local_addr()?, ops = %listeners.ops.local_addr()?, "serving");
    let served = serve(&app, listeners, stop).await;

    // No request is left, so no reservation is made any more; those made are committed and settled.
    tasks.close();
    if tokio::time::timeout(STOP_DEADLINE, tasks.wait()).await.is_err() {
        tracing::warn!("stopped with commits under way; another backend sweeps them");
    }
    served
}

async fn serve(app: &Arc<App>, listeners: Listeners, stop: CancellationToken) -> anyhow::Result<()> {
    // Replies are written whole; waiting for more would only delay them.
    let nodelay = |stream: &mut TcpStream| {
        let _ = stream.set_nodelay(true);
    };
    let public = axum::serve(listeners.public.tap_io(nodelay), http::public_router(Arc::clone(app)));
    // Who fails at a token is known by its address.
    let ops_service = http::ops_router(Arc::clone(app)).into_make_service_with_connect_info::<SocketAddr>();
    let ops = axum::serve(listeners.ops.tap_io(nodelay), ops_service);
    let public = public.with_graceful_shutdown(stop.clone().cancelled_owned()).into_future();
    let ops = ops.with_graceful_shutdown(stop.clone().cancelled_owned()).into_future();
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_DEADLINE).await;
    };
    tokio::select! {
        served = futures_util::future::try_join(public, ops) => served.map(|_| ()).context("a listener broke"),
        () = overdue => Ok(()),
    }
}
