//! How fast bytes may pass for one key.
//!
//! Owns the account: a word of a table, which is ahead of now by the time that the bytes take at their rate. Reads no
//! clock and waits for nothing; who sends waits as long as it is told.
//!
//! Invariant: in any time t at most `t * rate + burst` bytes pass, and what was under way when the account ran out: what
//! each sender sends at once. Nobody waits for more than [`WAIT_MAX`], so very many senders of one key together get more.

use std::sync::Arc;
use std::time::Duration;

use super::table::{Table, Word};

const SECOND: u64 = 1_000_000_000;
/// Longest pause, less than others are waited for: what is owed beyond it is forgiven.
pub const WAIT_MAX: Duration = Duration::from_secs(20);

/// The account of one key.
#[derive(Clone, Debug)]
pub struct Throttle {
    /// Where the word is.
    pub table: Arc<Table>,
    /// Whose it is.
    pub key: u64,
    /// Bytes a second, at least 1.
    pub rate: u64,
    /// Bytes at once after a pause.
    pub burst: u64,
}

impl Throttle {
    /// Bytes have passed at `now`: how long until more may.
    pub fn passed(&self, now: u64, bytes: u64) -> Duration {
        let ns = |bytes: u64| u64::try_from(u128::from(bytes) * u128::from(SECOND) / u128::from(self.rate));
        let ns = |bytes| ns(bytes).unwrap_or(u64::MAX);
        let most = ns(self.burst).saturating_add(WAIT_MAX.as_nanos() as u64);
        self.table.penalize(self.key, Word::Request, now, ns(bytes), most);
        let debt = self.table.debt(self.key, Word::Request, now);
        Duration::from_nanos(debt.saturating_sub(ns(self.burst)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::random_secret;
    use super::*;

    #[test]
    fn senders_of_one_key_share_its_rate() {
        let table = Arc::new(Table::new(64, random_secret()).expect("a small table"));
        let throttle = Throttle { table, key: 7, rate: 1_000, burst: 500 };
        let mut now = 5 * SECOND;
        // Two senders of pieces of 250 bytes, each of which waits as it is told.
        let (mut due, mut passed) = ([now; 2], 0);
        while now < 15 * SECOND {
            for due in &mut due {
                if *due <= now {
                    passed += 250;
                    *due = now + throttle.passed(now, 250).as_nanos() as u64;
                }
            }
            now += SECOND / 100;
        }
        assert!((10_000..=10_000 + 500 + 2 * 250).contains(&passed), "{passed}");
        let other = Throttle { key: 8, ..throttle };
        assert_eq!(other.passed(now, 500), Duration::ZERO);
        assert_eq!(other.passed(now, 250), Duration::from_millis(250));
        assert_eq!(other.passed(now, 0), Duration::from_millis(250), "the next one waits as well");
        assert_eq!(other.passed(now, 1 << 40), WAIT_MAX);
    }
}
