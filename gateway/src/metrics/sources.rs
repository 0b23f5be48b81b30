//! The busiest sources of a shard, in fixed memory: what `portcullis top` shows, and never a label of a metric.
//!
//! Owns a space-saving sketch (Metwally, Agrawal, El Abbadi 2005): a source that is not among the 64 takes the place
//! of the one with the least, and inherits its count as its possible error. Any source with more than one 64th of all
//! requests is among them for certain. Counts are halved every ten seconds, so that they tell of now.
//!
//! Invariant: one thread writes. A reader that meets a change of owner leaves that place out.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// Sources that are told apart on a shard.
pub const SOURCES_KEPT: usize = 64;

/// Counts are halved this often.
pub const HALVED_EVERY_NS: u64 = 10_000_000_000;

/// What is known of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Busy {
    /// The source's key in the table of sources.
    pub key: u64,
    /// Requests, halved every ten seconds; at most `over` too many.
    pub requests: u64,
    /// Inherited from sources that had this place before.
    pub over: u64,
    /// Of the requests, those that ended in a refusal. Never too many.
    pub refused: u64,
}

/// The sketch of one shard.
#[derive(Debug)]
pub struct BusySources {
    places: Box<[Place]>,
    /// Where a source was last found, by eight bits of a hash of its key: spares the search nearly always.
    hints: Box<[AtomicU8]>,
    halved_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct Place {
    key: AtomicU64,
    requests: AtomicU64,
    over: AtomicU64,
    refused: AtomicU64,
}

impl Default for BusySources {
    fn default() -> Self {
        Self {
            places: (0..SOURCES_KEPT).map(|_| Place::default()).collect(),
            hints: (0..256).map(|_| AtomicU8::new(0)).collect(),
            halved_ns: AtomicU64::new(0),
        }
    }
}

impl BusySources {
    /// Counts one request of the source with this key, which is not 0. Only the writing thread may call this.
    #[inline]
    pub fn count(&self, key: u64, refused: bool) {
        let hint = &self.hints[(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize];
        let mut place = &self.places[hint.load(Relaxed) as usize];
        if place.key.load(Relaxed) != key {
            let found = self.find_or_take(key);
            hint.store(found as u8, Relaxed);
            place = &self.places[found];
        }
        place.requests.store(place.requests.load(Relaxed) + 1, Relaxed);
        if refused {
            place.refused.store(place.refused.load(Relaxed) + 1, Relaxed);
        }
    }

    fn find_or_take(&self, key: u64) -> usize {
        let mut least = (0, u64::MAX);
        for (number, place) in self.places.iter().enumerate() {
            if place.key.load(Relaxed) == key {
                return number;
            }
            let requests = place.requests.load(Relaxed);
            if requests < least.1 {
                least = (number, requests);
            }
        }
        let place = &self.places[least.0];
        // No owner while the counts change, so that a reader pairs no count with another's key.
        place.key.store(0, Relaxed);
        place.refused.store(0, Relaxed);
        place.over.store(least.1, Relaxed);
        place.key.store(key, Relaxed);
        least.0
    }

    /// Halves every count when it is time to. Only the writing thread may call this, now and then.
    pub fn age(&self, now_ns: u64) {
        let halved_ns = self.halved_ns.load(Relaxed);
        if halved_ns != 0 && now_ns.saturating_sub(halved_ns) < HALVED_EVERY_NS {
            return;
        }
        self.halved_ns.store(now_ns, Relaxed);
        if halved_ns == 0 {
            return; // the first time: counting has just begun
        }
        for place in &self.places {
            for count in [&place.requests, &place.over, &place.refused] {
                count.store(count.load(Relaxed) / 2, Relaxed);
            }
        }
    }

    /// When counts were last halved; with this a steady rate can be told from a count.
    pub fn halved_ns(&self) -> u64 {
        self.halved_ns.load(Relaxed)
    }

    /// Every source that is told apart, in no order.
    pub fn read(&self) -> impl Iterator<Item = Busy> + '_ {
        self.places.iter().filter_map(|place| {
            let key = place.key.load(Relaxed);
            let busy = Busy {
                key,
                requests: place.requests.load(Relaxed),
                over: place.over.load(Relaxed),
                refused: place.refused.load(Relaxed),
            };
            (key != 0 && busy.requests > 0 && place.key.load(Relaxed) == key).then_some(busy)
        })
    }
}

/// Requests a second of a source whose halved count is `requests`, `age_ns` after the last halving: a steady source
/// has counted ten seconds' worth right after it, and the time since on top.
pub fn steady_rate(requests: u64, age_ns: u64) -> f64 {
    requests as f64 * 1e9 / (HALVED_EVERY_NS + age_ns.min(HALVED_EVERY_NS)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_source_is_found_among_any_number_of_others() {
        let sketch = BusySources::default();
        for number in 0..100_000u64 {
            sketch.count(1_000_000 + number, false);
            if number % 20 == 0 {
                sketch.count(7, number % 40 == 0);
            }
        }
        let found = sketch.read().find(|busy| busy.key == 7).expect("one in 21 is more than one in 64");
        assert!(found.requests >= 5_000, "never too few: {found:?}");
        assert!(found.requests - found.over <= 5_000, "the error is told: {found:?}");
        assert!(found.refused <= 2_500);
        assert!(sketch.read().count() <= SOURCES_KEPT);
    }

    #[test]
    fn few_sources_are_counted_exactly() {
        let sketch = BusySources::default();
        for key in 1..=SOURCES_KEPT as u64 {
            (0..key).for_each(|number| sketch.count(key, number == 0));
        }
        for busy in sketch.read() {
            assert_eq!((busy.requests, busy.over, busy.refused), (busy.key, 0, 1));
        }
        assert_eq!(sketch.read().count(), SOURCES_KEPT);
    }

    #[test]
    fn counts_fade_and_a_steady_rate_is_told_from_them() {
        let sketch = BusySources::default();
        let mut now_ns = 0;
        for _ in 0..100 {
            now_ns += 1_000_000_000;
            (0..50).for_each(|_| sketch.count(9, false));
            sketch.age(now_ns);
        }
        let busy = sketch.read().next().unwrap();
        let rate = steady_rate(busy.requests, now_ns - sketch.halved_ns());
        assert!((45.0..55.0).contains(&rate), "{rate} for 50 a second");
        for _ in 0..20 {
            now_ns += HALVED_EVERY_NS;
            sketch.age(now_ns);
        }
        assert_eq!(sketch.read().count(), 0, "who is gone is forgotten");
    }
}
