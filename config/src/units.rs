//! Durations, sizes, rates and prefixes as people write them.
//!
//! Owns these notations and nothing else; every function is pure and total. Invariant: a value that
//! parses is exact, or rounded down to a nanosecond; nothing overflows silently.

use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::diagnostic::Fault;
use crate::model::Rate;

/// What a number without a unit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bare {
    /// Milliseconds, as in Kong's timeouts.
    Milliseconds,
    /// Seconds, as in Kong's health checks.
    Seconds,
}

/// A prefix in the one form in which it is compared: of v4-mapped addresses (`::ffff:0:0/96`) it is one of IPv4.
pub fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped = v6.addr().to_ipv4_mapped().filter(|_| v6.prefix_len() >= 96);
    let v4 = mapped.and_then(|v4| Ipv4Net::new(v4, v6.prefix_len() - 96).ok());
    v4.map_or(net, IpNet::V4)
}

/// Reads a duration: `3s`, `250ms`, `1m30s`, `1.5h`, or a bare number of `bare` units.
pub fn parse_duration(text: &str, bare: Bare) -> Result<Duration, Fault> {
    let fault = || {
        Fault::new(format!("{text:?} is not a duration"))
            .hint("write a number with a unit, as in `250ms`, `3s`, `1m30s` or `2h`")
    };
    let too_long = || Fault::new(format!("{text:?} is longer than any duration can be"));
    if text.parse::<f64>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let unit = match bare {
            Bare::Milliseconds => 1_000_000,
            Bare::Seconds => 1_000_000_000,
        };
        return scaled(text, unit).map(nanoseconds).ok_or_else(too_long)?.ok_or_else(too_long);
    }
    let mut rest = text;
    let mut total: u128 = 0;
    let mut last_unit = u128::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fault)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit = duration_unit(unit).ok_or_else(fault)?;
        // `30s1m` is more likely a slip than a wish.
        if unit >= last_unit {
            return Err(fault());
        }
        last_unit = unit;
        total = scaled(number, unit).and_then(|part| total.checked_add(part)).ok_or_else(fault)?;
        rest = tail;
    }
    if last_unit == u128::MAX {
        return Err(fault());
    }
    nanoseconds(total).ok_or_else(too_long)
}

fn duration_unit(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    })
}

fn nanoseconds(total: u128) -> Option<Duration> {
    u64::try_from(total).ok().map(Duration::from_nanos)
}

/// `number` times `unit`, the decimals rounded down; `None` for a malformed or huge number.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && decimals.is_empty() || decimals.len() > 18 {
        return None;
    }
    let digits = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        if text.is_empty() { Some(0) } else { plain.then(|| text.parse::<u64>().ok())?.map(u128::from) }
    };
    let whole = digits(whole)?.checked_mul(unit)?;
    let part = digits(decimals)?.checked_mul(unit)? / 10u128.pow(decimals.len() as u32);
    whole.checked_add(part)
}

/// Reads a size in bytes: `10MiB`, `32KiB`, `1.5GiB`, `500KB`, or a bare number of bytes.
pub fn parse_size(text: &str) -> Result<u64, Fault> {
    let fault = || {
        Fault::new(format!("{text:?} is not a size"))
            .hint("write a number of bytes, or a number with a unit, as in `32KiB` or `10MiB`")
    };
    let letters = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(letters);
    let unit: u128 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "k" | "m" | "g" | "t" => {
            return Err(Fault::new(format!("{text:?} is not a size"))
                .hint("say which is meant: `KiB` is 1024 bytes, `KB` is 1000"));
        }
        _ => return Err(fault()),
    };
    if unit == 1 && number.contains('.') {
        return Err(fault());
    }
    scaled(number, unit).and_then(|bytes| u64::try_from(bytes).ok()).ok_or_else(fault)
}

/// Reads a rate: `100/s`, `6000/m`, `10/h`, or over any duration as in `5/10s`.
pub fn parse_rate(text: &str) -> Result<Rate, Fault> {
    let fault = || {
        Fault::new(format!("{text:?} is not a rate"))
            .hint("write a number in a time, as in `100/s`, `6000/m` or `5/10s`")
    };
    let (tokens, per) = text.split_once('/').ok_or_else(fault)?;
    let (tokens, per) = (tokens.trim_end(), per.trim_start());
    if tokens.is_empty() || !tokens.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(fault());
    }
    let tokens: u64 = tokens.parse().map_err(|_| fault())?;
    let per = match duration_unit(per) {
        Some(unit) => nanoseconds(unit).ok_or_else(fault)?,
        None if per.starts_with(|c: char| c.is_ascii_digit()) => {
            parse_duration(per, Bare::Seconds).map_err(|_| fault())?
        }
        None => return Err(fault()),
    };
    if tokens == 0 || per.is_zero() {
        return Err(Fault::new(format!("{text:?} lets nothing through"))
            .hint("leave the limit out for none, or use a deny list"));
    }
    if per.as_nanos() / u128::from(tokens) == 0 {
        return Err(Fault::new(format!("{text:?} is more than one in a nanosecond")));
    }
    Ok(Rate { tokens, per })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> Option<Duration> {
        parse_duration(text, Bare::Milliseconds).ok()
    }

    #[test]
    fn durations() {
        let cases = [
            ("3s", Some(3_000_000_000)),
            ("250ms", Some(250_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1h1m1s1ms1us1ns", Some(3_661_001_001_001)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("2d", Some(172_800_000_000_000)),
            ("5min", Some(300_000_000_000)),
            ("5000", Some(5_000_000_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("0.5", Some(500_000)),
            ("", None),
            (".", None),
            ("s", None),
            ("3", Some(3_000_000)),
            ("3 s", None),
            ("-3s", None),
            ("+3s", None),
            ("1e3", None),
            ("inf", None),
            ("nan", None),
            ("3s3", None),
            ("3s1m", None),
            ("3s3s", None),
            ("3x", None),
            ("1.2.3s", None),
            ("99999999999999999999s", None),
            ("300000d", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(ms(text), expected.map(Duration::from_nanos), "{text:?}");
        }
        assert_eq!(parse_duration("0.5", Bare::Seconds).ok(), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("5", Bare::Seconds).ok(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn sizes() {
        let cases = [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("10MiB", Some(10 << 20)),
            ("10 MiB", Some(10 << 20)),
            ("32KiB", Some(32 << 10)),
            ("32kib", Some(32 << 10)),
            ("1.5GiB", Some(3 << 29)),
            ("500KB", Some(500_000)),
            ("7B", Some(7)),
            ("2TiB", Some(2 << 40)),
            ("1.5", None),
            ("1.5B", None),
            ("10M", None),
            ("10k", None),
            ("MiB", None),
            ("-1", None),
            ("1MiB2", None),
            ("", None),
            ("99999999TiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text).ok(), expected, "{text:?}");
        }
        assert!(parse_size("10M").unwrap_err().hint.unwrap().contains("KiB"));
    }

    #[test]
    fn rates() {
        let cases = [
            ("100/s", Some((100, 1_000))),
            ("6000/m", Some((6000, 60_000))),
            ("6000/min", Some((6000, 60_000))),
            ("10/h", Some((10, 3_600_000))),
            ("5/10s", Some((5, 10_000))),
            ("5 / 10s", Some((5, 10_000))),
            ("1/500ms", Some((1, 500))),
            ("1/d", Some((1, 86_400_000))),
            ("0/s", None),
            ("5/0s", None),
            ("5", None),
            ("/s", None),
            ("5/", None),
            ("5/x", None),
            ("-5/s", None),
            ("1.5/s", None),
            ("10000000000/s", None),
            ("99999999999999999999/s", None),
        ];
        for (text, expected) in cases {
            let rate = parse_rate(text).ok().map(|rate| (rate.tokens, rate.per.as_millis()));
            assert_eq!(rate, expected, "{text:?}");
        }
        assert_eq!(parse_rate("100/s").unwrap().interval_ns(), 10_000_000);
    }
}
