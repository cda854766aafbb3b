//! A crowd in which nobody asks twice.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::summary::Summary;
use crate::wire::Wire;

/// An answer that has not come by then will not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who asks for what, and how fast.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Address and port
    #[arg(long)]
    address: SocketAddr,
    /// Path and query
    #[arg(long)]
    target: String,
    /// The users' ids begin with this; a number of twelve digits follows
    #[arg(long)]
    users: String,
    /// How many ask, in all
    #[arg(long)]
    requests: u64,
    /// Over how many connections
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Requests a second, at their times whether or not earlier ones were answered; otherwise as fast as answers come
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
}

/// Lets it loose and prints what it heard.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    ensure!(options.rate.is_none_or(|rate| rate > 0.0), "--rate must be above 0");
    let crowd = Rc::new(Crowd { options, next: RefCell::new(0), summary: RefCell::default() });
    let mut wires = Vec::new();
    for _ in 0..crowd.options.connections {
        wires.push(Wire::connect(crowd.options.address, &crowd.options.target).await?);
    }
    let began = Instant::now();
    let tasks = LocalSet::new();
    let members: Vec<_> = wires
        .into_iter()
        .map(|wire| {
            let crowd = Rc::clone(&crowd);
            tasks.spawn_local(async move { crowd.ask_in_turn(wire, began).await })
        })
        .collect();
    tasks.await;
    for member in members {
        member.await??;
    }
    println!("{}", crowd.summary.borrow_mut().told(began.elapsed(), cpu_us()));
    Ok(())
}

/// Processor time of this thread so far, and there is no other.
fn cpu_us() -> u64 {
    let times = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    times.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or_default() / 1_000
}

struct Crowd {
    options: Options,
    next: RefCell<u64>,
    summary: RefCell<Summary>,
}

impl Crowd {
    /// Whoever is free takes the next request.
    async fn ask_in_turn(&self, mut wire: Wire, began: Instant) -> anyhow::Result<()> {
        while let Some(number) = self.take() {
            let since = match self.options.rate {
                None => Instant::now(),
                Some(rate) => {
                    let due = began + Duration::from_secs_f64(number as f64 / rate);
                    let late = due < Instant::now();
                    tokio::time::sleep_until(due).await;
                    // Where no connection was free in time, the wait for one counts; a timer's slack does not.
                    if late { due } else { Instant::now() }
                }
            };
            let user = format!("{}{number:012}", self.options.users);
            let status = tokio::time::timeout(PATIENCE, wire.ask(&user)).await.context("no answer within 10 s")??;
            self.summary.borrow_mut().note(status, since.elapsed());
        }
        Ok(())
    }

    fn take(&self) -> Option<u64> {
        let mut next = self.next.borrow_mut();
        (*next < self.options.requests).then(|| {
            *next += 1;
            *next - 1
        })
    }
}
