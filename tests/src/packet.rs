//! Frames for packet tests, built part by part. IPv4 headers have their checksum; transport checksums are
//! zero unless [`Packet::checksummed`], as the XDP program does not look at them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// TCP flags.
pub const SYN: u8 = 0x02;
/// See [`SYN`].
pub const ACK: u8 = 0x10;

/// A frame to be: set what matters, then [`Packet::build`].
#[derive(Clone, Debug)]
pub struct Packet {
    source: IpAddr,
    destination: IpAddr,
    vlans: Vec<(u16, u16)>,
    options: Vec<u8>,
    extensions: Vec<Extension>,
    fragment: Option<(u16, bool)>,
    protocol: u8,
    transport: Vec<u8>,
}

/// An IPv6 extension header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options, of this many 8-byte units.
    HopByHop(u8),
    /// Destination options.
    Destination(u8),
    /// Routing.
    Routing(u8),
    /// Authentication header with a 12-byte ICV: 24 bytes.
    Authentication,
    /// Fragment header with this offset (8-byte units) and more-fragments bit.
    Fragment(u16, bool),
    /// A header that hides the rest (ESP).
    Esp,
}

impl Extension {
    const fn number(self) -> u8 {
        match self {
            Extension::HopByHop(_) => 0,
            Extension::Destination(_) => 60,
            Extension::Routing(_) => 43,
            Extension::Authentication => 51,
            Extension::Fragment(..) => 44,
            Extension::Esp => 50,
        }
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        match self {
            Extension::HopByHop(units) | Extension::Destination(units) | Extension::Routing(units) => {
                let mut bytes = vec![0; usize::from(units.max(1)) * 8];
                bytes[0] = next;
                bytes[1] = units.max(1) - 1;
                bytes
            }
            Extension::Authentication => {
                let mut bytes = vec![0; 24];
                bytes[0] = next;
                bytes[1] = 4;
                bytes
            }
            Extension::Fragment(offset, more) => {
                let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
                vec![next, 0, high, low, 0, 0, 0, 1]
            }
            Extension::Esp => vec![0; 16],
        }
    }
}

impl Packet {
    /// From 192.0.2.9 to 198.51.100.1.
    pub fn v4() -> Packet {
        Packet::between(Ipv4Addr::new(192, 0, 2, 9).into(), Ipv4Addr::new(198, 51, 100, 1).into())
    }

    /// From 2001:db8:1::9 to 2001:db8:ff::1.
    pub fn v6() -> Packet {
        Packet::between(
            Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 9).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1).into(),
        )
    }

    /// Both addresses of one version.
    pub fn between(source: IpAddr, destination: IpAddr) -> Packet {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "one IP version a packet");
        Packet {
            source,
            destination,
            vlans: Vec::new(),
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            protocol: TCP,
            transport: Vec::new(),
        }
    }

    /// Another source.
    pub fn from(mut self, source: IpAddr) -> Packet {
        self.source = source;
        self
    }

    /// Another destination.
    pub fn to(mut self, destination: IpAddr) -> Packet {
        self.destination = destination;
        self
    }

    /// One more VLAN tag, outermost first.
    pub fn vlan(mut self, ethertype: u16, id: u16) -> Packet {
        self.vlans.push((ethertype, id));
        self
    }

    /// IPv4 options, a multiple of 4 bytes.
    pub fn options(mut self, options: &[u8]) -> Packet {
        assert!(options.len().is_multiple_of(4) && options.len() <= 40);
        self.options = options.to_vec();
        self
    }

    /// One more IPv6 extension header.
    pub fn extension(mut self, extension: Extension) -> Packet {
        self.extensions.push(extension);
        self
    }

    /// IPv4 fragment offset in 8-byte units, and more-fragments.
    pub fn fragment(mut self, offset: u16, more: bool) -> Packet {
        self.fragment = Some((offset, more));
        self
    }

    /// A TCP header of 20 bytes with these flags.
    pub fn tcp(mut self, port: u16, flags: u8) -> Packet {
        let mut header = vec![0; 20];
        header[..2].copy_from_slice(&40_000u16.to_be_bytes());
        header[2..4].copy_from_slice(&port.to_be_bytes());
        header[12] = 5 << 4;
        header[13] = flags;
        header[14..16].copy_from_slice(&64_240u16.to_be_bytes());
        self.protocol = TCP;
        self.transport = header;
        self
    }

    /// Source port, sequence number and acknowledgement number of the TCP header before.
    pub fn tcp_numbers(mut self, source_port: u16, sequence: u32, acknowledged: u32) -> Packet {
        self.transport[..2].copy_from_slice(&source_port.to_be_bytes());
        self.transport[4..8].copy_from_slice(&sequence.to_be_bytes());
        self.transport[8..12].copy_from_slice(&acknowledged.to_be_bytes());
        self
    }

    /// Bytes after the transport header.
    pub fn payload(mut self, bytes: &[u8]) -> Packet {
        self.transport.extend(bytes);
        self
    }

    /// A UDP header and `payload` bytes.
    pub fn udp(mut self, port: u16, payload: usize) -> Packet {
        let mut datagram = vec![0; 8 + payload];
        datagram[..2].copy_from_slice(&40_000u16.to_be_bytes());
        datagram[2..4].copy_from_slice(&port.to_be_bytes());
        datagram[4..6].copy_from_slice(&(8 + payload as u16).to_be_bytes());
        self.protocol = UDP;
        self.transport = datagram;
        self
    }

    /// Fills the checksum of an IPv4 TCP segment, for a stack that will look at it.
    pub fn checksummed(mut self) -> Packet {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (self.source, self.destination) else {
            panic!("IPv4 only");
        };
        let mut covered = [source.octets(), destination.octets()].concat();
        covered.extend([0, self.protocol]);
        covered.extend((self.transport.len() as u16).to_be_bytes());
        covered.extend(&self.transport);
        let sum = checksum(&covered);
        self.transport[16..18].copy_from_slice(&sum.to_be_bytes());
        self
    }

    /// Any other transport.
    pub fn transport(mut self, protocol: u8, bytes: &[u8]) -> Packet {
        self.protocol = protocol;
        self.transport = bytes.to_vec();
        self
    }

    /// The frame, as long as it is: no padding to Ethernet's 60 bytes, so that truncation means something.
    pub fn build(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for (ethertype, id) in &self.vlans {
            frame.extend(ethertype.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                frame.extend(self.ipv4(source, destination));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd]);
                frame.extend(self.ipv6(source, destination));
            }
            _ => unreachable!("`between` has checked, and `from` and `to` are given the same version"),
        }
        frame
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let header = 20 + self.options.len();
        let (offset, more) = self.fragment.unwrap_or((0, false));
        let mut bytes = vec![0x40 | (header / 4) as u8, 0];
        bytes.extend(((header + self.transport.len()) as u16).to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend((offset | u16::from(more) << 13).to_be_bytes());
        bytes.extend([64, self.protocol, 0, 0]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(&self.options);
        let sum = checksum(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(&self.transport);
        bytes
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut numbers: Vec<u8> = self.extensions.iter().map(|extension| extension.number()).collect();
        numbers.push(self.protocol);
        for (i, extension) in self.extensions.iter().enumerate() {
            payload.extend(extension.bytes(numbers[i + 1]));
        }
        payload.extend(&self.transport);
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend([numbers[0], 64]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(payload);
        bytes
    }
}

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
