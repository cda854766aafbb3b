//! Runs wrk, whose Lua script tells what it saw in one line that begins with `doorbuster`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use doorbuster_e2e::process::forget_own_settings;

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
        let output = wrk.output().context("cannot run wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "wrk failed ({}): {}{text}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let line = text.lines().find_map(|line| line.strip_prefix("doorbuster "));
        let line = line.with_context(|| format!("wrk's script has told nothing: {text}"))?;
        line.split(' ').map(|number| number.parse().with_context(|| format!("wrk's script tells {line:?}"))).collect()
    }
}

/// Writes a script for wrk.
pub(super) fn write_script(folder: &Path, name: &str, lua: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("{name}.lua"));
    fs::write(&path, lua).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
