//! Tokens whose signature was found good.
//!
//! Owns the map from a token's bytes to what its verification gave. Never decides whether the token is good *now*:
//! the times are kept beside it and looked at with every use.
//!
//! Bounded by number and by bytes. Which one goes when it is full is decided by one hand that goes round (second
//! chance): a token that was used since the hand passed last stays, so a flood of tokens that come only once cannot
//! push out those in use.
//!
//! **Invariant.** A hit means that the very same bytes were verified: hashes only say where to look.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use crate::id::ConsumerId;
use crate::plugin::consumer::CredentialRef;

/// Most tokens of one plugin instance on one shard.
const ENTRIES_MAX: usize = 4096;
/// Most bytes of tokens of one plugin instance on one shard.
const BYTES_MAX: usize = 2 << 20;
/// How much of a token is hashed. Its end is the signature, in which no two good tokens agree.
const HASHED: usize = 64;

/// Whose a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Credential(CredentialRef),
    /// Signed with a published key; of this consumer, if it names one.
    Published(Option<ConsumerId>),
}

/// What the verification of a token gave. Times are whole seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    pub owner: Owner,
    /// First second at which it is good.
    pub not_before: u64,
    /// First second at which it is not any more.
    pub expires: u64,
}

struct Slot {
    hash: u64,
    token: Box<[u8]>,
    verified: Verified,
    used: bool,
}

/// The cache of one plugin instance on one shard.
pub struct Cache {
    /// Keyed with randomness of its own, so that nobody can choose tokens that collide.
    hashes: RandomState,
    /// From a token's hash to its slot.
    index: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
    slots: Vec<Slot>,
    hand: usize,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
}

impl Cache {
    /// An empty cache; owns no memory yet.
    pub fn new() -> Self {
        Self::bounded(ENTRIES_MAX, BYTES_MAX)
    }

    fn bounded(entries_max: usize, bytes_max: usize) -> Self {
        Self {
            hashes: RandomState::new(),
            index: HashMap::default(),
            slots: Vec::new(),
            hand: 0,
            bytes: 0,
            entries_max,
            bytes_max,
        }
    }

    /// What is known about a token.
    #[inline]
    pub fn get(&mut self, token: &[u8]) -> Option<Verified> {
        let at = *self.index.get(&self.hash(token))?;
        let slot = self.slots.get_mut(at as usize).filter(|slot| *slot.token == *token)?;
        slot.used = true;
        Some(slot.verified)
    }

    /// Remembers a token. Of the others, one that has expired at `now` goes first.
    pub fn insert(&mut self, token: &[u8], verified: Verified, now: u64) {
        if token.len() > self.bytes_max {
            return;
        }
        let hash = self.hash(token);
        if let Some(&at) = self.index.get(&hash) {
            self.remove(at as usize);
        }
        while self.slots.len() >= self.entries_max || self.bytes + token.len() > self.bytes_max {
            self.evict(now);
        }
        self.index.insert(hash, self.slots.len() as u32);
        self.bytes += token.len();
        self.slots.push(Slot { hash, token: token.into(), verified, used: false });
    }

    fn evict(&mut self, now: u64) {
        loop {
            self.hand = if self.hand < self.slots.len() { self.hand } else { 0 };
            let Some(slot) = self.slots.get_mut(self.hand) else { return };
            if !slot.used || now >= slot.verified.expires {
                return self.remove(self.hand);
            }
            slot.used = false;
            self.hand += 1;
        }
    }

    fn remove(&mut self, at: usize) {
        let slot = self.slots.swap_remove(at);
        self.index.remove(&slot.hash);
        self.bytes -= slot.token.len();
        if let Some(moved) = self.slots.get(at) {
            self.index.insert(moved.hash, at as u32);
        }
    }

    #[inline]
    fn hash(&self, token: &[u8]) -> u64 {
        let mut hasher = self.hashes.build_hasher();
        hasher.write(&token[token.len().saturating_sub(HASHED)..]);
        hasher.write_usize(token.len());
        hasher.finish()
    }
}

/// The keys of the index are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used: the only keys are u64. Correct all the same.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(number: u32, expires: u64) -> Verified {
        Verified { owner: Owner::Credential(CredentialRef(number)), not_before: 0, expires }
    }

    fn of(cache: &mut Cache, token: &str) -> Option<u32> {
        cache.get(token.as_bytes()).map(|verified| match verified.owner {
            Owner::Credential(credential) => credential.0,
            Owner::Published(_) => panic!("no credential"),
        })
    }

    fn is_sound(cache: &Cache) {
        assert_eq!(cache.index.len(), cache.slots.len());
        assert_eq!(cache.bytes, cache.slots.iter().map(|slot| slot.token.len()).sum::<usize>());
        assert!(cache.slots.len() <= cache.entries_max && cache.bytes <= cache.bytes_max);
        for (at, slot) in cache.slots.iter().enumerate() {
            assert_eq!(cache.index.get(&slot.hash), Some(&(at as u32)));
        }
    }

    #[test]
    fn only_the_same_bytes_hit() {
        let mut cache = Cache::new();
        let tail = "t".repeat(HASHED);
        let (token, twin) = (format!("a{tail}"), format!("b{tail}"));
        cache.insert(token.as_bytes(), verified(1, 9), 0);
        assert_eq!(of(&mut cache, &token), Some(1));
        // The same hash, because only the end goes into it.
        assert_eq!(cache.hash(token.as_bytes()), cache.hash(twin.as_bytes()));
        assert_eq!(of(&mut cache, &twin), None);
        cache.insert(twin.as_bytes(), verified(2, 9), 0);
        assert_eq!((of(&mut cache, &token), of(&mut cache, &twin)), (None, Some(2)));
        assert_eq!(of(&mut cache, &token[1..]), None);
        assert_eq!(of(&mut cache, ""), None);
        is_sound(&cache);
    }

    #[test]
    fn tokens_in_use_outlive_a_flood() {
        let mut cache = Cache::bounded(8, 1000);
        for number in 0..4 {
            cache.insert(format!("used-{number}").as_bytes(), verified(number, 100), 0);
        }
        for number in 0..1000 {
            for used in 0..4 {
                assert_eq!(of(&mut cache, &format!("used-{used}")), Some(used), "after {number}");
            }
            cache.insert(format!("once-{number}").as_bytes(), verified(number, 100), 0);
            is_sound(&cache);
        }
        assert_eq!(cache.slots.len(), 8);
    }

    #[test]
    fn bytes_are_bounded_and_expired_tokens_go_first() {
        let mut cache = Cache::bounded(100, 30);
        cache.insert(&[b'a'; 10], verified(1, 100), 0);
        cache.insert(&[b'b'; 10], verified(2, 50), 0);
        cache.insert(&[b'c'; 10], verified(3, 100), 0);
        assert!(["a", "b", "c"].iter().all(|token| of(&mut cache, &token.repeat(10)).is_some()));
        // All three were used; b has expired.
        cache.insert(&[b'd'; 10], verified(4, 100), 60);
        assert_eq!(of(&mut cache, &"b".repeat(10)), None);
        is_sound(&cache);
        cache.insert(&[b'e'; 25], verified(5, 100), 60);
        assert_eq!((cache.slots.len(), of(&mut cache, &"e".repeat(25))), (1, Some(5)));
        cache.insert(&[b'f'; 31], verified(6, 100), 60);
        assert_eq!(of(&mut cache, &"f".repeat(31)), None);
        is_sound(&cache);
    }
}
