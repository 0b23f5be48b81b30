//! How long the windows of a limit are, and where one lies in wall time.
//!
//! Owns lengths that are not of the calendar. Never reads a clock.
//!
//! Invariant: windows of one span neither overlap nor leave a gap.

use std::fmt;
use std::ops::Range;

use super::calendar::Period;

/// The length of a limit's windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// A period of Kong's `rate-limiting`.
    Calendar(Period),
    /// So many nanoseconds, at least one; windows begin at multiples of it since the Unix epoch.
    Every(u64),
}

impl From<Period> for Span {
    fn from(period: Period) -> Self {
        Span::Calendar(period)
    }
}

impl Span {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Span::Every(seconds.saturating_mul(1_000_000_000))
    }

    /// The length in nanoseconds, of the shortest month or year where that varies.
    pub const fn shortest_ns(self) -> u64 {
        match self {
            Span::Calendar(period) => period.shortest_ns(),
            Span::Every(ns) => ns,
        }
    }

    /// The window that `wall` lies in, both in nanoseconds since the Unix epoch.
    pub fn window(self, wall: u64) -> Range<u64> {
        match self {
            Span::Calendar(period) => period.window(wall),
            Span::Every(ns) => {
                let start = wall - wall % ns;
                start..start.saturating_add(ns)
            }
        }
    }

    /// A number that differs between spans, for keys.
    pub(super) const fn number(self) -> u64 {
        match self {
            Span::Calendar(period) => period as u64 + 1,
            Span::Every(ns) => ns.saturating_add(Period::ALL.len() as u64 + 1),
        }
    }

    /// How header fields call a window, as Kong does: `Minute`, or the number of seconds.
    pub fn label(self) -> String {
        match self {
            Span::Calendar(period) => {
                let mut name = period.as_str().to_owned();
                name[..1].make_ascii_uppercase();
                name
            }
            Span::Every(ns) => {
                const NAMED: [(u64, &str); 4] =
                    [(1, "Second"), (60, "Minute"), (3_600, "Hour"), (86_400, "Day")];
                let whole = (ns % 1_000_000_000 == 0).then_some(ns / 1_000_000_000);
                match NAMED.iter().find(|(seconds, _)| Some(*seconds) == whole) {
                    Some((_, name)) => (*name).to_owned(),
                    None => (ns as f64 / 1e9).to_string(),
                }
            }
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Span::Calendar(period) => period.fmt(f),
            Span::Every(ns) => write!(f, "{} seconds", *ns as f64 / 1e9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_lie_side_by_side() {
        let span = Span::seconds(90);
        for wall in [0, 1, 89_999_999_999, 90_000_000_000, 1_709_251_190_000_000_000] {
            let window = span.window(wall);
            assert!(window.contains(&wall) && window.end - window.start == span.shortest_ns());
            assert_eq!(span.window(window.end).start, window.end);
        }
    }

    #[test]
    fn labels_are_those_of_kong() {
        let labels = [Span::seconds(60), Span::seconds(90), Span::Every(500_000_000), Period::Month.into()]
            .map(Span::label);
        assert_eq!(labels, ["Minute", "90", "0.5", "Month"]);
    }
}
