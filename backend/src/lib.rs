//! Doorbuster.
