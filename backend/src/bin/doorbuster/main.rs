//! The operators' command line.

mod answer;
mod api;
mod audit;
mod campaign;
mod check;
mod coupon;
mod installation;
mod log;
mod page;
mod round;
mod schedule;
mod table;
mod target;
mod token;
mod vendor;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::answer::Answer;
use crate::target::Target;

/// sysexits.h: the command was used wrongly.
const EX_USAGE: u8 = 64;

/// Operate Doorbuster: campaigns, rounds, coupons, vendors, tokens.
///
/// Exit codes: 0 done, 1 refused, 64 used wrongly, 65 a file does not hold, 66 a file cannot be read, 69 no answer, or
/// ask again.
#[derive(Parser)]
#[command(name = "doorbuster", version)]
struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Answer in JSON, for machines
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create, look at, pause and resume campaigns
    #[command(subcommand)]
    Campaign(campaign::Command),
    /// Look at a round, and rebuild it
    #[command(subcommand)]
    Round(round::Command),
    /// Look at, redeem and void coupons
    #[command(subcommand)]
    Coupon(coupon::Command),
    /// Look at vendors and pay out what is owed to them
    #[command(subcommand)]
    Vendor(vendor::Command),
    /// Work out when rounds open, without a server
    #[command(subcommand)]
    Schedule(schedule::Command),
    /// Draw a token for an operator, without a server
    #[command(subcommand)]
    Token(token::Command),
    /// Show what operators changed
    Log(log::Arguments),
    /// Ask PostgreSQL, Redis and the gateways' reports whether a round adds up
    Audit(audit::Arguments),
    /// Show or renew what names a database and the Redis that belongs to it, without a backend
    Installation(installation::Arguments),
    /// Check a backend's configuration, without a server
    CheckConfig(check::Arguments),
    /// Print what completes these commands in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the OpenAPI document
    #[command(hide = true)]
    Openapi,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and the version are asked for; anything else is a mistake.
            let mistaken = error.use_stderr();
            let _ = error.print();
            return if mistaken { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let json = arguments.json;
    let api = || arguments.target.api();
    let outcome = match arguments.command {
        Command::Campaign(command) => api().and_then(|api| command.run(&api)),
        Command::Round(command) => api().and_then(|api| command.run(&api)),
        Command::Coupon(command) => api().and_then(|api| command.run(&api)),
        Command::Vendor(command) => api().and_then(|api| command.run(&api)),
        Command::Schedule(command) => command.run(),
        Command::Token(command) => Ok(command.run()),
        Command::Log(command) => api().and_then(|api| command.run(&api)),
        Command::CheckConfig(command) => command.run(),
        Command::Audit(command) => return command.run(json),
        Command::Installation(command) => return command.run(json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "doorbuster", &mut script);
            Ok(Answer::text_only(String::from_utf8_lossy(&script).into_owned()))
        }
        Command::Openapi => Ok(Answer::text_only(doorbuster_backend::http::document_text())),
    };
    match outcome {
        Ok(answer) => answer.tell(json),
        Err(failure) => failure.tell(json),
    }
}
