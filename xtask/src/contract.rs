//! Whether a running stack answers as its OpenAPI document says: schemathesis asks it all it can think of.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::{Programs, Stack};
use serde_json::json;

use crate::checkout::Checkout;
use crate::console::{run, step};
use crate::setup;

/// Requests made up for each operation and phase.
const EXAMPLES: &str = "40";

/// Starts a stack asks both listeners of its backend, and its gateway; the error tells what was answered otherwise.
pub(crate) fn check(checkout: &Checkout, programs: Programs) -> anyhow::Result<()> {
    let schemathesis = setup::schemathesis(checkout)?;
    step("asking a stack whether it keeps to its OpenAPI document");
    // A request that names no campaign, as the document allows, is about this one.
    let stack = Stack::builder()
        .programs(programs)
        .own_postgres()
        .backend_setting("default_campaign", "spring")
        .backend_setting("client_redeem", "on")
        .plugin(json!({"default_campaign": "spring"}))
        .start()?;
    stack.announce("spring", &open_all_day(100_000))?;
    let won = stack.issue("spring", "alice")?;
    ensure!(won.status == 201, "no coupon to ask about: {}", won.body);
    for (listener, paths, more) in [
        (stack.ops(0), "^/(admin|livez|readyz|metrics|openapi)", bearer(stack.admin_token())),
        (stack.ops(0), "^/internal", bearer(stack.edge_token())),
        (stack.backend(0), "^/v1/", Vec::new()),
        // A method that Envoy has never heard of (QUERY) hears Envoy's own 400 before any filter runs, as the contract
        // says. What becomes of those it knows, e2e/tests/it/hostile.rs asks.
        (stack.url(0), "^/v1/", vec!["--exclude-checks".to_owned(), "unsupported_method".to_owned()]),
    ] {
        ask(checkout.root(), &schemathesis, &listener, paths, &more)?;
    }
    Ok(())
}

/// The stack is this run's own and so is its token: whoever sees these arguments sees nothing of worth.
fn bearer(token: &str) -> Vec<String> {
    vec!["--header".to_owned(), format!("Authorization: Bearer {token}")]
}

fn ask(root: &Path, program: &Path, url: &str, paths: &str, more: &[String]) -> anyhow::Result<()> {
    let mut schemathesis = Command::new(program);
    schemathesis.current_dir(root).args(["--config-file", "xtask/schemathesis.toml", "run", "docs/openapi.json"]);
    schemathesis.args(["--url", url, "--include-path-regex", paths, "--max-examples", EXAMPLES, "--seed", "1"]);
    run(schemathesis.args(more)).with_context(|| format!("{url} does not keep to docs/openapi.json"))
}
