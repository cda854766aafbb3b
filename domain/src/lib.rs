//! The rules that the edge and the backend share: ids, schedule, phases, refusals and the formats in which the
//! two speak to each other.
//!
//! Nothing here reads a clock, calls a host or panics: time and counters come in as values. The crate builds
//! natively and for wasm32.

pub mod code;
pub mod count;
pub mod discount;
pub mod id;
pub mod notice;
pub mod redemption;
pub mod refusal;
pub mod request;
pub mod schedule;
pub mod ticket;
pub mod timetable;
pub mod validity;
pub mod wire;
