//! Large groups whose paths have few lengths: a hash table of paths, asked once for each length.
//!
//! Owns the lengths and the order in which they are asked. A trie among thousands of paths takes a node for every few
//! bytes, one after the other; here the bytes up to a length are hashed and found or not, and the best lengths go
//! first, so that mostly the first answer is the last. Never ranks. Invariant: every leaf whose key the path begins with
//! and that beats the bound is offered.

use std::collections::BTreeMap;

use super::leaves::{Leaf, MOST_LEAVES};
use super::paths::{EntryId, Group};
use super::table::Table;
use super::words;

/// With more lengths than this a group has a trie.
const MOST_LENGTHS: usize = if cfg!(test) { 3 } else { 8 };
/// Longer keys would cost too much to hash.
const LONGEST_KEY: usize = 128;

/// The paths of one group.
#[derive(Debug)]
pub(super) struct Lengths {
    /// With the best entry whose key is so long, best first.
    lengths: Vec<(EntryId, usize)>,
    table: Table,
    /// Those with the same key one after the other, best first.
    leaves: Vec<Leaf>,
}

impl Lengths {
    /// Of leaves and their keys. Nothing where a trie suits better.
    pub(super) fn new(mut placed: Vec<(&[u8], Leaf)>) -> Option<Lengths> {
        let mut best: BTreeMap<usize, EntryId> = BTreeMap::new();
        for (key, leaf) in &placed {
            let best = best.entry(key.len()).or_insert(leaf.entry);
            *best = leaf.entry.min(*best);
        }
        let longest = best.last_key_value().map_or(0, |(len, _)| *len);
        if best.len() > MOST_LENGTHS || longest > LONGEST_KEY {
            return None;
        }
        placed.sort_by_key(|(key, leaf)| (*key, leaf.entry));
        let mut table = Table::default();
        let mut groups: Vec<Group> = Vec::new();
        for (at, (key, leaf)) in placed.iter().enumerate() {
            let fresh = groups.len() as u32;
            if table.get_or_insert(words::hash(key), key, fresh) == fresh {
                groups.push(Group { start: at as u32, best: leaf.entry, leaves: 0 });
            }
            let group = groups.last_mut()?;
            group.leaves += 1;
            if usize::from(group.leaves) > MOST_LEAVES {
                return None;
            }
        }
        let leaves: Vec<Leaf> = placed.into_iter().map(|(_, leaf)| leaf).collect();
        table.map(|group| {
            let group = groups[group as usize];
            (group, Some(leaves[group.start as usize].clone()))
        });
        let mut lengths: Vec<(EntryId, usize)> = best.into_iter().map(|(len, best)| (best, len)).collect();
        lengths.sort_unstable();
        Some(Lengths { lengths, table, leaves })
    }

    /// Calls `visit` with the leaves whose keys `path` begins with, as long as one may be better than the entry that
    /// `visit` last returned.
    #[inline]
    pub(super) fn walk<'t>(
        &'t self,
        path: &[u8],
        mut bound: EntryId,
        mut visit: impl FnMut(&'t Leaf) -> EntryId,
    ) {
        for &(best, len) in &self.lengths {
            if best >= bound {
                return;
            }
            let Some(key) = path.get(..len) else { continue };
            let Some(slot) = self.table.get(words::hash(key), key) else { continue };
            let others = &self.leaves[slot.group.start as usize..][1..usize::from(slot.group.leaves)];
            for leaf in std::iter::once(&slot.first).chain(others) {
                if leaf.entry >= bound {
                    break;
                }
                bound = visit(leaf);
            }
        }
    }
}
