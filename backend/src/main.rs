//! Reads the configuration, listens, and stops when asked to.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use doorbuster_backend::config::Config;
use doorbuster_backend::telemetry::logs;
use doorbuster_backend::{Listeners, audit, lineage, migrate, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// sysexits.h: the command was used wrongly.
const EX_USAGE: u8 = 64;

/// Doorbuster's backend.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file; config.default.toml explains its keys.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Subcommand)]
enum Command {
    /// Ask PostgreSQL, Redis and the gateways' reports whether a round adds up
    Audit(audit::Arguments),
    /// Apply the migrations that the database lacks, then end; the role in database_url must own
    /// the schema
    Migrate,
    /// Show or renew what names this database and the Redis that belongs to it
    Installation {
        #[command(subcommand)]
        command: lineage::command::Command,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and the version are asked for; anything else is a mistake.
            let mistaken = error.use_stderr();
            let _ = error.print();
            return if mistaken { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let config = match Config::load(arguments.config.as_deref(), environment) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EX_USAGE);
        }
    };
    match &arguments.command {
        Some(Command::Audit(arguments)) => return audit::run(&config, arguments).await,
        Some(Command::Installation { command, json }) => return lineage::command::run(&config, *command, *json).await,
        Some(Command::Migrate) | None => {}
    }
    let spans = match logs::start(&config) {
        Ok(spans) => spans,
        Err(error) => {
            eprintln!("configuration: {error:#}");
            return ExitCode::from(EX_USAGE);
        }
    };
    let outcome = match arguments.command {
        Some(Command::Migrate) => migrate(&config).await.map(|applied| {
            for version in &applied {
                println!("applied migration {version}");
            }
            println!("the schema is up to date");
        }),
        _ => serve(config).await,
    };
    if let Err(error) = &outcome {
        tracing::error!(error = format!("{error:#}"), "stopped");
    }
    spans.flush();
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let listeners = Listeners::bind(&config).await?;
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
        asked.cancel();
    });
    run(config, listeners, stop).await
}
