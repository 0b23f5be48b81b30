//! The `Forwarded` field (RFC 7239): who asked whom, one element a proxy, the nearest last.
//!
//! ```text
//! Forwarded: for=192.0.2.7;proto=https;host=shop.example, for="[2001:db8::7]:51000";by=_hidden
//! ```
//!
//! Pure. Owns the grammar and the text of an element of ours. Never: trust. Invariant: a field that breaks the grammar
//! gives no element at all from the place where it does, so nobody behind a quote that never ends is believed.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

/// One element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element<'a> {
    /// Who asked (`for`).
    pub client: Node,
    /// Who was asked (`by`).
    pub by: Node,
    /// The scheme, as written.
    pub proto: Option<Cow<'a, [u8]>>,
    /// The Host field, as written.
    pub host: Option<Cow<'a, [u8]>>,
}

/// A participant (section 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Node {
    /// Nothing is said of it, or it is not known.
    #[default]
    Unknown,
    /// A name that means something to its giver only (`_hidden`).
    Obfuscated,
    Address(IpAddr),
}

/// Whether a name is one of the class `X-Forwarded-*`, of which the listed ones are only the best known: `-User` and
/// `-Groups` are an identity to many a target, `-Ssl` and `-Scheme` a protocol. `_` passes for `-`, as it does there.
#[inline]
pub fn is_forwarded_class(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"x-forwarded-";
    let Some(start) = name.get(..PREFIX.len()) else { return false };
    let same = |(byte, want): (&u8, &u8)| match want {
        b'-' => matches!(byte, b'-' | b'_'),
        letter => byte | 0x20 == *letter,
    };
    start.iter().zip(PREFIX).all(same)
}

/// The elements of one line, first to last; `None` where it breaks the grammar.
pub fn parse(line: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut rest = line.trim_ascii();
    let mut elements = Vec::new();
    let mut element = Element::default();
    let mut seen = Seen::default();
    loop {
        rest = rest.trim_ascii_start();
        // Empty elements of lists are passed over (RFC 9110 section 5.6.1.2).
        if !matches!(rest.first(), None | Some(b',' | b';')) {
            let equals = rest.iter().position(|byte| *byte == b'=')?;
            let name = &rest[..equals];
            if !super::head::is_token(name) {
                return None;
            }
            let value;
            (value, rest) = take_value(&rest[equals + 1..])?;
            element.set(name, value, &mut seen)?;
            rest = rest.trim_ascii_start();
        }
        match rest.split_first() {
            Some((b';', after)) => rest = after,
            Some((b',', after)) => {
                elements.extend(std::mem::take(&mut seen).any.then(|| std::mem::take(&mut element)));
                rest = after;
            }
            None => {
                elements.extend(seen.any.then_some(element));
                return Some(elements);
            }
            Some(_) => return None,
        }
    }
}

/// Which parameters an element has; each may be there once (section 4).
#[derive(Default)]
struct Seen {
    any: bool,
    known: [bool; 4],
}

impl<'a> Element<'a> {
    fn set(&mut self, name: &[u8], value: Cow<'a, [u8]>, seen: &mut Seen) -> Option<()> {
        seen.any = true;
        let known = ["for", "by", "proto", "host"];
        let Some(at) = known.iter().position(|known| name.eq_ignore_ascii_case(known.as_bytes())) else {
            return Some(()); // an extension
        };
        if std::mem::replace(&mut seen.known[at], true) {
            return None;
        }
        match at {
            0 => self.client = node(&value),
            1 => self.by = node(&value),
            2 => self.proto = Some(value),
            _ => self.host = Some(value),
        }
        Some(())
    }
}

/// A token or a quoted string, and what follows it.
fn take_value(bytes: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(quoted) = bytes.strip_prefix(b"\"") else {
        // Wider than a token: addresses with ports are often written without the quotes they need.
        let end = bytes.iter().position(|byte| matches!(byte, b';' | b',' | b' ' | b'\t' | b'"'));
        let (value, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        return (!value.is_empty()).then_some((Cow::Borrowed(value), rest));
    };
    let end = quoted.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    if quoted[end] == b'"' {
        return Some((Cow::Borrowed(&quoted[..end]), &quoted[end + 1..]));
    }
    let mut value = quoted[..end].to_vec();
    let mut rest = &quoted[end..];
    loop {
        match rest {
            [b'"', after @ ..] => return Some((Cow::Owned(value), after)),
            [b'\\', escaped, after @ ..] => {
                value.push(*escaped);
                rest = after;
            }
            [byte, after @ ..] if *byte != b'\\' => {
                value.push(*byte);
                rest = after;
            }
            _ => return None,
        }
    }
}

/// Section 6: an address, in brackets if it is IPv6, `unknown`, or an obfuscated name; each with an optional port.
fn node(value: &[u8]) -> Node {
    if value.starts_with(b"_") {
        return Node::Obfuscated;
    }
    address(value).map_or(Node::Unknown, Node::Address)
}

/// An address as it stands in forwarding fields: bare, in brackets, or with a port, which may be an obfuscated one.
pub fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let (inner, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => text.split_at(text.find(':')?),
    };
    let is_port = port.is_empty() || port.strip_prefix(":_").is_some_and(|port| !port.is_empty());
    let address = inner.parse::<IpAddr>().ok().filter(|_| is_port)?;
    Some(address.to_canonical())
}

/// Appends the element of ours for a request that `client` sent for `host`.
pub fn write(client: IpAddr, https: bool, host: &[u8], out: &mut Vec<u8>) {
    match client {
        IpAddr::V4(address) => out.extend(format!("for={address}").as_bytes()),
        IpAddr::V6(address) => out.extend(format!("for=\"[{address}]\"").as_bytes()),
    }
    if !host.is_empty() {
        out.extend(b";host=\"");
        for &byte in host {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(b'"');
    }
    out.extend(if https { b";proto=https".as_slice() } else { b";proto=http" });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clients(line: &str) -> Option<Vec<Node>> {
        Some(parse(line.as_bytes())?.into_iter().map(|element| element.client).collect())
    }

    #[test]
    fn elements_of_the_rfc() {
        let ip = |text: &str| Node::Address(text.parse().unwrap());
        let table = [
            // Section 4.
            (r#"for="_gazonk""#, Some(vec![Node::Obfuscated])),
            (r#"For="[2001:db8:cafe::17]:4711""#, Some(vec![ip("2001:db8:cafe::17")])),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", Some(vec![ip("192.0.2.60")])),
            ("for=192.0.2.43, for=198.51.100.17", Some(vec![ip("192.0.2.43"), ip("198.51.100.17")])),
            // Section 6.3, 7.1.
            ("for=_hidden, for=_SEVKISEK", Some(vec![Node::Obfuscated; 2])),
            (
                r#"for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown"#,
                Some(vec![ip("192.0.2.43"), ip("2001:db8:cafe::17"), Node::Unknown]),
            ),
            // Ports, obfuscated ports, mapped addresses, white space, empty elements, extensions.
            (r#"for="192.0.2.43:47011""#, Some(vec![ip("192.0.2.43")])),
            (r#"for="[2001:db8::1]:_port""#, Some(vec![ip("2001:db8::1")])),
            ("for=192.0.2.1:_x", Some(vec![ip("192.0.2.1")])),
            ("for=\"::ffff:192.0.2.1\"", Some(vec![ip("192.0.2.1")])),
            (" , for=192.0.2.1 ; secret=x ,, proto=https", Some(vec![ip("192.0.2.1"), Node::Unknown])),
            ("", Some(vec![])),
            (r#"for="a\"b,\\""#, Some(vec![Node::Unknown])),
            // Against the grammar.
            (r#"for="192.0.2.1"#, None),
            (r#"for="192.0.2.1\"#, None),
            ("for=", None),
            ("for", None),
            ("for=192.0.2.1 for=192.0.2.2", None),
            ("for=192.0.2.1;for=192.0.2.2", None),
            ("f r=1", None),
            (r#"for="x"y"#, None),
        ];
        for (line, expected) in table {
            assert_eq!(clients(line), expected, "{line}");
        }
    }

    #[test]
    fn other_parameters() {
        let elements = parse(br#"by=_p;Host="shop.example:8443";proto=https;for=192.0.2.1"#).unwrap();
        let [element] = &elements[..] else { panic!("{elements:?}") };
        assert_eq!(element.by, Node::Obfuscated);
        assert_eq!(element.host.as_deref(), Some(&b"shop.example:8443"[..]));
        assert_eq!(element.proto.as_deref(), Some(&b"https"[..]));
    }

    #[test]
    fn addresses() {
        for text in
            ["10.0.0.1", "10.0.0.1:80", "10.0.0.1:_a", " 10.0.0.1 ", "[::ffff:10.0.0.1]", "::ffff:10.0.0.1"]
        {
            assert_eq!(address(text.as_bytes()), Some("10.0.0.1".parse().unwrap()), "{text}");
        }
        for text in ["", "unknown", "10.0.0", "10.0.0.1:x", "[::1", "[::1]x", "10.0.0.1:_", "\u{ff}"] {
            assert_eq!(address(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for (client, host) in [("192.0.2.7", "a"), ("2001:db8::7", "a:8443"), ("::1", "we\"ird\\")] {
            let client = client.parse().unwrap();
            let mut out = Vec::new();
            write(client, true, host.as_bytes(), &mut out);
            let elements = parse(&out).unwrap();
            assert_eq!(elements.len(), 1);
            assert_eq!(elements[0].client, Node::Address(client));
            assert_eq!(elements[0].host.as_deref(), Some(host.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn no_line_is_too_much(line in "[ -~]{0,80}", tail in r#"(for|by)="?[0-9a-f:._\[\]]{0,20}"?[;,]?"#) {
            let line = line + &tail;
            let _ = parse(line.as_bytes());
        }
    }
}
