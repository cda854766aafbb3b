//! Starts the real servers that Doorbuster is made of: Redis, PostgreSQL, backends and Envoy gateways.
//!
//! `cargo xtask` runs its local stack with these parts, and tests build one whole stack each with [`Stack::builder`]:
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let stack = doorbuster_e2e::Stack::builder().gateways(2).backends(2).start()?;
//! stack.announce("spring", &doorbuster_e2e::operator::open_all_day(100))?;
//! let win = stack.issue("spring", "user-1")?;
//! assert_eq!(win.status, 201);
//! # Ok(()) }
//! ```
//!
//! Everything here blocks. Servers die with the process that started them, also when it is killed.

pub mod backend;
mod clock;
pub mod envoy_admin;
pub mod envoy_config;
pub mod envoy_variant;
pub mod gateway;
pub mod http;
pub mod operator;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod proxy;
mod pushed;
pub mod redis;
pub mod server;
pub mod stack;
pub mod token;

pub use envoy_admin::EnvoyAdmin;
pub use http::Reply;
pub use operator::Operator;
pub use programs::Programs;
pub use proxy::Proxy;
pub use stack::{Builder, Stack};
