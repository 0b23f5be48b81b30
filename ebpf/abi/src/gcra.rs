//! The generic cell rate algorithm on one word.
//!
//! The word is the theoretical arrival time (TAT): the time at which the bucket will be full again. A
//! charge of cost `c` moves it to `max(tat, now) + c` and conforms if the result is at most `burst` ahead
//! of `now`. `tat <= now` means "full", so a word that is absent, zero or long past all mean the same, and
//! no job ever refills anything.
//!
//! Bound, tested as a property: over any window of `t` ns the conforming charges sum to at most
//! `t + burst_ns` of cost, that is `t / interval + burst` tokens, whatever the interleaving of callers.

use crate::Word;

/// How often the kernel side retries a lost compare-exchange before it lets the packet pass uncharged:
/// the verifier wants a bound, and a refusal must never come from contention alone.
pub const KERNEL_TRIES: usize = 4;

/// A limit. `interval_ns == 0` means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Rate {
    /// Nanoseconds that one token costs (GCRA's T).
    pub interval_ns: u64,
    /// How far the TAT may run ahead of now (GCRA's tau plus T): burst tokens times `interval_ns`.
    pub burst_ns: u64,
}

impl Rate {
    /// No limit at all.
    pub const UNLIMITED: Rate = Rate { interval_ns: 0, burst_ns: 0 };

    /// `tokens` per `period_ns`, with room for `burst` tokens at once (at least one). The interval is
    /// rounded to the nearest nanosecond: within 1 % up to 50 million tokens a second. Zero tokens or a
    /// zero period give [`Rate::UNLIMITED`].
    pub const fn new(tokens: u64, period_ns: u64, burst: u64) -> Rate {
        if tokens == 0 || period_ns == 0 {
            return Rate::UNLIMITED;
        }
        let rounded = period_ns.saturating_add(tokens / 2) / tokens;
        let interval_ns = if rounded == 0 { 1 } else { rounded };
        let burst = if burst == 0 { 1 } else { burst };
        Rate { interval_ns, burst_ns: interval_ns.saturating_mul(burst) }
    }

    /// `tokens` per second.
    pub const fn per_second(tokens: u64, burst: u64) -> Rate {
        Rate::new(tokens, 1_000_000_000, burst)
    }

    /// Whether every charge conforms.
    pub const fn is_unlimited(&self) -> bool {
        self.interval_ns == 0
    }
}

/// The answer to a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Accepted and written.
    Conforming {
        /// How far the TAT is ahead of now after the charge; 0 for an unlimited rate.
        debt_ns: u64,
    },
    /// Refused; the word is untouched.
    Limited {
        /// How long until the same charge would conform. A charge that costs more than the burst never does.
        retry_after_ns: u64,
    },
}

impl Charge {
    /// Whether the charge was accepted.
    pub const fn conforms(self) -> bool {
        matches!(self, Charge::Conforming { .. })
    }
}

/// Charges `tokens` tokens. Retries until its own compare-exchange lands, so it is exact: each retry means
/// that another charge landed, which bounds the loop by the number of contenders.
pub fn charge<W: Word>(word: &W, now: u64, rate: Rate, tokens: u64) -> Charge {
    charge_ns(word, now, rate, tokens.saturating_mul(rate.interval_ns))
}

/// As [`charge`], with the cost in nanoseconds instead of tokens.
pub fn charge_ns<W: Word>(word: &W, now: u64, rate: Rate, cost_ns: u64) -> Charge {
    let mut tat = word.read();
    loop {
        match step(word, tat, now, rate, cost_ns) {
            Ok(charge) => return charge,
            Err(seen) => tat = seen,
        }
    }
}

/// As [`charge_ns`], giving up after `TRIES` lost compare-exchanges with `None`: the charge is then not
/// written. This is the kernel's form.
#[inline(always)]
pub fn charge_within<W: Word, const TRIES: usize>(
    word: &W,
    now: u64,
    rate: Rate,
    cost_ns: u64,
) -> Option<Charge> {
    let mut tat = word.read();
    for _ in 0..TRIES {
        match step(word, tat, now, rate, cost_ns) {
            Ok(charge) => return Some(charge),
            Err(seen) => tat = seen,
        }
    }
    None
}

#[inline(always)]
fn step<W: Word>(word: &W, tat: u64, now: u64, rate: Rate, cost_ns: u64) -> Result<Charge, u64> {
    if rate.is_unlimited() {
        return Ok(Charge::Conforming { debt_ns: 0 });
    }
    // In this form nothing can overflow but a burst of centuries, and the kernel's side gets two plain comparisons.
    let full = later(tat, now);
    let ahead_ns = full - now;
    if cost_ns > rate.burst_ns || ahead_ns > rate.burst_ns - cost_ns {
        let retry_after_ns = ahead_ns.saturating_add(cost_ns) - rate.burst_ns;
        return Ok(Charge::Limited { retry_after_ns });
    }
    let debt_ns = ahead_ns + cost_ns;
    word.swap_if(tat, full.wrapping_add(cost_ns)).map(|()| Charge::Conforming { debt_ns })
}

/// Adds `cost_ns` of debt whether or not it conforms, up to a TAT of `now + cap_ns`. A word already past
/// the cap stays as it is: a penalty never lowers debt.
pub fn penalize<W: Word>(word: &W, now: u64, cost_ns: u64, cap_ns: u64) {
    let mut tat = word.read();
    loop {
        let next = later(tat, now).saturating_add(cost_ns).min(now.saturating_add(cap_ns));
        if next <= tat {
            return;
        }
        match word.swap_if(tat, next) {
            Ok(()) => return,
            Err(seen) => tat = seen,
        }
    }
}

/// Gives back what an accepted charge took. Undoes it exactly while the bucket is in debt; once time has
/// paid the charge back there is nothing to give, and the word only moves further into the past.
pub fn refund<W: Word>(word: &W, cost_ns: u64) {
    let mut tat = word.read();
    while let Err(seen) = word.swap_if(tat, tat.saturating_sub(cost_ns)) {
        tat = seen;
    }
}

#[inline(always)]
pub(crate) const fn later(a: u64, b: u64) -> u64 {
    if a > b { a } else { b }
}
