//! `cargo xtask lint`: everything that can be checked without running the product.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, ensure};
use doorbuster_e2e::envoy_config::{load, set_filter_wasm};
use doorbuster_e2e::process::forget_own_settings;

use crate::build;
use crate::checkout::{Checkout, remove_folder};
use crate::console::{run, run_logged, step};
use crate::setup::{self, on_path, wasm};

/// Runs every check and stops at the first that fails.
pub(crate) fn run_all(checkout: &Checkout) -> anyhow::Result<ExitCode> {
    checkout.create_private()?;
    step("formatting");
    run(cargo(checkout).args(["fmt", "--all", "--check"]))?;
    step("clippy");
    run(cargo(checkout).args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    setup::c_compiler(checkout)?;
    step("clippy with Kafka");
    run(cargo(checkout)
        .args(["clippy", "--package", "doorbuster-backend", "--features", "kafka-tls", "--all-targets"])
        .args(["--", "-D", "warnings"]))?;
    let compiler = wasm::compiler(checkout)?;
    step("clippy for wasm32");
    clippy_for_wasm(checkout, compiler)?;
    let module = build::filter(checkout, compiler)?;
    validate_envoy(checkout, &module)?;
    openapi(checkout)?;
    compose(checkout)?;
    deny(checkout)?;
    step("no complaints");
    Ok(ExitCode::SUCCESS)
}

fn cargo(checkout: &Checkout) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(checkout.root());
    cargo
}

fn clippy_for_wasm(checkout: &Checkout, compiler: wasm::Compiler) -> anyhow::Result<()> {
    let modules = ["--package", "doorbuster-filter", "--package", "doorbuster-probe", "--target", "wasm32-wasip1"];
    match compiler {
        wasm::Compiler::Rustup => {
            run(cargo(checkout).args(["clippy", "--release"]).args(modules).args(["--", "-D", "warnings"]))
        }
        wasm::Compiler::Debian => {
            wasm::debian_clippy(checkout)?;
            let (mut debian, _target) = wasm::debian_cargo(checkout)?;
            debian.current_dir(checkout.root()).args(["clippy", "--release"]).args(modules);
            run(debian.args(["-Z", "build-std=std,panic_abort", "--", "-D", "warnings"]))
        }
    }
}

/// Envoy itself reads every configuration, with the module that was just built.
fn validate_envoy(checkout: &Checkout, module: &Path) -> anyhow::Result<()> {
    let envoy = setup::envoy(checkout)?;
    let rendered = checkout.private().join("lint");
    remove_folder(&rendered)?;
    fs::create_dir_all(&rendered).with_context(|| format!("cannot create {}", rendered.display()))?;
    for source in yaml_files(&checkout.root().join("envoy"))? {
        let shown = source.strip_prefix(checkout.root()).unwrap_or(&source).display().to_string();
        step(&format!("envoy --mode validate {shown}"));
        let mut config = load(&source)?;
        set_filter_wasm(&mut config, module);
        let target = rendered.join(format!("{}.json", shown.replace('/', "-")));
        fs::write(&target, config.to_string()).with_context(|| format!("cannot write {}", target.display()))?;
        let mut validate = Command::new(&envoy);
        forget_own_settings(&mut validate);
        validate.args(["--mode", "validate", "--disable-hot-restart", "--log-level", "warning", "-c"]).arg(&target);
        // The filter wants a token of the length that a real one has.
        validate.env("DOORBUSTER_EDGE_TOKEN", "not-a-secret-only-for-validation");
        run_logged(&mut validate, &rendered.join("envoy.log"))?;
    }
    Ok(())
}

fn yaml_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(yaml_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    ensure!(!found.is_empty(), "no configuration in {}", folder.display());
    Ok(found)
}

/// The committed document is what the handlers say.
fn openapi(checkout: &Checkout) -> anyhow::Result<()> {
    const WRITE: &str = "cargo run --package doorbuster-backend --bin doorbuster -- openapi > docs/openapi.json";
    step("docs/openapi.json");
    let said = cargo(checkout)
        .args(["run", "--quiet", "--package", "doorbuster-backend", "--bin", "doorbuster", "--", "openapi"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(said.status.success(), "the document cannot be made ({})", said.status);
    let kept = fs::read(checkout.root().join("docs/openapi.json")).unwrap_or_default();
    ensure!(kept == said.stdout, "docs/openapi.json is not what the handlers say: write it with `{WRITE}`");
    Ok(())
}

fn compose(checkout: &Checkout) -> anyhow::Result<()> {
    let Some(compose) = on_path("docker-compose") else {
        step("docker-compose config: skipped, docker-compose is not installed");
        return Ok(());
    };
    step("docker-compose config");
    run(Command::new(compose).current_dir(checkout.root()).args(["config", "--quiet"]))
}

fn deny(checkout: &Checkout) -> anyhow::Result<()> {
    if on_path("cargo-deny").is_none() {
        step("cargo deny check: skipped, cargo-deny is not installed");
        return Ok(());
    }
    step("cargo deny check");
    run(cargo(checkout).args(["deny", "check"]))
}
