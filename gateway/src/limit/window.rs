//! Fixed windows, counted as Kong's `rate-limiting` plugin counts them.
//!
//! A limit of N in a period admits N units of cost in each window of that period, and nothing is charged
//! for what is refused. Several periods are checked together, all or nothing. The count of a window is one
//! word of a [`Table`], the same kind of word as a bucket's:
//!
//! ```text
//!             window in progress               word = end + used * L/N
//!   ──┬──────────────────────────────────┬────┬────┬────┬────┬──▶ monotonic time
//!   start              now              end   1    2   ...   N
//! ```
//!
//! L is the period's length, the shortest one of a month or year. A word at or below `end` means 0: never
//! used, evicted, or left by an earlier window, whose words reach L past its own end, which is the present
//! `end` at the latest. So a window needs no reset and its end no timer.
//! Counting from the end and not from the start has three reasons: a month may have started before the
//! machine did, and monotonic time is not negative; a way taken over from another key may hold any time up
//! to now, which must read as 0; and the eviction by lowest word then drops first the windows that end
//! soonest and, among those of one end, the ones least used. What it costs: an ended window that was used
//! to the fraction f keeps its rank for f*L more.
//!
//! A limit changed by a reload keeps the *fraction* that is used up. Kong's own answers may differ for
//! months and years, where its `RateLimit-Reset` counts 30 and 365 days from the start; ours is the true end.
//!
//! Invariant: in no window are more than N units admitted, and exactly N if enough are asked for one by one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use portcullis_abi::Word as _;
use thiserror::Error;

use super::decision::{Decision, WINDOWS_MAX, WindowState};
use super::span::Span;
use super::table::Table;

/// Limits over one or more periods, compiled. Holds no counts: those are in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowLimiter {
    // Shortest span first.
    limits: Box<[(Span, u64)]>,
}

/// Why limits cannot be enforced.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WindowError {
    /// No period at all.
    #[error("no limit is set for any period")]
    Empty,
    /// More than [`WINDOWS_MAX`] periods.
    #[error("at most {WINDOWS_MAX} limits hold together")]
    TooMany,
    /// The same period twice.
    #[error("the {0} has two limits")]
    Duplicate(Span),
    /// A limit of 0.
    #[error("the limit per {0} must be at least 1")]
    Zero(Span),
    /// A limit of more than one per nanosecond.
    #[error("the limit per {0} must be at most {1}")]
    TooHigh(Span, u64),
    /// A longer period admits less than a shorter one, which Kong refuses too.
    #[error("the limit per {longer} must not be lower than the limit per {shorter}")]
    Shrinking {
        /// The period whose limit is too low.
        longer: Span,
        /// The period whose limit it would void.
        shorter: Span,
    },
}

impl WindowLimiter {
    /// Compiles limits, in any order, by Kong's rule that a longer period admits no less than a shorter one.
    ///
    /// # Errors
    /// See [`WindowError`].
    pub fn new<S: Into<Span>>(limits: impl IntoIterator<Item = (S, u64)>) -> Result<Self, WindowError> {
        let limiter = Self::of_any(limits)?;
        for pair in limiter.limits.windows(2) {
            let ((shorter, low), (longer, high)) = (pair[0], pair[1]);
            if high < low {
                return Err(WindowError::Shrinking { longer, shorter });
            }
        }
        Ok(limiter)
    }

    /// Compiles limits, in any order.
    ///
    /// # Errors
    /// See [`WindowError`]; never `Shrinking`.
    pub fn of_any<S: Into<Span>>(limits: impl IntoIterator<Item = (S, u64)>) -> Result<Self, WindowError> {
        let mut limits: Vec<_> = limits.into_iter().map(|(span, limit)| (span.into(), limit)).collect();
        limits.sort_unstable_by_key(|(span, limit)| (span.shortest_ns(), *limit));
        for &(span, limit) in &limits {
            if limit == 0 {
                return Err(WindowError::Zero(span));
            }
            // A unit needs a nanosecond of the word's range at least.
            if limit > span.shortest_ns() {
                return Err(WindowError::TooHigh(span, span.shortest_ns()));
            }
        }
        if let Some(pair) = limits.windows(2).find(|pair| pair[0].0.shortest_ns() == pair[1].0.shortest_ns())
        {
            return Err(WindowError::Duplicate(pair[1].0));
        }
        match limits.len() {
            0 => Err(WindowError::Empty),
            1..=WINDOWS_MAX => Ok(WindowLimiter { limits: limits.into() }),
            _ => Err(WindowError::TooMany),
        }
    }

    /// The limits, shortest span first.
    pub fn limits(&self) -> &[(Span, u64)] {
        &self.limits
    }

    /// Charges `cost` to the window of each period under `base_key` (from [`super::limit_key`]), or to none
    /// if one of them cannot take it. A cost of 0 only looks. `now` is monotonic, `wall` must be
    /// [`super::WallClock::at`] of it.
    ///
    /// Never admits too much. While another thread's charge is being taken back because a later window
    /// refused it, a check may be refused that would have been admitted a moment later.
    pub fn check(&self, table: &Table, base_key: u64, now: u64, wall: u64, cost: u64) -> Decision {
        let mut look = self.look(table, base_key, now, wall, cost);
        if cost > 0 && look.decision.allowed() {
            look.charge(table, now, cost);
        }
        look.decision
    }

    /// Raises each window to what is known of it: the count that all gateways have together, in the order of
    /// [`limits`](Self::limits). A count is never lowered.
    pub fn adopt(&self, table: &Table, base_key: u64, now: u64, wall: u64, used: &[u64]) {
        for (&(span, limit), used) in self.limits.iter().zip(used) {
            let window = span.window(wall);
            let end = now.saturating_add(window.end - wall);
            let place =
                Place { key: window_key(base_key, span), end, unit: span.shortest_ns() / limit, limit };
            let word = place.word((*used).min(limit));
            table.way(place.key, now).request_tat.fetch_max(word, Relaxed);
        }
    }

    /// The windows as they stand, without a charge. Most refusals end here: a client over its limit costs
    /// loads only, and does not make its other windows waver for other threads.
    fn look(&self, table: &Table, base_key: u64, now: u64, wall: u64, cost: u64) -> Look {
        let mut places = [Place::default(); WINDOWS_MAX];
        let mut decision = Decision::empty();
        for (i, &(span, limit)) in self.limits.iter().enumerate() {
            let window = span.window(wall);
            let place = Place {
                key: window_key(base_key, span),
                end: now.saturating_add(window.end - wall),
                unit: span.shortest_ns() / limit,
                limit,
            };
            let used = table.find(place.key).map_or(0, |way| place.used(way.request_tat.load(Relaxed)));
            let reset_ns = window.end - wall;
            decision.push(WindowState { span, limit, remaining: limit.saturating_sub(used), reset_ns });
            // Where windows do not divide each other, a shorter one may end later.
            let last = decision.stopped_by().is_none_or(|other| other.reset_ns <= reset_ns);
            if used.saturating_add(cost) > limit && last {
                decision.stop(i);
            }
            places[i] = place;
        }
        Look { decision, places }
    }
}

/// What a check saw, and where.
struct Look {
    decision: Decision,
    places: [Place; WINDOWS_MAX],
}

impl Look {
    /// Charges every window. If one has filled up since it was looked at, takes back what the ones before
    /// it were charged.
    fn charge(&mut self, table: &Table, now: u64, cost: u64) {
        for i in 0..self.decision.windows().len() {
            let place = self.places[i];
            // Found anew each time: a way must not be kept, and the cache line is warm.
            let charged = charge(&table.way(place.key, now).request_tat, place, cost);
            let (Ok(used) | Err(used)) = charged;
            self.decision.windows_mut()[i].remaining = place.limit.saturating_sub(used);
            if charged.is_err() {
                self.decision.stop(i);
                self.take_back(table, i, cost);
                return;
            }
        }
    }

    /// Takes back the charges of the first `charged` windows.
    fn take_back(&mut self, table: &Table, charged: usize, cost: u64) {
        for (window, place) in self.decision.windows_mut()[..charged].iter_mut().zip(&self.places) {
            if let Some(way) = table.find(place.key) {
                refund(&way.request_tat, *place, cost);
            }
            window.remaining += cost;
        }
    }
}

/// Where one window's word is and how to read it.
#[derive(Clone, Copy, Default)]
struct Place {
    key: u64,
    /// End of the window on the monotonic clock.
    end: u64,
    /// Nanoseconds of the word that stand for one unit of cost.
    unit: u64,
    limit: u64,
}

impl Place {
    /// The count that a word stands for. Rounded: after a step of the wall clock or a changed limit a word
    /// may lie between two counts.
    #[inline]
    fn used(&self, word: u64) -> u64 {
        (word.saturating_sub(self.end).saturating_add(self.unit / 2)) / self.unit
    }

    #[inline]
    fn word(&self, used: u64) -> u64 {
        self.end.saturating_add(used.saturating_mul(self.unit))
    }
}

/// Counts `cost` if it fits: `Ok` with the count after it, `Err` with the count that left no room.
#[inline]
fn charge(word: &AtomicU64, place: Place, cost: u64) -> Result<u64, u64> {
    let mut seen = word.load(Relaxed);
    loop {
        let used = place.used(seen);
        let after = used.saturating_add(cost);
        if after > place.limit {
            return Err(used);
        }
        match word.swap_if(seen, place.word(after)) {
            Ok(()) => return Ok(after),
            Err(now) => seen = now,
        }
    }
}

/// Takes back a charge to the same window. If the window has ended meanwhile and the next one begun, its
/// word is higher by a whole window and is left alone: the charge went with the old one.
#[inline]
fn refund(word: &AtomicU64, place: Place, cost: u64) {
    let mut seen = word.load(Relaxed);
    loop {
        let used = place.used(seen);
        if used < cost || used > place.limit {
            return;
        }
        match word.swap_if(seen, place.word(used - cost)) {
            Ok(()) => return,
            Err(now) => seen = now,
        }
    }
}

/// The key of one span's window: the base key with some bits below the top byte flipped, differently for
/// each span. Base keys are hashes, so a clash of two stays as unlikely as one of the hashes themselves.
#[inline]
pub(super) fn window_key(base_key: u64, span: Span) -> u64 {
    base_key ^ (span.number().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8)
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
