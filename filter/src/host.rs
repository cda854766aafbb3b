//! What the core sees of a host: data shared by all workers of one Envoy process.

#[cfg(test)]
pub mod model;

/// A value and the number of its last change, to be given back in a compare-and-swap.
pub type Versioned = (Vec<u8>, u32);

/// The value was changed by somebody else since it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Changed;

/// Data that all workers share: values by key, each changed by compare-and-swap.
pub trait SharedData {
    /// The value of `key`; none if it was never set.
    fn get(&self, key: &str) -> Option<Versioned>;

    /// Sets `key` if nobody changed it since it was read as `seen`.
    ///
    /// # Errors
    /// [`Changed`] if somebody did; nothing was written.
    fn replace(&self, key: &str, value: &[u8], seen: u32) -> Result<(), Changed>;

    /// Sets `key` if it was never set.
    ///
    /// # Errors
    /// [`Changed`] if it was; nothing was written.
    fn create(&self, key: &str, value: &[u8]) -> Result<(), Changed>;
}
