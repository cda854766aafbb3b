//! `docs/benchmarks.md`: each benchmark replaces its own section and leaves the others.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use doorbuster_e2e::process::forget_own_settings;

use crate::checkout::Checkout;

const INTRODUCTION: &str = "# Benchmarks\n\nWritten by `cargo xtask bench`: what stands between two marks is replaced by \
    the next run. Ratios within one run are what counts; figures of two machines, or of two days, are not compared.\n";

/// Replaces the section `name`, or adds it at the end.
pub(super) fn write_section(checkout: &Checkout, name: &str, markdown: &str) -> anyhow::Result<()> {
    let path = checkout.root().join("docs/benchmarks.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|_| INTRODUCTION.to_owned());
    let text = with_section(&text, name, markdown);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("==> written to docs/benchmarks.md");
    Ok(())
}

fn with_section(text: &str, name: &str, markdown: &str) -> String {
    let (begin, end) = (format!("<!-- {name}: generated -->"), format!("<!-- {name}: end -->"));
    let section = format!("{begin}\n{}\n{end}", markdown.trim_end());
    let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    match parts {
        Some((before, after)) => format!("{before}{section}{after}"),
        None => format!("{}\n\n{section}\n", text.trim_end()),
    }
}

/// Where and with what was measured, as a paragraph.
pub(super) fn circumstances(checkout: &Checkout, command: &str, programs: &[(&Path, &[&str])]) -> String {
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let mut versions: Vec<String> = programs.iter().filter_map(|(program, args)| version(program, args)).collect();
    let mut git = Command::new("git");
    git.current_dir(checkout.root()).args(["rev-parse", "--short", "HEAD"]);
    versions.extend(first_line(&mut git).map(|commit| format!("this repository at {commit}")));
    format!(
        "`{command}` on {} with {cores} cores, load average {load} when it began. {}.",
        model.map_or("an unknown CPU", |(_, model)| model.trim()),
        versions.join("; "),
    )
}

fn version(program: &Path, args: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    forget_own_settings(&mut command);
    first_line(command.args(args))
}

/// wrk tells its version with a failing exit code, so that one is not looked at.
fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Envoy's line begins with its path.
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.split_once("  version: ").map_or_else(|| line.to_owned(), |(_, version)| format!("Envoy {version}")))
}

#[cfg(test)]
mod tests {
    use super::with_section;

    #[test]
    fn a_section_is_added_and_replaced_and_the_others_stay() {
        let first = with_section("# B\n\nwords\n", "a", "one\n");
        assert_eq!(first, "# B\n\nwords\n\n<!-- a: generated -->\none\n<!-- a: end -->\n");
        let both = with_section(&first, "b", "two");
        let replaced = with_section(&both, "a", "three");
        assert_eq!(replaced, both.replace("one", "three"));
        assert_eq!(with_section(&replaced, "a", "three"), replaced);
    }
}
