//! Reading one scalar as one kind.
//!
//! Owns the only functions that turn text into numbers, times and words. `check` uses them to find faults and
//! `fields` to read values, so the two cannot disagree.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::Kind;
use super::suggest::did_you_mean;
use crate::diagnostic::Fault;
use crate::node::Scalar;
use crate::units::{Bare, canonical, parse_duration, parse_rate, parse_size};

/// How a scalar is shown in an error.
fn shown(scalar: &Scalar) -> String {
    if scalar.secret { crate::secret::MASK.to_owned() } else { format!("{:?}", scalar.text) }
}

/// A fault that says what was expected, and that quotes are in the way when they are.
fn expected(what: &str, scalar: &Scalar, without_quotes: bool) -> Fault {
    let fault = Fault::new(format!("expected {what}, found {}", shown(scalar)));
    if scalar.quoted && without_quotes { fault.hint("leave out the quotes") } else { fault }
}

/// Quotes make a scalar a text, except where the value came from elsewhere.
fn is_plain(scalar: &Scalar) -> bool {
    !scalar.quoted || scalar.secret
}

pub(crate) fn boolean(scalar: &Scalar) -> Result<bool, Fault> {
    let value = match scalar.text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    };
    match value {
        Some(value) if is_plain(scalar) => Ok(value),
        value => Err(expected("true or false", scalar, value.is_some())),
    }
}

pub(crate) fn integer(scalar: &Scalar, min: i64, max: i64) -> Result<i64, Fault> {
    let value = whole_number(&scalar.text);
    match value {
        Some(value) if is_plain(scalar) => {
            if (min..=max).contains(&value) {
                return Ok(value);
            }
            Err(Fault::new(format!("{} is out of range", shown_number(scalar, value))).hint(range(min, max)))
        }
        value => Err(expected("a whole number", scalar, value.is_some())),
    }
}

fn shown_number(scalar: &Scalar, value: i64) -> String {
    if scalar.secret { shown(scalar) } else { value.to_string() }
}

fn range(min: i64, max: i64) -> String {
    match (min, max) {
        (min, i64::MAX) => format!("at least {min}"),
        (i64::MIN, max) => format!("at most {max}"),
        (min, max) => format!("from {min} to {max}"),
    }
}

/// The integers of the YAML 1.2 core schema (section 10.3.2).
fn whole_number(text: &str) -> Option<i64> {
    let digits = |text: &str, radix| match text.starts_with(['+', '-']) {
        true => None,
        false => i64::from_str_radix(text, radix).ok(),
    };
    if let Some(hex) = text.strip_prefix("0x") {
        return digits(hex, 16);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return digits(octal, 8);
    }
    text.parse().ok()
}

pub(crate) fn number(scalar: &Scalar, min: f64, max: f64) -> Result<f64, Fault> {
    let value = scalar.text.parse::<f64>().ok().filter(|value| value.is_finite());
    match value {
        Some(value) if is_plain(scalar) => {
            if (min..=max).contains(&value) {
                return Ok(value);
            }
            Err(Fault::new(format!("{} is out of range", shown(scalar))).hint(format!("from {min} to {max}")))
        }
        value => Err(expected("a number", scalar, value.is_some())),
    }
}

pub(crate) fn duration(scalar: &Scalar, bare: Bare, min: Duration, max: Duration) -> Result<Duration, Fault> {
    let value = parse_duration(&scalar.text, bare).map_err(|fault| masked(fault, "a duration", scalar))?;
    if value < min || value > max {
        let fault = Fault::new(format!("{} is out of range", shown(scalar)));
        return Err(fault.hint(format!("from {} to {}", show_duration(min), show_duration(max))));
    }
    Ok(value)
}

/// A duration as it would be written: `90s` as `1m30s`.
pub(crate) fn show_duration(value: Duration) -> String {
    let units = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    let mut rest = value.as_nanos();
    let mut text = String::new();
    for (unit, name) in units {
        if rest >= unit {
            text += &format!("{}{name}", rest / unit);
            rest %= unit;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

pub(crate) fn size(scalar: &Scalar, min: u64, max: u64) -> Result<u64, Fault> {
    let value = parse_size(&scalar.text).map_err(|fault| masked(fault, "a size", scalar))?;
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(Fault::new(format!("{} is out of range", shown(scalar))).hint(format!(
        "from {} to {}",
        show_size(min),
        show_size(max)
    )))
}

/// A size as it would be written: `1048576` as `1MiB`.
pub(crate) fn show_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >> shift > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

pub(crate) fn rate(scalar: &Scalar) -> Result<crate::model::Rate, Fault> {
    parse_rate(&scalar.text).map_err(|fault| masked(fault, "a rate", scalar))
}

/// The faults of `units` repeat the text; a secret must not be.
fn masked(fault: Fault, what: &str, scalar: &Scalar) -> Fault {
    if scalar.secret { Fault::new(format!("expected {what}, found {}", shown(scalar))) } else { fault }
}

pub(crate) fn word(scalar: &Scalar, words: &'static [&'static str]) -> Result<&'static str, Fault> {
    if let Some(known) = words.iter().find(|known| **known == scalar.text) {
        return Ok(known);
    }
    let list = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let hint = did_you_mean(&scalar.text, words.iter().copied()).unwrap_or_else(|| format!("one of {list}"));
    Err(Fault::new(format!("{} is not a known word", shown(scalar))).hint(hint))
}

pub(crate) fn cidr(scalar: &Scalar) -> Result<IpNet, Fault> {
    let text = scalar.text.as_str();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let fault = || Fault::new(format!("{} is not an address or prefix", shown(scalar)));
    let net: IpNet =
        text.parse().map_err(|_| fault().hint("as in `10.0.0.0/8`, `192.0.2.1` or `2001:db8::/32`"))?;
    // `10.1.2.3/8` is either a slip in the address or in the length.
    if net.addr() != net.network() {
        return Err(fault().hint(format!("bits are set beyond the prefix; did you mean `{}`?", net.trunc())));
    }
    Ok(canonical(net))
}

pub(crate) fn socket_address(scalar: &Scalar) -> Result<SocketAddr, Fault> {
    scalar.text.parse().map_err(|_| {
        let fault = Fault::new(format!("{} is not an address with a port", shown(scalar)));
        fault.hint("as in `0.0.0.0:8080`, `127.0.0.1:8080` or `[::]:8080`; names are not resolved here")
    })
}

/// The fault of a scalar that is no text in YAML's eyes, such as `on` or `12`.
pub(crate) fn text(scalar: &Scalar) -> Result<(), Fault> {
    let other = match scalar.text.as_str() {
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => "a boolean",
        text if whole_number(text).is_some() || is_float(text) => "a number",
        _ => return Ok(()),
    };
    if !is_plain(scalar) || scalar.secret {
        return Ok(());
    }
    Err(Fault::new(format!("expected a text, found {other}")).hint(format!("write {:?}", scalar.text)))
}

fn is_float(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
        && text.parse::<f64>().is_ok()
}

/// Checks one scalar against a kind that takes scalars; `None` when the kind takes none.
pub(crate) fn check(kind: &Kind, scalar: &Scalar) -> Option<Result<(), Fault>> {
    if scalar.unresolved && !matches!(kind, Kind::List { .. } | Kind::Map { .. } | Kind::Section(_)) {
        return Some(Ok(()));
    }
    Some(match kind {
        Kind::Bool => boolean(scalar).map(drop),
        Kind::Integer { min, max } => integer(scalar, *min, *max).map(drop),
        Kind::Number { min, max } => number(scalar, *min, *max).map(drop),
        Kind::Text(form) => text(scalar).and_then(|()| {
            (form.check)(&scalar.text).map_err(|fault| match scalar.secret {
                true if !scalar.text.is_empty() => Fault::new(format!("the value is not {}", form.what)),
                _ => fault,
            })
        }),
        Kind::Duration { bare, min, max } => duration(scalar, *bare, *min, *max).map(drop),
        Kind::Size { min, max } => size(scalar, *min, *max).map(drop),
        Kind::Rate => rate(scalar).map(drop),
        Kind::Word(words) => word(scalar, words).map(drop),
        Kind::Cidr => cidr(scalar).map(drop),
        Kind::SocketAddress => socket_address(scalar).map(drop),
        Kind::Reference(_) => match scalar.text.as_str() {
            "" => Err("may not be empty".into()),
            _ => Ok(()),
        },
        Kind::Any => Ok(()),
        Kind::Either(_) | Kind::List { .. } | Kind::Map { .. } | Kind::Section(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Scalar {
        Scalar { text: text.into(), quoted: false, secret: false, unresolved: false }
    }

    fn quoted(text: &str) -> Scalar {
        Scalar { text: text.into(), quoted: true, secret: false, unresolved: false }
    }

    #[test]
    fn integers_follow_the_core_schema() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-7", Some(-7)),
            ("+7", Some(7)),
            ("0x1f", Some(31)),
            ("0o17", Some(15)),
            ("1.0", None),
            ("1_000", None),
            ("0x-1", None),
            ("", None),
        ] {
            assert_eq!(integer(&plain(text), -100, 100).ok(), expected, "{text:?}");
        }
        assert_eq!(integer(&quoted("7"), 0, 9).unwrap_err().hint.as_deref(), Some("leave out the quotes"));
        assert_eq!(integer(&plain("10"), 0, 9).unwrap_err().hint.as_deref(), Some("from 0 to 9"));
    }

    #[test]
    fn texts_that_yaml_reads_as_something_else_want_quotes() {
        for wrong in ["true", "12", "1.5", "1e3"] {
            assert!(text(&plain(wrong)).is_err(), "{wrong}");
            assert!(text(&quoted(wrong)).is_ok(), "{wrong}");
        }
        for right in ["off", "1.2.3", "12s", "e", ".", "-", "nan", "inf"] {
            assert!(text(&plain(right)).is_ok(), "{right}");
        }
    }

    #[test]
    fn secrets_are_never_repeated() {
        let secret = Scalar { text: "hunter2".into(), quoted: false, secret: true, unresolved: false };
        let kinds = [
            Kind::Bool,
            Kind::COUNT,
            Kind::TIMEOUT,
            Kind::Rate,
            Kind::Cidr,
            Kind::SocketAddress,
            Kind::Word(&["a"]),
            Kind::Size { min: 0, max: 1 },
            Kind::Number { min: 0.0, max: 1.0 },
            Kind::Text(&super::super::text::PATH),
        ];
        for kind in kinds {
            let fault = check(&kind, &secret).unwrap().unwrap_err();
            assert!(!format!("{fault:?}").contains("hunter2"), "{kind:?}: {fault:?}");
        }
    }

    #[test]
    fn prefixes_have_no_stray_bits() {
        assert_eq!(cidr(&plain("192.0.2.1")).unwrap().to_string(), "192.0.2.1/32");
        assert_eq!(cidr(&plain("2001:db8::/32")).unwrap().to_string(), "2001:db8::/32");
        assert_eq!(cidr(&plain("::ffff:192.0.2.1")).unwrap().to_string(), "192.0.2.1/32");
        assert_eq!(cidr(&plain("::ffff:10.0.0.0/104")).unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(cidr(&plain("::/0")).unwrap().to_string(), "::/0");
        let hint = cidr(&plain("10.1.2.3/8")).unwrap_err().hint.unwrap();
        assert!(hint.contains("`10.0.0.0/8`"), "{hint}");
        assert!(cidr(&plain("10.0.0.0/33")).is_err());
    }

    #[test]
    fn times_and_sizes_are_shown_as_written() {
        assert_eq!(show_duration(Duration::from_millis(90_500)), "1m30s500ms");
        assert_eq!(show_duration(Duration::ZERO), "0s");
        assert_eq!((show_size(10 << 20), show_size(1025)), ("10MiB".into(), "1025B".into()));
    }
}
