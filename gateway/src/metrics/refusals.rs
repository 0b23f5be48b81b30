//! The last refusals of a shard: who was turned away, when, why, on which route.
//!
//! Owns a ring of fixed size that one shard writes and the control thread reads while it is written. An entry is
//! four words behind a number that is odd while they change (a seqlock), so a reader skips what it caught half
//! written and nobody waits. It never holds a name: a route is the number of its series.
//!
//! Invariant: an entry that is read is one that was written, whole.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence};

use portcullis_abi::Reason;

/// Refusals that a shard remembers. 40 bytes each.
pub const REFUSALS_KEPT: usize = 512;

/// One refusal or failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The client's address, behind trusted proxies.
    pub client: IpAddr,
    /// Why.
    pub reason: Reason,
    /// Sent downstream; 0 when nothing was.
    pub status: u16,
    /// The number of the route's series ([`super::RouteSeries::number`]), if a route was found.
    pub route: Option<u32>,
}

/// The ring. One thread writes, any thread may read.
#[derive(Debug)]
pub struct Refusals {
    entries: Box<[Entry]>,
    /// Refusals so far; the next goes to this place.
    written: AtomicU64,
}

#[derive(Debug, Default)]
struct Entry {
    version: AtomicU64,
    words: [AtomicU64; 4],
}

impl Default for Refusals {
    fn default() -> Self {
        Self { entries: (0..REFUSALS_KEPT).map(|_| Entry::default()).collect(), written: AtomicU64::new(0) }
    }
}

impl Refusals {
    /// Remembers one, forgetting the oldest. Only the writing thread may call this.
    #[inline]
    pub fn note(&self, refusal: &Refusal) {
        let number = self.written.load(Relaxed);
        let entry = &self.entries[number as usize % REFUSALS_KEPT];
        let version = entry.version.load(Relaxed);
        entry.version.store(version + 1, Relaxed);
        fence(Release);
        for (word, value) in entry.words.iter().zip(pack(refusal)) {
            word.store(value, Relaxed);
        }
        entry.version.store(version + 2, Release);
        self.written.store(number + 1, Release);
    }

    /// Those that are still remembered, the latest first. One that is overwritten meanwhile is left out.
    pub fn latest(&self) -> impl Iterator<Item = Refusal> + '_ {
        let written = self.written.load(Acquire);
        let oldest = written.saturating_sub(REFUSALS_KEPT as u64);
        (oldest..written).rev().filter_map(|number| self.entries[number as usize % REFUSALS_KEPT].read())
    }
}

impl Entry {
    fn read(&self) -> Option<Refusal> {
        let version = self.version.load(Acquire);
        if !version.is_multiple_of(2) {
            return None;
        }
        let words = std::array::from_fn(|word| self.words[word].load(Relaxed));
        fence(Acquire);
        if self.version.load(Relaxed) == version { unpack(words) } else { None }
    }
}

const STATUS_SHIFT: u32 = 8;
const ROUTE_SHIFT: u32 = 24;

fn pack(refusal: &Refusal) -> [u64; 4] {
    let bits = match refusal.client {
        IpAddr::V4(client) => client.to_ipv6_mapped().to_bits(),
        IpAddr::V6(client) => client.to_bits(),
    };
    // 0 is no route, so numbers are kept one higher.
    let route = refusal.route.map_or(0, |route| u64::from(route) + 1);
    let what = refusal.reason as u64 | u64::from(refusal.status) << STATUS_SHIFT | route << ROUTE_SHIFT;
    [refusal.at_ns, (bits >> 64) as u64, bits as u64, what]
}

fn unpack([at_ns, high, low, what]: [u64; 4]) -> Option<Refusal> {
    let client = IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)));
    Some(Refusal {
        at_ns,
        client: client.to_canonical(),
        reason: Reason::from_index((what & 0xff) as usize)?,
        status: (what >> STATUS_SHIFT) as u16,
        route: (what >> ROUTE_SHIFT).checked_sub(1).map(|route| route as u32),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn refusal(number: u64) -> Refusal {
        Refusal {
            at_ns: number,
            client: IpAddr::V6(Ipv6Addr::from_bits(u128::from(number) << 64 | u128::from(number))),
            reason: Reason::RateLimited,
            status: (number % 600) as u16,
            route: (!number.is_multiple_of(3)).then_some(number as u32),
        }
    }

    #[test]
    fn the_latest_come_first_and_the_oldest_are_forgotten() {
        let ring = Refusals::default();
        assert_eq!(ring.latest().count(), 0);
        let v4 = Refusal { client: "192.0.2.1".parse().unwrap(), ..refusal(7) };
        ring.note(&v4);
        assert_eq!(ring.latest().collect::<Vec<_>>(), [v4]);
        for number in 1..=REFUSALS_KEPT as u64 + 3 {
            ring.note(&refusal(number));
        }
        let read = ring.latest().collect::<Vec<_>>();
        assert_eq!(read.len(), REFUSALS_KEPT);
        assert_eq!(read[0], refusal(REFUSALS_KEPT as u64 + 3));
        assert_eq!(read[REFUSALS_KEPT - 1], refusal(4));
    }

    #[test]
    fn what_is_read_while_it_is_written_is_whole() {
        let ring = Refusals::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    for read in ring.latest() {
                        assert_eq!(read, refusal(read.at_ns), "parts of two refusals");
                    }
                    std::thread::yield_now();
                }
            });
            for number in 1..300_000 {
                // Addresses below 2^64 in either half only, so canonical form changes none of them.
                ring.note(&refusal(number));
            }
            done.store(true, Relaxed);
        });
        assert_eq!(ring.latest().next(), Some(refusal(299_999)));
    }
}
