//! Child processes that are the servers themselves and never outlive us.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
pub use rustix::process::Signal;
use rustix::process::{Pid, Resource, getrlimit, kill_process, setrlimit};

/// How to run one server.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The server's binary.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment on top of ours; our own `DOORBUSTER_*` variables are not handed on.
    pub env: Vec<(String, String)>,
    /// The account to run as, when it is not ours.
    pub user: Option<&'static str>,
    /// What asks the server to stop in good order.
    pub stop_signal: Signal,
    /// What the kernel sends it when we die, as `setpriv` calls it.
    pub orphan_signal: &'static str,
}

impl Launch {
    /// A server that stops on SIGTERM and is killed when we die.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            user: None,
            stop_signal: Signal::TERM,
            orphan_signal: "KILL",
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// `setpriv` arranges the account and the signal on our death, then becomes the server, so the pid is the server's.
    fn command(&self, log: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig").arg(self.orphan_signal);
        if let Some(user) = self.user {
            command.args(["--reuid", user, "--regid", user, "--init-groups"]);
        }
        command.arg("--").arg(&self.program).args(&self.args);
        forget_own_settings(&mut command);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let out = open_log(log)?;
        let err = out.try_clone().context("cannot share a log file")?;
        // Out of our process group: Ctrl-C in a terminal reaches only us, and we stop the servers in order.
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        Ok(command)
    }
}

/// Keeps our settings from a child: the settings of tests look like a backend's own, and cargo's library path is for rustup's tools.
pub fn forget_own_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DOORBUSTER_") {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH");
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// A running server.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stop_signal: Signal,
}

impl Process {
    /// Starts it, its output going to the end of `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or `setpriv` (package util-linux) cannot be run.
    pub fn spawn(launch: &Launch, log: &Path) -> anyhow::Result<Self> {
        let child = spawn_for_life(launch.command(log)?).with_context(|| {
            format!("cannot start {} through setpriv (package util-linux)", launch.program.display())
        })?;
        Ok(Self { child, stop_signal: launch.stop_signal })
    }

    /// The pid of the server itself.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status once it has ended.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub fn try_wait(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends it a signal. A server that has ended already is none of the caller's concern.
    pub fn signal(&mut self, signal: Signal) {
        // Our own unreaped child: the pid cannot belong to anybody else.
        if let (Ok(None), Some(pid)) = (self.child.try_wait(), Pid::from_raw(self.child.id().cast_signed())) {
            let _ended_meanwhile = kill_process(pid, signal);
        }
    }

    /// Kills it as `kill -9` would and waits for its end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _status = self.child.wait();
    }

    /// Kills it together with every process it has started, as a crash of the machine would, and waits for its end.
    pub fn crash(&mut self) {
        // Held still, it starts no others while we look.
        self.freeze();
        for child in descendants(self.child.id()) {
            let _ended_meanwhile = kill_process(child, Signal::KILL);
        }
        self.kill();
    }

    /// Holds it still, together with every process it has started (SIGSTOP).
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
        for child in descendants(self.child.id()) {
            let _ended_meanwhile = kill_process(child, Signal::STOP);
        }
    }

    /// Lets it go on, the processes it has started first.
    pub fn unfreeze(&mut self) {
        for child in descendants(self.child.id()) {
            let _ended_meanwhile = kill_process(child, Signal::CONT);
        }
        self.signal(Signal::CONT);
    }

    /// Asks it to stop and waits; kills it after `grace`.
    pub fn stop(&mut self, grace: Duration) {
        self.signal(self.stop_signal);
        // A stopped process would not hear the request.
        self.unfreeze();
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(10));
    }
}

/// The processes that a process has started, and those that these have started.
fn descendants(pid: u32) -> Vec<Pid> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|process| {
            let stat = fs::read_to_string(process.path().join("stat")).ok()?;
            // PID (COMMAND) STATE PARENT, and the command may hold anything.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((process.file_name().to_str()?.parse().ok()?, parent))
        })
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    family.iter().skip(1).filter_map(|child| Pid::from_raw(child.cast_signed())).collect()
}

type Spawned = std::io::Result<Child>;

/// Spawns from one thread that lives as long as this process.
///
/// The kernel sends the parent-death signal when the *thread* that forked ends, and tests and thread pools end their threads early.
fn spawn_for_life(command: Command) -> anyhow::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<(Command, mpsc::Sender<Spawned>)>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        raise_file_limit();
        let (sender, requests) = mpsc::channel::<(Command, mpsc::Sender<Spawned>)>();
        thread::spawn(move || {
            for (mut command, reply) in requests {
                let _caller_gone = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, spawned) = mpsc::channel();
    spawner.send((command, reply)).map_err(|_| anyhow!("the thread that starts servers has ended"))?;
    Ok(spawned.recv().context("the thread that starts servers has ended")??)
}

/// A crowd needs a file descriptor per connection, and many systems give a login 1,024 of the many thousands it may have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _stays_as_it_is = setrlimit(Resource::Nofile, raised);
}
