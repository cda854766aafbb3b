//! A server that can be started, waited for, killed and started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::process::{Launch, Process};

/// How long a server may take from its start to its first answer.
pub const START_DEADLINE: Duration = Duration::from_secs(60);

/// What differs between Redis, PostgreSQL, a backend and a gateway.
pub trait Server: Send + Sync {
    /// Its name in `stack.json`, in messages and of its log file, such as `backend-1`.
    fn name(&self) -> &str;

    /// Prepares its files and says how to run it. Called again before every restart.
    ///
    /// # Errors
    /// When the files cannot be prepared.
    fn launch(&self) -> anyhow::Result<Launch>;

    /// Asks it once whether it serves.
    ///
    /// # Errors
    /// Says what is still missing.
    fn probe(&self) -> anyhow::Result<()>;
}

/// A server that this process has started.
pub struct Running {
    server: Box<dyn Server>,
    process: Process,
    log: PathBuf,
}

impl Running {
    /// Starts it, its log in `logs`, and waits until it serves.
    ///
    /// # Errors
    /// When it ends or does not serve within [`START_DEADLINE`]; the message ends with its last words.
    pub fn start(server: Box<dyn Server>, logs: &Path) -> anyhow::Result<Self> {
        let log = log_path(logs, server.name());
        let process = Process::spawn(&server.launch()?, &log)?;
        let mut running = Self { server, process, log };
        running.wait_ready()?;
        Ok(running)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.server.name()
    }

    /// The pid of the server itself.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Holds it still, with every process it has started, until [`Running::unfreeze`].
    pub fn freeze(&mut self) {
        self.process.freeze();
    }

    /// Lets it go on.
    pub fn unfreeze(&mut self) {
        self.process.unfreeze();
    }

    /// Kills it as `kill -9` would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills it and every process it has started, as a crash of the machine would.
    pub fn crash(&mut self) {
        self.process.crash();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Stops it in good order.
    pub fn stop(&mut self) {
        self.process.stop(Duration::from_secs(10));
    }

    /// Starts it again after [`Running::kill`] or [`Running::stop`] and waits until it serves.
    ///
    /// # Errors
    /// As [`Running::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        self.start_again()?;
        self.wait_ready()
    }

    /// Starts it again after its end, without waiting until it serves.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = Process::spawn(&self.server.launch()?, &self.log)?;
        Ok(())
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// As [`Running::start`].
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let missing = match self.server.probe() {
                Ok(()) => return Ok(()),
                Err(missing) => missing,
            };
            if let Some(status) = self.process.try_wait().context("cannot wait for a child")? {
                bail!("{} ended ({status}): {}", self.name(), last_words(&self.log));
            }
            if Instant::now() > deadline {
                bail!(
                    "{} does not serve after {START_DEADLINE:?} ({missing:#}): {}",
                    self.name(),
                    last_words(&self.log)
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The log file of a server.
#[must_use]
pub fn log_path(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("{name}.log"))
}

/// The end of a log, to be shown when its server has failed.
#[must_use]
pub fn last_words(log: &Path) -> String {
    const LINES: usize = 12;
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    format!("the last lines of {}:\n{}", log.display(), tail.join("\n"))
}
