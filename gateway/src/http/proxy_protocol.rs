//! The PROXY protocol, versions 1 and 2: who the client is, said before the first byte of the connection itself. Read
//! from balancers in front of us, and written to targets that want it.
//!
//! Source: "The PROXY protocol, Versions 1 & 2" (haproxy.org, 2020/03/05). Pure: bytes in, facts out. Only a source in
//! `trusted_proxies` is listened to; whoever else speaks it is refused, since it could claim any address.
//!
//! | first bytes | what it is |
//! |---|---|
//! | `0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A` | version 2: binary, 16 bytes and a length |
//! | `PROXY ` | version 1: one line of at most 107 bytes |
//! | anything else | not the protocol |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header: of version 2, whose length has 16 bits; version 1 has 107. Only who is trusted gets this much.
pub const HEADER_MAX: usize = 16 + u16::MAX as usize;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const LINE_MAX: usize = 107;

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the header; what follows belongs to the connection.
    pub len: usize,
    /// The client; `None` when the balancer speaks for itself (`LOCAL`, a health check) or does not know (`UNKNOWN`).
    pub client: Option<SocketAddr>,
    /// Where the client connected to.
    pub destination: Option<SocketAddr>,
    /// What else is said (section 2.2.7).
    pub tlvs: Tlvs,
}

/// The type-length-values of version 2. Texts that are not UTF-8 are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tlvs {
    /// Application protocol of the client's TLS connection.
    pub alpn: Option<Box<str>>,
    /// Server name that the client asked for.
    pub authority: Option<Box<str>>,
    /// A name for the connection, at most 128 bytes.
    pub unique_id: Option<Box<[u8]>>,
    /// Network namespace.
    pub netns: Option<Box<str>>,
    pub ssl: Option<Ssl>,
    /// Of types that are not known here, such as those of clouds for their endpoints (0xEA, 0xEE): as they came.
    pub others: Vec<(u8, Box<[u8]>)>,
}

/// The client's TLS connection to the balancer (section 2.2.7.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ssl {
    /// A certificate was shown, on this connection or in its session.
    pub certificate: bool,
    /// The certificate verified.
    pub verified: bool,
    pub version: Option<Box<str>>,
    pub common_name: Option<Box<str>>,
    pub cipher: Option<Box<str>>,
}

impl Tlvs {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How far a header has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Partial,
    Complete(Box<Header>),
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
    let (version, command, family) = (fixed[0] >> 4, fixed[0] & 15, fixed[1]);
    let len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    // Values that are not assigned must end the connection.
    if version != 2 || command > 1 || family >> 4 > 3 || family & 15 > 2 {
        return Parsed::Malformed;
    }
    let Some(whole) = bytes.get(..16 + len) else { return Parsed::Partial };
    let nothing = Header { len: 16 + len, client: None, destination: None, tlvs: Tlvs::default() };
    // LOCAL: the balancer itself; what it says of addresses is to be discarded.
    if command == 0 {
        return Parsed::Complete(Box::new(nothing));
    }
    match body(whole, family) {
        Some((addresses, tlvs)) => {
            // Datagrams and unix sockets: accepted, without an address that means anything here.
            let (client, destination) = addresses.filter(|_| family & 15 == 1).unzip();
            Parsed::Complete(Box::new(Header { client, destination, tlvs, ..nothing }))
        }
        None => Parsed::Malformed,
    }
}

/// Addresses and TLVs of a whole header of version 2; `None` where they are broken.
fn body(whole: &[u8], family: u8) -> Option<(Option<(SocketAddr, SocketAddr)>, Tlvs)> {
    let body = &whole[16..];
    let (addresses, rest) = match family >> 4 {
        1 => {
            let (b, rest) = body.split_first_chunk::<12>()?;
            let ip = |at: usize| IpAddr::V4(Ipv4Addr::new(b[at], b[at + 1], b[at + 2], b[at + 3]));
            let port = |at: usize| u16::from_be_bytes([b[at], b[at + 1]]);
            (Some((SocketAddr::new(ip(0), port(8)), SocketAddr::new(ip(4), port(10)))), rest)
        }
        2 => {
            let (source, rest) = body.split_first_chunk::<16>()?;
            let (destination, rest) = rest.split_first_chunk::<16>()?;
            let (ports, rest) = rest.split_first_chunk::<4>()?;
            let ip = |b: &[u8; 16]| IpAddr::V6(Ipv6Addr::from(*b));
            let source = SocketAddr::new(ip(source), u16::from_be_bytes([ports[0], ports[1]]));
            let destination = SocketAddr::new(ip(destination), u16::from_be_bytes([ports[2], ports[3]]));
            (Some((source, destination)), rest)
        }
        3 => (None, body.get(216..)?),
        // UNSPEC: nothing after it can be told apart.
        _ => return Some((None, Tlvs::default())),
    };
    let addresses = addresses.map(|(source, destination)| (canonical(source), canonical(destination)));
    Some((addresses, tlvs(whole, rest)?))
}

/// Section 2.2.7. A checksum that does not fit breaks the header.
fn tlvs(whole: &[u8], mut rest: &[u8]) -> Option<Tlvs> {
    let mut found = Tlvs::default();
    while !rest.is_empty() {
        let (kind, value, after) = tlv(rest)?;
        match kind {
            0x01 => found.alpn = text(value),
            0x02 => found.authority = text(value),
            0x03 => {
                let at = whole.len() - after.len() - 4;
                if u32::from_be_bytes(value.try_into().ok()?) != checksum(whole, at) {
                    return None;
                }
            }
            0x05 if value.len() > 128 => return None,
            0x05 => found.unique_id = Some(value.into()),
            0x20 => found.ssl = ssl(value)?,
            0x30 => found.netns = text(value),
            0x04 => {} // NOOP
            _ => found.others.push((kind, value.into())),
        }
        rest = after;
    }
    Some(found)
}

fn tlv(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([kind, high, low], rest) = bytes.split_first_chunk::<3>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    Some((*kind, value, rest))
}

/// Section 2.2.7.7: flags, the result of verification, and TLVs of its own. Inner `None`: the client spoke no TLS.
#[expect(clippy::option_option, reason = "broken and absent are two things")]
fn ssl(value: &[u8]) -> Option<Option<Ssl>> {
    let ([flags, verify @ ..], mut rest) = value.split_first_chunk::<5>()?;
    let mut found = Ssl {
        certificate: flags & 0b110 != 0,
        // Zero is success, and says nothing where there was no certificate.
        verified: flags & 0b110 != 0 && *verify == [0; 4],
        ..Ssl::default()
    };
    while !rest.is_empty() {
        let (kind, value, after) = tlv(rest)?;
        match kind {
            0x21 => found.version = text(value),
            0x22 => found.common_name = text(value),
            0x23 => found.cipher = text(value),
            _ => {}
        }
        rest = after;
    }
    Some((flags & 1 != 0).then_some(found))
}

fn text(value: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(value).ok()?;
    (!text.chars().any(char::is_control)).then(|| text.into())
}

/// CRC32c (RFC 3720 appendix B.4) of a header whose four bytes at `at` are taken as zeros.
fn checksum(header: &[u8], at: usize) -> u32 {
    let bytes = header.iter().enumerate().map(|(i, &byte)| if (at..at + 4).contains(&i) { 0 } else { byte });
    !bytes.fold(!0, |crc, byte| CRC32C[usize::from((crc ^ u32::from(byte)) as u8)] ^ (crc >> 8))
}

const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let (mut crc, mut bit) = (at as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0x82f6_3b78 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

/// Section 2.1: `PROXY TCP4 source destination source-port destination-port CR LF`.
fn parse_v1(bytes: &[u8]) -> Parsed {
    let line = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_MAX { Parsed::Partial } else { Parsed::Malformed };
    };
    let complete = |addresses: Option<(SocketAddr, SocketAddr)>| {
        let (client, destination) = addresses.unzip();
        Parsed::Complete(Box::new(Header { len: end + 2, client, destination, tlvs: Tlvs::default() }))
    };
    let Ok(text) = std::str::from_utf8(&line[..end]) else { return Parsed::Malformed };
    let mut words = text.split(' ').skip(1);
    let is_v4 = match words.next() {
        Some("TCP4") => true,
        Some("TCP6") => false,
        // The rest of the line means nothing then.
        Some("UNKNOWN") => return complete(None),
        _ => return Parsed::Malformed,
    };
    let words: Vec<&str> = words.collect();
    let [source, destination, source_port, destination_port] = words[..] else { return Parsed::Malformed };
    let family = |text: &str| text.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == is_v4);
    // Rust takes a leading plus sign, the protocol digits only.
    let port = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    match (family(source), family(destination), port(source_port), port(destination_port)) {
        (Some(source), Some(destination), Some(from), Some(to)) => complete(Some((
            canonical(SocketAddr::new(source, from)),
            canonical(SocketAddr::new(destination, to)),
        ))),
        _ => Parsed::Malformed,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Appends a line of version 1.
pub fn write_v1(client: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let (client, destination) = (canonical(client), canonical(destination));
    let line = match (client.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            format!("PROXY TCP4 {from} {to} {} {}\r\n", client.port(), destination.port())
        }
        (from, to) => {
            format!("PROXY TCP6 {} {} {} {}\r\n", v6(from), v6(to), client.port(), destination.port())
        }
    };
    out.extend(line.as_bytes());
}

/// Appends a header of version 2, with what else is said (but for a network namespace, which is not the target's) and a
/// checksum.
pub fn write_v2(client: SocketAddr, destination: SocketAddr, said: &Tlvs, out: &mut Vec<u8>) {
    let start = out.len();
    let (client, destination) = (canonical(client), canonical(destination));
    out.extend(SIGNATURE);
    out.extend([0x21, 0, 0, 0]);
    match (client.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out[start + 13] = 0x11;
            out.extend(from.octets());
            out.extend(to.octets());
        }
        (from, to) => {
            out[start + 13] = 0x21;
            out.extend(v6(from).octets());
            out.extend(v6(to).octets());
        }
    }
    out.extend(client.port().to_be_bytes());
    out.extend(destination.port().to_be_bytes());
    let texts = [(0x01, &said.alpn), (0x02, &said.authority)];
    for (kind, text) in texts.iter().filter_map(|(kind, text)| Some((*kind, text.as_deref()?))) {
        write_tlv(kind, text.as_bytes(), start, out);
    }
    if let Some(id) = &said.unique_id {
        write_tlv(0x05, id, start, out);
    }
    if let Some(ssl) = &said.ssl {
        write_tlv(0x20, &ssl.written(), start, out);
    }
    for (kind, value) in &said.others {
        write_tlv(*kind, value, start, out);
    }
    out.extend([0x03, 0, 4, 0, 0, 0, 0]);
    let len = (out.len() - start - 16) as u16;
    out[start + 14..start + 16].copy_from_slice(&len.to_be_bytes());
    let at = out.len() - start - 4;
    let crc = checksum(&out[start..], at);
    out[start + at..].copy_from_slice(&crc.to_be_bytes());
}

/// Appends a TLV to the header that begins at `start`, unless there would be no room for the checksum behind it.
fn write_tlv(kind: u8, value: &[u8], start: usize, out: &mut Vec<u8>) {
    const CHECKSUM: usize = 7;
    if out.len() - start + 3 + value.len() + CHECKSUM <= HEADER_MAX {
        out.push(kind);
        out.extend((value.len() as u16).to_be_bytes());
        out.extend_from_slice(value);
    }
}

impl Ssl {
    /// The value of its TLV: section 2.2.7.7.
    fn written(&self) -> Vec<u8> {
        // Shown on this connection or in its session: which of them is not kept, and both is what most balancers say.
        let flags = 1 | if self.certificate { 0b110 } else { 0 };
        let mut value = vec![flags];
        value.extend(u32::from(!self.verified).to_be_bytes());
        for (kind, text) in [(0x21, &self.version), (0x22, &self.common_name), (0x23, &self.cipher)] {
            // No name or version is longer than a few hundred bytes; what is, is no use to anybody.
            if let Some(text) = text.as_deref().filter(|text| text.len() <= 1024) {
                value.extend([kind, (text.len() >> 8) as u8, text.len() as u8]);
                value.extend_from_slice(text.as_bytes());
            }
        }
        value
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
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

    fn complete(bytes: &[u8]) -> Header {
        match parse(bytes) {
            Parsed::Complete(header) => *header,
            other => panic!("{other:?} of {bytes:?}"),
        }
    }

    fn check(bytes: &[u8], client: Option<&str>) {
        let mut followed = bytes.to_vec();
        followed.extend(b"GET / HTTP/1.1\r\n");
        let header = complete(&followed);
        assert_eq!(header.len, bytes.len(), "{bytes:?}");
        assert_eq!(header.client, client.map(|text| text.parse().unwrap()), "{bytes:?}");
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

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind], &(value.len() as u16).to_be_bytes()[..], value].concat()
    }

    #[test]
    fn what_else_a_balancer_says() {
        let ssl =
            [&[0b111, 0, 0, 0, 0][..], &tlv(0x21, b"TLSv1.3"), &tlv(0x22, b"ann"), &tlv(0x23, b"X")].concat();
        let all = [
            v4_body(),
            tlv(0x04, &[0; 3]),
            tlv(0x01, b"h2"),
            tlv(0x02, b"shop.example"),
            tlv(0x05, &[7; 128]),
            tlv(0x20, &ssl),
            tlv(0x30, b"blue"),
            tlv(0xee, b"?"),
        ];
        let header = complete(&v2(1, 0x11, &all.concat()));
        let text = |text: &str| Some(text.into());
        assert_eq!(header.destination, Some("10.0.0.1:443".parse().unwrap()));
        assert_eq!(
            header.tlvs,
            Tlvs {
                alpn: text("h2"),
                authority: text("shop.example"),
                unique_id: Some([7; 128].into()),
                netns: text("blue"),
                ssl: Some(Ssl {
                    certificate: true,
                    verified: true,
                    version: text("TLSv1.3"),
                    common_name: text("ann"),
                    cipher: text("X"),
                }),
                others: vec![(0xee, b"?"[..].into())],
            }
        );
        // Of a client in the clear, or one whose certificate did not verify.
        let plain = complete(&v2(1, 0x11, &[v4_body(), tlv(0x20, &[0; 5])].concat()));
        assert!(plain.tlvs.is_empty());
        let failed = complete(&v2(1, 0x11, &[v4_body(), tlv(0x20, &[0b11, 0, 0, 0, 1])].concat()));
        assert_eq!(failed.tlvs.ssl.map(|ssl| (ssl.certificate, ssl.verified)), Some((true, false)));
        // LOCAL and UNSPEC: whatever follows is passed over.
        assert!(complete(&v2(0, 0x11, &all.concat())).tlvs.is_empty());
        assert!(complete(&v2(1, 0, b"xx")).tlvs.is_empty());
        let unix = complete(&v2(1, 0x31, &[vec![0; 216], tlv(0x02, b"a")].concat()));
        assert_eq!((unix.client, unix.tlvs.authority.as_deref()), (None, Some("a")));
    }

    #[test]
    fn tlvs_that_break_a_header() {
        let broken = |rest: &[u8]| parse(&v2(1, 0x11, &[&v4_body(), rest].concat())) == Parsed::Malformed;
        assert!(broken(&[1]) && broken(&[1, 0]) && broken(&[1, 0, 5, 1]));
        assert!(broken(&tlv(0x05, &[7; 129])));
        assert!(broken(&tlv(0x20, &[0; 4])) && broken(&tlv(0x20, &[1, 0, 0, 0, 0, 0x21, 0])));
        assert!(broken(&tlv(0x03, &[0; 4])) && broken(&tlv(0x03, &[0; 3])));
        assert!(!broken(&tlv(0x02, &[0xff])), "a text that is none is left out");
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        // RFC 3720 appendix B.4.
        assert_eq!(checksum(&[0; 32], 40), 0x8a91_36aa);
        assert_eq!(checksum(&[0xff; 32], 40), 0x62a8_ab43);
    }

    #[test]
    fn what_is_written_can_be_read() {
        for (client, destination) in [
            ("192.0.2.7:51000", "10.0.0.1:443"),
            ("[2001:db8::7]:1", "[2001:db8::1]:65535"),
            ("192.0.2.7:51000", "[2001:db8::1]:443"),
            ("[2001:db8::7]:0", "10.0.0.1:443"),
        ] {
            let (client, destination) = (client.parse().unwrap(), destination.parse().unwrap());
            let mut one = Vec::new();
            write_v1(client, destination, &mut one);
            let mut two = b"before".to_vec();
            let said = Tlvs {
                alpn: Some("h2".into()),
                authority: Some("shop.example".into()),
                unique_id: Some([7; 100].into()),
                netns: None,
                ssl: Some(Ssl {
                    certificate: true,
                    verified: true,
                    version: Some("TLSv1.3".into()),
                    ..Ssl::default()
                }),
                others: vec![(0xea, b"\x01vpce"[..].into()), (0xee, vec![7; 4000].into())],
            };
            write_v2(client, destination, &said, &mut two);
            for (bytes, tlvs) in [(&one[..], Tlvs::default()), (&two[6..], said)] {
                let header = complete(bytes);
                assert_eq!(header.len, bytes.len());
                assert_eq!((header.client, header.destination), (Some(client), Some(destination)));
                assert_eq!(header.tlvs, tlvs);
            }
            let at = two.len() - 5;
            two[at] ^= 1;
            assert_eq!(parse(&two[6..]), Parsed::Malformed, "the checksum is not looked at");
        }
    }

    #[test]
    fn what_has_no_room_is_left_out() {
        let others =
            vec![(0xe0, vec![1; 65_000].into()), (0xe1, vec![2; 600].into()), (0xe2, vec![3; 10].into())];
        let mut bytes = Vec::new();
        let address = "192.0.2.7:51000".parse().unwrap();
        write_v2(address, address, &Tlvs { others, ..Tlvs::default() }, &mut bytes);
        let kinds: Vec<u8> = complete(&bytes).tlvs.others.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [0xe0, 0xe2]);
    }

    #[test]
    fn what_is_not_the_protocol() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
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
            &v2(1, 0x11, &[0; 11]),
            &v2(1, 0x21, &[0; 35]),
            &v2(2, 0x11, &[0; 12]),
            &v2(1, 0x41, &[0; 36]),
            &v2(1, 0x13, &[0; 36]),
            &v2(1, 0x31, &[0; 215]),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 443\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 x\r\n",
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
