//! Debian packages.

use std::path::Path;
use std::process::Command;

use super::{on_path, refuse};
use crate::checkout::Checkout;
use crate::console::{run_logged, step};

/// Installs packages where we are root on Debian or a relative of it; otherwise says what to type.
pub(super) fn install(checkout: &Checkout, packages: &[&str]) -> anyhow::Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if on_path("apt-get").is_none() || !Path::new("/etc/debian_version").exists() {
        return refuse(&list, "install what Debian calls by that name, and put its programs on the PATH");
    }
    if !rustix::process::geteuid().is_root() {
        return refuse(&list, &format!("run `sudo apt-get install {list}`"));
    }
    step(&format!("installing {list} with apt-get"));
    let log = checkout.logs().join("setup.log");
    if run_logged(apt_get().args(["install", "-y", "--no-install-recommends"]).args(packages), &log).is_ok() {
        return Ok(());
    }
    // Package lists are often missing on small machines, or older than the archive.
    step("updating apt's package lists");
    run_logged(apt_get().arg("update"), &log)?;
    run_logged(apt_get().args(["install", "-y", "--no-install-recommends"]).args(packages), &log)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // Packages of servers start them; ours are separate ones on private ports. These keep SysV scripts and systemd from it.
    command.env("RUNLEVEL", "1").env("SYSTEMD_OFFLINE", "1");
    command
}
