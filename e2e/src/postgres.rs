//! One PostgreSQL with its data in a folder of its own.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::process::{Launch, Signal, forget_own_settings};
use crate::server::Server;

/// PostgreSQL refuses to run as root; its packages bring this account.
const ACCOUNT: &str = "postgres";

/// A PostgreSQL of our own: fsync on, TCP on 127.0.0.1 only, one superuser `doorbuster`.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// The folder of `initdb`, `postgres` and `psql`.
    pub bin: PathBuf,
    /// A folder that only holds this server's files, and that its account can reach.
    pub home: PathBuf,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// The superuser's password.
    pub password: String,
}

impl Postgres {
    /// The URL of one of its databases; `postgres` always exists.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://doorbuster:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Creates an empty database.
    ///
    /// # Errors
    /// When the server cannot be asked or the database exists.
    pub fn create_database(&self, name: &str) -> anyhow::Result<()> {
        query(&self.bin, &self.url("postgres"), &format!("CREATE DATABASE \"{name}\"")).map(drop)
    }

    /// Copies the files of this server, which is stopped, so that [`Postgres::restore`] can bring
    /// them back.
    ///
    /// # Errors
    /// When they cannot be copied.
    pub fn save(&self, name: &str) -> anyhow::Result<()> {
        run("cp", Command::new("cp").arg("-a").arg(self.data()).arg(self.home.join(name)))
    }

    /// Brings back what [`Postgres::save`] has copied. The server is stopped.
    ///
    /// # Errors
    /// When there is no such copy, or it cannot be copied.
    pub fn restore(&self, name: &str) -> anyhow::Result<()> {
        self.wait_for_leftovers()?;
        fs::remove_dir_all(self.data()).context("cannot remove the server's files")?;
        run("cp", Command::new("cp").arg("-a").arg(self.home.join(name)).arg(self.data()))
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Nobody but its account may enter; root always may.
    fn create_home(&self) -> anyhow::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.home)
            .with_context(|| format!("cannot create {}", self.home.display()))
    }

    fn give_to_account(&self) -> anyhow::Result<()> {
        let Some(account) = account() else { return Ok(()) };
        let owner = format!("{account}:{account}");
        run("chown", Command::new("chown").arg("-R").arg(owner).arg(&self.home))
    }

    /// Creates the cluster on the first start. It is built beside its place, so that an interrupted attempt is not taken for a cluster.
    fn initialise(&self) -> anyhow::Result<()> {
        let unfinished = self.home.join("data.new");
        let password_file = self.home.join("password");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).with_context(|| format!("cannot remove {}", unfinished.display()))?;
        }
        self.create_home()?;
        write_private(&password_file, &self.password)?;
        self.give_to_account()?;
        let mut initdb = as_account(&self.bin.join("initdb"));
        initdb.args(["--username=doorbuster", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"]);
        initdb.arg("--pwfile").arg(&password_file).arg("-D").arg(&unfinished);
        run("initdb", &mut initdb)?;
        fs::remove_file(&password_file).context("cannot remove the password file")?;
        fs::rename(&unfinished, self.data()).context("cannot rename the new cluster")
    }

    /// Processes of a killed server end by themselves, but until then a new one is refused.
    fn wait_for_leftovers(&self) -> anyhow::Result<()> {
        let data = self.data();
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Some(pid) = process_within(&data) {
            if Instant::now() > deadline {
                bail!("process {pid} still uses {}: end it and try again", data.display());
            }
            thread::sleep(Duration::from_millis(20));
        }
        // Nobody uses the folder, so a lock file left by a killed server is stale, even if its pid has a new owner.
        let lock = data.join("postmaster.pid");
        if lock.exists() {
            fs::remove_file(&lock).with_context(|| format!("cannot remove {}", lock.display()))?;
        }
        Ok(())
    }
}

impl Server for Postgres {
    fn name(&self) -> &str {
        "postgres"
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        if !self.data().exists() {
            self.initialise()?;
        }
        self.wait_for_leftovers()?;
        let settings = [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".to_owned(),
            // No socket file: TCP with a password is the only way in.
            "unix_socket_directories=".to_owned(),
            "fsync=on".to_owned(),
            "synchronous_commit=on".to_owned(),
            "max_connections=300".to_owned(),
        ];
        let mut launch = Launch::new(self.bin.join("postgres"))
            .args(["-D".to_owned(), self.data().display().to_string()])
            .args(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        launch.user = account();
        // Fast shutdown: sessions end, the data is written out.
        launch.stop_signal = Signal::INT;
        launch.orphan_signal = "INT";
        Ok(launch)
    }

    fn probe(&self) -> anyhow::Result<()> {
        query(&self.bin, &self.url("postgres"), "SELECT 1").map(drop)
    }
}

/// Runs one SQL statement through `psql` and returns the rows as text; NULL is the empty text.
///
/// # Errors
/// When the server cannot be asked or refuses the statement.
pub fn query(bin: &Path, url: &str, sql: &str) -> anyhow::Result<Vec<Vec<String>>> {
    const SEPARATOR: &str = "\u{1f}";
    let mut psql = Command::new(bin.join("psql"));
    forget_own_settings(&mut psql);
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-F", SEPARATOR, "-d", url, "-c", sql]);
    let output = psql.env("PGCONNECT_TIMEOUT", "5").process_group(0).output().context("cannot run psql")?;
    ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8(output.stdout).context("psql answered with something else than UTF-8")?;
    Ok(text.lines().map(|line| line.split(SEPARATOR).map(ToOwned::to_owned).collect()).collect())
}

/// Whether PostgreSQL's account can use `folder`, which exists.
#[must_use]
pub fn can_reach(folder: &Path) -> bool {
    as_account(Path::new("test")).arg("-x").arg(folder).status().is_ok_and(|status| status.success())
}

/// The account to change to, where we are root.
fn account() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some(ACCOUNT)
}

fn as_account(program: &Path) -> Command {
    let mut command = match account() {
        Some(account) => {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--reuid", account, "--regid", account, "--init-groups", "--"]).arg(program);
            setpriv
        }
        None => Command::new(program),
    };
    // initdb looks at its working directory, which this account may not enter.
    command.current_dir("/");
    forget_own_settings(&mut command);
    command
}

fn run(what: &str, command: &mut Command) -> anyhow::Result<()> {
    // In a process group of its own: Ctrl-C is for us to hear, and a cluster should not be left half made.
    let output = command.process_group(0).output().with_context(|| format!("cannot run {what}"))?;
    ensure!(output.status.success(), "{what} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// A process that works in `folder`: PostgreSQL's processes all do.
fn process_within(folder: &Path) -> Option<u32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        (fs::read_link(process.path().join("cwd")).ok()? == folder).then_some(pid)
    })
}
