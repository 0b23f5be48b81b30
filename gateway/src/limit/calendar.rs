//! The periods of fixed windows and where their windows lie in wall time.
//!
//! Owns the calendar. Windows are aligned as Kong's `rate-limiting` plugin aligns them: second, minute,
//! hour and day to multiples of their length since the Unix epoch, month and year to the first day of the
//! month and year, all in UTC and without leap seconds.

use std::fmt;
use std::ops::Range;

const SECOND_NS: u64 = 1_000_000_000;
const DAY_NS: u64 = 86_400 * SECOND_NS;

/// A period of Kong's `rate-limiting`, shortest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// Each second.
    Second,
    /// Each minute.
    Minute,
    /// Each hour.
    Hour,
    /// Each day, UTC.
    Day,
    /// Each calendar month, UTC.
    Month,
    /// Each calendar year, UTC.
    Year,
}

impl Period {
    /// All periods, in the order of their numbers.
    pub const ALL: [Period; 6] =
        [Period::Second, Period::Minute, Period::Hour, Period::Day, Period::Month, Period::Year];

    /// The name of the period as Kong's configuration and headers have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Period::Second => "second",
            Period::Minute => "minute",
            Period::Hour => "hour",
            Period::Day => "day",
            Period::Month => "month",
            Period::Year => "year",
        }
    }

    /// The length in nanoseconds, of the shortest month or year where that varies.
    pub const fn shortest_ns(self) -> u64 {
        match self {
            Period::Second => SECOND_NS,
            Period::Minute => 60 * SECOND_NS,
            Period::Hour => 3_600 * SECOND_NS,
            Period::Day => DAY_NS,
            Period::Month => 28 * DAY_NS,
            Period::Year => 365 * DAY_NS,
        }
    }

    /// The window that `wall` lies in, both in nanoseconds since the Unix epoch.
    pub fn window(self, wall: u64) -> Range<u64> {
        match self {
            Period::Second | Period::Minute | Period::Hour | Period::Day => {
                let length = self.shortest_ns();
                let start = wall - wall % length;
                start..start.saturating_add(length)
            }
            Period::Month => {
                let (year, month) = year_and_month(wall / DAY_NS);
                let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                midnight(year, month)..midnight(next.0, next.1)
            }
            Period::Year => {
                let (year, _) = year_and_month(wall / DAY_NS);
                midnight(year, 1)..midnight(year + 1, 1)
            }
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a month starts, in nanoseconds since the epoch; saturates in 2554, with the clock itself.
const fn midnight(year: u64, month: u64) -> u64 {
    first_day(year, month).saturating_mul(DAY_NS)
}

/// Days from the epoch to the first day of a month, for years from 1970.
///
/// Years are counted from March, so that the leap day is the last of its year and the days before each
/// month follow from one linear formula: the months from March on have 31, 30, 31, 30, 31 days, twice over.
const fn first_day(year: u64, month: u64) -> u64 {
    let march_year = if month <= 2 { year - 1 } else { year };
    let months_since_march = (month + 9) % 12;
    let leap_days = march_year / 4 - march_year / 100 + march_year / 400;
    march_year * 365 + leap_days + (153 * months_since_march + 2) / 5 - EPOCH_DAYS
}

/// Days from 1 March of the year 0 to the epoch, by the same count.
const EPOCH_DAYS: u64 = 719_468;

/// The year and month (1 to 12) of a day since the epoch.
const fn year_and_month(day: u64) -> (u64, u64) {
    // The mean year is 365.2425 days, so this is right or one too high; never too low, as no day is
    // more than a day's fraction behind the mean.
    let mut year = 1970 + (day + 1) * 400 / 146_097;
    if first_day(year, 1) > day {
        year -= 1;
    }
    // No month is longer than 31 days: right or too low by one.
    let mut month = 1 + (day - first_day(year, 1)) / 31;
    if month < 12 && first_day(year, month + 1) <= day {
        month += 1;
    }
    (year, month)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The calendar by counting days, one month after the other.
    fn months() -> impl Iterator<Item = (u64, u64, Range<u64>)> {
        let mut day = 0;
        (1970..2550u64).flat_map(|year| (1..=12u64).map(move |month| (year, month))).map(
            move |(year, month)| {
                let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
                let days = match month {
                    2 if leap => 29,
                    2 => 28,
                    4 | 6 | 9 | 11 => 30,
                    _ => 31,
                };
                let range = day..day + days;
                day += days;
                (year, month, range)
            },
        )
    }

    #[test]
    fn every_day_until_2550_lies_in_its_month_and_year() {
        let mut year_start = 0;
        for (year, month, days) in months() {
            if month == 1 {
                year_start = days.start;
            }
            for day in days.clone() {
                assert_eq!(year_and_month(day), (year, month), "day {day}");
            }
            for wall in [days.start * DAY_NS, days.end * DAY_NS - 1] {
                assert_eq!(Period::Month.window(wall), days.start * DAY_NS..days.end * DAY_NS);
                let window = Period::Year.window(wall);
                assert_eq!(window.start, year_start * DAY_NS);
                assert!(window.contains(&wall));
            }
        }
    }

    #[test]
    fn known_dates() {
        // 2024-02-29T23:59:59.5Z and one second later.
        let wall = 1_709_251_199 * SECOND_NS + 500_000_000;
        let february = 1_706_745_600 * SECOND_NS..1_709_251_200 * SECOND_NS;
        assert_eq!(Period::Month.window(wall), february);
        assert_eq!(Period::Month.window(wall + SECOND_NS).start, february.end);
        assert_eq!(Period::Year.window(wall), 1_704_067_200 * SECOND_NS..1_735_689_600 * SECOND_NS);
        assert_eq!(Period::Second.window(wall), 1_709_251_199 * SECOND_NS..1_709_251_200 * SECOND_NS);
        assert_eq!(Period::Minute.window(wall), 1_709_251_140 * SECOND_NS..1_709_251_200 * SECOND_NS);
        assert_eq!(Period::Hour.window(wall), 1_709_247_600 * SECOND_NS..1_709_251_200 * SECOND_NS);
        assert_eq!(Period::Day.window(wall), 1_709_164_800 * SECOND_NS..1_709_251_200 * SECOND_NS);
    }

    #[test]
    fn no_window_is_shorter_than_announced() {
        for (_, _, days) in months() {
            for period in Period::ALL {
                let window = period.window(days.start * DAY_NS);
                assert!(window.end - window.start >= period.shortest_ns(), "{period} at day {}", days.start);
            }
        }
    }
}
