//! The end of a process, step by step.
//!
//! ```text
//! SIGTERM ──► delaying ──drain_delay──► closing ──last connection gone──► exit 0
//!              (not ready,               │        or timeouts.drain over
//!               still accepting)         └─ a second SIGTERM at any time ──► exit 1 at once
//! ```
//!
//! Owns: when each step is due. Never: a clock; `now` is an argument. The delay is there because balancers
//! notice an unready gateway only at their next probe, and a closed port in between is an error to a client.

use std::time::{Duration, Instant};

/// A drain under way.
#[derive(Debug)]
pub struct Drain {
    close_at: Instant,
    /// How long exchanges may go on once the listeners are closed.
    limit: Duration,
    is_closed: bool,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Wait,
    /// Close the listeners and let what is open come to its end.
    Close,
    End(Ending),
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every exchange was finished.
    Drained,
    /// The limit was over; some were cut.
    TimeUp,
    /// A second signal.
    Forced,
}

impl Drain {
    pub fn new(now: Instant, delay: Duration, limit: Duration) -> Self {
        Self { close_at: now + delay, limit, is_closed: false }
    }

    /// What is due at `now`; each step is given once.
    pub fn step(&mut self, now: Instant, is_drained: bool) -> Step {
        if !self.is_closed {
            if now < self.close_at {
                return Step::Wait;
            }
            self.is_closed = true;
            self.close_at = now;
            return Step::Close;
        }
        if is_drained {
            Step::End(Ending::Drained)
        } else if now >= self.close_at + self.limit {
            Step::End(Ending::TimeUp)
        } else {
            Step::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_in_its_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let limit = Duration::from_secs(30);
        let mut drain = Drain::new(start, Duration::from_secs(5), limit);
        // No connection is open, but balancers still send new ones.
        assert_eq!(drain.step(at(4), true), Step::Wait);
        assert_eq!(drain.step(at(5), true), Step::Close);
        assert_eq!(drain.step(at(5), false), Step::Wait);
        assert_eq!(drain.step(at(34), false), Step::Wait);
        assert_eq!(drain.step(at(35), false), Step::End(Ending::TimeUp));
        assert_eq!(drain.step(at(35), true), Step::End(Ending::Drained));
    }
}
