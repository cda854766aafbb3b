//! What these commands say while they work, and how they run other programs.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, ensure};
use doorbuster_e2e::server::last_words;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::register;

/// Announces the next step.
pub(crate) fn step(text: &str) {
    println!("==> {text}");
}

/// Runs a program whose output the user wants to see.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    ensure!(status.success(), "{} failed ({status})", shown(command));
    Ok(())
}

/// Runs a program whose output only matters when it fails; it goes to the end of `log`.
pub(crate) fn run_logged(command: &mut Command, log: &Path) -> anyhow::Result<()> {
    let out = OpenOptions::new().create(true).append(true).open(log);
    let out = out.with_context(|| format!("cannot open {}", log.display()))?;
    let err = out.try_clone().context("cannot share a log file")?;
    let status = command.stdin(Stdio::null()).stdout(out).stderr(err).status();
    let status = status.with_context(|| format!("cannot run {}", shown(command)))?;
    ensure!(status.success(), "{} failed ({status}); {}", shown(command), last_words(log));
    Ok(())
}

/// Whether a program says yes; its output is dropped, and a missing program says no.
pub(crate) fn says_yes(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command line as one would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A flag that Ctrl-C and SIGTERM raise from now on, instead of ending this process.
pub(crate) fn interrupt_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        register(signal, Arc::clone(&flag)).context("cannot handle signals")?;
    }
    Ok(flag)
}
