//! Latency histograms with fixed exponential buckets.
//!
//! Owns the bucket layouts. A layout starts at `2^FIRST` units of 250 ns and cuts each doubling into
//! `2^SUB` equal parts, so that the bucket of a value follows from the position of its highest bit:
//! one multiplication (the division by a constant) and one `lzcnt`, no search and no float.
//!
//! | layout | first bound | last bound | bounds | used for |
//! |---|---|---|---|---|
//! | [`LatencyHistogram`] | 64 us | 67 s | 21, doubling | a route's total and upstream time |
//! | [`GatewayHistogram`] | 1 us | 131 ms | 18, doubling | a route's time inside the gateway |
//! | [`FineHistogram`] | 1 us | 131 ms | 69, four a doubling | the gateway's own time, over all routes |
//!
//! Invariant: a value is counted in exactly one bucket, and bounds are inclusive as Prometheus' `le` is.

use super::cell::Counter;

/// Total and upstream latency.
pub type LatencyHistogram = Histogram<8, 0, 22>;
/// A route's latency within the gateway.
pub type GatewayHistogram = Histogram<2, 0, 19>;
/// The whole gateway's latency, fine enough to read a 99th percentile within 13 %.
pub type FineHistogram = Histogram<2, 2, 70>;

/// The unit of the bounds: small enough that four parts of a microsecond are whole.
const UNIT_NS: u64 = 250;

/// A histogram of nanoseconds with `BUCKETS - 1` finite bounds; the last bucket has none.
/// One thread writes it, any thread may read it.
#[derive(Debug)]
pub struct Histogram<const FIRST: u32, const SUB: u32, const BUCKETS: usize> {
    buckets: [Counter; BUCKETS],
    sum_ns: Counter,
}

impl<const FIRST: u32, const SUB: u32, const BUCKETS: usize> Default for Histogram<FIRST, SUB, BUCKETS> {
    fn default() -> Self {
        const { assert!(SUB <= FIRST && BUCKETS >= 2) };
        Histogram { buckets: std::array::from_fn(|_| Counter::default()), sum_ns: Counter::default() }
    }
}

impl<const FIRST: u32, const SUB: u32, const BUCKETS: usize> Histogram<FIRST, SUB, BUCKETS> {
    /// Counts one duration.
    #[inline]
    pub fn record(&self, duration_ns: u64) {
        self.buckets[Self::bucket(duration_ns)].inc();
        self.sum_ns.add(duration_ns);
    }

    /// The inclusive upper bound of bucket `i` in nanoseconds; `None` for the last one.
    pub fn bound_ns(i: usize) -> Option<u64> {
        if i + 1 >= BUCKETS {
            return None;
        }
        let octave = FIRST + (i as u32 >> SUB);
        let part = (i & ((1 << SUB) - 1)) as u64;
        Some(((1 << octave) + (part << (octave - SUB))) * UNIT_NS)
    }

    /// Adds this histogram's counts to `totals`, which must be of the same layout or empty.
    pub fn add_to(&self, totals: &mut Totals) {
        if totals.buckets.is_empty() {
            totals.bounds_ns = (0..BUCKETS - 1).map_while(Self::bound_ns).collect();
            totals.buckets = vec![0; BUCKETS];
        }
        debug_assert_eq!(totals.buckets.len(), BUCKETS, "totals of another layout");
        for (total, bucket) in totals.buckets.iter_mut().zip(&self.buckets) {
            *total += bucket.get();
        }
        totals.sum_ns += self.sum_ns.get();
    }

    #[inline]
    fn bucket(duration_ns: u64) -> usize {
        // `d <= b * UNIT` exactly when `(d - 1) / UNIT < b`: so an inclusive bound in nanoseconds is
        // an exclusive one in units, and the bucket is the one that follows the highest bit.
        let units = duration_ns.saturating_sub(1) / UNIT_NS;
        if units < 1 << FIRST {
            return 0;
        }
        let octave = units.ilog2();
        let part = (units >> (octave - SUB)) as usize & ((1 << SUB) - 1);
        let i = ((octave - FIRST) << SUB) as usize + part + 1;
        i.min(BUCKETS - 1)
    }
}

/// Counts of one layout, added over shards; what the exposition writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The finite bounds, rising, in nanoseconds.
    pub bounds_ns: Vec<u64>,
    /// Counts by bucket, not cumulated; one more than there are bounds.
    pub buckets: Vec<u64>,
    /// All recorded durations together.
    pub sum_ns: u64,
}

impl Totals {
    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bucket by the definition: the first whose bound is not exceeded.
    fn naive<const F: u32, const S: u32, const B: usize>(duration_ns: u64) -> usize {
        (0..B)
            .find(|&i| Histogram::<F, S, B>::bound_ns(i).is_none_or(|bound| duration_ns <= bound))
            .expect("the last bucket has no bound")
    }

    fn check(duration_ns: u64) {
        assert_eq!(LatencyHistogram::bucket(duration_ns), naive::<8, 0, 22>(duration_ns), "{duration_ns}");
        assert_eq!(GatewayHistogram::bucket(duration_ns), naive::<2, 0, 19>(duration_ns), "{duration_ns}");
        assert_eq!(FineHistogram::bucket(duration_ns), naive::<2, 2, 70>(duration_ns), "{duration_ns}");
    }

    #[test]
    fn the_layouts_reach_from_and_to_what_is_documented() {
        assert_eq!(LatencyHistogram::bound_ns(0), Some(64_000));
        assert_eq!(LatencyHistogram::bound_ns(20), Some(67_108_864_000));
        assert_eq!(LatencyHistogram::bound_ns(21), None);
        assert_eq!(GatewayHistogram::bound_ns(0), Some(1_000));
        assert_eq!(GatewayHistogram::bound_ns(17), Some(131_072_000));
        assert_eq!(FineHistogram::bound_ns(1), Some(1_250));
        assert_eq!(FineHistogram::bound_ns(68), Some(131_072_000));
        assert_eq!(FineHistogram::bound_ns(69), None);
    }

    #[test]
    fn bounds_are_inclusive() {
        for i in 0..69 {
            let bound = FineHistogram::bound_ns(i).expect("a finite bound");
            for duration in [bound - 1, bound, bound + 1] {
                check(duration);
            }
        }
        check(0);
        check(u64::MAX);
    }

    proptest! {
        #[test]
        fn the_bit_trick_finds_the_bucket_of_a_linear_search(high in 0u32..64, low in any::<u64>()) {
            check((1u64 << high) | (low & ((1u64 << high) - 1)));
        }
    }

    #[test]
    fn totals_add_up_over_histograms() {
        let (a, b) = (GatewayHistogram::default(), GatewayHistogram::default());
        for duration in [0, 1_000, 1_001, 500_000_000] {
            a.record(duration);
        }
        b.record(1_000);
        let mut totals = Totals::default();
        a.add_to(&mut totals);
        b.add_to(&mut totals);
        assert_eq!(totals.count(), 5);
        assert_eq!((totals.buckets[0], totals.buckets[1], totals.buckets[18]), (3, 1, 1));
        assert_eq!(totals.sum_ns, 500_003_001);
    }
}
