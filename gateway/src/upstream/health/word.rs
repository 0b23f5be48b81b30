//! The 64 bits that are shared about a target.
//!
//! Owns their layout, the arithmetic on counters and the coarse clock. Never touches an atomic: transitions belong to
//! the parent. Invariant: every transition yields a word that one compare-exchange can put in place of the old one.

use super::{Phase, Policy};

/// Kinds of failure, each with a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp = 0,
    Timeout = 1,
    Status = 2,
}

impl Kind {
    /// A target that is not healthy counts no failures; the first counter then holds successful trials.
    pub(super) const SUCCESS: Kind = Kind::Tcp;
}

/// All that is shared about a target, so that one compare-exchange changes it.
///
/// | bits | Healthy | Ejected | Trial |
/// |---|---|---|---|
/// | 0..2 | 0 | 1 | 2 |
/// | 2..8 | ejections in a row | same | same |
/// | 8..16 | connection failures | successful trials | successful trials |
/// | 16..24 | time-outs | 0 | 0 |
/// | 24..32 | failing statuses | 0 | 0 |
/// | 32..64 | since when, in ticks | until when | deadline |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    pub(super) const HEALTHY: Word = Word(0);
    const COUNTS: u64 = 0xffff_ff00;

    pub(super) fn phase(self) -> Phase {
        match self.0 & 0b11 {
            0 => Phase::Healthy,
            1 => Phase::Ejected,
            _ => Phase::Trial,
        }
    }

    pub(super) fn with_phase(self, phase: Phase) -> Word {
        let bits = match phase {
            Phase::Healthy => 0,
            Phase::Ejected => 1,
            Phase::Trial => 2,
        };
        Word(self.0 & !0b11 | bits)
    }

    pub(super) fn time(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) fn with_time(self, time: u32) -> Word {
        Word(self.0 & 0xffff_ffff | u64::from(time) << 32)
    }

    pub(super) fn ejections(self) -> u8 {
        (self.0 >> 2) as u8 & 0x3f
    }

    pub(super) fn count(self, kind: Kind) -> u8 {
        (self.0 >> (8 + 8 * kind as u32)) as u8
    }

    pub(super) fn counted(self, kind: Kind) -> Word {
        match self.count(kind) {
            u8::MAX => self,
            _ => Word(self.0 + (1 << (8 + 8 * kind as u32))),
        }
    }

    pub(super) fn without_counts(self) -> Word {
        Word(self.0 & !Word::COUNTS)
    }

    /// Whether a request may pass.
    pub(super) fn is_open(self, now: u32) -> bool {
        self.phase() == Phase::Healthy || is_past(self.time(), now)
    }

    pub(super) fn reaches(self, policy: &Policy, kind: Kind) -> bool {
        let own = match kind {
            Kind::Tcp => policy.tcp_failures,
            Kind::Timeout => policy.timeouts,
            Kind::Status => policy.http_failures,
        };
        let all: u16 =
            [Kind::Tcp, Kind::Timeout, Kind::Status].iter().map(|&kind| u16::from(self.count(kind))).sum();
        (own > 0 && self.count(kind) >= own) || (policy.failures > 0 && all >= u16::from(policy.failures))
    }

    /// Ejected for the `nth` time in a row, and for how many ns.
    pub(super) fn ejected(self, now: u32, policy: &Policy, nth: u64) -> (Word, u64) {
        let span = policy.ejection_ns.saturating_mul(nth).min(policy.ejection_max_ns).min(LONGEST_NS);
        let nth = nth.min(0x3f);
        (Word(1 | nth << 2).with_time(now.wrapping_add(ticks(span).max(1))), span)
    }

    pub(super) fn restored(self, now: u32) -> Word {
        self.without_counts().with_phase(Phase::Healthy).with_time(now)
    }
}

/// 2^24 ns, 17 ms: 32 bits then last 2.3 years, and comparisons hold over half of that whatever the uptime. Rounding may
/// end an ejection up to two ticks early.
pub(super) const TICK_SHIFT: u32 = 24;

/// Far below half the range of ticks, so that `is_past` can not be fooled.
pub(super) const LONGEST_NS: u64 = 24 * 3600 * 1_000_000_000;

pub(super) fn ticks(ns: u64) -> u32 {
    (ns >> TICK_SHIFT) as u32
}

fn is_past(time: u32, now: u32) -> bool {
    now.wrapping_sub(time) < 1 << 31
}
