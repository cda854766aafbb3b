//! The only code that names `proxy_wasm`: it implements the core's traits with Envoy's calls, and hands Envoy's callbacks
//! to the core.
//!
//! The SDK panics on any status it does not expect, and a panic ends the worker's VM. What a client can write is
//! therefore read only through calls that return bytes.

mod headers;
mod host;
mod metrics;
mod root;
mod stream;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(root::Root::default()));
}}
