//! Eventual assertions: probe until it holds or the deadline passes.
//!
//! The only place of this package that sleeps, and only between two probes. A test that needs
//! "nothing happens" states what would be seen if it did and probes for the reaction that follows.

use std::time::{Duration, Instant};

/// Time after which a reaction that has not come is a failure. Far above what is needed, because a
/// loaded CI machine is slow and a passing test never waits this long.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Repeats `probe` until it returns `Ok`, and gives its value.
///
/// # Panics
/// With `what` and the last error when [`PATIENCE`] has passed.
#[track_caller]
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, probe)
}

/// [`eventually`] with a deadline of its own.
///
/// # Panics
/// With `what` and the last error when `patience` has passed.
#[track_caller]
pub fn within<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let last = match probe() {
            Ok(value) => return value,
            Err(last) => last,
        };
        assert!(start.elapsed() < patience, "{what}: not within {patience:?}: {last}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}

/// Turns a condition into a probe result.
///
/// # Errors
/// `otherwise` when the condition does not hold.
pub fn holds(condition: bool, otherwise: impl Into<String>) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_first_success() {
        let mut left = 3;
        let value = eventually("countdown", || {
            left -= 1;
            holds(left == 0, "still counting").map(|()| "done")
        });
        assert_eq!((value, left), ("done", 0));
    }

    #[test]
    #[should_panic(expected = "never: not within 20ms: no")]
    fn tells_the_last_reason() {
        within(Duration::from_millis(20), "never", || Err::<(), _>("no".to_owned()));
    }
}
