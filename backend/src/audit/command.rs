//! The command `audit`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use doorbuster_domain::id::{CampaignId, RoundId};
use serde_json::json;

use super::table::Table;
use super::{Report, Sighting, audit, read_sightings};
use crate::campaign::Stored;
use crate::config::Config;
use crate::store::postgres::Postgres;
use crate::store::redis::{Clock, Redis};

/// sysexits.h: the command was used wrongly.
const EX_USAGE: u8 = 64;
/// sysexits.h: PostgreSQL or Redis does not answer, so nothing can be said.
const EX_UNAVAILABLE: u8 = 69;

/// An audit reads much, and nobody waits behind it: one page or command may take so long.
const DEADLINE: Duration = Duration::from_secs(15);

/// What to audit.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The campaign
    campaign: CampaignId,
    /// The round, such as 2026-05-01 [default: the current one, else the next, else the last]
    round: Option<RoundId>,
    /// What clients were told: a file with `USER CODE` in each line, or `USER` alone
    #[arg(long, value_name = "FILE")]
    seen: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// The same, with the report in JSON.
    #[must_use]
    pub fn in_json(self) -> Self {
        Self { json: true, ..self }
    }
}

/// Audits a round and prints the report: 0 if it is clean, 1 with what is broken, 64 if the arguments name nothing that
/// exists, 69 if PostgreSQL or Redis does not answer.
pub async fn run(config: &Config, arguments: &Arguments) -> ExitCode {
    let seen = match arguments.seen.as_deref().map(sightings).transpose() {
        Ok(seen) => seen.unwrap_or_default(),
        Err(message) => return fail(EX_USAGE, &message),
    };
    match report(config, arguments, seen).await {
        Ok(Some((round, report))) => {
            print(arguments, round, &report);
            if report.defects.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(None) => fail(EX_USAGE, &format!("there is no campaign {}", arguments.campaign)),
        Err(error) => fail(EX_UNAVAILABLE, &format!("{error:#}")),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(code)
}

fn sightings(file: &Path) -> Result<Vec<Sighting>, String> {
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("--seen: {} cannot be read: {error}", file.display()))?;
    read_sightings(&text).map_err(|message| format!("--seen: {}: {message}", file.display()))
}

/// None if there is no such campaign.
async fn report(
    config: &Config,
    arguments: &Arguments,
    seen: Vec<Sighting>,
) -> anyhow::Result<Option<(RoundId, Report)>> {
    let (database_ca, redis_ca) = (config.database_ca.as_deref(), config.redis_ca.as_deref());
    let postgres = Postgres::new(config.database_url.expose(), database_ca, 2, DEADLINE)?;
    let redis = Redis::new(config.redis_url.expose(), redis_ca, &config.redis_prefix, DEADLINE)?;
    let Some(stored) = postgres.campaign(&arguments.campaign).await.context("the campaign cannot be read")? else {
        return Ok(None);
    };
    let round = match arguments.round {
        Some(round) => round,
        None => {
            let now = Clock::default().sample(&redis).await.context("the time cannot be had")?;
            match stored {
                Stored::Readable(campaign) => campaign.rounds(now.now_ms).round.id,
                Stored::Unreadable(campaign) => {
                    anyhow::bail!("name a round: this release cannot read the campaign ({})", campaign.reason)
                }
            }
        }
    };
    let campaign = &arguments.campaign;
    let report = audit(&postgres, &redis, campaign, round, seen).await.context("the round cannot be read")?;
    Ok(Some((round, report)))
}

fn print(arguments: &Arguments, round: RoundId, report: &Report) {
    let campaign = &arguments.campaign;
    if arguments.json {
        let Report { quota, sums, unknown, defects } = report;
        let clean = defects.is_empty();
        let json = json!({
            "campaign": campaign, "round": round, "quota": quota, "clean": clean,
            "sums": sums, "unknown": unknown, "defects": defects,
        });
        println!("{json:#}");
    } else {
        println!("{}", Table { campaign, round, report });
    }
}
