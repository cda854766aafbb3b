//! Programs that come as Python packages, in a private virtual environment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

use super::{apt, is_executable, on_path};
use crate::checkout::Checkout;
use crate::console::{run_logged, says_yes, step};

/// Installs `package` (with its version) into the virtual environment of that name and returns its program. pip's
/// configuration is the environment's own.
pub(super) fn install(checkout: &Checkout, environment: &str, package: &str, program: &str) -> anyhow::Result<PathBuf> {
    let environment = checkout.private().join(environment);
    let installed = environment.join("bin").join(program);
    // pip puts programs in place before it is done, so our own record decides. It names the place: an environment that was moved
    // with its checkout still points to where it was.
    let mark = environment.join(format!("{package}.installed"));
    let place = environment.display().to_string();
    if is_executable(&installed) && fs::read_to_string(&mark).is_ok_and(|marked| marked == place) {
        return Ok(installed);
    }
    let log = checkout.logs().join("setup.log");
    create_environment(checkout, &environment, &log)?;
    step(&format!("installing {package} with pip"));
    run_logged(Command::new(environment.join("bin/pip")).args(["install", package]), &log)?;
    ensure!(is_executable(&installed), "{package} brought no program {program}: see {}", log.display());
    fs::write(&mark, place)?;
    Ok(installed)
}

fn create_environment(checkout: &Checkout, environment: &Path, log: &Path) -> anyhow::Result<()> {
    if says_yes(Command::new(environment.join("bin/pip")).arg("--version")) {
        return Ok(());
    }
    if on_path("virtualenv").is_some() && !has_venv() {
        return run_logged(Command::new("virtualenv").arg(environment), log);
    }
    if !has_venv() {
        apt::install(checkout, &["python3-venv"])?;
    }
    run_logged(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment), log)
}

/// Debian splits the modules that a virtual environment needs from Python itself.
fn has_venv() -> bool {
    says_yes(Command::new("python3").args(["-c", "import venv, ensurepip"]))
}
