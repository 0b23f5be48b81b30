//! The block word of a way: until when, and what the source is until then.
//!
//! | bits | of a ban | of a mark |
//! |---|---|---|
//! | 0, 1 | kind | kind |
//! | 2, 3 | level | level of the last ban |
//! | 4 to 11 | [`Reason`] | when that ban ended, in units of 275 s, 0 for never |
//! | 12 | the source had authenticated lately | 0 |
//! | 13 to 63 | until, ns of CLOCK_MONOTONIC | the same |
//!
//! So a time is kept to 8.2 us, and a ban or mark ends by itself when the clock passes it, with user space stopped. What
//! remains of an ended ban in the word is how often it escalated.

use crate::table::{Set, Way, find, find_or_take};
use crate::{Reason, Word};

const LOW_BITS: u64 = 0x1fff;
const KIND: u64 = 0b11;
const KIND_BANNED: u64 = 1;
const KIND_ESTABLISHED: u64 = 2;
const KIND_AUTHENTICATED: u64 = 3;
const LEVEL_SHIFT: u32 = 2;
const LEVEL: u64 = 0b11 << LEVEL_SHIFT;
const REASON_SHIFT: u32 = 4;
const BYTE: u64 = 0xff << REASON_SHIFT;
const KNOWN_GOOD: u64 = 1 << 12;

/// Shift from nanoseconds to the units in which a mark remembers the end of the last ban.
const UNIT_SHIFT: u32 = 38;
/// Units after which a mark forgets a ban: half of what a byte can tell apart, 9.8 hours.
const UNITS_KEPT: u64 = 128;

/// The highest level of a ban.
pub const BAN_LEVEL_MAX: u8 = 3;

/// What a live block word says about its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// No mark, or one that has ended.
    None,
    /// Every packet to our listeners is dropped until then.
    Banned {
        /// End of the ban, ns of CLOCK_MONOTONIC, to 8.2 us.
        until: u64,
        /// How often it escalated, 0 to 3.
        level: u8,
        /// Why.
        reason: Reason,
        /// Whether the source had authenticated lately when it was banned.
        known_good: bool,
    },
    /// Has completed a handshake or a request lately; evicted after sources that have not.
    Established {
        /// End of the mark, as above.
        until: u64,
    },
    /// As `Established`, and has presented a valid credential lately.
    Authenticated {
        /// End of the mark, as above.
        until: u64,
    },
}

impl Block {
    /// The word that says this; `None` is 0.
    pub const fn to_word(self) -> u64 {
        match self {
            Block::None => 0,
            Block::Banned { until, level, reason, known_good } => {
                (until & !LOW_BITS)
                    | (reason as u64) << REASON_SHIFT
                    | ((level & 3) as u64) << LEVEL_SHIFT
                    | if known_good { KNOWN_GOOD } else { 0 }
                    | KIND_BANNED
            }
            Block::Established { until } => (until & !LOW_BITS) | KIND_ESTABLISHED,
            Block::Authenticated { until } => (until & !LOW_BITS) | KIND_AUTHENTICATED,
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
                level: level_of(word),
                reason: Reason::from_index(((word & BYTE) >> REASON_SHIFT) as usize)
                    .unwrap_or(Reason::DropBanned),
                known_good: word & KNOWN_GOOD != 0,
            },
            KIND_ESTABLISHED => Block::Established { until },
            KIND_AUTHENTICATED => Block::Authenticated { until },
            _ => Block::None,
        }
    }
}

/// Whether `word` bans its source at `now`: the kernel's one comparison.
#[inline(always)]
pub const fn bans(word: u64, now: u64) -> bool {
    word & KIND == KIND_BANNED && word & !LOW_BITS > now
}

/// Whether the ban in `word` is for `reason`.
#[inline(always)]
pub const fn bans_for(word: u64, reason: Reason) -> bool {
    word & BYTE == (reason as u64) << REASON_SHIFT
}

/// Whether `word` marks its source as established, or more, at `now`.
#[inline(always)]
pub const fn establishes(word: u64, now: u64) -> bool {
    word & KIND_ESTABLISHED != 0 && word & !LOW_BITS > now
}

/// Whether the source has authenticated lately, also if it is banned now.
#[inline(always)]
pub const fn is_known_good(word: u64, now: u64) -> bool {
    (word & KIND == KIND_AUTHENTICATED || word & (KIND | KNOWN_GOOD) == KIND_BANNED | KNOWN_GOOD)
        && word & !LOW_BITS > now
}

/// Whether the source is promoted at `now`: its authentication has more than `above_ns` left.
#[inline(always)]
pub const fn is_promoted(word: u64, now: u64, above_ns: u64) -> bool {
    word & KIND == KIND_AUTHENTICATED && word & !LOW_BITS > now.saturating_add(above_ns)
}

/// Bans `key` until `until`. Replaces an earlier ban or mark.
pub fn ban<W: Word>(set: &Set<W>, key: u64, now: u64, until: u64, level: u8, reason: Reason) {
    mark(set, key, now, |before| {
        let known_good = is_known_good(before, now);
        Some(Block::Banned { until, level, reason, known_good }.to_word())
    });
}

/// Marks `key` as established until `until`, unless it is banned now or the mark it has says more.
pub fn mark_established<W: Word>(set: &Set<W>, key: u64, now: u64, until: u64) {
    mark(set, key, now, |before| {
        if bans(before, now) || before & KIND == KIND_AUTHENTICATED && before & !LOW_BITS > now {
            return None;
        }
        Some(Block::Established { until }.to_word() | memory(before, now))
    });
}

/// Marks `key` as authenticated until `until`, unless it is banned now.
pub fn mark_authenticated<W: Word>(set: &Set<W>, key: u64, now: u64, until: u64) {
    mark(set, key, now, |before| {
        if bans(before, now) {
            return None;
        }
        Some(Block::Authenticated { until }.to_word() | memory(before, now))
    });
}

/// Ends the ban or the mark of `key`, if it has one.
pub fn unblock<W: Word>(set: &Set<W>, key: u64) {
    if let Some(way) = find(set, key) {
        let word = way.block.read();
        let _ = way.block.swap_if(word, 0);
    }
}

/// The level of the next ban of the source with this word: one more than that of the last, less one for each
/// `decay_ns` since that one ended. 0 without a ban that is remembered.
pub fn next_level(word: u64, now: u64, decay_ns: u64) -> u8 {
    let Some(ended) = last_end(word, now) else { return 0 };
    let decayed = now.saturating_sub(ended).checked_div(decay_ns).unwrap_or(0);
    match u64::from(level_of(word)).checked_sub(decayed) {
        Some(level) => (level as u8 + 1).min(BAN_LEVEL_MAX),
        None => 0,
    }
}

const fn level_of(word: u64) -> u8 {
    ((word & LEVEL) >> LEVEL_SHIFT) as u8
}

/// When the last ban that the word remembers ended or will end.
fn last_end(word: u64, now: u64) -> Option<u64> {
    match word & KIND {
        KIND_BANNED => Some(word & !LOW_BITS),
        0 => None,
        _ => {
            let unit = (word & BYTE) >> REASON_SHIFT;
            let age = (now >> UNIT_SHIFT).wrapping_sub(unit) & 0xff;
            // A mark that ended long ago may be more than one turn of the byte old.
            let stale = now.saturating_sub(word & !LOW_BITS) >> UNIT_SHIFT >= UNITS_KEPT;
            if unit == 0 || stale || age >= UNITS_KEPT {
                None
            } else {
                Some(now - (age << UNIT_SHIFT).min(now))
            }
        }
    }
}

/// The last ban as the low bits of a mark.
fn memory(word: u64, now: u64) -> u64 {
    let Some(ended) = last_end(word, now) else { return 0 };
    if now.saturating_sub(ended) >> UNIT_SHIFT >= UNITS_KEPT {
        return 0;
    }
    // 0 stands for none, so the unit after it is written in its place.
    let unit = (ended >> UNIT_SHIFT & 0xff).max(1);
    word & LEVEL | unit << REASON_SHIFT
}

/// A way may change hands between finding it and writing its mark; a ban that lands on a stranger would be
/// a real wrong, unlike a token more or less. So the owner is read again after the write, and a mark that
/// missed is taken back and set anew.
fn mark<W: Word>(set: &Set<W>, key: u64, now: u64, word: impl Fn(u64) -> Option<u64>) {
    loop {
        // A mark that is not to be set takes no way.
        if let Some(way) = find(set, key)
            && word(way.block.read()).is_none()
        {
            return;
        }
        let way: &Way<W> = find_or_take(set, key, now);
        let before = way.block.read();
        let Some(word) = word(before) else { return };
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
