//! Answering a refused TCP segment with a reset (RFC 9293 section 3.5.2), in its own frame.
//!
//! The client then knows at once, instead of trying for two minutes. Sent at a bounded rate: a reset to a made-up source
//! goes to a stranger. What cannot be answered simply (options before TCP, fragments) is dropped.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::bpf_xdp_adjust_tail;
use portcullis_abi::{Charge, Config, KERNEL_TRIES, Rate, Reason, Word, charge_within};

use crate::count::count;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const TCP_HEADER: usize = 20;
/// The shortest frame of Ethernet, without its checksum.
const FRAME_MIN: usize = 60;

/// XDP_TX with the frame turned into a reset, or XDP_DROP.
#[inline(never)]
pub fn answer(ctx: *mut xdp_md, config: &Config, now: u64) -> u32 {
    let rate = Rate { interval_ns: config.reset_interval_ns.read(), burst_ns: config.reset_burst_ns.read() };
    let charge = charge_within::<_, KERNEL_TRIES>(&config.shared.reset_tat, now, rate, rate.interval_ns);
    let Some(Charge::Conforming { .. }) = charge else { return xdp_action::XDP_DROP };
    // SAFETY: the context is the program's own.
    let (data, end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
    let frame = Frame { data, end };
    let turned = match frame.network() {
        (14, ETHERTYPE_IPV4) => frame.turn_v4::<14>(),
        (18, ETHERTYPE_IPV4) => frame.turn_v4::<18>(),
        (22, ETHERTYPE_IPV4) => frame.turn_v4::<22>(),
        (14, ETHERTYPE_IPV6) => frame.turn_v6::<14>(),
        (18, ETHERTYPE_IPV6) => frame.turn_v6::<18>(),
        (22, ETHERTYPE_IPV6) => frame.turn_v6::<22>(),
        _ => 0,
    };
    if turned == 0 {
        return xdp_action::XDP_DROP;
    }
    let wanted = if turned < FRAME_MIN { FRAME_MIN } else { turned };
    let length = end - data;
    if length > wanted {
        // SAFETY: the helper checks the context and the length.
        let done = unsafe { bpf_xdp_adjust_tail(ctx, (wanted as i32).wrapping_sub(length as i32)) };
        if done != 0 {
            return xdp_action::XDP_DROP;
        }
    }
    let _ = count(Reason::KERNEL_COUNT as u32);
    xdp_action::XDP_TX
}

/// A frame by its bounds. Every access is checked against `end` in the form that the verifier follows.
#[derive(Clone, Copy)]
struct Frame {
    data: usize,
    end: usize,
}

impl Frame {
    #[inline(always)]
    fn has(&self, size: usize) -> bool {
        self.data + size <= self.end
    }

    /// Reads at an offset that `has` has covered.
    #[inline(always)]
    fn get<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: in bounds by `has`, which the verifier checks again; alignment as in `parse::Cursor::peek`.
        unsafe { ((self.data + offset) as *const T).read_volatile() }
    }

    #[inline(always)]
    fn set<T: Copy>(&self, offset: usize, value: T) {
        // SAFETY: as for `get`.
        unsafe { ((self.data + offset) as *mut T).write_volatile(value) }
    }

    #[inline(always)]
    fn swap<T: Copy>(&self, a: usize, b: usize) {
        let (first, second): (T, T) = (self.get(a), self.get(b));
        self.set(a, second);
        self.set(b, first);
    }

    /// Where the network layer begins, and its type; two VLAN tags at most, as in `parse`.
    #[inline(always)]
    fn network(&self) -> (usize, u16) {
        if !self.has(22) {
            return (0, 0);
        }
        let ethertype = |offset| u16::from_be(self.get(offset));
        let is_tag = |ethertype: u16| ethertype == 0x8100 || ethertype == 0x88a8;
        let first = ethertype(12);
        if !is_tag(first) {
            return (14, first);
        }
        let second = ethertype(16);
        if !is_tag(second) { (18, second) } else { (22, ethertype(20)) }
    }

    /// The length of the frame's reset, 0 if it is none.
    #[inline(always)]
    fn turn_v4<const IP: usize>(&self) -> usize {
        let tcp = IP + 20;
        if !self.has(tcp + TCP_HEADER) || self.get::<u8>(IP) != 0x45 || self.get::<u8>(IP + 9) != TCP {
            return 0;
        }
        // A first fragment has more to come that nobody answers; later ones have no ports.
        if u16::from_be(self.get(IP + 6)) & 0x3fff != 0 {
            return 0;
        }
        let total = u32::from(u16::from_be(self.get(IP + 2)));
        if total < 40 || !self.turn_tcp(tcp, total - 20) {
            return 0;
        }
        self.set(IP + 1, 0u8);
        self.set(IP + 2, 40u16.to_be());
        // No identification is needed with DF (RFC 6864), which the stack sets as well.
        self.set(IP + 4, 0u16);
        self.set(IP + 6, 0x4000u16.to_be());
        self.set(IP + 8, 64u8);
        self.set(IP + 10, 0u16);
        self.swap::<u32>(IP + 12, IP + 16);
        self.set(IP + 10, folded(self.sum(IP, 10)));
        self.finish(tcp, self.sum(IP + 12, 4));
        tcp + TCP_HEADER
    }

    /// The same for IPv6 without extension headers.
    #[inline(always)]
    fn turn_v6<const IP: usize>(&self) -> usize {
        let tcp = IP + 40;
        if !self.has(tcp + TCP_HEADER) || self.get::<u8>(IP) >> 4 != 6 || self.get::<u8>(IP + 6) != TCP {
            return 0;
        }
        let payload = u32::from(u16::from_be(self.get(IP + 4)));
        if !self.turn_tcp(tcp, payload) {
            return 0;
        }
        self.set(IP, 0x6000_0000u32.to_be());
        self.set(IP + 4, (TCP_HEADER as u16).to_be());
        self.set(IP + 7, 64u8);
        for word in 0..4 {
            self.swap::<u32>(IP + 8 + word * 4, IP + 24 + word * 4);
        }
        self.finish(tcp, self.sum(IP + 8, 16));
        tcp + TCP_HEADER
    }

    /// Ports, numbers and flags of the reset for a segment of `length` bytes with its header.
    #[inline(always)]
    fn turn_tcp(&self, tcp: usize, length: u32) -> bool {
        let flags: u8 = self.get(tcp + 13);
        let header = u32::from(self.get::<u8>(tcp + 12) >> 4) * 4;
        if flags & RST != 0 || length < header {
            return false;
        }
        let sequence = u32::from_be(self.get(tcp + 4));
        let acknowledged: u32 = self.get(tcp + 8);
        // RFC 9293 section 3.10.7.1: with an ACK, its number is the reset's; else all that was sent is acknowledged.
        let (new_sequence, new_acknowledged, new_flags) = if flags & ACK != 0 {
            (acknowledged, 0, RST)
        } else {
            let counted = length - header + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
            (0, sequence.wrapping_add(counted).to_be(), RST | ACK)
        };
        self.swap::<u16>(tcp, tcp + 2);
        self.set(tcp + 4, new_sequence);
        self.set(tcp + 8, new_acknowledged);
        self.set(tcp + 12, 5u8 << 4);
        self.set(tcp + 13, new_flags);
        // Window, checksum, urgent pointer.
        self.set(tcp + 14, 0u16);
        self.set(tcp + 16, 0u16);
        self.set(tcp + 18, 0u16);
        true
    }

    /// The link layer back to where it came from, and the checksum of TCP; `addresses` is their sum.
    #[inline(always)]
    fn finish(&self, tcp: usize, addresses: u32) {
        for pair in 0..3 {
            self.swap::<u16>(pair * 2, 6 + pair * 2);
        }
        let pseudo = u32::from((TCP as u16).to_be()) + u32::from((TCP_HEADER as u16).to_be());
        self.set(tcp + 16, folded(addresses + pseudo + self.sum(tcp, 10)));
    }

    /// The sum of 16-bit words as they lie: one's complement sums do not mind the byte order (RFC 1071).
    #[inline(always)]
    fn sum(&self, at: usize, words: usize) -> u32 {
        let mut sum = 0;
        for word in 0..words {
            sum += u32::from(self.get::<u16>(at + word * 2));
        }
        sum
    }
}

#[inline(always)]
fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
