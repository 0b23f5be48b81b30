//! The outcome of a check of a limit over several windows.
//!
//! Owns what is told of it, never how it came about: all strategies, in memory and in Redis, give this.

use super::span::Span;

/// Windows that one limit may have.
pub const WINDOWS_MAX: usize = 8;

/// How one window stands after a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowState {
    /// The length of the window.
    pub span: Span,
    /// What a window of it admits.
    pub limit: u64,
    /// What is left now, this check's cost already taken if it was admitted.
    pub remaining: u64,
    /// Nanoseconds until the window is as good as new; for the one that refused, until the same would be admitted.
    pub reset_ns: u64,
}

impl WindowState {
    const NONE: WindowState = WindowState { span: Span::Every(1), limit: 0, remaining: 0, reset_ns: 0 };

    /// Seconds to the reset, rounded up, at least 1.
    pub fn reset_seconds(&self) -> u64 {
        self.reset_ns.div_ceil(1_000_000_000).max(1)
    }
}

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    windows: [WindowState; WINDOWS_MAX],
    len: usize,
    stopped: Option<usize>,
    /// How long what was admitted must wait for its turn, in nanoseconds; only a leaky bucket asks for that.
    pub delay_ns: u64,
}

impl Decision {
    /// An admission without windows yet.
    pub(super) fn empty() -> Self {
        Self { windows: [WindowState::NONE; WINDOWS_MAX], len: 0, stopped: None, delay_ns: 0 }
    }

    /// Adds a window. More than [`WINDOWS_MAX`] are refused when a limiter is compiled.
    pub(super) fn push(&mut self, state: WindowState) {
        self.windows[self.len] = state;
        self.len += 1;
    }

    /// One of the windows refused.
    pub(super) fn stop(&mut self, window: usize) {
        self.stopped = Some(window);
    }

    pub(super) fn windows_mut(&mut self) -> &mut [WindowState] {
        &mut self.windows[..self.len]
    }

    /// Whether the cost was charged, to every window; otherwise to none.
    pub fn allowed(&self) -> bool {
        self.stopped.is_none()
    }

    /// The window that refused; the one that ends last if several did, so that its reset is the time to wait
    /// (`Retry-After`).
    pub fn stopped_by(&self) -> Option<&WindowState> {
        self.stopped.map(|i| &self.windows[i])
    }

    /// All windows, in the order of the limiter.
    pub fn windows(&self) -> &[WindowState] {
        &self.windows[..self.len]
    }

    /// The window with least left, the later one of equals: what Kong's `RateLimit-*` headers show.
    pub fn tightest(&self) -> &WindowState {
        let mut tightest = &self.windows[0];
        for window in &self.windows()[1..] {
            if window.remaining <= tightest.remaining {
                tightest = window;
            }
        }
        tightest
    }
}
