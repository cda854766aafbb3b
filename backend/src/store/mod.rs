//! The two stores. Nothing outside this module holds SQL or knows a Redis key.

pub mod postgres;
pub mod redis;
