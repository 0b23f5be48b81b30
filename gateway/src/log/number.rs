//! Decimal integers and RFC 3339 times, by hand: a line has a dozen of them, and `format!` on each would
//! cost more than the rest of the line.
//!
//! Owns: digits. Never: a clock.

/// Appends `value` in decimal.
pub(super) fn decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// `YYYY-MM-DDTHH:MM:SS` in UTC. A gateway writes thousands of lines within one second, so the text is
/// kept and only the milliseconds change.
#[derive(Debug)]
pub(super) struct Stamp {
    second: u64,
    text: [u8; 19],
}

impl Default for Stamp {
    fn default() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00" }
    }
}

impl Stamp {
    /// Appends the RFC 3339 time of `unix_ms` (milliseconds since 1970, to the year 9999) in UTC.
    pub(super) fn append(&mut self, unix_ms: u64, out: &mut Vec<u8>) {
        let unix_ms = unix_ms.min(END_OF_9999_MS);
        let second = unix_ms / 1000;
        if second != self.second {
            self.second = second;
            self.text = date_time(second);
        }
        out.extend_from_slice(&self.text);
        let mut fraction = *b".000Z";
        put(&mut fraction[1..4], unix_ms % 1000);
        out.extend_from_slice(&fraction);
    }
}

/// `YYYY-MM-DDTHH:MM:SS` in UTC, of a second since 1970, to the year 9999.
pub fn date_time(second: u64) -> [u8; 19] {
    let mut text = *b"0000-00-00T00:00:00";
    let (year, month, day) = civil(second / 86_400);
    put(&mut text[0..4], year);
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], second / 3600 % 24);
    put(&mut text[14..16], second / 60 % 60);
    put(&mut text[17..19], second % 60);
    text
}

/// The Gregorian date of a day counted from 1970-01-01.
///
/// Days are counted from 0000-03-01, so that the leap day is the last of a year and months before it have
/// the fixed pattern 31 30 31 30 31 31 30 31 30 31 31, which `(5 * day + 2) / 153` inverts.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

fn put(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

const END_OF_9999_MS: u64 = 253_402_300_799_999;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(unix_ms: u64) -> String {
        let mut out = Vec::new();
        Stamp::default().append(unix_ms, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_instants() {
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(951_868_800_000), "2000-03-01T00:00:00.000Z");
        assert_eq!(at(1_709_164_800_001), "2024-02-29T00:00:00.001Z");
        assert_eq!(at(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(at(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let month_lengths = |year: u64| {
            let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
            [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        };
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for count in 0..146_097 {
            assert_eq!(civil(count), (year, month, day));
            day += 1;
            if day > month_lengths(year)[month as usize - 1] {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        assert_eq!(year, 2370);
    }

    #[test]
    fn the_kept_second_changes() {
        let mut stamp = Stamp::default();
        for (unix_ms, text) in [(59_999, "00:00:59.999"), (60_000, "00:01:00.000"), (59_000, "00:00:59.000")]
        {
            let mut out = Vec::new();
            stamp.append(unix_ms, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("1970-01-01T{text}Z"));
        }
    }

    #[test]
    fn decimals() {
        for value in [0, 9, 10, 12_345, u64::MAX] {
            let mut out = Vec::new();
            decimal(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }
}
