//! A compiler for wasm32-wasip1: rustup's where it can be had, else Debian's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::{apt, on_path};
use crate::checkout::Checkout;
use crate::console::{says_yes, step};

const TARGET: &str = "wasm32-wasip1";

/// Whose compiler builds the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// The one that builds everything else, with the target's library.
    Rustup,
    /// Debian's `rustc-web`, which builds the standard library from its source.
    Debian,
}

/// Finds or installs a compiler.
pub(crate) fn compiler(checkout: &Checkout) -> anyhow::Result<Compiler> {
    if has_library() {
        return Ok(Compiler::Rustup);
    }
    if debian_is_complete() {
        return Ok(Compiler::Debian);
    }
    if on_path("rustup").is_some() {
        step(&format!("adding the target {TARGET} with rustup"));
        // Its messages are noise where it cannot download: Debian's compiler comes next.
        if says_yes(Command::new("rustup").args(["target", "add", TARGET])) && has_library() {
            return Ok(Compiler::Rustup);
        }
    }
    apt::install(checkout, &["rustc-web", "cargo-web", "rust-web-src", "lld", "wasi-libc"])
        .with_context(|| format!("no compiler for {TARGET}; `rustup target add {TARGET}` would do as well"))?;
    Ok(Compiler::Debian)
}

/// Debian's linter for wasm32, if it is installed or can be.
pub(crate) fn debian_clippy(checkout: &Checkout) -> anyhow::Result<()> {
    let missing = !Path::new("/usr/bin/cargo-clippy").exists();
    apt::install(checkout, if missing { &["rust-web-clippy"] } else { &[] })
}

/// Debian's cargo with what it needs for this target, and its own target folder: two compilers that share one rebuild each
/// other's work.
pub(crate) fn debian_cargo(checkout: &Checkout) -> anyhow::Result<(Command, PathBuf)> {
    let target = checkout.target().join("debian-wasm");
    let mut cargo = Command::new("/usr/bin/cargo");
    for ours in ["LD_LIBRARY_PATH", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "CARGO_ENCODED_RUSTFLAGS"] {
        cargo.env_remove(ours);
    }
    cargo
        // cargo-clippy and cargo run "cargo" and "rustc" from the PATH.
        .env("PATH", prepend_to_path(Path::new("/usr/bin"))?)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", "/usr/bin/rustc")
        .env("CARGO_TARGET_WASM32_WASIP1_LINKER", wasm_linker()?)
        .env("RUSTFLAGS", "-L native=/usr/lib/wasm32-wasi")
        .env("CARGO_TARGET_DIR", &target);
    Ok((cargo, target))
}

fn prepend_to_path(folder: &Path) -> anyhow::Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path))).context("odd PATH")
}

/// Whether the ordinary compiler has the target's standard library.
fn has_library() -> bool {
    let answer = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    answer.is_ok_and(|answer| Path::new(String::from_utf8_lossy(&answer.stdout).trim()).is_dir())
}

fn debian_is_complete() -> bool {
    let files = ["/usr/bin/cargo", "/usr/bin/rustc", "/usr/lib/wasm32-wasi/libc.a"];
    files.iter().all(|file| Path::new(file).exists()) && wasm_linker().is_ok()
}

/// The package is versioned: `wasm-ld-14` on Debian 12.
fn wasm_linker() -> anyhow::Result<PathBuf> {
    let programs = fs::read_dir("/usr/bin").context("cannot list /usr/bin")?;
    let is_linker = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("wasm-ld"));
    programs.flatten().map(|entry| entry.path()).filter(is_linker).max().context("no wasm-ld in /usr/bin: install lld")
}
