//! One packet, top to bottom.

use aya_ebpf::{
    bindings::xdp_action,
    helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    programs::XdpContext,
};
use portcullis_abi::{
    Charge, Config, KERNEL_TRIES, ListenerKey, Protocol, Rate, Reason, Rule, Word, charge_within, find,
    find_or_take_within, flag, key_v4, key_v6_halves, port_bit,
};

use crate::count::count;
use crate::maps::{config, is_listener, port_bits, rule_v4, rule_v6, set_of};
use crate::parse::{Cursor, Kind, Network, Packet};

/// The verdict on a frame, counted: XDP_PASS or XDP_DROP.
#[inline(always)]
pub fn decide(ctx: &XdpContext) -> u32 {
    let Some(config) = config() else { return xdp_action::XDP_PASS };
    let flags = config.flags.read();
    let reason = reason(ctx, config, flags);

    let drops = reason.drops_packet();
    let shadow = flags & flag::SHADOW != 0;
    let index = reason as u32 + if drops && shadow { Reason::SHADOW_OFFSET as u32 } else { 0 };
    count(index);
    aya_log_ebpf::debug!(ctx, "reason {}", index);
    if drops && !shadow { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

#[inline(always)]
fn reason(ctx: &XdpContext, config: &Config, flags: u64) -> Reason {
    let mut cursor = Cursor::new(ctx);
    match cursor.link() {
        Ok(Network::V4) => {
            let mut packet = Packet::empty();
            match cursor.ipv4(&mut packet) {
                Ok(()) => judge::<V4>(&packet, config, flags),
                Err(reason) => reason,
            }
        }
        Ok(Network::V6) => {
            let mut packet = Packet::empty();
            match cursor.ipv6(&mut packet) {
                Ok(()) => judge::<V6>(&packet, config, flags),
                Err(reason) => reason,
            }
        }
        Ok(Network::Other) => Reason::PassNotOurs,
        Err(reason) => reason,
    }
}

/// From a parsed packet to its reason, in the order in which `ebpf/README.md` lists them.
#[inline(always)]
fn judge<F: Family>(packet: &Packet<F::Address>, config: &Config, flags: u64) -> Reason {
    // 1. Ours? Nearly everything that is not leaves here, after one byte of PORTS.
    if !is_ours::<F>(packet, flags) {
        return if packet.kind == Kind::ChainTooLong {
            Reason::ExtensionChainTooLong
        } else {
            Reason::PassNotOurs
        };
    }

    // 2. Is anybody alive to answer for the verdicts?
    let now = now(flags);
    let dead_after = config.dead_after_ns.read();
    if dead_after != 0 && now.saturating_sub(config.heartbeat_ns.read()) > dead_after {
        return Reason::DeadGateway;
    }

    // 3. What the lists say.
    match F::rule(&packet.source, flags) {
        TRUSTED => return Reason::PassTrusted,
        ALLOW => return Reason::PassAllowed,
        DENY => return Reason::DropDenied,
        _ => {}
    }

    // 4. What the stack would throw away.
    match (packet.kind, packet.protocol) {
        (Kind::ChainTooLong, _) => return Reason::DropExtensionChain,
        (Kind::Malformed, Protocol::Tcp) => return Reason::DropMalformedTcp,
        (Kind::Malformed, Protocol::Udp) => return Reason::DropMalformedUdp,
        _ => {}
    }

    // 5. What the source has used up.
    charge(F::key(&packet.source), packet.kind, config, now)
}

/// Ban, packet bucket, new-connection bucket.
#[inline(always)]
fn charge(key: u64, kind: Kind, config: &Config, now: u64) -> Reason {
    let passes = match kind {
        Kind::Segment => Reason::PassEstablished,
        Kind::LaterFragment => Reason::Fragment,
        _ => Reason::Pass,
    };
    let packets =
        Rate { interval_ns: config.packet_interval_ns.read(), burst_ns: config.packet_burst_ns.read() };
    let mut connections = Rate::UNLIMITED;
    if kind == Kind::Opens {
        connections.interval_ns = config.connection_interval_ns.read();
        connections.burst_ns = config.connection_burst_ns.read();
    }

    let Some(set) = set_of(key, config) else { return passes };
    // Without a limit to charge, a source needs no way of its own: only an existing ban counts.
    let way = if packets.is_unlimited() && connections.is_unlimited() {
        match find(set, key) {
            Some(way) => way,
            None => return passes,
        }
    } else {
        match find_or_take_within(set, key, now) {
            Some(way) => way,
            None => return Reason::PassContended,
        }
    };

    if way.is_banned(now) {
        return Reason::DropBanned;
    }
    let packet = charge_within::<_, KERNEL_TRIES>(&way.packet_tat, now, packets, packets.interval_ns);
    if let Some(Charge::Limited { .. }) = packet {
        return Reason::DropPacketRate;
    }
    let connection =
        charge_within::<_, KERNEL_TRIES>(&way.request_tat, now, connections, connections.interval_ns);
    if let Some(Charge::Limited { .. }) = connection {
        return Reason::DropConnectionRate;
    }
    if packet.is_none() || connection.is_none() { Reason::PassContended } else { passes }
}

#[inline(always)]
fn is_ours<F: Family>(packet: &Packet<F::Address>, flags: u64) -> bool {
    let Packet { destination, protocol, port, .. } = packet;
    if packet.kind == Kind::LaterFragment || packet.kind == Kind::ChainTooLong {
        // No port to ask for: the address decides.
        return flags & F::ANY_FLAG != 0
            || (flags & F::SOME_FLAG != 0
                && is_listener(&F::listener(destination, 0, Protocol::Tcp).address_only()));
    }
    let bits = port_bits(*protocol, *port);
    bits & F::ANY_PORT_BIT != 0
        || (bits & F::SOME_PORT_BIT != 0 && is_listener(&F::listener(destination, *port, *protocol)))
}

/// The coarse clock advances once a tick (1 to 4 ms) and costs a third of the exact one. The gateway
/// allows it only when every burst outlasts several ticks; then rates stay exact, as a TAT is absolute.
#[inline(always)]
fn now(flags: u64) -> u64 {
    if flags & flag::COARSE_CLOCK != 0 {
        // SAFETY: helper without arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    } else {
        // SAFETY: helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }
}

const DENY: u32 = Rule::Deny as u32;
const ALLOW: u32 = Rule::Allow as u32;
const TRUSTED: u32 = Rule::Trusted as u32;

/// What differs between IPv4 and IPv6. Two types, so that the IPv4 path carries no IPv6 state.
trait Family {
    /// As it lies in the packet.
    type Address;
    const ANY_PORT_BIT: u8;
    const SOME_PORT_BIT: u8;
    const ANY_FLAG: u64;
    const SOME_FLAG: u64;
    fn key(source: &Self::Address) -> u64;
    fn rule(source: &Self::Address, flags: u64) -> u32;
    fn listener(destination: &Self::Address, port: u16, protocol: Protocol) -> ListenerKey;
}

struct V4;

impl Family for V4 {
    type Address = u32;
    const ANY_PORT_BIT: u8 = port_bit::ANY_V4;
    const SOME_PORT_BIT: u8 = port_bit::SOME_V4;
    const ANY_FLAG: u64 = flag::ANY_V4;
    const SOME_FLAG: u64 = flag::SOME_V4;

    #[inline(always)]
    fn key(source: &u32) -> u64 {
        key_v4(u32::from_be(*source))
    }

    #[inline(always)]
    fn rule(source: &u32, flags: u64) -> u32 {
        if flags & flag::RULES_V4 != 0 { rule_v4(*source) } else { 0 }
    }

    #[inline(always)]
    fn listener(destination: &u32, port: u16, protocol: Protocol) -> ListenerKey {
        ListenerKey::v4(*destination, port, protocol)
    }
}

struct V6;

impl Family for V6 {
    type Address = [u32; 4];
    const ANY_PORT_BIT: u8 = port_bit::ANY_V6;
    const SOME_PORT_BIT: u8 = port_bit::SOME_V6;
    const ANY_FLAG: u64 = flag::ANY_V6;
    const SOME_FLAG: u64 = flag::SOME_V6;

    #[inline(always)]
    fn key(source: &[u32; 4]) -> u64 {
        let half = |a: u32, b: u32| u64::from(u32::from_be(a)) << 32 | u64::from(u32::from_be(b));
        key_v6_halves(half(source[0], source[1]), half(source[2], source[3]))
    }

    #[inline(always)]
    fn rule(source: &[u32; 4], flags: u64) -> u32 {
        if flags & flag::RULES_V6 != 0 { rule_v6(*source) } else { 0 }
    }

    #[inline(always)]
    fn listener(destination: &[u32; 4], port: u16, protocol: Protocol) -> ListenerKey {
        ListenerKey::v6(*destination, port, protocol)
    }
}
