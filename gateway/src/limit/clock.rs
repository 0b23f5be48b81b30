//! Wall time for windows, derived from the monotonic clock.
//!
//! Owns the offset between the two clocks. It is sampled once and kept: a window's place on the monotonic
//! clock must not jitter by the microseconds between two clock reads, or counts would be misread. Both
//! clocks are slewed alike by time daemons, so the offset only changes when the wall clock is *set* or the
//! machine was suspended; `observe` notices that and adopts the new offset.
//!
//! What a step does to a window of length L and limit N depends on how far it moves the end of the window
//! in progress: an end that is sooner by D counts D/L of N as used up (a step back over midnight: the day is
//! all but spent, until midnight comes again), an end that is later by D forgives D/L of N. So one step
//! gives away at most N.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Sampling two clocks one after the other, even with a preemption between, is nearer than this.
const STEP_NS: u64 = 500_000_000;

/// Wall time as a function of monotonic time. One for the process, shared by all shards.
#[derive(Debug)]
pub struct WallClock {
    offset_ns: AtomicU64,
}

impl WallClock {
    /// Both clocks, read together: nanoseconds of `CLOCK_MONOTONIC`, nanoseconds since the Unix epoch.
    pub fn new(now: u64, wall: u64) -> WallClock {
        WallClock { offset_ns: AtomicU64::new(wall.wrapping_sub(now)) }
    }

    /// Nanoseconds since the Unix epoch at the monotonic time `now`.
    #[inline]
    pub fn at(&self, now: u64) -> u64 {
        now.wrapping_add(self.offset_ns.load(Relaxed))
    }

    /// Compares with a fresh reading of both clocks, every second or so, on one thread. If the wall clock
    /// has been set meanwhile, adopts it and returns by how many nanoseconds it was moved.
    pub fn observe(&self, now: u64, wall: u64) -> Option<i64> {
        let step = wall.wrapping_sub(self.at(now)) as i64;
        if step.unsigned_abs() < STEP_NS {
            return None;
        }
        self.offset_ns.store(wall.wrapping_sub(now), Relaxed);
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_jitter_and_large_ones_a_step() {
        let clock = WallClock::new(1_000, 1_700_000_000_000_000_000);
        assert_eq!(clock.at(3_000), 1_700_000_000_000_002_000);
        assert_eq!(clock.observe(2_000, 1_700_000_000_400_000_000), None);
        assert_eq!(clock.at(3_000), 1_700_000_000_000_002_000, "jitter moves nothing");
        assert_eq!(clock.observe(1_000, 1_699_999_999_000_000_000), Some(-1_000_000_000));
        assert_eq!(clock.at(1_000), 1_699_999_999_000_000_000);
    }
}
