//! One packet, top to bottom.

use aya_ebpf::{
    bindings::xdp_action,
    helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    programs::XdpContext,
};
use portcullis_abi::{
    Charge, Config, KERNEL_TRIES, ListenerKey, Protocol, Rate, Reason, Rule, Way, Word, charge_within, find,
    find_or_take_within, flag, key_v4, key_v6_halves, port_bit,
};

use crate::count::count;
use crate::maps::{config, is_listener, port_bits, rule_v4, rule_v6, set_of};
use crate::parse::{Cursor, Network, Transport};

/// The verdict on a frame, counted: XDP_PASS or XDP_DROP.
#[inline(always)]
pub fn decide(ctx: &XdpContext) -> u32 {
    let Some(config) = config() else { return xdp_action::XDP_PASS };
    let flags = config.flags.read();

    let mut cursor = Cursor::new(ctx);
    let verdict = match cursor.link() {
        Ok(Network::V4) => cursor.ipv4().and_then(|packet| judge(V4, packet, config, flags)),
        Ok(Network::V6) => cursor.ipv6().and_then(|packet| judge(V6, packet, config, flags)),
        Ok(Network::Other) => Err(Reason::PassNotOurs),
        Err(reason) => Err(reason),
    };
    let (Ok(reason) | Err(reason)) = verdict;

    let shadow = flags & flag::SHADOW != 0;
    let drops = reason.drops_packet();
    let index = reason as u32 + if drops && shadow { Reason::SHADOW_OFFSET as u32 } else { 0 };
    count(index);
    aya_log_ebpf::debug!(ctx, "reason {}", index);
    if drops && !shadow { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// `Ok` is the end of the whole way, `Err` an early end; both are the reason.
#[inline(always)]
fn judge<F: Family>(
    family: F,
    (source, destination, transport): (F::Address, F::Address, Transport),
    config: &Config,
    flags: u64,
) -> Result<Reason, Reason> {
    // 1. Ours? Nearly everything that is not leaves here, after one byte of PORTS.
    if !is_ours(family, &destination, transport, flags) {
        return Err(match transport {
            Transport::ChainTooLong => Reason::ExtensionChainTooLong,
            _ => Reason::PassNotOurs,
        });
    }

    // 2. Is anybody alive to answer for the verdicts?
    let now = now(flags);
    let dead_after = config.dead_after_ns.read();
    if dead_after != 0 && now.saturating_sub(config.heartbeat_ns.read()) > dead_after {
        return Err(Reason::DeadGateway);
    }

    // 3. What the lists say.
    match family.rule(&source, flags) {
        TRUSTED => return Err(Reason::PassTrusted),
        ALLOW => return Err(Reason::PassAllowed),
        DENY => return Err(Reason::DropDenied),
        _ => {}
    }

    // 4. What the stack would throw away.
    match transport {
        Transport::ChainTooLong => return Err(Reason::DropExtensionChain),
        Transport::Malformed { protocol: Protocol::Tcp, .. } => return Err(Reason::DropMalformedTcp),
        Transport::Malformed { protocol: Protocol::Udp, .. } => return Err(Reason::DropMalformedUdp),
        Transport::Port { .. } | Transport::LaterFragment => {}
    }

    // 5. What the source has used up.
    charge(family.key(&source), transport, config, now)
}

/// Ban, packet bucket, new-connection bucket.
#[inline(always)]
fn charge(key: u64, transport: Transport, config: &Config, now: u64) -> Result<Reason, Reason> {
    let opens = matches!(transport, Transport::Port { opens: true, .. });
    let packets =
        Rate { interval_ns: config.packet_interval_ns.read(), burst_ns: config.packet_burst_ns.read() };
    let connections = if opens {
        Rate {
            interval_ns: config.connection_interval_ns.read(),
            burst_ns: config.connection_burst_ns.read(),
        }
    } else {
        Rate::UNLIMITED
    };
    let passes = match transport {
        Transport::LaterFragment => Reason::Fragment,
        Transport::Port { protocol: Protocol::Tcp, opens: false, .. } => Reason::PassEstablished,
        _ => Reason::Pass,
    };

    let Some(set) = set_of(key, config) else { return Err(passes) };
    // Without a limit to charge, a source needs no way of its own: only an existing ban counts.
    let way: Option<&Way> = if packets.is_unlimited() && connections.is_unlimited() {
        match find(set, key) {
            Some(way) => Some(way),
            None => return Err(passes),
        }
    } else {
        find_or_take_within(set, key, now)
    };
    let Some(way) = way else { return Err(Reason::PassContended) };

    if way.is_banned(now) {
        return Err(Reason::DropBanned);
    }
    let packet = charge_within::<_, KERNEL_TRIES>(&way.packet_tat, now, packets, packets.interval_ns);
    if let Some(Charge::Limited { .. }) = packet {
        return Err(Reason::DropPacketRate);
    }
    let connection =
        charge_within::<_, KERNEL_TRIES>(&way.request_tat, now, connections, connections.interval_ns);
    if let Some(Charge::Limited { .. }) = connection {
        return Err(Reason::DropConnectionRate);
    }
    if packet.is_none() || connection.is_none() {
        return Err(Reason::PassContended);
    }
    Ok(passes)
}

#[inline(always)]
fn is_ours<F: Family>(family: F, destination: &F::Address, transport: Transport, flags: u64) -> bool {
    match transport {
        Transport::Port { protocol, port, .. } | Transport::Malformed { protocol, port } => {
            let bits = port_bits(protocol, port);
            if bits == 0 {
                return false;
            }
            bits & F::ANY_PORT_BIT != 0
                || (bits & F::SOME_PORT_BIT != 0
                    && is_listener(&family.listener(destination, port, protocol)))
        }
        Transport::LaterFragment | Transport::ChainTooLong => {
            flags & F::ANY_FLAG != 0
                || (flags & F::SOME_FLAG != 0
                    && is_listener(&family.listener(destination, 0, Protocol::Tcp).address_only()))
        }
    }
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
trait Family: Copy {
    /// As it lies in the packet.
    type Address: Copy;
    const ANY_PORT_BIT: u8;
    const SOME_PORT_BIT: u8;
    const ANY_FLAG: u64;
    const SOME_FLAG: u64;
    fn key(self, source: &Self::Address) -> u64;
    fn rule(self, source: &Self::Address, flags: u64) -> u32;
    fn listener(self, destination: &Self::Address, port: u16, protocol: Protocol) -> ListenerKey;
}

#[derive(Clone, Copy)]
struct V4;

impl Family for V4 {
    type Address = u32;
    const ANY_PORT_BIT: u8 = port_bit::ANY_V4;
    const SOME_PORT_BIT: u8 = port_bit::SOME_V4;
    const ANY_FLAG: u64 = flag::ANY_V4;
    const SOME_FLAG: u64 = flag::SOME_V4;

    #[inline(always)]
    fn key(self, source: &u32) -> u64 {
        key_v4(u32::from_be(*source))
    }

    #[inline(always)]
    fn rule(self, source: &u32, flags: u64) -> u32 {
        if flags & flag::RULES_V4 != 0 { rule_v4(*source) } else { 0 }
    }

    #[inline(always)]
    fn listener(self, destination: &u32, port: u16, protocol: Protocol) -> ListenerKey {
        ListenerKey::v4(destination.to_ne_bytes(), port, protocol)
    }
}

#[derive(Clone, Copy)]
struct V6;

impl Family for V6 {
    type Address = [u32; 4];
    const ANY_PORT_BIT: u8 = port_bit::ANY_V6;
    const SOME_PORT_BIT: u8 = port_bit::SOME_V6;
    const ANY_FLAG: u64 = flag::ANY_V6;
    const SOME_FLAG: u64 = flag::SOME_V6;

    #[inline(always)]
    fn key(self, source: &[u32; 4]) -> u64 {
        let word = |i: usize| u64::from(u32::from_be(source[i]));
        key_v6_halves(word(0) << 32 | word(1), word(2) << 32 | word(3))
    }

    #[inline(always)]
    fn rule(self, source: &[u32; 4], flags: u64) -> u32 {
        if flags & flag::RULES_V6 != 0 { rule_v6(*source) } else { 0 }
    }

    #[inline(always)]
    fn listener(self, destination: &[u32; 4], port: u16, protocol: Protocol) -> ListenerKey {
        let mut addr = [0; 16];
        for (i, word) in destination.iter().enumerate() {
            let [a, b, c, d] = word.to_ne_bytes();
            addr[i * 4] = a;
            addr[i * 4 + 1] = b;
            addr[i * 4 + 2] = c;
            addr[i * 4 + 3] = d;
        }
        ListenerKey::v6(addr, port, protocol)
    }
}
