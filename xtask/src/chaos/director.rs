//! Brings a schedule about on a running stack.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use doorbuster_e2e::Stack;

use super::schedule::{Fault, Kind};
use crate::checkout::remove_folder;

/// One fault has two ends.
enum Act {
    Begin,
    End,
}

/// Who brings the faults about.
pub(super) struct Director<'a> {
    stack: &'a mut Stack,
    began: Instant,
    /// Servers that are down because of a fault.
    down: BTreeSet<String>,
    /// Servers that ended although nobody had killed them.
    ended_by_themselves: Vec<String>,
}

impl<'a> Director<'a> {
    pub(super) fn new(stack: &'a mut Stack) -> Self {
        Self { stack, began: Instant::now(), down: BTreeSet::new(), ended_by_themselves: Vec::new() }
    }

    /// Plays the whole schedule, until `storm` is over. Returns which servers ended by themselves, and how.
    pub(super) fn play(
        mut self,
        faults: &[Fault],
        storm: Duration,
        interrupted: &AtomicBool,
    ) -> anyhow::Result<Vec<String>> {
        let begins = faults.iter().map(|fault| (fault.begins_ms, Act::Begin, fault));
        let ends = faults.iter().map(|fault| (fault.ends_ms, Act::End, fault));
        let mut acts: Vec<(u64, Act, &Fault)> = begins.chain(ends).collect();
        acts.sort_by_key(|(at_ms, _, _)| *at_ms);
        for (at_ms, act, fault) in acts {
            self.wait_until(Duration::from_millis(at_ms), interrupted)?;
            let done = match act {
                Act::Begin => self.begin(fault),
                Act::End => self.end(fault),
            };
            done.with_context(|| format!("{} cannot be brought about: {}", fault.kind, fault.target))?;
        }
        self.wait_until(storm, interrupted)?;
        Ok(self.ended_by_themselves)
    }

    fn wait_until(&mut self, at: Duration, interrupted: &AtomicBool) -> anyhow::Result<()> {
        loop {
            self.start_what_ended()?;
            ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
            let Some(left) = at.checked_sub(self.began.elapsed()).filter(|left| !left.is_zero()) else { return Ok(()) };
            thread::sleep(left.min(Duration::from_millis(20)));
        }
    }

    /// As a supervisor would.
    fn start_what_ended(&mut self) -> anyhow::Result<()> {
        for (name, status) in self.stack.ended() {
            if !self.down.contains(&name) {
                self.ended_by_themselves.push(format!("{name} ({status})"));
                self.stack.start_again(&name)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
        let target = fault.target.as_str();
        match fault.kind {
            Kind::RedisEmptied => {
                self.crash(target)?;
                remove_folder(&self.stack.redis_data())
            }
            Kind::RedisKilled | Kind::PostgresCrashed | Kind::BackendKilled | Kind::GatewayKilled => self.crash(target),
            Kind::RedisSetBack => copy_files(&self.stack.redis_data(), &self.older_data()),
            Kind::RedisPaused | Kind::PostgresPaused | Kind::BackendPaused | Kind::GatewayPaused => {
                self.stack.freeze(target)
            }
            Kind::ConnectionsCut => {
                self.stack.proxy(target)?.cut();
                Ok(())
            }
            Kind::RepliesLost => {
                self.stack.proxy(target)?.lose_replies();
                Ok(())
            }
        }
    }

    fn end(&mut self, fault: &Fault) -> anyhow::Result<()> {
        let target = fault.target.as_str();
        match fault.kind {
            Kind::RedisKilled
            | Kind::RedisEmptied
            | Kind::PostgresCrashed
            | Kind::BackendKilled
            | Kind::GatewayKilled => self.start(target),
            Kind::RedisSetBack => {
                self.crash(target)?;
                remove_folder(&self.stack.redis_data())?;
                let (older, data) = (self.older_data(), self.stack.redis_data());
                fs::rename(&older, &data).with_context(|| format!("cannot rename {}", older.display()))?;
                self.start(target)
            }
            Kind::RedisPaused | Kind::PostgresPaused | Kind::BackendPaused | Kind::GatewayPaused => {
                self.stack.unfreeze(target)
            }
            Kind::ConnectionsCut => Ok(()),
            Kind::RepliesLost => {
                self.stack.proxy(target)?.stop_losing_replies();
                Ok(())
            }
        }
    }

    fn crash(&mut self, target: &str) -> anyhow::Result<()> {
        self.down.insert(target.to_owned());
        self.stack.crash(target)
    }

    fn start(&mut self, target: &str) -> anyhow::Result<()> {
        self.down.remove(target);
        self.stack.start_again(target)
    }

    fn older_data(&self) -> PathBuf {
        self.stack.redis_data().with_extension("older")
    }
}

/// Copies a folder as it is at this moment; the last line of a file being written may be cut short, as by a crash.
fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    remove_folder(to)?;
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}
