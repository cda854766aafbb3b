//! The only code that names `proxy_wasm`: it hands the core's questions to Envoy and Envoy's callbacks to the core.
//!
//! The SDK panics on any status it does not expect, and a panic ends the worker's VM. What a client can write is
//! therefore read only through calls that return bytes.

mod head;
mod host;
mod metrics;
mod root;
mod stream;

use proxy_wasm::hostcalls;
use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(root::Root::default()));
}}

/// Writes a line to Envoy's log.
fn log(level: LogLevel, message: &str) {
    // There is nowhere else to say that a line could not be written.
    let _ = hostcalls::log(level, message);
}
