//! Removes exports from the finished filter. The SDK exports every callback of the ABI, and Envoy calls whatever is
//! there, whether it does anything or not: three times for each refusal.

use std::path::Path;

use anyhow::Context;
use walrus::Module;

/// Callbacks that the filter answers.
const WANTED: [&str; 13] = [
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_delete",
    "proxy_on_http_call_response",
    "proxy_on_memory_allocate",
    "proxy_on_request_body",
    "proxy_on_request_headers",
    "proxy_on_request_trailers",
    "proxy_on_response_headers",
    "proxy_on_response_trailers",
    "proxy_on_tick",
    "proxy_on_vm_start",
    "proxy_abi_version_0_2_1",
];

/// Reads the module at `built`, and writes it to `place` without what nobody needs.
pub(crate) fn keep_wanted(built: &Path, place: &Path) -> anyhow::Result<()> {
    let mut module = Module::from_file(built).with_context(|| format!("{} is no module", built.display()))?;
    let needless: Vec<_> = module
        .exports
        .iter()
        .filter(|export| export.name.starts_with("proxy_") && !WANTED.contains(&export.name.as_str()))
        .map(|export| export.id())
        .collect();
    for export in needless {
        module.exports.delete(export);
    }
    walrus::passes::gc::run(&mut module);
    module.emit_wasm_file(place).with_context(|| format!("cannot write {}", place.display()))
}
