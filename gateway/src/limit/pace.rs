//! Whether a sender keeps up the least rate that is asked of it.
//!
//! Owns the rule and one sender's account. Reads no clock and waits for nothing. Time is an account in nanoseconds: it
//! opens with a grace, is spent by being waited for, and is earned by bytes, each for as long as the least rate would take.
//! So an average is asked for, not a steady flow: who was fast may pause. The account holds at most `most`, lest a fast
//! start pay for hours of dripping.
//!
//! **Invariant.** Only waiting costs. While nobody waits for the sender, because what it sent before is still on its way,
//! it is not slow, whatever the time.

use std::time::Duration;

/// What is asked of senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeastRate {
    /// Bytes a second; 0 asks for nothing.
    pub bytes_per_second: u32,
    /// Time before the rate counts.
    pub grace: Duration,
}

impl LeastRate {
    /// Nothing is asked.
    pub const NONE: LeastRate = LeastRate { bytes_per_second: 0, grace: Duration::ZERO };
}

/// The account of one sender.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// What a byte earns; 0 when nothing is asked.
    byte_ns: u64,
    left_ns: u64,
    most_ns: u64,
}

impl Pace {
    /// An account with its grace, which holds at most that or `most`, whichever is longer.
    pub fn new(least: LeastRate, most: Duration) -> Self {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let byte_ns = match least.bytes_per_second {
            0 => 0,
            // A byte is worth something whatever the rate: it takes at least a nanosecond.
            rate => (1_000_000_000 / u64::from(rate)).max(1),
        };
        Self { byte_ns, left_ns: ns(least.grace), most_ns: ns(least.grace.max(most)) }
    }

    /// How long the sender may be waited for; `None` when nothing is asked of it.
    pub fn patience(&self) -> Option<Duration> {
        (self.byte_ns > 0).then(|| Duration::from_nanos(self.left_ns))
    }

    /// The sender was waited for, and sent `bytes` then.
    pub fn received(&mut self, waited_ns: u64, bytes: usize) {
        let earned = self.byte_ns.saturating_mul(bytes as u64);
        self.left_ns = self.left_ns.saturating_add(earned).saturating_sub(waited_ns).min(self.most_ns);
    }

    /// Whether the account is empty: the sender is too slow.
    pub fn is_spent(&self) -> bool {
        self.byte_ns > 0 && self.left_ns == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A sender of `bytes` after each wait of `wait_ms`; says after how many seconds it was too slow, within `seconds`.
    fn cut_after(bytes: usize, wait_ms: u64, seconds: u64) -> Option<u64> {
        let least = LeastRate { bytes_per_second: 1024, grace: Duration::from_secs(10) };
        let mut pace = Pace::new(least, Duration::from_secs(30));
        let mut now = 0;
        while now < seconds * SECOND {
            let waited = (wait_ms * 1_000_000).min(pace.patience()?.as_nanos() as u64);
            now += waited;
            if waited < wait_ms * 1_000_000 {
                return Some(now / SECOND);
            }
            pace.received(waited, bytes);
            if pace.is_spent() {
                return Some(now / SECOND);
            }
        }
        None
    }

    #[test]
    fn drippers_are_cut_and_honest_senders_are_not() {
        for (bytes, wait_ms, cut) in [
            // Silence, and a byte now and then.
            (0, 60_000, Some(10)),
            (1, 1_000, Some(10)),
            (100, 1_000, Some(10)),
            // Half the rate: nearly twice the grace.
            (512, 1_000, Some(18)),
            (1_000, 1_000, Some(384)),
            // At the rate, and 1 Mbit/s in pieces of all sizes.
            (1_025, 1_000, None),
            (125_000, 1_000, None),
            (1_250, 10, None),
            // Long pauses between large pieces.
            (3_000_000, 9_500, None),
        ] {
            assert_eq!(cut_after(bytes, wait_ms, 3_600), cut, "{bytes} bytes each {wait_ms} ms");
        }
    }

    #[test]
    fn a_fast_start_pays_for_a_pause_and_not_for_more() {
        let least = LeastRate { bytes_per_second: 1024, grace: Duration::from_secs(10) };
        let mut pace = Pace::new(least, Duration::from_secs(30));
        pace.received(0, 100 << 20);
        assert_eq!(pace.patience(), Some(Duration::from_secs(30)));
        pace.received(29 * SECOND, 1);
        assert!(!pace.is_spent());
        pace.received(29 * SECOND, 1);
        assert!(pace.is_spent());
    }

    #[test]
    fn nothing_is_asked_at_rate_0() {
        let mut pace =
            Pace::new(LeastRate { bytes_per_second: 0, grace: Duration::from_secs(10) }, Duration::ZERO);
        pace.received(1000 * SECOND, 0);
        assert_eq!((pace.patience(), pace.is_spent()), (None, false));
    }
}
