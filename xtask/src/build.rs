//! Builds what a stack runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use doorbuster_e2e::Programs;

use crate::checkout::Checkout;
use crate::console::{run, step};
use crate::exports;
use crate::setup;
use crate::setup::wasm::{Compiler, debian_cargo};

/// How much the native build is optimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build.
    Dev,
    /// Quick to run.
    Release,
}

/// Finds the servers of a stack, installing what is missing, and builds our own parts.
pub(crate) fn programs(checkout: &Checkout, profile: Profile) -> anyhow::Result<Programs> {
    let servers = setup::servers(checkout)?;
    let compiler = setup::wasm::compiler(checkout)?;
    Ok(Programs {
        backend: backend(checkout, profile)?,
        filter_wasm: filter(checkout, compiler)?,
        envoy: servers.envoy,
        redis_server: servers.redis_server,
        postgres_bin: servers.postgres_bin,
    })
}

/// Builds the backend and returns its binary.
pub(crate) fn backend(checkout: &Checkout, profile: Profile) -> anyhow::Result<PathBuf> {
    native(checkout, "backend", profile)
}

/// Builds what benchmarks need beside the product and returns its binary.
pub(crate) fn rig(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    native(checkout, "rig", Profile::Release)
}

/// Builds the program of one of our packages.
fn native(checkout: &Checkout, name: &str, profile: Profile) -> anyhow::Result<PathBuf> {
    step(&format!("building the {name}"));
    let package = format!("doorbuster-{name}");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(checkout.root()).args(["build", "--package", &package]);
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            cargo.arg("--release");
            "release"
        }
    };
    run(&mut cargo)?;
    Ok(checkout.target().join(folder).join(package))
}

/// Builds the filter and returns its module, always at the same place.
pub(crate) fn filter(checkout: &Checkout, compiler: Compiler) -> anyhow::Result<PathBuf> {
    let built = wasm(checkout, compiler, "filter")?;
    let module = checkout.filter_wasm();
    install(&built, &module)?;
    Ok(module)
}

/// Builds the probe of shared data and returns its module.
pub(crate) fn probe(checkout: &Checkout, compiler: Compiler) -> anyhow::Result<PathBuf> {
    wasm(checkout, compiler, "probe")
}

/// Builds one of our packages for Envoy's VM.
fn wasm(checkout: &Checkout, compiler: Compiler, name: &str) -> anyhow::Result<PathBuf> {
    step(&format!("building the {name}"));
    let (mut cargo, target) = match compiler {
        Compiler::Rustup => (Command::new("cargo"), checkout.target()),
        Compiler::Debian => debian_cargo(checkout)?,
    };
    cargo.current_dir(checkout.root());
    cargo.args(["build", "--release", "--package", &format!("doorbuster-{name}"), "--target", "wasm32-wasip1"]);
    if compiler == Compiler::Debian {
        cargo.args(["-Z", "build-std=std,panic_abort"]);
    }
    run(&mut cargo)?;
    Ok(target.join(format!("wasm32-wasip1/release/doorbuster_{name}.wasm")))
}

/// By rename: an Envoy that starts meanwhile reads one whole module.
fn install(built: &Path, place: &Path) -> anyhow::Result<()> {
    // With CARGO_TARGET_DIR elsewhere nobody has made this folder.
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let beside = place.with_extension("wasm.new");
    exports::keep_wanted(built, &beside)?;
    fs::rename(&beside, place).with_context(|| format!("cannot write {}", place.display()))
}
