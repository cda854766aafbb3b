//! Keeps servers running: one loop, no threads of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use doorbuster_e2e::process::Process;
use doorbuster_e2e::server::{START_DEADLINE, Server, last_words, log_path};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The contract's 2 s, less what it takes to notice the end and to start.
const LONGEST_PAUSE: Duration = Duration::from_millis(1_900);
/// A server that was up for this long starts with the first pause again.
const STEADY: Duration = Duration::from_secs(10);
/// A server that ends this often before it has ever served will not serve.
const ATTEMPTS: u32 = 3;

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// What was waited for is there.
    Over,
    /// The user wants to stop.
    Interrupted,
}

/// All servers, in the order of their start.
pub(super) struct Supervisor {
    children: Vec<Child>,
    logs: PathBuf,
    interrupted: Arc<AtomicBool>,
}

struct Child {
    server: Box<dyn Server>,
    process: Option<Process>,
    ready: bool,
    failures: u32,
    started: Instant,
    due: Instant,
    pause: Duration,
}

impl Supervisor {
    pub(super) fn new(logs: PathBuf, interrupted: Arc<AtomicBool>) -> Self {
        Self { children: Vec::new(), logs, interrupted }
    }

    /// Takes a server into care; the next [`Supervisor::tick`] starts it.
    pub(super) fn start(&mut self, server: Box<dyn Server>) {
        let now = Instant::now();
        self.children.push(Child {
            server,
            process: None,
            ready: false,
            failures: 0,
            started: now,
            due: now,
            pause: FIRST_PAUSE,
        });
    }

    /// Whether the user wants to stop.
    pub(super) fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Notices ended servers and starts those that are due; whether any pid has changed.
    pub(super) fn tick(&mut self) -> bool {
        let mut changed = false;
        for child in &mut self.children {
            changed |= child.tick(&self.logs);
        }
        changed
    }

    /// Keeps everything up until all servers have served once.
    pub(super) fn wait_until_ready(&mut self) -> anyhow::Result<Wait> {
        let deadline = Instant::now() + START_DEADLINE;
        while !self.interrupted() {
            self.tick();
            let Some(child) = self.children.iter_mut().find(|child| !child.ready) else {
                return Ok(Wait::Over);
            };
            match child.server.probe() {
                Ok(()) => child.ready = true,
                Err(missing) => {
                    let (name, log) = (child.server.name(), log_path(&self.logs, child.server.name()));
                    ensure!(child.failures < ATTEMPTS, "{name} does not stay up: {}", last_words(&log));
                    ensure!(Instant::now() < deadline, "{name} does not serve ({missing:#}): {}", last_words(&log));
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Wait::Interrupted)
    }

    /// Keeps everything up until a condition holds.
    pub(super) fn wait_until(&mut self, what: &str, holds: impl Fn() -> bool) -> anyhow::Result<Wait> {
        let deadline = Instant::now() + START_DEADLINE;
        while !self.interrupted() {
            self.tick();
            if holds() {
                return Ok(Wait::Over);
            }
            if Instant::now() > deadline {
                bail!("waited {START_DEADLINE:?} for {what}, in vain: see the logs in {}", self.logs.display());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(Wait::Interrupted)
    }

    /// Name and pid of every server that is up.
    pub(super) fn pids(&self) -> BTreeMap<String, u32> {
        let pid_of = |child: &Child| Some((child.server.name().to_owned(), child.process.as_ref()?.pid()));
        self.children.iter().filter_map(pid_of).collect()
    }

    /// Stops everything, last started first: nobody loses the server it is talking to.
    pub(super) fn stop(&mut self) {
        while let Some(mut child) = self.children.pop() {
            if let Some(process) = &mut child.process {
                process.stop(Duration::from_secs(10));
            }
        }
    }
}

impl Child {
    fn tick(&mut self, logs: &Path) -> bool {
        match self.process.as_mut().map(Process::try_wait) {
            None => Instant::now() >= self.due && self.spawn(logs),
            Some(Ok(None)) => false,
            Some(Ok(Some(status))) => {
                self.ended(&status.to_string());
                true
            }
            Some(Err(error)) => {
                self.ended(&error.to_string());
                true
            }
        }
    }

    fn spawn(&mut self, logs: &Path) -> bool {
        let log = log_path(logs, self.server.name());
        match self.server.launch().and_then(|launch| Process::spawn(&launch, &log)) {
            Ok(process) => {
                if self.ready {
                    println!("{} is started again, pid {}", self.server.name(), process.pid());
                }
                self.process = Some(process);
                self.started = Instant::now();
                true
            }
            Err(error) => {
                self.ended(&format!("{error:#}"));
                false
            }
        }
    }

    fn ended(&mut self, why: &str) {
        println!("{} has ended: {why}", self.server.name());
        self.process = None;
        self.failures += 1;
        if self.started.elapsed() >= STEADY {
            self.pause = FIRST_PAUSE;
        }
        self.due = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use doorbuster_e2e::process::Launch;

    /// Serves at once and for a minute, or ends at once.
    struct Sleeper(&'static str);

    impl Server for Sleeper {
        fn name(&self) -> &str {
            "sleeper"
        }

        fn launch(&self) -> anyhow::Result<Launch> {
            Ok(Launch::new("sleep").args([self.0]))
        }

        fn probe(&self) -> anyhow::Result<()> {
            ensure!(self.0 != "0", "it never serves");
            Ok(())
        }
    }

    fn supervisor(name: &str, seconds: &'static str) -> Supervisor {
        let logs = std::env::temp_dir().join(format!("doorbuster-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&logs).unwrap();
        let mut supervisor = Supervisor::new(logs, Arc::default());
        supervisor.start(Box::new(Sleeper(seconds)));
        supervisor
    }

    impl Drop for Supervisor {
        fn drop(&mut self) {
            let _left_behind = std::fs::remove_dir_all(&self.logs);
        }
    }

    #[test]
    fn a_killed_server_is_back_within_two_seconds_however_often_it_is_killed() {
        let mut supervisor = supervisor("killed", "60");
        assert_eq!(supervisor.wait_until_ready().unwrap(), Wait::Over);
        let mut pauses = Vec::new();
        for _ in 0..5 {
            let before = supervisor.pids()["sleeper"];
            supervisor.children[0].process.as_mut().unwrap().kill();
            let killed = Instant::now();
            while supervisor.pids().get("sleeper").is_none_or(|pid| *pid == before) {
                supervisor.tick();
                assert!(killed.elapsed() < Duration::from_secs(2));
                thread::sleep(Duration::from_millis(5));
            }
            pauses.push(killed.elapsed());
        }
        assert!(pauses[0] >= FIRST_PAUSE && pauses[0] < FIRST_PAUSE * 2, "{pauses:?}");
        assert!(pauses.is_sorted_by(|a, b| *a <= *b + Duration::from_millis(100)), "{pauses:?}");
    }

    #[test]
    fn the_first_pause_comes_again_once_a_server_was_steady() {
        let mut supervisor = supervisor("steady", "60");
        supervisor.wait_until_ready().unwrap();
        let child = &mut supervisor.children[0];
        child.pause = LONGEST_PAUSE;
        child.started = Instant::now().checked_sub(STEADY).unwrap();
        child.ended("test");
        assert!(child.due <= Instant::now() + FIRST_PAUSE);
    }

    #[test]
    fn a_server_that_never_serves_is_given_up_with_its_last_words() {
        let mut supervisor = supervisor("never", "0");
        let error = supervisor.wait_until_ready().unwrap_err().to_string();
        assert!(error.starts_with("sleeper does not stay up"), "{error}");
    }

    #[test]
    fn an_interrupt_ends_a_wait_and_stops_the_servers() {
        let mut supervisor = supervisor("interrupted", "60");
        supervisor.wait_until_ready().unwrap();
        let pid = supervisor.pids()["sleeper"];
        supervisor.interrupted.store(true, Ordering::Relaxed);
        assert_eq!(supervisor.wait_until("nothing", || false).unwrap(), Wait::Interrupted);
        supervisor.stop();
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
