//! The 64-bit identity of a source in the bucket table.
//!
//! | top 16 bits | source |
//! |---|---|
//! | 0 | empty way; no source has it |
//! | `0x0001` | IPv4, address in the low 32 bits; also v4-mapped (`::ffff:0:0/96`) and NAT64 (`64:ff9b::/96`) |
//! | `0x0002` | IPv6 from `::/4` (loopback, unassigned), low 48 bits of its /64 |
//! | `0x0003` | the /24 of IPv4 sources, in the low 24 bits |
//! | `0x0004` | the /48 of IPv6 sources, in the low 48 bits |
//! | `0x0006` | the bucket of a source under one rule, hashed |
//! | `0x0007` | what a source has done lately, as the proxy meters it, hashed |
//! | `0x08..` to `0x0f..` (top byte) | the proxy's own limit keys; no address maps here |
//! | from `0x1000` | IPv6, the /64 as it is |
//!
//! IPv6 is keyed by /64 because one subscriber owns at least that much: a limit by full address would
//! give every client 2^64 buckets. The low part of the space is folded so that a spoofed IPv6 source can
//! reach neither the empty key nor the proxy's keys.

use crate::Secret;

const V4: u64 = 0x0001 << 48;
const LOW_V6: u64 = 0x0002 << 48;
const LOW_V6_MASK: u64 = (1 << 48) - 1;

/// First /64 that is its own key.
const FIRST_PLAIN_V6: u64 = 0x1000 << 48;

/// Key of an IPv4 source; `addr` is the address as a number, `u32::from(Ipv4Addr)`.
#[inline(always)]
pub const fn key_v4(addr: u32) -> u64 {
    V4 | addr as u64
}

/// Key of an IPv6 source, its octets in network order.
#[inline(always)]
pub const fn key_v6(addr: [u8; 16]) -> u64 {
    let bits = u128::from_be_bytes(addr);
    key_v6_halves((bits >> 64) as u64, bits as u64)
}

/// As [`key_v6`], from the upper and the lower half as numbers.
#[inline(always)]
pub const fn key_v6_halves(network: u64, host: u64) -> u64 {
    if network >= FIRST_PLAIN_V6 {
        return network;
    }
    let mapped = network == 0 && host >> 32 == 0xffff;
    let nat64 = network == 0x0064_ff9b_0000_0000 && host >> 32 == 0;
    if mapped || nat64 { key_v4(host as u32) } else { LOW_V6 | (network & LOW_V6_MASK) }
}

const V4_NET: u64 = 0x0003 << 48;
const V6_NET: u64 = 0x0004 << 48;
const RULE: u64 = 0x0006 << 48;
const OFFENCE: u64 = 0x0007 << 48;
const LOW_48: u64 = (1 << 48) - 1;

/// Whether the key of a source is that of an IPv4 address.
#[inline(always)]
pub const fn is_v4(key: u64) -> bool {
    key >> 48 == V4 >> 48
}

/// The key of the /24 or /48 that a source is in, from the source's key.
#[inline(always)]
pub const fn aggregate_key(key: u64) -> u64 {
    if is_v4(key) { V4_NET | (key & 0xffff_ffff) >> 8 } else { V6_NET | key >> 16 }
}

/// The key of a source's bucket under rule `id`. Hashed with the secret, so that nobody outside can choose sources whose
/// buckets are one.
#[inline(always)]
pub const fn rule_key(key: u64, id: u32, secret: &Secret) -> u64 {
    RULE | mixed(key, id, secret) & LOW_48
}

/// The key of the meter of one kind of offence of a source.
#[inline(always)]
pub const fn offence_key(key: u64, kind: u32, secret: &Secret) -> u64 {
    OFFENCE | mixed(key, kind, secret) & LOW_48
}

#[inline(always)]
const fn mixed(key: u64, number: u32, secret: &Secret) -> u64 {
    let mut h = (key ^ secret.b).wrapping_mul(secret.a | 1);
    h ^= h >> 29;
    h = (h ^ (number as u64) << 32).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h ^= h >> 32;
    h = h.wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ h >> 31
}
