//! From the first byte of the frame to the ports: bounds-checked headers, one function each.
//!
//! Finds where a packet wants to go and whether it opens a connection; verifies no checksum and no length
//! that the stack verifies anyway. Every read is checked against the end of the frame first, in the form
//! the verifier follows: `position + size > end`.
//!
//! Depends on nothing of the BPF target, so that the host compiles it too, to test it on byte slices.

use core::marker::PhantomData;

use portcullis_abi::{Protocol, Reason};

/// 802.1Q inside 802.1ad, as switches stack them. A frame with more tags is not ours.
const VLAN_TAGS_MAX: usize = 2;

/// Extension headers looked through. RFC 8200 section 4.1 lists seven in a packet that follows its
/// recommendation (hop-by-hop, destination, routing, fragment, AH, ESP, destination); one to spare.
pub const EXTENSION_HEADERS_MAX: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

const NEXT_HOP_BY_HOP: u8 = 0;
const NEXT_TCP: u8 = 6;
const NEXT_UDP: u8 = 17;
const NEXT_ROUTING: u8 = 43;
const NEXT_FRAGMENT: u8 = 44;
const NEXT_AUTHENTICATION: u8 = 51;
const NEXT_DESTINATION: u8 = 60;
const NEXT_MOBILITY: u8 = 135;
const NEXT_HIP: u8 = 139;
const NEXT_SHIM6: u8 = 140;

const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// The network layer that follows the link layer.
pub enum Network {
    V4,
    V6,
    /// ARP, MPLS, a third tag, anything else.
    Other,
}

/// What the transport layer is, as far as a verdict needs to know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP that opens a connection.
    Opens,
    /// Any other TCP.
    Segment,
    /// UDP.
    Datagram,
    /// A TCP or UDP header that the stack discards, ports readable.
    Malformed,
    /// A fragment other than the first: no ports.
    LaterFragment,
    /// The transport header is further inside than we look: no ports.
    ChainTooLong,
}

/// What parsing finds. Plain fields that always hold something, filled in step by step: of enums with
/// payloads LLVM 22 spills the unset parts, and the verifier refuses to store a register never written.
pub struct Packet<A> {
    /// Addresses as they lie in the packet.
    pub source: A,
    pub destination: A,
    pub protocol: Protocol,
    /// Host order; 0 for kinds without ports.
    pub port: u16,
    pub kind: Kind,
    /// Of a segment that opens a connection: what its retransmission has in common with it (source port and initial
    /// sequence number), and hardly another segment. As it lies in the packet.
    pub flow: u32,
}

impl<A: Default> Packet<A> {
    pub fn empty() -> Packet<A> {
        Packet {
            source: A::default(),
            destination: A::default(),
            protocol: Protocol::Tcp,
            port: 0,
            kind: Kind::Segment,
            flow: 0,
        }
    }
}

/// A position in the frame. `end` never moves.
pub struct Cursor<'a> {
    position: usize,
    end: usize,
    frame: PhantomData<&'a [u8]>,
}

impl<'a> Cursor<'a> {
    /// Over the packet of an XDP program.
    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    pub fn new(ctx: &'a aya_ebpf::programs::XdpContext) -> Cursor<'a> {
        Cursor { position: ctx.data(), end: ctx.data_end(), frame: PhantomData }
    }

    /// Over a frame in memory.
    #[cfg(not(target_arch = "bpf"))]
    pub fn new(frame: &'a [u8]) -> Cursor<'a> {
        let position = frame.as_ptr() as usize;
        Cursor { position, end: position + frame.len(), frame: PhantomData }
    }

    /// Whether `size` more bytes are there.
    #[inline(always)]
    fn has(&self, size: usize) -> bool {
        self.position + size <= self.end
    }

    /// Reads a `T` at `offset` without moving. The caller has asked `has(offset + size_of::<T>())`.
    #[inline(always)]
    fn peek<T: Copy>(&self, offset: usize) -> T {
        debug_assert!(self.has(offset + size_of::<T>()));
        let at = (self.position + offset) as *const T;
        // SAFETY: in bounds by `has`, which the verifier checks again. Headers lie at even addresses only,
        // and the BPF load instruction takes any address on the architectures that run it unaligned; on
        // others the verifier refuses the program instead of faulting. `read_unaligned` would be read byte
        // by byte.
        #[cfg(target_arch = "bpf")]
        return unsafe { at.read_volatile() };
        // SAFETY: in bounds by `has`, and the frame is borrowed for the cursor's life.
        #[cfg(not(target_arch = "bpf"))]
        return unsafe { at.read_unaligned() };
    }

    #[inline(always)]
    fn skip(&mut self, size: usize) {
        self.position += size;
    }

    /// Ethernet and VLAN tags.
    #[inline(always)]
    pub fn link(&mut self) -> Result<Network, Reason> {
        if !self.has(14) {
            return Err(Reason::MalformedEthernet);
        }
        let mut ethertype = u16::from_be(self.peek(12));
        self.skip(14);
        for _ in 0..VLAN_TAGS_MAX {
            if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
                break;
            }
            if !self.has(4) {
                return Err(Reason::MalformedVlan);
            }
            ethertype = u16::from_be(self.peek(2));
            self.skip(4);
        }
        Ok(match ethertype {
            ETHERTYPE_IPV4 => Network::V4,
            ETHERTYPE_IPV6 => Network::V6,
            _ => Network::Other,
        })
    }

    /// IPv4 with options and what follows.
    #[inline(always)]
    pub fn ipv4(&mut self, packet: &mut Packet<u32>) -> Result<(), Reason> {
        if !self.has(20) {
            return Err(Reason::MalformedIpv4);
        }
        let version_and_length: u8 = self.peek(0);
        let length = usize::from(version_and_length & 0x0f) * 4;
        if version_and_length >> 4 != 4 || length < 20 {
            return Err(Reason::MalformedIpv4);
        }
        let fragment_offset = u16::from_be(self.peek(6)) & 0x1fff;
        let protocol: u8 = self.peek(9);
        packet.source = self.peek(12);
        packet.destination = self.peek(16);
        if fragment_offset != 0 {
            return later_fragment(protocol, &mut packet.kind);
        }
        self.skip(length);
        self.transport(protocol, packet)
    }

    /// IPv6, its extension headers and what follows.
    #[inline(always)]
    pub fn ipv6(&mut self, packet: &mut Packet<[u32; 4]>) -> Result<(), Reason> {
        if !self.has(40) || self.peek::<u8>(0) >> 4 != 6 {
            return Err(Reason::MalformedIpv6);
        }
        let mut next: u8 = self.peek(6);
        packet.source = [self.peek(8), self.peek(12), self.peek(16), self.peek(20)];
        packet.destination = [self.peek(24), self.peek(28), self.peek(32), self.peek(36)];
        self.skip(40);
        for _ in 0..EXTENSION_HEADERS_MAX {
            match next {
                NEXT_HOP_BY_HOP | NEXT_ROUTING | NEXT_DESTINATION | NEXT_MOBILITY | NEXT_HIP | NEXT_SHIM6 => {
                    self.extension(&mut next, 8)?;
                }
                NEXT_AUTHENTICATION => self.extension(&mut next, 4)?,
                NEXT_FRAGMENT => {
                    if !self.has(8) {
                        return Err(Reason::MalformedIpv6);
                    }
                    next = self.peek(0);
                    if u16::from_be(self.peek(2)) & 0xfff8 != 0 {
                        return later_fragment(next, &mut packet.kind);
                    }
                    self.skip(8);
                }
                _ => return self.transport(next, packet),
            }
        }
        packet.kind = Kind::ChainTooLong;
        Ok(())
    }

    /// One extension header: next header, length in `unit` bytes. The length leaves the first 8 bytes out of
    /// account (RFC 8200), for AH the first 8 as well (RFC 4302: 4-byte units minus 2).
    #[inline(always)]
    fn extension(&mut self, next: &mut u8, unit: usize) -> Result<(), Reason> {
        if !self.has(8) {
            return Err(Reason::MalformedIpv6);
        }
        *next = self.peek(0);
        let length = usize::from(self.peek::<u8>(1));
        self.skip(8 + length * unit);
        Ok(())
    }

    #[inline(always)]
    fn transport<A>(&mut self, protocol: u8, packet: &mut Packet<A>) -> Result<(), Reason> {
        match protocol {
            NEXT_TCP => self.tcp(packet),
            NEXT_UDP => self.udp(packet),
            _ => Err(Reason::PassNotOurs),
        }
    }

    #[inline(always)]
    fn tcp<A>(&mut self, packet: &mut Packet<A>) -> Result<(), Reason> {
        if !self.has(4) {
            return Err(Reason::MalformedTcp);
        }
        packet.protocol = Protocol::Tcp;
        packet.port = self.destination_port();
        // tcp_v4_rcv discards what has no whole header or a data offset below it.
        if !self.has(20) || self.peek::<u8>(12) >> 4 < 5 {
            packet.kind = Kind::Malformed;
            return Ok(());
        }
        // SYN with FIN or RST never opens anything in the stack, but it is charged as if it did.
        let flags: u8 = self.peek(13);
        packet.kind = if flags & (TCP_SYN | TCP_ACK) == TCP_SYN {
            packet.flow = self.peek::<u32>(4) ^ u32::from(self.peek::<u16>(0)) << 16;
            Kind::Opens
        } else {
            Kind::Segment
        };
        Ok(())
    }

    /// Bytes 2 and 3, one by one: the verifier of Linux 6.1 knows no bounds of a byte-swapped register, and this
    /// one becomes an index into PORTS.
    #[inline(always)]
    fn destination_port(&self) -> u16 {
        u16::from(self.peek::<u8>(2)) << 8 | u16::from(self.peek::<u8>(3))
    }

    #[inline(always)]
    fn udp<A>(&mut self, packet: &mut Packet<A>) -> Result<(), Reason> {
        if !self.has(4) {
            return Err(Reason::MalformedUdp);
        }
        packet.protocol = Protocol::Udp;
        packet.port = self.destination_port();
        // A length of zero is a jumbogram (RFC 2675); over IPv4 the stack discards it.
        let whole = self.has(8) && matches!(u16::from_be(self.peek(4)), 0 | 8..);
        packet.kind = if whole { Kind::Datagram } else { Kind::Malformed };
        Ok(())
    }
}

/// A later fragment of something other than TCP or UDP cannot be for a listener.
#[inline(always)]
fn later_fragment(protocol: u8, kind: &mut Kind) -> Result<(), Reason> {
    match protocol {
        NEXT_TCP | NEXT_UDP => {
            *kind = Kind::LaterFragment;
            Ok(())
        }
        _ => Err(Reason::PassNotOurs),
    }
}
