//! The Date field (RFC 9110 section 5.6.7): written as IMF-fixdate by hand once a second, and read in all three forms.

const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// Length of an IMF-fixdate.
pub const DATE_LEN: usize = 29;

/// `Sun, 06 Nov 1994 08:49:37 GMT` for seconds since the Unix epoch (until the year 9999).
pub fn imf_fixdate(unix_seconds: u64) -> [u8; DATE_LEN] {
    let days = unix_seconds / 86_400;
    let second = unix_seconds % 86_400;
    let (year, month, day) = civil(days);
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    out[..3].copy_from_slice(DAYS[(days % 7) as usize]);
    two(&mut out[5..7], day);
    out[8..11].copy_from_slice(MONTHS[month as usize - 1]);
    two(&mut out[12..14], year / 100);
    two(&mut out[14..16], year % 100);
    two(&mut out[17..19], second / 3600);
    two(&mut out[20..22], second / 60 % 60);
    two(&mut out[23..25], second % 60);
    out
}

fn two(out: &mut [u8], value: u64) {
    out[0] = b'0' + (value / 10 % 10) as u8;
    out[1] = b'0' + (value % 10) as u8;
}

/// Year, month (1 to 12) and day (1 to 31) of a day counted from 1970-01-01, in the Gregorian calendar: years are
/// counted from March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Reads an IMF-fixdate, or one of the two obsolete forms: seconds since the Unix epoch. `None` for what is none of them,
/// or is before 1970. Names of days are not compared with the date.
pub fn parse_date(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.trim_matches(' ');
    let (year, month, day, time) = match text.split_once(',') {
        Some((weekday, rest)) => {
            let rest = rest.strip_prefix(' ')?.strip_suffix(" GMT")?;
            let (date, time) = rest.rsplit_once(' ')?;
            let separator = if weekday.len() == 3 { ' ' } else { '-' };
            let (day, rest) = date.split_once(separator)?;
            let (month, year) = rest.split_once(separator)?;
            // RFC 850 wrote two digits. Those that would be far in the future are of the past.
            let year = match (year.len(), number(year)?) {
                (2, year) => year + if year < 70 { 2000 } else { 1900 },
                (4, year) => year,
                _ => return None,
            };
            (year, month, number(day)?, time)
        }
        None => {
            // asctime: `Sun Nov  6 08:49:37 1994`.
            let mut words = text.split(' ').filter(|word| !word.is_empty());
            let (_, month, day) = (words.next()?, words.next()?, words.next()?);
            let (time, year) = (words.next()?, words.next()?);
            if words.next().is_some() || year.len() != 4 {
                return None;
            }
            (number(year)?, month, number(day)?, time)
        }
    };
    let month = MONTHS.iter().position(|name| name[..] == *month.as_bytes())? as u64 + 1;
    let mut clock = time.split(':').map(|part| if part.len() == 2 { number(part) } else { None });
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let fits =
        (1970..=9999).contains(&year) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !fits || clock.next().is_some() {
        return None;
    }
    let days = days_of(year, month, day);
    // The 31st of a short month is no day.
    (civil(days) == (year, month, day)).then_some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

fn number(digits: &str) -> Option<u64> {
    (!digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The other way round than [`civil`].
fn days_of(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_three_forms() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            " Sun, 06 Nov 1994 08:49:37 GMT ",
        ] {
            assert_eq!(parse_date(text.as_bytes()), Some(784_111_777), "{text}");
        }
        for seconds in (0..8_000_000_000).step_by(86_399 * 7) {
            assert_eq!(parse_date(&imf_fixdate(seconds)), Some(seconds));
        }
        for text in [
            "",
            "now",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 31 Feb 2024 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov 99994 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "784111777",
            "\u{e9},",
        ] {
            assert_eq!(parse_date(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn dates_of_the_rfc_and_of_leap_years() {
        let check =
            |seconds, text: &str| assert_eq!(std::str::from_utf8(&imf_fixdate(seconds)).unwrap(), text);
        check(0, "Thu, 01 Jan 1970 00:00:00 GMT");
        check(784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT");
        check(951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT");
        check(1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT");
        check(4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT");
        check(253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
