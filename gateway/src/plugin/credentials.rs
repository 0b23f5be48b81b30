//! The credentials of all consumers, and the look-up of API keys: made for a million of them.
//!
//! Owns the two tables. A credential takes 12 bytes and its name, an API key 32 bytes; nothing is allocated for one alone.
//!
//! **Invariant.** A key is known by its hash only: the key itself is nowhere in memory once the configuration is read.

use std::time::Duration;

use portcullis_config::KeyHash;

use super::consumer::{Credential, CredentialRef};
use crate::id::ConsumerId;

/// All credentials by number.
#[derive(Default)]
pub struct Credentials {
    entries: Vec<(ConsumerId, u32, u32)>,
    /// The identifiers, one after the other.
    names: String,
}

impl Credentials {
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

/// API keys by their hashes: open addressing, at most three quarters full, so that a look-up touches one place in memory,
/// or two. The hash places a key, and nobody outside chooses which keys there are.
#[derive(Default)]
pub struct KeyTable {
    slots: Vec<Slot>,
    keys: usize,
}

#[derive(Clone, Copy)]
struct Slot {
    hash: KeyHash,
    /// [`NOBODY`] in a free slot.
    credential: u32,
    /// Wall clock in seconds; the highest for ever.
    expires: u32,
}

const NOBODY: u32 = u32::MAX;
const FOR_EVER: u32 = u32::MAX;

impl KeyTable {
    /// A table for so many keys.
    pub fn with_room(keys: usize) -> Self {
        let mut table = Self::default();
        table.rebuild(keys);
        table
    }

    /// Adds a key that counts until the wall clock says `expires`. False where it is there.
    pub fn insert(&mut self, hash: KeyHash, credential: CredentialRef, expires: Duration) -> bool {
        if self.slots.len() < slots_for(self.keys + 1) {
            self.rebuild(2 * (self.keys + 1));
        }
        let at = self.place(hash);
        if self.slots[at].credential != NOBODY {
            return false;
        }
        let expires = u32::try_from(expires.as_secs()).unwrap_or(FOR_EVER);
        self.slots[at] = Slot { hash, credential: credential.0, expires };
        self.keys += 1;
        true
    }

    /// The credential that a key is, unless its life has ended at `wall`.
    #[inline]
    pub fn find(&self, hash: KeyHash, wall: Duration) -> Option<CredentialRef> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = self.slots[self.place(hash)];
        let alive = slot.expires == FOR_EVER || wall.as_secs() < u64::from(slot.expires);
        (slot.credential != NOBODY && alive).then_some(CredentialRef(slot.credential))
    }

    /// Where a key is, or would be put. There are free slots.
    fn place(&self, hash: KeyHash) -> usize {
        let slots = self.slots.len();
        // The hash as a fraction of the table.
        let mut at = ((u128::from(hash.number()) * slots as u128) >> 64) as usize;
        while self.slots[at].credential != NOBODY && self.slots[at].hash != hash {
            at = if at + 1 == slots { 0 } else { at + 1 };
        }
        at
    }

    fn rebuild(&mut self, keys: usize) {
        let free = Slot { hash: KeyHash::of(b""), credential: NOBODY, expires: 0 };
        let before = std::mem::replace(&mut self.slots, vec![free; slots_for(keys)]);
        for slot in before.into_iter().filter(|slot| slot.credential != NOBODY) {
            let at = self.place(slot.hash);
            self.slots[at] = slot;
        }
    }
}

/// Slots for so many keys, of which some are free.
fn slots_for(keys: usize) -> usize {
    keys + keys / 3 + 2
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
        assert_eq!(size_of::<Slot>(), 24);
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
