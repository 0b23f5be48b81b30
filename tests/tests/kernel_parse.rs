//! The packet parser of the XDP program, compiled for the host: the same file, over byte slices.

use std::net::IpAddr;

use portcullis_abi::{Protocol, Reason};
use portcullis_tests::packet::{ACK, Extension, Packet, SYN};

#[allow(dead_code, reason = "the XDP program uses the rest")]
#[path = "../../ebpf/src/parse.rs"]
mod parse;

use parse::{Cursor, EXTENSION_HEADERS_MAX, Kind, Network};

/// Where a frame goes, in comparable form.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    source: IpAddr,
    destination: IpAddr,
    kind: &'static str,
    protocol: Protocol,
    port: u16,
}

fn parse(frame: &[u8]) -> Result<Found, Reason> {
    let mut cursor = Cursor::new(frame);
    match cursor.link()? {
        Network::Other => Err(Reason::PassNotOurs),
        Network::V4 => {
            let mut packet = parse::Packet::empty();
            cursor.ipv4(&mut packet)?;
            let [source, destination] =
                [packet.source, packet.destination].map(|addr| addr.to_ne_bytes().into());
            Ok(Found {
                source,
                destination,
                kind: name(packet.kind),
                protocol: packet.protocol,
                port: packet.port,
            })
        }
        Network::V6 => {
            let mut packet = parse::Packet::empty();
            cursor.ipv6(&mut packet)?;
            let [source, destination] = [packet.source, packet.destination].map(|addr: [u32; 4]| {
                let mut octets = [0; 16];
                for (four, word) in octets.chunks_exact_mut(4).zip(addr) {
                    four.copy_from_slice(&word.to_ne_bytes());
                }
                octets.into()
            });
            Ok(Found {
                source,
                destination,
                kind: name(packet.kind),
                protocol: packet.protocol,
                port: packet.port,
            })
        }
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Opens => "opens",
        Kind::Segment => "segment",
        Kind::Datagram => "datagram",
        Kind::Malformed => "malformed",
        Kind::LaterFragment => "later fragment",
        Kind::ChainTooLong => "chain too long",
    }
}

#[track_caller]
fn check(packet: Packet, kind: &'static str, protocol: Protocol, port: u16) {
    let found = parse(&packet.build()).expect("parses");
    assert_eq!((found.kind, found.protocol, found.port), (kind, protocol, port));
}

#[test]
fn addresses_and_ports_are_where_they_should_be() {
    let found = parse(&Packet::v4().vlan(0x88a8, 1).vlan(0x8100, 2).options(&[1; 12]).tcp(443, SYN).build());
    assert_eq!(
        found,
        Ok(Found {
            source: "192.0.2.9".parse().expect("an address"),
            destination: "198.51.100.1".parse().expect("an address"),
            kind: "opens",
            protocol: Protocol::Tcp,
            port: 443,
        })
    );
    let found = parse(&Packet::v6().extension(Extension::Authentication).udp(53, 3).build());
    assert_eq!(
        found,
        Ok(Found {
            source: "2001:db8:1::9".parse().expect("an address"),
            destination: "2001:db8:ff::1".parse().expect("an address"),
            kind: "datagram",
            protocol: Protocol::Udp,
            port: 53,
        })
    );
}

#[test]
fn kinds() {
    check(Packet::v4().tcp(1, SYN | ACK), "segment", Protocol::Tcp, 1);
    check(Packet::v4().tcp(1, SYN | 0x01), "opens", Protocol::Tcp, 1);
    check(Packet::v4().tcp(1, 0), "segment", Protocol::Tcp, 1);
    check(Packet::v4().tcp(1, SYN).fragment(1, true), "later fragment", Protocol::Tcp, 0);
    check(Packet::v6().extension(Extension::Fragment(0, true)).tcp(1, SYN), "opens", Protocol::Tcp, 1);
    check(
        Packet::v6().extension(Extension::Fragment(1, true)).tcp(1, SYN),
        "later fragment",
        Protocol::Tcp,
        0,
    );
}

#[test]
fn the_chain_is_bounded_by_name() {
    let chain = |length| (0..length).fold(Packet::v6(), |packet, _| packet.extension(Extension::HopByHop(2)));
    check(chain(EXTENSION_HEADERS_MAX - 1).tcp(1, SYN), "opens", Protocol::Tcp, 1);
    check(chain(EXTENSION_HEADERS_MAX + 1).tcp(1, SYN), "chain too long", Protocol::Tcp, 0);
}

/// Every frame of up to 120 bytes made of a small alphabet of meaningful ones: no read outside the slice (the
/// debug assertion in `peek` watches), and always an answer.
#[test]
fn arbitrary_bytes_never_read_outside() {
    const ALPHABET: [u8; 16] = [0, 1, 2, 4, 5, 6, 8, 0x0f, 17, 43, 44, 51, 60, 0x45, 0x60, 0xff];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut parsed = 0;
    for _ in 0..300_000 {
        let mut frame: Vec<u8> = (0..random() % 120).map(|_| ALPHABET[random() as usize % 16]).collect();
        if let Some(start) = frame.get_mut(12..15) {
            let known = [[0x08, 0x00, 0x45], [0x86, 0xdd, 0x60], [0x81, 0x00, 0x00], [0x08, 0x06, 0x00]];
            start.copy_from_slice(&known[random() as usize % 4]);
        }
        // An exact allocation, so that a sanitizer sees one byte too many.
        parsed += u32::from(parse(&frame.into_boxed_slice()).is_ok());
    }
    assert!(parsed > 1_000, "{parsed} frames parsed: the alphabet is too wild to mean anything");
}
