//! The credentials of all consumers, and the look-up of API keys: made for a million of them.
//!
//! Owns the two tables. A credential takes 12 bytes and its name, an API key 43 bytes; nothing is allocated for one alone.
//!
//! **Invariant.** A key is known by its hash only: the key itself is nowhere in memory once the configuration is read.

use std::collections::HashMap;
use std::time::Duration;

use portcullis_config::KeyHash;

use super::consumer::{Credential, CredentialRef};
use crate::id::ConsumerId;
use crate::kernel;

/// All credentials by number.
#[derive(Default)]
pub struct Credentials {
    entries: Vec<(ConsumerId, u32, u32)>,
    /// The identifiers, one after the other.
    names: String,
}

impl Credentials {
    /// With room for so many.
    pub fn with_room(count: usize) -> Self {
        let mut entries = Vec::with_capacity(count);
        kernel::prefer_large_pages(entries.spare_capacity_mut());
        Self { entries, names: String::new() }
    }

    /// Adds one. Names beyond 4 GiB in all are cut off.
    pub fn push(&mut self, consumer: ConsumerId, identifier: &str) -> CredentialRef {
        let start = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let len = u32::try_from(identifier.len()).ok().filter(|len| start.checked_add(*len).is_some());
        if len.is_some() {
            self.names.push_str(identifier);
        }
        self.entries.push((consumer, start, len.unwrap_or(0)));
        CredentialRef(self.entries.len() as u32 - 1)
    }

    /// One that was added.
    pub fn get(&self, credential: CredentialRef) -> Credential<'_> {
        let (consumer, start, len) = self.entries[credential.0 as usize];
        let (start, len) = (start as usize, len as usize);
        Credential { consumer, identifier: self.names.get(start..start + len).unwrap_or_default() }
    }
}

/// API keys by their hashes, in buckets of a cache line each, half of them free: a look-up touches one line, and now and
/// then the next. The hash places a key, and nobody outside chooses which keys there are.
#[derive(Default)]
pub struct KeyTable {
    buckets: Vec<Bucket>,
    keys: usize,
    /// When keys with [`ENDS`] end, by credential: wall clock in seconds.
    ends: HashMap<u32, u32>,
}

/// A look-up ends at the first bucket that has room.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Bucket {
    hashes: [KeyHash; SLOTS],
    /// [`NOBODY`] in a free slot; used ones come first.
    credentials: [u32; SLOTS],
}

const SLOTS: usize = 3;
const _: () = assert!(size_of::<Bucket>() == 64);
const NOBODY: u32 = u32::MAX;
/// Set in the credential of a key whose life ends.
const ENDS: u32 = 1 << 31;

impl KeyTable {
    /// A table for so many keys.
    pub fn with_room(keys: usize) -> Self {
        let mut table = Self::default();
        table.rebuild(keys);
        table
    }

    /// Adds a key that counts until the wall clock says `expires`. False where it is there.
    pub fn insert(&mut self, hash: KeyHash, credential: CredentialRef, expires: Duration) -> bool {
        if self.buckets.len() < buckets_for(self.keys + 1) {
            self.rebuild(2 * (self.keys + 1));
        }
        let (bucket, slot) = self.place(hash);
        if self.buckets[bucket].credentials[slot] != NOBODY {
            return false;
        }
        let mut word = credential.0;
        if let Ok(end) = u32::try_from(expires.as_secs()) {
            self.ends.insert(credential.0, end);
            word |= ENDS;
        }
        self.put(bucket, slot, hash, word);
        self.keys += 1;
        true
    }

    /// The credential that a key is, unless its life has ended at `wall`.
    #[inline]
    pub fn find(&self, hash: KeyHash, wall: Duration) -> Option<CredentialRef> {
        if self.buckets.is_empty() {
            return None;
        }
        let (bucket, slot) = self.place(hash);
        let word = self.buckets[bucket].credentials[slot];
        if word == NOBODY {
            return None;
        }
        let credential = word & !ENDS;
        let ended = || self.ends.get(&credential).is_none_or(|&end| wall.as_secs() >= u64::from(end));
        (word & ENDS == 0 || !ended()).then_some(CredentialRef(credential))
    }

    /// Bucket and slot where a key is, or would be put. There are free slots.
    #[inline]
    fn place(&self, hash: KeyHash) -> (usize, usize) {
        // The hash as a fraction of the table.
        let mut at = ((u128::from(hash.number()) * self.buckets.len() as u128) >> 64) as usize;
        loop {
            let bucket = &self.buckets[at];
            for slot in 0..SLOTS {
                if bucket.credentials[slot] == NOBODY || bucket.hashes[slot] == hash {
                    return (at, slot);
                }
            }
            at = if at + 1 == self.buckets.len() { 0 } else { at + 1 };
        }
    }

    fn put(&mut self, bucket: usize, slot: usize, hash: KeyHash, word: u32) {
        let bucket = &mut self.buckets[bucket];
        (bucket.hashes[slot], bucket.credentials[slot]) = (hash, word);
    }

    fn rebuild(&mut self, keys: usize) {
        let free = Bucket { hashes: [KeyHash::of(b""); SLOTS], credentials: [NOBODY; SLOTS] };
        let mut buckets = Vec::with_capacity(buckets_for(keys));
        kernel::prefer_large_pages(buckets.spare_capacity_mut());
        buckets.resize(buckets_for(keys), free);
        for bucket in std::mem::replace(&mut self.buckets, buckets) {
            for (hash, word) in bucket.hashes.into_iter().zip(bucket.credentials) {
                if word != NOBODY {
                    let (bucket, slot) = self.place(hash);
                    self.put(bucket, slot, hash, word);
                }
            }
        }
    }
}

/// Buckets for so many keys, with as many slots free again.
fn buckets_for(keys: usize) -> usize {
    keys * 2 / SLOTS + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_and_no_other() {
        let key = |number: u32| KeyHash::of(&number.to_le_bytes());
        for room in [0, 5000] {
            let mut table = KeyTable::with_room(room);
            assert_eq!(table.find(key(0), Duration::ZERO), None);
            for number in 0..5000 {
                assert!(table.insert(key(number), CredentialRef(number), Duration::MAX));
            }
            assert!(!table.insert(key(7), CredentialRef(0), Duration::MAX));
            for number in 0..10_000 {
                let found = table.find(key(number), Duration::ZERO);
                assert_eq!(found, (number < 5000).then_some(CredentialRef(number)));
            }
        }
        assert_eq!(KeyTable::default().find(key(0), Duration::ZERO), None);
    }

    #[test]
    fn names_are_kept_apart() {
        let mut credentials = Credentials::default();
        let (first, second) =
            (credentials.push(ConsumerId(1), "ann/key/0"), credentials.push(ConsumerId(2), ""));
        let third = credentials.push(ConsumerId(1), "b\u{e9}n");
        let named = |credential| credentials.get(credential);
        assert_eq!(named(first), Credential { consumer: ConsumerId(1), identifier: "ann/key/0" });
        assert_eq!(named(second), Credential { consumer: ConsumerId(2), identifier: "" });
        assert_eq!(named(third), Credential { consumer: ConsumerId(1), identifier: "b\u{e9}n" });
    }
}
