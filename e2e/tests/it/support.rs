//! What several tests need.

use std::thread;
use std::time::{Duration, Instant};

/// Looks until something holds, for at most `deadline`; says what was missing when it never does.
pub(crate) fn eventually(deadline: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !holds() {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
