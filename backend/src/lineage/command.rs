//! The command `installation`: asks and changes the stores themselves, since a backend may refuse
//! to start on them.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::config::Config;
use crate::operators::{Operator, Role};
use crate::store::postgres::Postgres;
use crate::store::redis::{Claim, Claimed, Redis};

/// sysexits.h: PostgreSQL or Redis does not answer, or the command may not be carried out now.
const EX_UNAVAILABLE: u8 = 69;

/// Nobody waits behind it.
const DEADLINE: Duration = Duration::from_secs(15);

/// A backend claims Redis each second, so one that did not for so long is not at work.
const AT_WORK: Duration = Duration::from_secs(10);

/// What to do about the installation.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Show the database's installation and lineage, and who uses Redis and the prefix
    Show,
    /// Make a copied database an installation of its own: a new id and lineage. Run it on the copy,
    /// before its first backend starts
    New {
        /// Also if backends are connected to the database; they stop using Redis then
        #[arg(long)]
        force: bool,
    },
    /// Take over the configured Redis and prefix from an installation that does not exist any more,
    /// and delete what it has left there
    Claim,
}

/// Carries the command out: 0 if it was, 69 if a store does not answer or something speaks against
/// it.
pub async fn run(config: &Config, command: Command, in_json: bool) -> ExitCode {
    match carry_out(config, command).await {
        Ok(told) if in_json => println!("{told:#}"),
        Ok(told) => told.as_object().into_iter().flatten().for_each(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            println!("{name:<14}{value}");
        }),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::from(EX_UNAVAILABLE);
        }
    }
    ExitCode::SUCCESS
}

async fn carry_out(config: &Config, command: Command) -> anyhow::Result<Value> {
    let (database_ca, redis_ca) = (config.database_ca.as_deref(), config.redis_ca.as_deref());
    let postgres = Postgres::new(config.database_url.expose(), database_ca, 2, DEADLINE).context("database_url")?;
    let redis = Redis::new(config.redis_url.expose(), redis_ca, &config.redis_prefix, DEADLINE).context("redis_url")?;
    match command {
        Command::Show => show(&postgres, &redis).await,
        Command::New { force } => renew(&postgres, force).await,
        Command::Claim => claim(&postgres, &redis).await,
    }
}

async fn show(postgres: &Postgres, redis: &Redis) -> anyhow::Result<Value> {
    let installation = postgres.installation().await?;
    let owner = match redis.owner().await {
        Ok(Some(owner)) if owner.installation == installation.id => "this installation".to_owned(),
        Ok(Some(owner)) => owner.to_string(),
        Ok(None) => "nobody".to_owned(),
        Err(error) => error.to_string(),
    };
    Ok(json!({"installation": installation.id, "lineage": installation.lineage, "redis": owner}))
}

async fn renew(postgres: &Postgres, force: bool) -> anyhow::Result<Value> {
    let connections = postgres.other_backends().await?;
    ensure!(
        force || connections == 0,
        "{connections} connections of backends use this database; stop them first, or make sure that \
         database_url names the copy and not its original, or say --force"
    );
    let by = Operator { name: "command line".to_owned(), role: Role::Operator };
    let installation = postgres.draw_installation(&by).await?;
    Ok(json!({"installation": installation.id, "lineage": installation.lineage}))
}

/// What the other installation has left is deleted: campaigns of the same names are not the same
/// campaigns.
async fn claim(postgres: &Postgres, redis: &Redis) -> anyhow::Result<Value> {
    let installation = postgres.installation().await?;
    if let Some(owner) = redis.owner().await?
        && owner.installation != installation.id
    {
        ensure!(owner.idle > AT_WORK, "redis_url, redis_prefix: at work is {owner}; stop its backends first");
        redis.wipe().await?;
    }
    let standing = postgres.standing().await?;
    let claim = Claim {
        installation: &standing.installation.id,
        lineage: &standing.installation.lineage,
        replaces: None,
        version: standing.committed,
        place: &standing.place,
        address: postgres.address(),
        holder: "command line",
    };
    match redis.claim(&claim).await? {
        Claimed::Ours { .. } => Ok(json!({"installation": standing.installation.id, "redis": "this installation"})),
        Claimed::Foreign(owner) | Claimed::Copy(owner) => bail!("redis_url, redis_prefix: at work is {owner}"),
    }
}
