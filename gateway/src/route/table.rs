//! A hash table from a name to the entries of the routes that ask for it.
//!
//! Owns the layout: a lookup looks at one byte of each of eight slots at once, which are near even among thousands of
//! names, and then at the one slot that may be right, which holds the name, its group and the first leaf of that. So a
//! name that is there costs one wait for memory, and one that is not mostly none. The keys are the configuration's, so
//! that a client can not make them collide. Invariant: some bucket has a free slot, or a lookup would not end.

use super::leaves::Leaf;
use super::paths::{EntryId, Group};
use super::words;

/// Index of a group while routes are compiled.
pub(super) type GroupId = u32;

/// Open addressing by buckets of eight slots.
#[derive(Debug)]
pub(super) struct Table {
    /// By bucket: a byte of the hash of each slot's name, or [`FREE`].
    tags: Vec<[u8; BUCKET]>,
    slots: Vec<Slot>,
    used: usize,
    /// Of the entries of all groups; with names and before [`Table::map`] as good as any.
    best: EntryId,
    /// Keys that do not fit their slot.
    long_keys: Vec<Box<[u8]>>,
}

/// Two cache lines that are fetched together.
#[derive(Clone, Debug)]
#[repr(align(128))]
pub(super) struct Slot {
    hash: u32,
    /// While routes are compiled it begins with a [`GroupId`].
    pub(super) group: Group,
    key_len: u8,
    /// Of a key that is too long for this: its index in `long_keys`.
    key: [u8; MOST_KEY],
    /// The first of the group, if it has leaves.
    pub(super) first: Leaf,
}

const MOST_KEY: usize = 47;
const _: () = assert!(size_of::<Slot>() == 128);
const BUCKET: usize = 8;
const FREE: u8 = 0;

impl Default for Table {
    fn default() -> Table {
        Table { tags: Vec::new(), slots: Vec::new(), used: 0, best: EntryId::MAX, long_keys: Vec::new() }
    }
}

impl Table {
    /// What is kept for a key.
    #[inline]
    pub(super) fn get(&self, hash: u64, key: &[u8]) -> Option<&Slot> {
        if self.tags.is_empty() {
            return None;
        }
        let hash = short(hash);
        let mut bucket = self.home(hash);
        loop {
            let tags = u64::from_le_bytes(self.tags[bucket]);
            let mut hits = zero_bytes(tags ^ (EVERY_BYTE * u64::from(tag(hash))));
            while hits != 0 {
                let slot = &self.slots[bucket * BUCKET + hits.trailing_zeros() as usize / 8];
                if slot.hash == hash && words::same(self.key(slot), key) {
                    return Some(slot);
                }
                hits &= hits - 1;
            }
            if zero_bytes(tags) != 0 {
                return None;
            }
            bucket = self.behind(bucket);
        }
    }

    /// The group of this key, `fresh` if it has none yet.
    pub(super) fn get_or_insert(&mut self, hash: u64, key: &[u8], fresh: GroupId) -> GroupId {
        if self.tags.len() < buckets_for(self.used + 1) {
            self.rebuild(2 * buckets_for(self.used + 1));
        }
        if let Some(slot) = self.get(hash, key) {
            return slot.group.start;
        }
        let group = Group { start: fresh, ..Group::default() };
        let mut slot = Slot { hash: short(hash), group, key_len: u8::MAX, ..Slot::free() };
        if let Some(place) = slot.key.get_mut(..key.len()) {
            place.copy_from_slice(key);
            slot.key_len = key.len() as u8;
        } else {
            slot.key[..4].copy_from_slice(&(self.long_keys.len() as u32).to_le_bytes());
            self.long_keys.push(key.into());
        }
        self.place(slot);
        self.used += 1;
        self.best = 0;
        fresh
    }

    /// Replaces each group by what `filed` gives for it, with the first of its leaves if it has some.
    pub(super) fn map(&mut self, filed: impl Fn(GroupId) -> (Group, Option<Leaf>)) {
        self.rebuild(buckets_for(self.used));
        self.best = EntryId::MAX;
        let taken = self.tags.as_flattened().iter().zip(&mut self.slots).filter(|(tag, _)| **tag != FREE);
        for (_, slot) in taken {
            let (group, first) = filed(slot.group.start);
            slot.group = group;
            slot.first = first.unwrap_or_default();
            self.best = self.best.min(group.best);
        }
    }

    /// The best entry of all groups.
    #[inline]
    pub(super) fn best(&self) -> EntryId {
        self.best
    }

    #[inline]
    fn key<'t>(&'t self, slot: &'t Slot) -> &'t [u8] {
        match slot.key.get(..usize::from(slot.key_len)) {
            Some(key) => key,
            None => {
                &self.long_keys
                    [u32::from_le_bytes([slot.key[0], slot.key[1], slot.key[2], slot.key[3]]) as usize]
            }
        }
    }

    fn rebuild(&mut self, buckets: usize) {
        let tags = std::mem::replace(&mut self.tags, vec![[FREE; BUCKET]; buckets]);
        let slots = std::mem::replace(&mut self.slots, vec![Slot::free(); buckets * BUCKET]);
        for (_, slot) in tags.as_flattened().iter().zip(slots).filter(|(tag, _)| **tag != FREE) {
            self.place(slot);
        }
    }

    fn place(&mut self, slot: Slot) {
        let mut bucket = self.home(slot.hash);
        loop {
            if let Some(at) = self.tags[bucket].iter().position(|&tag| tag == FREE) {
                self.tags[bucket][at] = tag(slot.hash);
                self.slots[bucket * BUCKET + at] = slot;
                return;
            }
            bucket = self.behind(bucket);
        }
    }

    /// The hash as a fraction of the table.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.tags.len() as u64) >> 32) as usize
    }

    #[inline]
    fn behind(&self, bucket: usize) -> usize {
        if bucket + 1 == self.tags.len() { 0 } else { bucket + 1 }
    }
}

impl Slot {
    fn free() -> Slot {
        Slot { hash: 0, group: Group::default(), key_len: 0, key: [0; MOST_KEY], first: Leaf::default() }
    }
}

/// Buckets for so many names: five of eight slots are taken, so that few buckets are full.
fn buckets_for(names: usize) -> usize {
    if names == 0 { 0 } else { names / 5 + 1 }
}

#[inline]
fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Of the low bits: the high ones choose the bucket.
#[inline]
fn tag(hash: u32) -> u8 {
    hash as u8 | 1
}

const EVERY_BYTE: u64 = u64::MAX / 0xff;

/// The high bit of each byte that is zero. Bytes above one that is may be marked too, when they are 1.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(EVERY_BYTE) & !word & (EVERY_BYTE << 7)
}
