//! Runs wrk, whose Lua script tells what it saw in one line that begins with `doorbuster`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use doorbuster_e2e::process::forget_own_settings;
use rustix::process::{Pid, Signal, kill_process};

/// A script that has seen enough says so in a line of its own.
pub(super) const ENOUGH: &str = "doorbuster-enough";

/// One run of wrk.
#[derive(Debug, Clone)]
pub(super) struct Run<'a> {
    pub(super) program: &'a Path,
    pub(super) url: &'a str,
    pub(super) script: &'a Path,
    pub(super) connections: u32,
    pub(super) seconds: u32,
}

impl Run<'_> {
    /// The numbers that the script has told.
    pub(super) fn numbers(&self) -> anyhow::Result<Vec<u64>> {
        let mut wrk = Command::new(self.program);
        wrk.args(["-t1", &format!("-c{}", self.connections), &format!("-d{}s", self.seconds), "--timeout", "10s"])
            .arg("-s")
            .arg(self.script)
            .arg(self.url);
        forget_own_settings(&mut wrk);
        let mut child = wrk.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot run wrk")?;
        let (mut told, mut text) = (None, String::new());
        for line in BufReader::new(child.stdout.take().context("wrk has no output")?).lines() {
            let line = line.context("wrk's output broke off")?;
            if line == ENOUGH {
                end_early(&child);
            } else if let Some(numbers) = line.strip_prefix("doorbuster ") {
                told = Some(numbers.to_owned());
            }
            text.push_str(&line);
            text.push('\n');
        }
        let output = child.wait_with_output().context("cannot wait for wrk")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "wrk failed ({}): {complaint}{text}", output.status);
        let told = told.with_context(|| format!("wrk's script has told nothing: {complaint}{text}"))?;
        told.split(' ').map(|number| number.parse().with_context(|| format!("wrk's script tells {told:?}"))).collect()
    }
}

/// wrk runs for its whole time even when its threads have stopped, unless it is interrupted; then it tells what it saw.
fn end_early(child: &Child) {
    if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
        let _ended_meanwhile = kill_process(pid, Signal::INT);
    }
}

/// Writes a script for wrk.
pub(super) fn write_script(folder: &Path, name: &str, lua: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("{name}.lua"));
    fs::write(&path, lua).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
