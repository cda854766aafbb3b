//! One measurement of one answer.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use doorbuster_e2e::EnvoyAdmin;
use doorbuster_e2e::process::forget_own_settings;

use super::Options;
use super::subject::Subject;
use crate::bench::wrk::{self, write_script};

/// What measuring needs.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    pub(super) wrk: &'a Path,
    pub(super) h2load: &'a Path,
    pub(super) folder: &'a Path,
    /// Envoy's pid.
    pub(super) worker: u32,
    pub(super) admin: &'a EnvoyAdmin,
    pub(super) options: &'a Options,
}

/// As fast as 32 connections can ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) per_second: f64,
    /// Processor time of Envoy's worker for one request, microseconds. Other programs disturb it less.
    pub(super) cpu_us: f64,
}

/// At half of its own full speed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Latency {
    pub(super) per_second: f64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
}

impl Bench<'_> {
    pub(super) fn at_full_speed(&self, subject: &Subject) -> anyhow::Result<Round> {
        let script = format!(
            r#"wrk.method = "{}"
wrk.headers["x-user-id"] = "{}"
function done(summary)
  local errors = summary.errors
  io.write(string.format("doorbuster %d %d %d\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.timeout))
end
"#,
            subject.method, subject.user
        );
        let script = write_script(self.folder, "edge", &script)?;
        let url = format!("http://127.0.0.1:{}{}", subject.port, subject.path);
        let wanted_before = self.answers(subject.status)?;
        let cpu_before = self.worker_cpu_us()?;
        let (connections, seconds) = (self.options.connections, self.options.seconds);
        let run = wrk::Run { program: self.wrk, url: &url, script: &script, connections, seconds };
        let [requests, duration_us, errors] =
            <[u64; 3]>::try_from(run.numbers()?).ok().context("wrk's script tells something else")?;
        let cpu_us = self.worker_cpu_us()? - cpu_before;
        let wanted = self.answers(subject.status)? - wanted_before;
        ensure!(errors == 0, "{}: {errors} requests failed", subject.name);
        ensure!(wanted * 1000 >= requests * 999, "{}: {wanted} right answers to {requests}", subject.name);
        Ok(Round {
            per_second: requests as f64 * 1e6 / duration_us as f64,
            // Some requests were under way when wrk stopped counting.
            cpu_us: cpu_us / wanted as f64,
        })
    }

    pub(super) fn at_half_speed(&self, subject: &Subject, full_speed: f64) -> anyhow::Result<Latency> {
        let log = self.folder.join("h2load.log");
        let _first_time = fs::remove_file(&log);
        let (connections, seconds) = (self.options.connections, self.options.seconds);
        let each = (full_speed / 2.0 / f64::from(connections)).max(1.0) as u64;
        let mut h2load = Command::new(self.h2load);
        forget_own_settings(&mut h2load);
        h2load
            .args(["--h1", "-t1", &format!("-c{connections}"), &format!("--rps={each}"), &format!("-D{seconds}")])
            .args(["-H", &format!(":method: {}", subject.method), "-H", &format!("x-user-id: {}", subject.user)])
            .arg(format!("--log-file={}", log.display()))
            .arg(format!("http://127.0.0.1:{}{}", subject.port, subject.path));
        let output = h2load.output().context("cannot run h2load")?;
        ensure!(output.status.success(), "h2load failed: {}", String::from_utf8_lossy(&output.stderr));
        let text = fs::read_to_string(&log).with_context(|| format!("h2load has not written {}", log.display()))?;
        let (mut taken_us, mut wrong) = (Vec::new(), 0);
        for line in text.lines() {
            let mut fields = line.split('\t').skip(1);
            let (status, us) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            // Those that were cut off at the end have no status.
            if let (Ok(status), Ok(us)) = (status.parse::<i32>(), us.parse::<u64>()) {
                wrong += usize::from(status != -1 && status != i32::from(subject.status));
                taken_us.push(us);
            }
        }
        ensure!(!taken_us.is_empty(), "{}: h2load has logged no request", subject.name);
        // The one request a second that asks the origin whether it is still busy is answered by the origin.
        ensure!(wrong * 1000 <= taken_us.len(), "{}: {wrong} other answers of {}", subject.name, taken_us.len());
        taken_us.sort_unstable();
        let at = |share: f64| taken_us.get(((taken_us.len() - 1) as f64 * share) as usize).copied().unwrap_or_default();
        Ok(Latency { per_second: taken_us.len() as f64 / f64::from(seconds), p50_us: at(0.5), p99_us: at(0.99) })
    }

    /// Answers of the class of `status` that the listeners have given.
    fn answers(&self, status: u16) -> anyhow::Result<u64> {
        self.admin.stat(&format!("http.gateway.downstream_rq_{}xx", status / 100))
    }

    /// Processor time of the worker's thread, microseconds.
    fn worker_cpu_us(&self) -> anyhow::Result<f64> {
        let tasks = format!("/proc/{}/task", self.worker);
        for task in fs::read_dir(&tasks).with_context(|| format!("cannot list {tasks}"))?.flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if name.starts_with("wrk:worker_0") {
                let times = fs::read_to_string(task.path().join("schedstat")).context("no schedstat")?;
                let on_cpu_ns: f64 = times.split(' ').next().unwrap_or_default().parse().context("odd schedstat")?;
                return Ok(on_cpu_ns / 1000.0);
            }
        }
        anyhow::bail!("Envoy has no worker")
    }
}
