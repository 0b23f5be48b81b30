//! A table of bucket words in user space.
//!
//! Owns the choice of the set for a key and the two places that sets can live in: ordinary memory, or a
//! mapping that the XDP program writes too. Everything is `&self`, lock-free and callable from any shard;
//! what a call does to a word is one compare-exchange of `portcullis_abi`. It never reads a clock: `now` is
//! nanoseconds of `CLOCK_MONOTONIC`, the kernel's `bpf_ktime_get_ns`.
//!
//! Invariant: a word is charged under its own key only. A way found is used at once and never kept, so an
//! eviction in between costs a stranger at most one charge (see `portcullis_abi`'s table).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use portcullis_abi::{self as abi, Block, Charge, Rate, Reason, Secret, Set, WAYS, Way};
use thiserror::Error;

use super::recent::RecentBans;

/// More sets than this would not be addressed by the 32 bits that the hash is good for.
const MAX_ENTRIES: usize = 1 << 28;

/// Which of a key's two buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Connections, requests and penalties: the word that the proxy and the XDP program share.
    Request,
    /// Packets, charged by the XDP program.
    Packet,
}

/// Why a table cannot be made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TableError {
    /// The mapping's length is not a power of two.
    #[error("a table has a power of two of sets, not {0}")]
    NotAPowerOfTwo(usize),
    /// Asked for more than 2^28 entries (8 GiB).
    #[error("a table has at most {MAX_ENTRIES} entries, not {0}")]
    TooLarge(usize),
}

/// A set-associative table of keys, each with its words. 32 bytes an entry.
pub struct Table {
    sets: Sets,
    secret: Secret,
    recent: RecentBans,
}

enum Sets {
    Owned(Box<[Set]>),
    Mapped(&'static [Set]),
}

impl Table {
    /// An empty table in ordinary memory with room for at least `entries` keys: rounded up so that the
    /// number of sets is a power of two.
    ///
    /// # Errors
    /// [`TableError::TooLarge`] beyond 2^28 entries.
    pub fn new(entries: usize, secret: Secret) -> Result<Table, TableError> {
        if entries > MAX_ENTRIES {
            return Err(TableError::TooLarge(entries));
        }
        let sets = entries.div_ceil(WAYS).next_power_of_two();
        let sets = Sets::Owned((0..sets).map(|_| Set::default()).collect());
        Ok(Table { sets, secret, recent: RecentBans::default() })
    }

    /// The table that lives in `sets`, which others may write at the same time, with the secret that they
    /// place keys by.
    ///
    /// # Errors
    /// [`TableError::NotAPowerOfTwo`] for a mapping of another length.
    pub fn mapped(sets: &'static [Set], secret: Secret) -> Result<Table, TableError> {
        if !sets.len().is_power_of_two() {
            return Err(TableError::NotAPowerOfTwo(sets.len()));
        }
        Ok(Table { sets: Sets::Mapped(sets), secret, recent: RecentBans::default() })
    }

    /// How many keys fit.
    pub fn entries(&self) -> usize {
        self.sets().len() * WAYS
    }

    /// The secret that places keys.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Charges `tokens` at `rate`. A charge that does not conform changes nothing.
    #[inline]
    pub fn charge(&self, key: u64, word: Word, now: u64, rate: Rate, tokens: u64) -> Charge {
        abi::charge(pick(self.way(key, now), word), now, rate, tokens)
    }

    /// How far the word is ahead of `now`, in nanoseconds; 0 for a key without debt or without a way.
    #[inline]
    pub fn debt(&self, key: u64, word: Word, now: u64) -> u64 {
        self.find(key).map_or(0, |way| pick(way, word).load(Relaxed).saturating_sub(now))
    }

    /// Adds `cost_ns` of debt whether or not that conforms, up to `cap_ns` ahead of `now`.
    #[inline]
    pub fn penalize(&self, key: u64, word: Word, now: u64, cost_ns: u64, cap_ns: u64) {
        abi::penalize(pick(self.way(key, now), word), now, cost_ns, cap_ns);
    }

    /// Gives back what a conforming charge took: `cost_ns` is its tokens times the rate's interval. A key
    /// that lost its way has nothing to get back.
    #[inline]
    pub fn refund(&self, key: u64, word: Word, cost_ns: u64) {
        if let Some(way) = self.find(key) {
            abi::refund(pick(way, word), cost_ns);
        }
    }

    /// Marks `key` as established until `until`: evicted after sources without the mark, and admitted
    /// when the budget of unknown sources is spent. A banned key stays banned.
    pub fn mark_established(&self, key: u64, now: u64, until: u64) {
        abi::mark_established(self.set(key), key, now, until);
    }

    /// Marks `key` as authenticated until `until`. A banned key stays banned.
    pub fn mark_authenticated(&self, key: u64, now: u64, until: u64) {
        abi::mark_authenticated(self.set(key), key, now, until);
    }

    /// Bans `key` until `until`; `level` (0 to 3) says how often the ban escalated.
    pub fn block(&self, key: u64, now: u64, until: u64, level: u8, reason: Reason) {
        abi::ban(self.set(key), key, now, until, level, reason);
        self.recent.add(key);
    }

    /// Takes the keys that were banned since the last call: their connections are to be closed. Keeps the last 256.
    pub fn take_new_bans(&self, out: &mut Vec<u64>) {
        self.recent.take(out);
    }

    /// Ends a ban or mark.
    pub fn unblock(&self, key: u64) {
        abi::unblock(self.set(key), key);
    }

    /// Ends the ban of `key`, and leaves a mark alone; whether there was a ban.
    pub fn unblock_ban(&self, key: u64, now: u64) -> bool {
        let banned = matches!(self.block_at(key, now), Block::Banned { .. });
        if banned {
            self.unblock(key);
        }
        banned
    }

    /// The block word of `key` as it is, 0 without a way: for the history in it.
    pub(super) fn block_word(&self, key: u64) -> u64 {
        self.find(key).map_or(0, |way| way.block.load(Relaxed))
    }

    /// How many sources are known to be good at `now`: authenticated lately, also if banned since. Looks at the whole
    /// table, some milliseconds for a million entries.
    pub fn known_good(&self, now: u64) -> usize {
        let ways = self.sets().iter().flat_map(|set| &set.ways);
        ways.filter(|way| abi::is_known_good(way.block.load(Relaxed), now)).count()
    }

    /// The ban or mark of `key` at `now`.
    #[inline]
    pub fn block_at(&self, key: u64, now: u64) -> Block {
        self.find(key).map_or(Block::None, |way| way.block_at(now))
    }

    /// The way of `key`, if it has one.
    #[inline]
    pub(super) fn find(&self, key: u64) -> Option<&Way> {
        abi::find(self.set(key), key)
    }

    /// The way of `key`, taken from the key that loses least if it has none.
    #[inline]
    pub(super) fn way(&self, key: u64, now: u64) -> &Way {
        abi::find_or_take(self.set(key), key, now)
    }

    #[inline]
    fn set(&self, key: u64) -> &Set {
        let sets = self.sets();
        &sets[abi::set_index(key, &self.secret, sets.len())]
    }

    #[inline]
    pub(super) fn sets(&self) -> &[Set] {
        match &self.sets {
            Sets::Owned(sets) => sets,
            Sets::Mapped(sets) => sets,
        }
    }
}

// By hand: the secret must not end up in a log, and millions of words are no debug output.
impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.sets {
            Sets::Owned(_) => "memory",
            Sets::Mapped(_) => "mapping",
        };
        f.debug_struct("Table")
            .field("entries", &self.entries())
            .field("place", &place)
            .finish_non_exhaustive()
    }
}

#[inline]
fn pick(way: &Way, word: Word) -> &AtomicU64 {
    match word {
        Word::Request => &way.request_tat,
        Word::Packet => &way.packet_tat,
    }
}

#[cfg(test)]
mod tests {
    use super::super::random_secret;
    use super::*;
    use std::sync::atomic::AtomicU64;

    const MS: u64 = 1_000_000;
    const NOW: u64 = 3_600_000 * MS;

    fn table(entries: usize) -> Table {
        Table::new(entries, random_secret()).expect("a small table")
    }

    #[test]
    fn sizes_round_up_to_a_power_of_two_of_sets() {
        for (asked, got) in [(0, 4), (1, 4), (5, 8), (1000, 1024), (1024, 1024)] {
            assert_eq!(table(asked).entries(), got);
        }
        assert_eq!(
            Table::new(MAX_ENTRIES + 1, Secret::default()).err(),
            Some(TableError::TooLarge(MAX_ENTRIES + 1))
        );
        let sets = Box::leak((0..3).map(|_| Set::default()).collect::<Box<[Set]>>());
        assert_eq!(Table::mapped(sets, Secret::default()).err(), Some(TableError::NotAPowerOfTwo(3)));
    }

    #[test]
    fn threads_charging_one_key_get_exactly_rate_and_burst() {
        const THREADS: u64 = 4;
        const BURST: u64 = 1_000;
        const STEPS: u64 = 2_000;
        let rate = Rate::per_second(1_000, BURST);
        let table = table(64);
        let clock = AtomicU64::new(NOW);
        // The threads share a clock that advances by a millisecond, one token, per step and thread.
        let admitted: u64 = std::thread::scope(|scope| {
            let run = || {
                (0..STEPS)
                    .map(|_| {
                        let now = clock.fetch_add(MS, Relaxed);
                        (0..4)
                            .filter(|_| table.charge(7 << 48, Word::Request, now, rate, 1).conforms())
                            .count()
                    })
                    .sum::<usize>() as u64
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        // Four charges for each token that comes in, so the bucket stays empty after the burst: what was
        // admitted is the burst and one token a millisecond. A thread may hold an older `now` than the
        // latest charge for a while; that never admits more, and at the end everything is drained again.
        let end = clock.load(Relaxed);
        let last = (0..).take_while(|_| table.charge(7 << 48, Word::Request, end, rate, 1).conforms()).count()
            as u64;
        assert_eq!(admitted + last, BURST + (end - NOW) / MS);
        assert!(last <= THREADS, "{last} tokens were left");
    }

    #[test]
    fn a_refund_and_a_penalty_move_the_same_word() {
        let table = table(64);
        let rate = Rate::per_second(1_000, 10);
        let key = 1 << 48 | 1;
        assert!(table.charge(key, Word::Request, NOW, rate, 10).conforms());
        assert_eq!(table.debt(key, Word::Request, NOW), 10 * MS);
        assert_eq!(table.charge(key, Word::Request, NOW, rate, 1), Charge::Limited { retry_after_ns: MS });
        assert_eq!(table.debt(key, Word::Packet, NOW), 0, "the other word is untouched");
        table.refund(key, Word::Request, 3 * MS);
        assert_eq!(table.debt(key, Word::Request, NOW), 7 * MS);
        table.penalize(key, Word::Request, NOW, 100 * MS, 50 * MS);
        assert_eq!(table.debt(key, Word::Request, NOW), 50 * MS);
        assert_eq!(table.debt(key + 1, Word::Request, NOW), 0);
    }

    #[test]
    fn bans_and_marks_end_by_themselves() {
        let table = table(64);
        let key = 1 << 48 | 9;
        table.mark_established(key, NOW, NOW + 100 * MS);
        assert!(matches!(table.block_at(key, NOW), Block::Established { .. }));
        table.block(key, NOW, NOW + 200 * MS, 1, Reason::RateLimited);
        table.mark_established(key, NOW, NOW + 900 * MS);
        match table.block_at(key, NOW) {
            Block::Banned { until, level, reason, .. } => {
                assert!((NOW + 199 * MS..=NOW + 200 * MS).contains(&until));
                assert_eq!((level, reason), (1, Reason::RateLimited));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(table.block_at(key, NOW + 200 * MS), Block::None);
        table.unblock(key);
        assert_eq!(table.block_at(key, NOW), Block::None);
    }

    #[test]
    fn a_flood_of_fresh_keys_does_not_reset_a_debtor() {
        // A fixed secret, under which no four debtors share a set: the flood always needs one way of four.
        let table = Table::new(1 << 12, Secret { a: 1, b: 0x5851_f42d_4c95_7f2d }).expect("a small table");
        let rate = Rate::per_second(10, 100);
        let debtors: Vec<u64> = (0..100).map(|i| 1 << 48 | i).collect();
        for &key in &debtors {
            table.penalize(key, Word::Request, NOW, 60_000 * MS, 60_000 * MS);
        }
        for i in 0..200_000u64 {
            table.charge(
                0x2000 << 48 | i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8,
                Word::Request,
                NOW,
                rate,
                1,
            );
        }
        let kept = debtors.iter().filter(|&&key| table.debt(key, Word::Request, NOW) == 60_000 * MS).count();
        assert_eq!(kept, debtors.len());
    }
}
