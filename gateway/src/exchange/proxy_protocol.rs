//! The PROXY protocol, versions 1 and 2, as a balancer in front of us speaks it: who the client is, said before the
//! first byte of the connection itself.
//!
//! Source: "The PROXY protocol, Versions 1 & 2" (haproxy.org, 2020/03/05). Pure: bytes in, address out. Only a source in
//! `trusted_proxies` is listened to; whoever else speaks it is refused, since it could claim any address.
//!
//! | first bytes | what it is |
//! |---|---|
//! | `0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A` | version 2: binary, 16 bytes and a length |
//! | `PROXY ` | version 1: one line of at most 107 bytes |
//! | anything else | not the protocol |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header that is read: version 2 with its addresses and 2 KiB of TLVs; version 1 has 107.
pub const HEADER_MAX: usize = 16 + 36 + 2048;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const LINE_MAX: usize = 107;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the header; what follows belongs to the connection.
    pub len: usize,
    /// The client; `None` when the balancer speaks for itself (`LOCAL`, a health check) or does not know (`UNKNOWN`).
    pub client: Option<SocketAddr>,
}

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Partial,
    Complete(Header),
    /// Not the protocol, or broken.
    Malformed,
}

/// Reads a header at the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] == SIGNATURE[..common] {
        return if common < SIGNATURE.len() { Parsed::Partial } else { parse_v2(bytes) };
    }
    let common = bytes.len().min(6);
    if bytes[..common] == b"PROXY "[..common] { parse_v1(bytes) } else { Parsed::Malformed }
}

/// Section 2.2: signature, version and command, family and protocol, length, addresses, TLVs.
fn parse_v2(bytes: &[u8]) -> Parsed {
    let Some(fixed) = bytes.get(12..16) else { return Parsed::Partial };
    let (version, command) = (fixed[0] >> 4, fixed[0] & 15);
    let len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if version != 2 || command > 1 || 16 + len > HEADER_MAX {
        return Parsed::Malformed;
    }
    let Some(body) = bytes.get(16..16 + len) else { return Parsed::Partial };
    let client = match (command, fixed[1]) {
        (0, _) => None,
        // Stream over IPv4: two addresses, two ports.
        (_, 0x11) => match body.first_chunk::<12>() {
            Some(b) => Some(SocketAddr::new(
                IpAddr::V4(Ipv4Addr::new(b[0], b[1], b[2], b[3])),
                u16::from_be_bytes([b[8], b[9]]),
            )),
            None => return Parsed::Malformed,
        },
        (_, 0x21) => match (body.first_chunk::<16>(), body.get(32..36)) {
            (Some(address), Some(ports)) => Some(SocketAddr::new(
                IpAddr::V6(Ipv6Addr::from(*address)),
                u16::from_be_bytes([ports[0], ports[1]]),
            )),
            _ => return Parsed::Malformed,
        },
        // UNSPEC, datagrams and unix sockets: the receiver should accept the connection without an address.
        _ => None,
    };
    Parsed::Complete(Header { len: 16 + len, client: client.map(canonical) })
}

/// Section 2.1: `PROXY TCP4 source destination source-port destination-port CR LF`.
fn parse_v1(bytes: &[u8]) -> Parsed {
    let line = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_MAX { Parsed::Partial } else { Parsed::Malformed };
    };
    let complete = |client| Parsed::Complete(Header { len: end + 2, client });
    let Ok(text) = std::str::from_utf8(&line[..end]) else { return Parsed::Malformed };
    let mut words = text.split(' ').skip(1);
    let is_v4 = match words.next() {
        Some("TCP4") => true,
        Some("TCP6") => false,
        // The rest of the line means nothing then.
        Some("UNKNOWN") => return complete(None),
        _ => return Parsed::Malformed,
    };
    let (Some(source), Some(destination), Some(port), Some(_), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Parsed::Malformed;
    };
    let family = |text: &str| text.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == is_v4);
    match (family(source), family(destination), port.parse::<u16>()) {
        (Some(source), Some(_), Ok(port)) => complete(Some(canonical(SocketAddr::new(source, port)))),
        _ => Parsed::Malformed,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn v4_body() -> Vec<u8> {
        [&[192, 0, 2, 7, 10, 0, 0, 1][..], &51000_u16.to_be_bytes(), &443_u16.to_be_bytes()].concat()
    }

    fn check(bytes: &[u8], client: Option<&str>) {
        let header = Header { len: bytes.len(), client: client.map(|text| text.parse().unwrap()) };
        let mut followed = bytes.to_vec();
        followed.extend(b"GET / HTTP/1.1\r\n");
        assert_eq!(parse(&followed), Parsed::Complete(header), "{bytes:?}");
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Parsed::Partial, "the first {end} bytes of {bytes:?}");
        }
    }

    #[test]
    fn version_1_lines() {
        check(b"PROXY TCP4 192.0.2.7 10.0.0.1 51000 443\r\n", Some("192.0.2.7:51000"));
        check(b"PROXY TCP6 2001:db8::7 2001:db8::1 51000 443\r\n", Some("[2001:db8::7]:51000"));
        check(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", Some("192.0.2.7:1"));
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None);
    }

    #[test]
    fn version_2_headers() {
        check(&v2(1, 0x11, &v4_body()), Some("192.0.2.7:51000"));
        let with_tlv = [&v4_body()[..], &[0x04, 0, 2, 0, 0]].concat();
        check(&v2(1, 0x11, &with_tlv), Some("192.0.2.7:51000"));
        let v6: [u8; 32] = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 16]].concat().try_into().unwrap();
        let v6 = [&v6[..], &51000_u16.to_be_bytes(), &443_u16.to_be_bytes()].concat();
        check(&v2(1, 0x21, &v6), Some("[2001:db8::7]:51000"));
        check(&v2(0, 0x11, &v4_body()), None);
        check(&v2(0, 0, &[]), None);
        check(&v2(1, 0x31, &[0; 216]), None);
    }

    #[test]
    fn what_is_not_the_protocol() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let huge = v2(1, 0x11, &vec![0; HEADER_MAX]);
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01\x00",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 51000\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 51000 443 5\r\n",
            b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
            b"PROXY TCP6 192.0.2.7 ::1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n",
            b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
            &long,
            &huge,
            &v2(1, 0x11, &[0; 11]),
            &v2(1, 0x21, &[0; 35]),
            &v2(2, 0x11, &[0; 12]),
        ] {
            assert_eq!(parse(bytes), Parsed::Malformed, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn never_more_than_what_is_there(bytes in prop::collection::vec(any::<u8>(), 0..300), signed in any::<bool>()) {
            let bytes = if signed { [&SIGNATURE[..], &bytes].concat() } else { bytes };
            if let Parsed::Complete(header) = parse(&bytes) {
                prop_assert!(header.len <= bytes.len() && header.len <= HEADER_MAX);
            }
        }
    }
}
