//! Doorbuster's edge: a filter for Envoy that answers everybody who cannot win a coupon, before anything reaches the
//! origin.
//!
//! Everything outside [`shell`] is pure: it reads no clock, calls no host and does not panic. A request is read by
//! [`request`], decided by [`gate`] with the counters of [`credits`] and [`duplicates`], and answered by [`reply`];
//! [`sync`] brings campaigns from the backend. What workers share goes through [`host::SharedData`], and only
//! [`state`] knows its keys and bytes.

pub mod config;
pub mod credits;
pub mod duplicates;
pub mod gate;
pub mod host;
pub mod reply;
pub mod request;
#[cfg(target_family = "wasm")]
mod shell;
pub mod state;
pub mod sync;
