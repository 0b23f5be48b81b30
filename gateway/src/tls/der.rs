//! A reader of DER (ITU-T X.690): as much of it as names, times and OCSP responses take.
//!
//! Owns: cutting elements out of bytes. Never: trust; what decides about a peer is read by webpki. Invariant: it reads
//! within its input, and each call consumes what it gives, so no input makes it loop.

use std::time::Duration;

pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
pub(super) const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The constructed context-specific tag of this number.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element, its tag and content. `None`: there is none, or it is not whole.
    pub(super) fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        // Tags above 30 and indefinite lengths are not in DER as it is used here.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |len, &byte| len << 8 | usize::from(byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element if it has this tag; else nothing is consumed.
    pub(super) fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let (found, content) = ahead.any()?;
        (found == tag).then(|| {
            *self = ahead;
            content
        })
    }

    /// As [`Reader::optional`], of an element with elements inside.
    pub(super) fn inside(&mut self, tag: u8) -> Option<Reader<'a>> {
        self.optional(tag).map(Reader)
    }

    /// A time since the Unix epoch (UTCTime, GeneralizedTime).
    pub(super) fn time(&mut self) -> Option<Duration> {
        match self.any()? {
            (UTC_TIME, text) => {
                let year = number(text.get(..2)?)?;
                // RFC 5280 section 4.1.2.5.1.
                time(if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
            }
            (GENERALIZED_TIME, text) => time(number(text.get(..4)?)?, text.get(4..)?),
            _ => None,
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

/// `MMDDHHMMSSZ`, as RFC 5280 wants it: with seconds, without fractions, in UTC.
fn time(year: u64, rest: &[u8]) -> Option<Duration> {
    let (digits, zone) = rest.split_at_checked(10)?;
    let mut parts = [0; 5];
    for (part, two) in parts.iter_mut().zip(digits.chunks(2)) {
        *part = number(two)?;
    }
    let [month, day, hour, minute, second] = parts;
    if zone != b"Z" || !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(Duration::from_secs(seconds))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: u64, month: u64, day: u64) -> u64 {
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// The validity of a certificate: not before, not after, since the Unix epoch.
pub(super) fn validity(certificate: &[u8]) -> Option<(Duration, Duration)> {
    let mut body = Reader::new(certificate).inside(SEQUENCE)?.inside(SEQUENCE)?;
    body.optional(context(0));
    // Serial number, signature algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        body.optional(tag)?;
    }
    let mut validity = body.inside(SEQUENCE)?;
    Some((validity.time()?, validity.time()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements() {
        let mut reader = Reader::new(&[0x30, 3, 2, 1, 5, 4, 0x81, 1, 9]);
        let mut inside = reader.inside(SEQUENCE).unwrap();
        assert_eq!(inside.optional(OCTET_STRING), None);
        assert_eq!(inside.optional(INTEGER), Some(&[5][..]));
        assert!(inside.is_empty());
        assert_eq!(reader.any(), Some((OCTET_STRING, &[9][..])));
        assert_eq!(reader.any(), None);
        for broken in
            [&[][..], &[0x30], &[0x30, 2, 0], &[0x30, 0x80], &[0x30, 0x85, 0, 0, 0, 0, 0], &[0x1f, 0]]
        {
            assert_eq!(Reader::new(broken).any(), None, "{broken:?}");
        }
    }

    #[test]
    fn times() {
        let read = |tag: u8, text: &str| {
            let bytes = [&[tag, text.len() as u8], text.as_bytes()].concat();
            Reader::new(&bytes).time().map(|time| time.as_secs())
        };
        assert_eq!(read(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(read(UTC_TIME, "000229123456Z"), Some(951_827_696));
        assert_eq!(read(GENERALIZED_TIME, "20380119031408Z"), Some(1 << 31));
        assert_eq!(read(GENERALIZED_TIME, "21000301000000Z"), Some(4_107_542_400));
        for broken in ["", "7001010000Z", "700101000000", "701301000000Z", "70010100000xZ", "690101000000Z9"]
        {
            assert_eq!(read(UTC_TIME, broken), None, "{broken:?}");
        }
    }
}
