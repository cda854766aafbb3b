//! The crowd, which is a program of its own since this one is not built to be fast.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use doorbuster_e2e::process::forget_own_settings;
use serde::Deserialize;

/// Who asks for what.
#[derive(Debug, Clone)]
pub(super) struct Crowd {
    pub(super) rig: PathBuf,
    pub(super) connections: u32,
}

/// What a crowd heard; it heard nothing but 201.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Heard {
    pub(super) seconds: f64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    /// Its own processor time.
    pub(super) cpu_us: u64,
    #[serde(skip)]
    pub(super) per_second: f64,
}

#[derive(Debug, Deserialize)]
struct Told {
    answers: BTreeMap<u16, u64>,
    #[serde(flatten)]
    heard: Heard,
}

impl Crowd {
    /// So many different users ask at `url` for a coupon of `campaign`, as fast as they are answered or `rate` a second.
    /// `users` begins their ids, four characters.
    pub(super) fn ask(
        &self,
        url: &str,
        campaign: &str,
        users: &str,
        requests: u64,
        rate: Option<f64>,
    ) -> anyhow::Result<Heard> {
        let mut rig = Command::new(&self.rig);
        forget_own_settings(&mut rig);
        rig.args(["crowd", "--address", url.strip_prefix("http://").unwrap_or(url), "--users", users])
            .arg(format!("--target=/v1/coupon/issue?campaign={campaign}"))
            .arg(format!("--requests={requests}"))
            .arg(format!("--connections={}", self.connections));
        if let Some(rate) = rate {
            rig.arg(format!("--rate={rate}"));
        }
        let told: Told =
            serde_json::from_str(&output(&mut rig, &self.rig)?).context("the crowd tells something else")?;
        let won = told.answers.get(&201).copied().unwrap_or_default();
        ensure!(won == requests, "{url}: {won} of {requests} won: {:?}", told.answers);
        Ok(Heard { per_second: requests as f64 / told.heard.seconds, ..told.heard })
    }
}

/// What a program has printed.
pub(super) fn output(command: &mut Command, program: &Path) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed ({}): {}", program.display(), output.status, complaint.trim());
    String::from_utf8(output.stdout).with_context(|| format!("{} prints something else than text", program.display()))
}
