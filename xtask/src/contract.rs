//! Whether a running stack answers as its OpenAPI document says: schemathesis asks it all it can think of.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::{Programs, Stack};

use crate::checkout::Checkout;
use crate::console::{run, step};
use crate::setup;

/// Requests made up for each operation and phase.
const EXAMPLES: &str = "40";

/// Starts a stack and asks both listeners of its backend; the error tells what was answered otherwise.
pub(crate) fn check(checkout: &Checkout, programs: Programs) -> anyhow::Result<()> {
    let schemathesis = setup::schemathesis(checkout)?;
    step("asking a stack whether it keeps to its OpenAPI document");
    let stack = Stack::builder().programs(programs).own_postgres().start()?;
    stack.announce("spring", &open_all_day(100_000))?;
    let won = stack.issue("spring", "alice")?;
    ensure!(won.status == 201, "no coupon to ask about: {}", won.body);
    for (listener, paths, token) in [
        (stack.ops(0), "^/(admin|livez|readyz|metrics)", Some(stack.admin_token())),
        (stack.ops(0), "^/internal", Some(stack.edge_token())),
        (stack.backend(0), "^/v1/", None),
    ] {
        ask(checkout.root(), &schemathesis, &listener, paths, token)?;
    }
    Ok(())
}

fn ask(root: &Path, program: &Path, url: &str, paths: &str, token: Option<&str>) -> anyhow::Result<()> {
    let mut schemathesis = Command::new(program);
    schemathesis.current_dir(root).args(["--config-file", "xtask/schemathesis.toml", "run", "docs/openapi.json"]);
    schemathesis.args(["--url", url, "--include-path-regex", paths, "--max-examples", EXAMPLES, "--seed", "1"]);
    if let Some(token) = token {
        // The stack is this run's own and so is its token: whoever sees these arguments sees nothing of worth.
        schemathesis.arg("--header").arg(format!("Authorization: Bearer {token}"));
    }
    run(&mut schemathesis).with_context(|| format!("{url} does not keep to docs/openapi.json"))
}
