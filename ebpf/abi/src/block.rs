//! The block word of a way: until when, and what the source is until then.
//!
//! `until` in ns with its low 12 bits replaced: bits 0-1 kind, 2-3 ban level, 4-11 [`Reason`] of a ban. So a
//! time is kept to 4.1 us, and a mark ends by itself when the clock passes it, with user space stopped.

use crate::table::{Set, find, find_or_take};
use crate::{Reason, Word};

const LOW_BITS: u64 = 0xfff;
const KIND: u64 = 0b11;
const KIND_BANNED: u64 = 1;
const KIND_ESTABLISHED: u64 = 2;
const LEVEL_SHIFT: u32 = 2;
const REASON_SHIFT: u32 = 4;

/// What a live block word says about its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// No mark, or one that has ended.
    None,
    /// Every packet to our listeners is dropped until then.
    Banned {
        /// End of the ban, ns of CLOCK_MONOTONIC, to 4.1 us.
        until: u64,
        /// How often it escalated, 0 to 3.
        level: u8,
        /// Why.
        reason: Reason,
    },
    /// Has completed a handshake or a request lately; evicted after sources that have not.
    Established {
        /// End of the mark, as above.
        until: u64,
    },
}

impl Block {
    /// The word that says this; `None` is 0.
    pub const fn to_word(self) -> u64 {
        match self {
            Block::None => 0,
            Block::Banned { until, level, reason } => {
                (until & !LOW_BITS)
                    | (reason as u64) << REASON_SHIFT
                    | ((level & 3) as u64) << LEVEL_SHIFT
                    | KIND_BANNED
            }
            Block::Established { until } => (until & !LOW_BITS) | KIND_ESTABLISHED,
        }
    }

    /// What `word` says at `now`. A reason this build does not know reads as [`Reason::DropBanned`].
    pub fn from_word(word: u64, now: u64) -> Block {
        let until = word & !LOW_BITS;
        if until <= now {
            return Block::None;
        }
        match word & KIND {
            KIND_BANNED => Block::Banned {
                until,
                level: (word >> LEVEL_SHIFT & 3) as u8,
                reason: Reason::from_index((word >> REASON_SHIFT & 0xff) as usize)
                    .unwrap_or(Reason::DropBanned),
            },
            KIND_ESTABLISHED => Block::Established { until },
            _ => Block::None,
        }
    }
}

/// Whether `word` bans its source at `now`: the kernel's one comparison.
#[inline(always)]
pub(crate) const fn bans(word: u64, now: u64) -> bool {
    word & KIND == KIND_BANNED && word & !LOW_BITS > now
}

/// Whether `word` marks its source as established at `now`.
#[inline(always)]
pub(crate) const fn establishes(word: u64, now: u64) -> bool {
    word & KIND == KIND_ESTABLISHED && word & !LOW_BITS > now
}

/// Bans `key` until `until`. Replaces an earlier ban or mark.
pub fn ban<W: Word>(set: &Set<W>, key: u64, now: u64, until: u64, level: u8, reason: Reason) {
    mark(set, key, now, Block::Banned { until, level, reason }.to_word());
}

/// Marks `key` as established until `until`, unless it is banned now.
pub fn mark_established<W: Word>(set: &Set<W>, key: u64, now: u64, until: u64) {
    if find(set, key).is_some_and(|way| bans(way.block.read(), now)) {
        return;
    }
    mark(set, key, now, Block::Established { until }.to_word());
}

/// Ends the ban or the mark of `key`, if it has one.
pub fn unblock<W: Word>(set: &Set<W>, key: u64) {
    if let Some(way) = find(set, key) {
        let word = way.block.read();
        let _ = way.block.swap_if(word, 0);
    }
}

/// A way may change hands between finding it and writing its mark; a ban that lands on a stranger would be
/// a real wrong, unlike a token more or less. So the owner is read again after the write, and a mark that
/// missed is taken back and set anew.
fn mark<W: Word>(set: &Set<W>, key: u64, now: u64, word: u64) {
    loop {
        let way = find_or_take(set, key, now);
        let before = way.block.read();
        if way.block.swap_if(before, word).is_err() {
            continue;
        }
        W::fence();
        if way.key.read() == key {
            return;
        }
        let _ = way.block.swap_if(word, 0);
    }
}
