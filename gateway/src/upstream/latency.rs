//! How long a target's answers take lately: an average that believes bad news at once and good news slowly.
//!
//! Owns the arithmetic of peak EWMA (Finagle's `p2c-ewma`): a slower answer than the average replaces it, a faster one
//! pulls it down with the time that has passed. One shard's view of one target; shared with nobody.

use std::cell::Cell;

/// In this time an average forgets all but 1/e of what it was, in ns.
const MEMORY_NS: f64 = 10e9;

/// The average of one target.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    average_ns: Cell<f64>,
    at_ns: Cell<u64>,
}

impl Latency {
    /// Takes an answer after `took_ns` into account. `now_ns` never goes back.
    pub fn observe(&self, took_ns: u64, now_ns: u64) {
        let took = took_ns.max(1) as f64;
        let before = self.average_ns.get();
        let average = if took >= before {
            took
        } else {
            let elapsed = now_ns.saturating_sub(self.at_ns.get()) as f64;
            let kept = (-elapsed / MEMORY_NS).exp();
            before * kept + took * (1.0 - kept)
        };
        self.average_ns.set(average);
        self.at_ns.set(now_ns);
    }

    /// The average in ns; 0 where nothing was observed.
    pub fn get(&self) -> u64 {
        self.average_ns.get() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;

    #[test]
    fn a_peak_counts_at_once() {
        let latency = Latency::default();
        assert_eq!(latency.get(), 0);
        latency.observe(5 * MS, S);
        latency.observe(80 * MS, S + MS);
        assert_eq!(latency.get(), 80 * MS);
    }

    #[test]
    fn a_peak_is_forgotten_in_time() {
        let latency = Latency::default();
        latency.observe(80 * MS, S);
        latency.observe(10 * MS, S);
        assert_eq!(latency.get(), 80 * MS, "no time has passed");
        // After ten seconds 1/e of the difference is left: 10 + 70 / e.
        latency.observe(10 * MS, 11 * S);
        assert!((35 * MS..37 * MS).contains(&latency.get()), "{}", latency.get());
        (12..120).for_each(|second| latency.observe(10 * MS, second * S));
        assert!((10 * MS..11 * MS).contains(&latency.get()), "{}", latency.get());
    }
}
