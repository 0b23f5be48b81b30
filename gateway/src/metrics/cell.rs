//! The two cells that everything else is made of.
//!
//! Owns the rule of one writer: an update is a relaxed load and a relaxed store, never a
//! read-modify-write instruction (measured elsewhere at 5 ns and more when the line is shared).
//! Readers on other threads see some recent value, and never a torn one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows. One thread writes it, any thread may read it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one. Only the writing thread may call this.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts `n`; wraps past `u64::MAX`, as Prometheus' `rate` expects of a reset counter.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The count so far.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A level that rises and falls. One thread writes it, any thread may read it.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Raises the level by one.
    #[inline]
    pub fn inc(&self) {
        self.0.store(self.0.load(Relaxed) + 1, Relaxed);
    }

    /// Lowers the level by one. At zero it stays zero: an unmatched call is a bug of the caller,
    /// and a level of 2^64 would hide every later one.
    #[inline]
    pub fn dec(&self) {
        let level = self.0.load(Relaxed);
        debug_assert!(level > 0, "a gauge was lowered more often than raised");
        self.0.store(level.saturating_sub(1), Relaxed);
    }

    /// Replaces the level.
    #[inline]
    pub fn set(&self, level: u64) {
        self.0.store(level, Relaxed);
    }

    /// The level now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn readers_see_a_count_that_never_falls_and_ends_exact() {
        const COUNTS: u64 = 2_000_000;
        let counter = Counter::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !done.load(Ordering::Acquire) {
                        let seen = counter.get();
                        assert!(seen >= last, "{seen} after {last}");
                        last = seen;
                        std::thread::yield_now();
                    }
                });
            }
            for _ in 0..COUNTS {
                counter.inc();
            }
            done.store(true, Ordering::Release);
        });
        assert_eq!(counter.get(), COUNTS);
    }

    #[test]
    fn a_gauge_follows_its_level() {
        let gauge = Gauge::default();
        gauge.inc();
        gauge.inc();
        gauge.dec();
        assert_eq!(gauge.get(), 1);
        gauge.set(40);
        assert_eq!(gauge.get(), 40);
    }
}
