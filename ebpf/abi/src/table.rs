//! The set-associative table of sources.
//!
//! A source lives in one of the four ways of the set its key hashes to. When all four belong to others, the
//! one that loses least is evicted: an empty way, then the lowest TAT (a TAT that has passed carries no
//! information at all), then a live established mark, then a live ban. Heavy hitters have the highest TATs,
//! so a flood of spoofed sources, each with one token of debt, evicts spoofed sources and not them.
//!
//! **What holds under races**, modelled in `tests/loom.rs`:
//! * A key that its set already holds is found; concurrent charges to it are all counted.
//! * Concurrent insertions of one key end with one way holding it (the lowest of those taken); debt charged
//!   to a duplicate that is seen is carried over.
//! * Whoever still holds a `&Way` when it is evicted writes to its next owner: at most one operation per
//!   holder. So a newcomer may pay or be refunded a stranger's single charge. Nobody may keep a `&Way`
//!   across a wait. Bans and marks are stricter.
//! * A ban or mark set in the very moment in which its source is evicted may be lost; it never stays on
//!   another source.
//! * A newcomer does not inherit the debt of the evicted source: what was observed before the eviction is
//!   subtracted, what raced with it is kept.

use core::sync::atomic::AtomicU64;

use crate::block::{bans, establishes};
use crate::gcra::later;
use crate::{Word, block};

/// Ways a set: one 128-byte pair of cache lines, the unit that x86 prefetches.
pub const WAYS: usize = 4;

/// One source.
#[derive(Debug)]
#[repr(C)]
pub struct Way<W = AtomicU64> {
    /// Whose words these are ([`crate::key_v4`], [`crate::key_v6`]); 0 is empty.
    pub key: W,
    /// TAT of packets to our listeners, charged by the XDP program alone.
    pub packet_tat: W,
    /// TAT of requests: one token by the XDP program for each new connection, requests and penalties by
    /// the proxy. This is the word that closes the loop.
    pub request_tat: W,
    /// Ban or established mark, see [`crate::Block`].
    pub block: W,
}

/// The places a source may live in.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Set<W = AtomicU64> {
    /// In no order; the first that matches counts.
    pub ways: [Way<W>; WAYS],
}

const _: () = assert!(size_of::<Way>() == 32 && size_of::<Set>() == 128 && align_of::<Set>() == 128);

// For the plain word only: one impl, so that `Set::default()` needs no annotation.
impl Default for Way {
    fn default() -> Way {
        let word = || AtomicU64::new(0);
        Way { key: word(), packet_tat: word(), request_tat: word(), block: word() }
    }
}

impl Default for Set {
    fn default() -> Set {
        Set { ways: core::array::from_fn(|_| Way::default()) }
    }
}

/// Two random words of this boot. They key the hash, so that nobody outside can choose sources that share
/// a set and squeeze each other, or a victim, out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Secret {
    /// Added to the key before the multiplication.
    pub a: u64,
    /// The multiplier; its lowest bit is taken as 1.
    pub b: u64,
}

/// The set of `key` among `sets` (a power of two, at most 2^32). 64-bit multiplications only: the BPF
/// target has no 128-bit ones.
#[inline(always)]
pub const fn set_index(key: u64, secret: &Secret, sets: usize) -> usize {
    let mut h = (key ^ secret.a).wrapping_mul(secret.b | 1);
    h ^= h >> 32;
    h = h.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^= h >> 29;
    h as usize & (sets - 1)
}

impl<W: Word> Way<W> {
    /// Whether the source is banned at `now`.
    #[inline(always)]
    pub fn is_banned(&self, now: u64) -> bool {
        bans(self.block.read(), now)
    }

    /// The block word, read.
    pub fn block_at(&self, now: u64) -> block::Block {
        block::Block::from_word(self.block.read(), now)
    }

    /// Order of eviction, lowest first, of a way that `owner` holds. TATs are below 2^62 (146 years of uptime).
    #[inline(always)]
    fn rank(&self, owner: u64, now: u64) -> u64 {
        const ESTABLISHED: u64 = 1 << 62;
        const BANNED: u64 = 1 << 63;
        if owner == 0 {
            return 0;
        }
        let debt = later(self.packet_tat.read(), self.request_tat.read()) & (ESTABLISHED - 1);
        let block = self.block.read();
        if bans(block, now) {
            BANNED | (block & (ESTABLISHED - 1))
        } else if establishes(block, now) {
            ESTABLISHED | debt
        } else {
            debt
        }
    }
}

/// The way of `key`, if its set holds it. `key` is not 0.
#[inline(always)]
pub fn find<W: Word>(set: &Set<W>, key: u64) -> Option<&Way<W>> {
    set.ways.iter().find(|way| way.key.read() == key)
}

/// The way of `key`, taken from the source that loses least if there is none. Retries until it has one:
/// each retry means that another insertion into this set landed.
pub fn find_or_take<W: Word>(set: &Set<W>, key: u64, now: u64) -> &Way<W> {
    loop {
        if let Some(way) = find_or_take_within(set, key, now) {
            return way;
        }
    }
}

/// As [`find_or_take`], giving up with `None` when another insertion took the same way first: the kernel's
/// form, which then lets the packet pass.
#[inline(always)]
pub fn find_or_take_within<W: Word>(set: &Set<W>, key: u64, now: u64) -> Option<&Way<W>> {
    match find(set, key) {
        Some(way) => Some(way),
        None => take(set, key, now),
    }
}

// Kept out of line so that the common case, a source that has its way, stays short.
#[inline(never)]
fn take<W: Word>(set: &Set<W>, key: u64, now: u64) -> Option<&Way<W>> {
    let mut way = &set.ways[0];
    let mut evicted = 0;
    let mut lowest = u64::MAX;
    for candidate in &set.ways {
        // The owner is read before what it is judged by: if the way changes hands, the exchange below fails.
        let owner = candidate.key.read();
        if owner == key {
            return Some(candidate);
        }
        let rank = candidate.rank(owner, now);
        if rank < lowest {
            lowest = rank;
            evicted = owner;
            way = candidate;
        }
    }

    let packet_tat = way.packet_tat.read();
    let request_tat = way.request_tat.read();
    if let Err(seen) = way.key.swap_if(evicted, key) {
        // The commonest race is two packets of one new source: the other one has done the work.
        return if seen == key { Some(way) } else { None };
    }
    W::fence();
    forget(&way.packet_tat, packet_tat, now);
    forget(&way.request_tat, request_tat, now);
    // Read again, not before: a ban set since then was meant for the evicted source. Whoever sets one
    // either sees the new owner afterwards and takes it back, or is seen here.
    let block = way.block.read();
    if block != 0 {
        let _ = way.block.swap_if(block, 0);
    }
    Some(settle(set, way, key))
}

/// Takes the evicted source's debt out of a word and keeps what was charged to it since. Nothing to do for
/// a TAT that has passed, which is nearly always.
#[inline(always)]
fn forget<W: Word>(word: &W, observed: u64, now: u64) {
    if observed <= now {
        return;
    }
    let mut tat = observed;
    for _ in 0..WAYS {
        // Charges only add to `observed`, so the difference is the newcomer's own.
        match word.swap_if(tat, now.saturating_add(tat.saturating_sub(observed))) {
            Ok(()) => return,
            Err(seen) => tat = seen,
        }
    }
}

/// Two insertions of one key may pick different ways. Both look again after writing, so at least one sees
/// the other; the lower way wins.
#[inline(always)]
fn settle<'a, W: Word>(set: &'a Set<W>, mine: &'a Way<W>, key: u64) -> &'a Way<W> {
    let mut kept = None;
    for way in &set.ways {
        if way.key.read() != key {
            continue;
        }
        match kept {
            None => kept = Some(way),
            Some(first) => {
                raise(&first.packet_tat, way.packet_tat.read());
                raise(&first.request_tat, way.request_tat.read());
                let _ = way.key.swap_if(key, 0);
            }
        }
    }
    kept.unwrap_or(mine)
}

#[inline(always)]
fn raise<W: Word>(word: &W, to: u64) {
    let tat = word.read();
    if tat < to {
        // Losing this exchange loses one source's first tokens at most; not worth a loop in the kernel.
        let _ = word.swap_if(tat, to);
    }
}
