//! Consistent hashing: the same request to the same target, on every shard and node, and few requests moved when the
//! list of targets changes.
//!
//! Owns two tables with that promise. The ring (Kong's) has shares that deviate by some percent and moves the least;
//! Maglev's has exact shares and costs one look-up, and moves a little more. Neither knows of health: a target that is
//! out is stepped over, so only its own requests move.

use super::{TargetIndex, mix};

/// Points on a circle, more of them for more weight; the same in every shard and every process that has the same
/// targets, whatever their order.
#[derive(Debug)]
pub struct Ring {
    /// Sorted by hash.
    points: Vec<(u64, TargetIndex)>,
}

/// The table of Maglev (Eisenbud et al., NSDI 2016, section 3.4), with weights as Envoy has them.
#[derive(Debug)]
pub struct Maglev {
    /// Entry by hash modulo its prime length.
    table: Vec<TargetIndex>,
}

impl Ring {
    /// A ring of targets, each with a key that names it for good (a hash of its address) and a weight. An empty list,
    /// or no weight above 0, gives an empty ring, which picks nothing.
    pub fn new(targets: &[(u64, u32)]) -> Ring {
        let all: u64 = targets.iter().map(|&(_, weight)| u64::from(weight)).sum();
        let weighty = targets.iter().filter(|&&(_, weight)| weight > 0).count() as u64;
        let mut points = Vec::new();
        for (index, &(key, weight)) in (0..).zip(targets) {
            let share = POINTS_PER_TARGET * weighty * u64::from(weight);
            // Rounded, but nobody with a weight goes without a point.
            let count = if weight == 0 { 0 } else { ((share + all / 2) / all).max(1) };
            points.extend((0..count).map(|nth| (mix(key ^ mix(nth + 1)), TargetIndex(index))));
        }
        points.sort_unstable();
        Ring { points }
    }

    pub(super) fn pick(&self, hash: u64, eligible: impl Fn(TargetIndex) -> bool) -> Option<TargetIndex> {
        // Spread, since hashes of requests need not be.
        let start = self.points.partition_point(|&(point, _)| point < mix(hash));
        let (before, from) = self.points.split_at(start);
        let mut last = None;
        from.iter().chain(before).map(|&(_, target)| target).find(|&target| {
            // Neighbours on the ring are often the same target.
            last.replace(target) != Some(target) && eligible(target)
        })
    }
}

impl Maglev {
    /// A table of targets, each with a key that names it for good and a weight. An empty list, or no weight above 0,
    /// gives a table that picks nothing.
    pub fn new(targets: &[(u64, u32)]) -> Maglev {
        let most = targets.iter().map(|&(_, weight)| weight).max().unwrap_or(0);
        if most == 0 {
            return Maglev { table: Vec::new() };
        }
        let mut turns: Vec<Turn> =
            (0..).zip(targets).map(|(index, &(key, weight))| Turn::new(index, key, weight)).collect();
        turns.retain(|turn| turn.weight > 0);
        let mut table = vec![None; TABLE_SIZE as usize];
        let mut empty = table.len();
        // In each round a target takes as many entries as it has earned: all of them at full weight, in every second
        // round at half of it.
        for round in 1.. {
            for turn in &mut turns {
                while turn.taken * u64::from(most) < round * u64::from(turn.weight) && empty > 0 {
                    let free = turn.next_free(&table);
                    table[free] = Some(turn.target);
                    turn.taken += 1;
                    empty -= 1;
                }
            }
            if empty == 0 {
                break;
            }
        }
        Maglev { table: table.into_iter().flatten().collect() }
    }

    pub(super) fn pick(&self, hash: u64, eligible: impl Fn(TargetIndex) -> bool) -> Option<TargetIndex> {
        let len = self.table.len();
        let start = mix(hash).checked_rem(len as u64)? as usize;
        let mut last = None;
        self.table[start..]
            .iter()
            .chain(&self.table[..start])
            .copied()
            .find(|&target| last.replace(target) != Some(target) && eligible(target))
    }
}

/// A target on its way through the table.
struct Turn {
    target: TargetIndex,
    weight: u32,
    at: u64,
    skip: u64,
    taken: u64,
}

impl Turn {
    fn new(index: u32, key: u64, weight: u32) -> Turn {
        let (offset, skip) = (mix(key) % TABLE_SIZE, mix(key ^ 1) % (TABLE_SIZE - 1) + 1);
        Turn { target: TargetIndex(index), weight, at: offset, skip, taken: 0 }
    }

    /// The next entry in its own order that nobody has. There is one.
    fn next_free(&mut self, table: &[Option<TargetIndex>]) -> usize {
        loop {
            let at = self.at as usize;
            self.at = (self.at + self.skip) % TABLE_SIZE;
            if table[at].is_none() {
                return at;
            }
        }
    }
}

/// On average. The share of a target of weight w then deviates by about 1 / sqrt(160), 8 %.
const POINTS_PER_TARGET: u64 = 160;

/// A prime, Envoy's and Maglev's usual; shares are exact to 1 / 65537 while there are few targets.
const TABLE_SIZE: u64 = 65_537;
