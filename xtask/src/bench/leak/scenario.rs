//! One campaign, from its announcement until the crowd is gone.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{anyhow, ensure};
use doorbuster_e2e::http;
use doorbuster_e2e::operator::open_all_day;

use super::Options;
use super::crowd::{Crowd, Heard};
use super::fleet::{Fleet, Origin};
use crate::bench::gateway::wait_until_known;
use crate::storm::ledger::Ledger;

/// What a scenario needs.
pub(super) struct Bench<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) wrk: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) options: &'a Options,
}

/// What became of it.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) origin: Origin,
    pub(super) gateways: usize,
    pub(super) quota: u64,
    /// Requests that were answered, and how many a second.
    pub(super) heard: Heard,
    /// Issue requests that reached the origin.
    pub(super) reached: u64,
    /// Those of them by users who had, or got meanwhile, their coupon.
    pub(super) duplicates: u64,
    /// Rows in the database.
    pub(super) issued: u64,
    /// From the last coupon until every gateway has said sold out, milliseconds.
    pub(super) silence_ms: Option<i64>,
    /// While the origin failed: requests that reached it, and the seconds.
    pub(super) failing: Option<(u64, f64)>,
}

impl Bench<'_> {
    pub(super) fn run(&self, quota: u64) -> anyhow::Result<Outcome> {
        let Self { fleet, options, .. } = self;
        let campaign = format!("leak-{quota}");
        fleet.stack.announce(&campaign, &open_all_day(quota))?;
        if fleet.origin != Origin::Unprotected {
            fleet.urls.iter().try_for_each(|url| wait_until_known(url, &campaign))?;
        }
        let requests = if fleet.origin == Origin::Unprotected { options.requests / 5 } else { options.requests };
        let crowd = Crowd {
            wrk: self.wrk,
            folder: self.folder,
            campaign: &campaign,
            users: options.users,
            connections: options.connections,
            requests,
            seconds: 300,
        };
        let failing = (fleet.origin == Origin::Failing).then(|| self.while_it_fails(&crowd)).transpose()?;
        let (reached, duplicates) = (fleet.origin_requests()?, self.answered_twice()?);
        let over = AtomicBool::new(false);
        let (heard, silent_at_ms) = thread::scope(|scope| {
            let silence = scope.spawn(|| self.when_all_say_sold_out(&campaign, &over));
            let heard = crowd.release(&fleet.urls);
            over.store(true, Ordering::Relaxed);
            (heard, silence.join())
        });
        let ledger = Ledger::read(&fleet.stack, &campaign, quota.min(options.users))?;
        let silent_at_ms = silent_at_ms.map_err(|_| anyhow!("a thread has panicked"))??;
        let last_ms = self.last_coupon_ms(&campaign)?;
        Ok(Outcome {
            origin: fleet.origin,
            gateways: fleet.urls.len(),
            quota,
            heard: heard?,
            reached: fleet.origin_requests()? - reached,
            duplicates: (self.answered_twice()? - duplicates).saturating_sub(ledger.issued),
            issued: ledger.issued,
            silence_ms: silent_at_ms.zip(last_ms).map(|(silent, last)| silent - last),
            failing,
        })
    }

    /// The crowd meets an origin that fails; then it is mended.
    fn while_it_fails(&self, crowd: &Crowd<'_>) -> anyhow::Result<(u64, f64)> {
        let before = self.fleet.origin_requests()?;
        let heard =
            Crowd { requests: u64::MAX >> 12, seconds: self.options.failing, ..*crowd }.release(&self.fleet.urls)?;
        let reached = self.fleet.origin_requests()? - before;
        for admin in &self.fleet.admins {
            admin.set_runtime("fault.http.abort.abort_percent", "0")?;
        }
        Ok((reached, heard.microseconds as f64 / 1e6))
    }

    /// Requests that the backend answered with a coupon, a first time or again.
    fn answered_twice(&self) -> anyhow::Result<u64> {
        let metrics = http::get(&format!("{}/metrics", self.fleet.stack.ops(0)))?;
        ensure!(metrics.status == 200, "/metrics says {}", metrics.status);
        let names = [
            "doorbuster_issued_total",
            "doorbuster_pending_total",
            "doorbuster_refused_total{code=\"already_issued\"}",
        ];
        let told = metrics.body.lines().filter_map(|line| line.rsplit_once(' '));
        Ok(told.filter(|(name, _)| names.contains(name)).filter_map(|(_, count)| count.parse::<u64>().ok()).sum())
    }

    /// When each gateway had said sold out at least once. Its counters are a tick (50 ms) behind it.
    #[expect(clippy::disallowed_methods, reason = "compared with the database's clock, which is this machine's")]
    fn when_all_say_sold_out(&self, campaign: &str, over: &AtomicBool) -> anyhow::Result<Option<i64>> {
        let name = format!("wasmcustom.doorbuster.decisions_total.sold_out.{campaign}");
        if self.fleet.origin == Origin::Unprotected {
            return Ok(None);
        }
        let mut waiting: Vec<_> = self.fleet.admins.iter().collect();
        loop {
            let last_look = over.load(Ordering::Relaxed);
            let mut silent = Vec::new();
            for admin in waiting {
                if admin.stat(&name)? == 0 {
                    silent.push(admin);
                }
            }
            waiting = silent;
            if waiting.is_empty() {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                return Ok(i64::try_from(now.as_millis()).ok());
            }
            if last_look {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn last_coupon_ms(&self, campaign: &str) -> anyhow::Result<Option<i64>> {
        let rows = self.fleet.stack.sql(&format!(
            "SELECT (extract(epoch FROM max(issued_at)) * 1000)::bigint FROM public.issued_coupons WHERE campaign = '{campaign}'"
        ))?;
        Ok(rows.first().and_then(|row| row.first()).and_then(|value| value.parse().ok()))
    }
}
