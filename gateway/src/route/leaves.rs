//! Small groups of hosts: their entries one after the other, best first, without a trie.
//!
//! Owns the leaf: one entry with its path and all that a request is held against, in one cache line. Among thousands
//! of hosts nearly every group is small and nothing of it is at hand; where the slot of its name leads straight to its
//! leaves, a request waits for memory twice. Never ranks: groups come in order. Invariant: a leaf says of a request
//! what the entry that it was made from says.

use super::conditions::MethodSet;
use super::paths::EntryId;
use super::{Entry, Taken, words};

/// Most entries of a group without a trie. Fewer than [`super::sets::WORTHWHILE`], as sets of expressions belong to
/// nodes of tries.
pub(super) const MOST_LEAVES: usize = if cfg!(test) { 2 } else { 6 };

/// One entry of a small group.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Leaf {
    pub(super) methods: MethodSet,
    pub(super) entry: EntryId,
    pub(super) taken: Taken,
    pub(super) key_len: u16,
    /// The bytes that the path must begin with, or as many of them as there is room for.
    key: [u8; MOST_KEY],
}

const MOST_KEY: usize = 38;
const _: () = assert!(size_of::<Leaf>() == 64);

impl Default for Leaf {
    /// Fits nothing.
    fn default() -> Leaf {
        let (methods, taken) = (MethodSet::NONE, super::NOTHING.taken);
        Leaf { methods, entry: EntryId::MAX, taken, key_len: 0, key: [0; MOST_KEY] }
    }
}

impl Leaf {
    pub(super) fn new(id: EntryId, entry: &Entry, key: &[u8]) -> Leaf {
        let mut start = [0; MOST_KEY];
        let len = key.len().min(MOST_KEY);
        start[..len].copy_from_slice(&key[..len]);
        Leaf { methods: entry.methods, entry: id, taken: entry.taken, key_len: key.len() as u16, key: start }
    }

    /// Whether the path begins with the key; `whole` gives a key that is longer than a leaf.
    #[inline]
    pub(super) fn takes<'k>(&self, path: &[u8], whole: impl FnOnce() -> &'k [u8]) -> bool {
        match self.key.get(..usize::from(self.key_len)) {
            Some(key) => words::starts_with(path, key),
            None => path.starts_with(&self.key) && path.starts_with(whole()),
        }
    }
}
