//! From the first byte of the frame to the ports: bounds-checked headers, one function each.
//!
//! Finds where a packet wants to go and whether it opens a connection; verifies no checksum and no length
//! that the stack verifies anyway. Every read is checked against the end of the frame first, in the form
//! the verifier follows: `position + size > end`.

use aya_ebpf::programs::XdpContext;
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

const TCP_FIN_SYN_RST_ACK: u8 = 0x17;
const TCP_SYN: u8 = 0x02;

/// The network layer that follows the link layer.
pub enum Network {
    V4,
    V6,
    /// ARP, MPLS, a third tag, anything else.
    Other,
}

/// What the transport layer is, as far as a verdict needs to know.
#[derive(Clone, Copy)]
pub enum Transport {
    /// To a port, well formed.
    Port { protocol: Protocol, port: u16, opens: bool },
    /// To a port, with a header that the stack discards.
    Malformed { protocol: Protocol, port: u16 },
    /// A fragment other than the first: no ports.
    LaterFragment,
    /// The transport header is further inside than we look.
    ChainTooLong,
}

/// A position in the frame. `end` never moves.
pub struct Cursor {
    position: usize,
    end: usize,
}

impl Cursor {
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Cursor {
        Cursor { position: ctx.data(), end: ctx.data_end() }
    }

    /// Whether `size` more bytes are there.
    #[inline(always)]
    fn has(&self, size: usize) -> bool {
        self.position + size <= self.end
    }

    /// Reads a `T` at `offset` without moving. The caller has asked `has(offset + size_of::<T>())`.
    #[inline(always)]
    fn peek<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: in bounds by `has`, which the verifier checks again. Headers lie at even addresses only,
        // and the BPF load instruction takes any address on the architectures that run it unaligned; on
        // others the verifier refuses the program instead of faulting.
        unsafe { ((self.position + offset) as *const T).read_volatile() }
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

    /// IPv4 with options and what follows: source, destination (as they lie in the packet), transport.
    #[inline(always)]
    pub fn ipv4(&mut self) -> Result<(u32, u32, Transport), Reason> {
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
        let source = self.peek(12);
        let destination = self.peek(16);
        if fragment_offset != 0 {
            return later_fragment(protocol).map(|transport| (source, destination, transport));
        }
        self.skip(length);
        self.transport(protocol).map(|transport| (source, destination, transport))
    }

    /// IPv6, its extension headers and what follows.
    #[inline(always)]
    pub fn ipv6(&mut self) -> Result<([u32; 4], [u32; 4], Transport), Reason> {
        if !self.has(40) || self.peek::<u8>(0) >> 4 != 6 {
            return Err(Reason::MalformedIpv6);
        }
        let mut next: u8 = self.peek(6);
        let source = [self.peek(8), self.peek(12), self.peek(16), self.peek(20)];
        let destination = [self.peek(24), self.peek(28), self.peek(32), self.peek(36)];
        self.skip(40);
        for _ in 0..EXTENSION_HEADERS_MAX {
            match next {
                NEXT_TCP | NEXT_UDP => break,
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
                        return later_fragment(next).map(|transport| (source, destination, transport));
                    }
                    self.skip(8);
                }
                _ => return Err(Reason::PassNotOurs),
            }
        }
        let transport = match next {
            NEXT_HOP_BY_HOP | NEXT_ROUTING | NEXT_DESTINATION | NEXT_MOBILITY | NEXT_HIP | NEXT_SHIM6
            | NEXT_AUTHENTICATION | NEXT_FRAGMENT => Transport::ChainTooLong,
            _ => self.transport(next)?,
        };
        Ok((source, destination, transport))
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
    fn transport(&mut self, protocol: u8) -> Result<Transport, Reason> {
        match protocol {
            NEXT_TCP => self.tcp(),
            NEXT_UDP => self.udp(),
            _ => Err(Reason::PassNotOurs),
        }
    }

    #[inline(always)]
    fn tcp(&mut self) -> Result<Transport, Reason> {
        if !self.has(4) {
            return Err(Reason::MalformedTcp);
        }
        let (protocol, port) = (Protocol::Tcp, u16::from_be(self.peek(2)));
        // tcp_v4_rcv discards what has no whole header or a data offset below it.
        if !self.has(20) || self.peek::<u8>(12) >> 4 < 5 {
            return Ok(Transport::Malformed { protocol, port });
        }
        // SYN alone opens. SYN with FIN or RST never does in the stack, but it is charged as if it did.
        let flags = self.peek::<u8>(13) & TCP_FIN_SYN_RST_ACK;
        let opens = flags & TCP_SYN != 0 && flags & 0x10 == 0;
        Ok(Transport::Port { protocol, port, opens })
    }

    #[inline(always)]
    fn udp(&mut self) -> Result<Transport, Reason> {
        if !self.has(4) {
            return Err(Reason::MalformedUdp);
        }
        let (protocol, port) = (Protocol::Udp, u16::from_be(self.peek(2)));
        if !self.has(8) {
            return Ok(Transport::Malformed { protocol, port });
        }
        // Zero is a jumbogram (RFC 2675), or over IPv4 discarded by the stack.
        let length = u16::from_be(self.peek(4));
        if length != 0 && length < 8 {
            return Ok(Transport::Malformed { protocol, port });
        }
        Ok(Transport::Port { protocol, port, opens: false })
    }
}

/// A later fragment of something other than TCP or UDP cannot be for a listener.
#[inline(always)]
fn later_fragment(protocol: u8) -> Result<Transport, Reason> {
    match protocol {
        NEXT_TCP | NEXT_UDP => Ok(Transport::LaterFragment),
        _ => Err(Reason::PassNotOurs),
    }
}
