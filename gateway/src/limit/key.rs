//! The 64-bit keys under which a table holds its words.
//!
//! Owns the mapping from addresses and from arbitrary bytes to keys. A source's key is its address
//! (IPv6: its /64), which the XDP program computes as well. Everything else is hashed with a secret of
//! this process into the keys whose top byte is `0x08`, where no address ends up.
//!
//! Invariant: nobody outside can choose two limited things that share a key, or a set of the table.

use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;

use portcullis_abi::{Secret, key_v4, key_v6};

/// Keys of everything but addresses have this top byte.
const LIMIT_KEY: u64 = 0x08 << 56;
/// What is left for the hash. With a million keys in use, two of them collide with a chance of 7 in a
/// million.
const HASH_MASK: u64 = (1 << 56) - 1;

/// Two random words and SipHash, drawn once: keys must agree on all shards and over reloads.
static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Tells limiters apart whose keys have the same parts.
///
/// It follows from a *name*, not from a place in the configuration, so that a limiter finds its counts
/// again after a reload. It differs from process to process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimiterId(u64);

impl LimiterId {
    /// The limiter with a number of its own, which must be stable over reloads.
    pub fn from_number(number: u64) -> LimiterId {
        LimiterId(HASH.hash_one(number))
    }

    /// The limiter called `name`, which must be unique among limiters and stable over reloads.
    pub fn of(name: &str) -> LimiterId {
        LimiterId(HASH.hash_one(name))
    }
}

/// The key of what `parts` describe (a consumer's id, a header's value, ...) under one limiter. Allocates
/// nothing; about 20 ns for short parts.
pub fn limit_key(limiter: LimiterId, parts: &[&[u8]]) -> u64 {
    let mut key = KeyHasher::new(limiter);
    parts.iter().for_each(|part| key.part(part));
    key.finish()
}

/// A [`limit_key`] in the making, for who has its parts one after the other.
pub struct KeyHasher(DefaultHasher);

impl KeyHasher {
    /// Without parts yet.
    pub fn new(limiter: LimiterId) -> Self {
        let mut hasher = HASH.build_hasher();
        hasher.write_u64(limiter.0);
        Self(hasher)
    }

    /// Adds a part.
    pub fn part(&mut self, part: &[u8]) {
        // With its length, or ("ab", "c") and ("a", "bc") would be one key.
        self.0.write_usize(part.len());
        self.0.write(part);
    }

    /// The key.
    pub fn finish(&self) -> u64 {
        LIMIT_KEY | (self.0.finish() & HASH_MASK)
    }
}

/// The key of a source: an IPv4 address, or the /64 of an IPv6 one. A v4-mapped IPv6 address is the IPv4
/// source that it stands for.
#[inline]
pub fn source_key(source: IpAddr) -> u64 {
    match source {
        IpAddr::V4(addr) => key_v4(addr.to_bits()),
        IpAddr::V6(addr) => key_v6(addr.octets()),
    }
}

/// A secret for a new table, from the system's randomness.
pub fn random_secret() -> Secret {
    // Each `RandomState` is seeded from the kernel; SipHash of anything under it is as good as random.
    let (a, b) = (RandomState::new(), RandomState::new());
    Secret { a: a.hash_one(1u8), b: b.hash_one(2u8) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn limiters_and_parts_are_told_apart() {
        let (a, b) = (LimiterId::of("a"), LimiterId::of("b"));
        assert_eq!(a, LimiterId::of("a"));
        assert_ne!(LimiterId::from_number(1), LimiterId::from_number(2));
        let keys = [
            limit_key(a, &[b"ab", b"c"]),
            limit_key(a, &[b"a", b"bc"]),
            limit_key(a, &[b"abc"]),
            limit_key(a, &[b"abc", b""]),
            limit_key(a, &[]),
            limit_key(b, &[b"ab", b"c"]),
        ];
        assert_eq!(HashSet::from(keys).len(), keys.len());
        assert_eq!(keys[0], limit_key(a, &[b"ab", b"c"]));
        assert!(keys.iter().all(|key| key >> 56 == 0x08));
    }

    #[test]
    fn sources_are_keyed_by_address_or_prefix() {
        let key = |text: &str| source_key(text.parse().expect("an address"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    }

    #[test]
    fn secrets_differ() {
        assert_ne!(random_secret(), random_secret());
    }
}
