//! Doorbuster.
fn main() {}
