//! Sliding windows by a log of what was admitted: exact in every span of time, at the price of a word a request.
//!
//! Owns the logs of all keys of one limit: a fixed number of them, each with as many entries as the limit admits. An
//! entry holds the time of an admission (monotonic nanoseconds) and is free again a span later; to admit is to put the
//! present into a free entry, by one compare-exchange. There is no head and no tail, so no shard waits for another.
//!
//! A key has a log of its set of [`WAYS`]. One whose entries are all free says nothing and may be taken by another key.
//! Two shards that see a new key at once may take a log each; a key's admissions are therefore counted over its set
//! whenever it has more than one. Where all logs of a set are other keys' (there are more keys than room), the caller is
//! told so and counts by another way.
//!
//! Invariant: a key with a log admits at most N in any half-open span of time, whatever the interleaving of shards.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

/// Logs of a set.
const WAYS: usize = 4;

/// The logs of one limit.
pub struct Logs {
    span_ns: u64,
    limit: usize,
    ways: Box<[Way]>,
    entries: Box<[AtomicU64]>,
}

struct Way {
    key: AtomicU64,
    /// The last admission: once it is a span ago, the log says nothing.
    newest: AtomicU64,
    /// Where the oldest entry is likely to be.
    hint: AtomicU32,
}

/// How a log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Admissions in the last span.
    pub live: u64,
    /// Nanoseconds until what was asked for has room; after an admission, until the next entry is free.
    pub wait_ns: u64,
}

/// What became of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged {
    Admitted(LogState),
    Refused(LogState),
    /// All logs that the key may have are others'.
    Crowded,
}

impl Logs {
    /// Room for at least `entries` admissions in all, of keys that admit `limit` in `span_ns` each.
    pub fn new(span_ns: u64, limit: usize, entries: usize) -> Self {
        let ways = (entries / limit.max(1)).next_multiple_of(WAYS).max(WAYS);
        let way = |_| Way { key: AtomicU64::new(0), newest: AtomicU64::new(0), hint: AtomicU32::new(0) };
        let entries = (0..ways * limit).map(|_| AtomicU64::new(0)).collect();
        Self { span_ns, limit, ways: (0..ways).map(way).collect(), entries }
    }

    /// Whether the logs fit a limit.
    pub fn fits(&self, span_ns: u64, limit: u64) -> bool {
        (self.span_ns, self.limit as u64) == (span_ns, limit)
    }

    /// How the key stands, and whether `cost` would be admitted.
    pub fn look(&self, key: u64, now: u64, cost: u64) -> LogState {
        let times = self.times(key, now);
        let live = times.len() as u64;
        LogState { live, wait_ns: self.wait(times, now, cost) }
    }

    /// Enters `cost` admissions, or none.
    pub fn charge(&self, key: u64, now: u64, cost: u64) -> Logged {
        let now = now.max(1);
        let Some(own) = self.own(key, now) else { return Logged::Crowded };
        let mut left = cost;
        for way in std::iter::once(own).chain(self.set(key).filter(|way| *way != own)) {
            if self.ways[way].key.load(SeqCst) == key {
                left = self.enter(way, now, left);
            }
        }
        let several = self.set(key).filter(|way| self.ways[*way].key.load(SeqCst) == key).count() > 1;
        let over = |live: usize| live > self.limit;
        if left > 0 || (several && over(self.times(key, now).len())) {
            self.refund(key, now, cost - left);
            return Logged::Refused(self.look(key, now, cost));
        }
        Logged::Admitted(self.look(key, now, 1))
    }

    /// Takes back `cost` admissions of this very time.
    pub fn refund(&self, key: u64, now: u64, cost: u64) {
        let now = now.max(1);
        let mut left = cost;
        for way in self.set(key).filter(|way| self.ways[*way].key.load(SeqCst) == key) {
            for entry in self.entries(way) {
                if left > 0 && entry.compare_exchange(now, 0, SeqCst, SeqCst).is_ok() {
                    left -= 1;
                }
            }
        }
    }

    /// Puts up to `count` admissions into free entries, and says how many found none.
    fn enter(&self, way: usize, now: u64, count: u64) -> u64 {
        self.ways[way].newest.fetch_max(now, SeqCst);
        let (entries, first) = (self.entries(way), self.ways[way].hint.load(Relaxed) as usize);
        let mut left = count;
        for step in 0..self.limit {
            if left == 0 {
                break;
            }
            let at = (first + step) % self.limit;
            let seen = entries[at].load(SeqCst);
            if self.is_free(seen, now) && entries[at].compare_exchange(seen, now, SeqCst, SeqCst).is_ok() {
                left -= 1;
                self.ways[way].hint.store(((at + 1) % self.limit) as u32, Relaxed);
            }
        }
        left
    }

    fn is_free(&self, time: u64, now: u64) -> bool {
        time == 0 || time.saturating_add(self.span_ns) <= now
    }

    fn set(&self, key: u64) -> impl Iterator<Item = usize> + use<> {
        let sets = self.ways.len() / WAYS;
        // The keys are hashes.
        let first = (key % sets as u64) as usize * WAYS;
        first..first + WAYS
    }

    fn entries(&self, way: usize) -> &[AtomicU64] {
        &self.entries[way * self.limit..(way + 1) * self.limit]
    }

    /// The key's log, which it is given if it has none.
    fn own(&self, key: u64, now: u64) -> Option<usize> {
        loop {
            if let Some(way) = self.set(key).find(|way| self.ways[*way].key.load(SeqCst) == key) {
                return Some(way);
            }
            let silent = |way: &usize| self.is_free(self.ways[*way].newest.load(SeqCst), now);
            let way = self.set(key).find(silent)?;
            let owner = self.ways[way].key.load(SeqCst);
            if silent(&way) && self.ways[way].key.compare_exchange(owner, key, SeqCst, SeqCst).is_ok() {
                return Some(way);
            }
        }
    }

    /// The admissions of the last span, in no order.
    fn times(&self, key: u64, now: u64) -> Vec<u64> {
        let own = self.set(key).filter(|way| self.ways[*way].key.load(SeqCst) == key);
        let entries = own.flat_map(|way| self.entries(way));
        entries.map(|entry| entry.load(SeqCst)).filter(|time| !self.is_free(*time, now)).collect()
    }

    /// How long until `cost` fit beside these admissions; of none, how long until one less is there.
    fn wait(&self, mut times: Vec<u64>, now: u64, cost: u64) -> u64 {
        if cost > self.limit as u64 {
            return u64::MAX;
        }
        let over = (times.len() as u64 + cost).saturating_sub(self.limit as u64);
        if times.is_empty() {
            return 0;
        }
        let (_, leaves, _) = times.select_nth_unstable((over.max(1) - 1) as usize);
        leaves.saturating_add(self.span_ns).saturating_sub(now)
    }
}
