//! Doorbuster's edge: a filter for Envoy that answers all who cannot win a coupon, before anything reaches the origin.
//!
//! Everything outside `shell` is pure: it reads no clock, calls no host and does not panic; what it needs of a host is
//! behind the traits of [`host`]. An [`exchange::Exchange`] takes one request from its first header to its last byte,
//! for a [`worker::Worker`]. A request is read by [`request`], decided by [`gate`] with the counters of [`credits`] and
//! [`duplicates`], and answered by [`reply`]; [`sync`] brings campaigns from the backend. What workers share goes through
//! [`host::SharedData`], and only [`state`] knows its keys and bytes.

pub mod config;
pub mod credits;
pub mod duplicates;
pub mod exchange;
pub mod gate;
pub mod host;
#[cfg(test)]
mod model_check;
mod poller;
pub mod reply;
pub mod request;
#[cfg(target_family = "wasm")]
mod shell;
pub mod state;
pub mod sync;
pub mod worker;

/// How often a host calls [`worker::Worker::tick`], milliseconds.
pub const TICK_MS: i64 = 50;
