//! One packet, top to bottom.

use aya_ebpf::{
    bindings::xdp_action,
    helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    programs::XdpContext,
};
use portcullis_abi::{
    Config, ListenerKey, Protocol, Rate, Reason, Rule, RuleWord, Way, Word, bans, bans_for, establishes,
    flag, is_known_good, is_promoted, key_v4, key_v6_halves, port_bit, rule_bit, rule_key,
};

use crate::coarse;
use crate::count::count;
use crate::maps::{
    self, CONTENDED, LIMITED, config, is_listener, port_bits, rule_v4, rule_v6, set_of, take_way, unknown,
    way_of, way_or_take,
};
use crate::parse::{Cursor, Kind, Network, Packet};
use crate::{reset, sample};

/// The verdict on a frame, counted: XDP_PASS, XDP_DROP, or XDP_TX for a reset.
#[inline(always)]
pub fn decide(ctx: &XdpContext) -> u32 {
    let Some(config) = config() else { return xdp_action::XDP_PASS };
    let flags = config.flags.read();
    let zero = config.zero.read() as u32;
    let mut course = Course { config, now: 0, shadow: zero, reset: 0 };
    let reason = reason(ctx, &mut course, flags);

    // The verifier walks what follows once for each index that it knows, so it is not told.
    let mut index = (reason as u32).wrapping_add(config.zero.read() as u32);
    if index < Reason::FIRST_DROP as u32 && course.shadow != 0 {
        index = course.shadow;
    }
    let tally = count(index);
    aya_log_ebpf::debug!(ctx, "reason {}", index);
    if index < Reason::FIRST_DROP as u32 {
        return xdp_action::XDP_PASS;
    }
    if let Some(tally) = tally
        && sample::is_due(config, tally, course.now)
    {
        sample::take(ctx.ctx, index, course.now);
    }
    if index >= Reason::FIRST_SHADOW as u32 {
        return xdp_action::XDP_PASS;
    }
    if course.reset == 0 { xdp_action::XDP_DROP } else { reset::answer(ctx.ctx, config, course.now) }
}

/// What is known on the way to the verdict.
struct Course<'a> {
    config: &'a Config,
    now: u64,
    /// Index of the shadow of the first reason to drop that is only counted; 0 for none.
    shadow: u32,
    /// Not 0 if TCP is to be told.
    reset: u64,
}

impl Course<'_> {
    /// A reason to drop, with the bits of the rule that gives it. Whether it is carried out; else it is noted, and the
    /// packet goes on to what else there is: a limit on trial lifts none that is in force.
    #[inline(always)]
    fn refuses(&mut self, reason: Reason, bits: u32) -> bool {
        if bits & rule_bit::SHADOW != 0 || self.config.shadow.read() & reason.drop_bit() != 0 {
            if unknown(self.shadow.into(), self.config) as u32 == 0 {
                let index = reason as u32 + Reason::SHADOW_OFFSET as u32;
                self.shadow = index.wrapping_add(self.config.zero.read() as u32);
            }
            return false;
        }
        self.reset = u64::from(bits & rule_bit::RESET) | self.config.reset.read() & reason.drop_bit();
        true
    }

    /// As `refuses`, for a source whose block word is at hand: that of a source known to be good is reported.
    #[inline(always)]
    fn refuses_source(&mut self, reason: Reason, bits: u32, number: u32, key: u64, block: u64) -> bool {
        let refuses = self.refuses(reason, bits);
        if is_known_good(unknown(block, self.config), unknown(self.now, self.config)) {
            sample::known_good(key, reason as u32, number, self.now & !1 | u64::from(refuses));
        }
        refuses
    }
}

#[inline(always)]
fn reason(ctx: &XdpContext, course: &mut Course<'_>, flags: u64) -> Reason {
    let mut cursor = Cursor::new(ctx);
    match cursor.link() {
        Ok(Network::V4) => {
            let mut packet = Packet::empty();
            match cursor.ipv4(&mut packet) {
                Ok(()) => judge::<V4>(&packet, course, flags),
                Err(reason) => reason,
            }
        }
        Ok(Network::V6) => {
            let mut packet = Packet::empty();
            match cursor.ipv6(&mut packet) {
                Ok(()) => judge::<V6>(&packet, course, flags),
                Err(reason) => reason,
            }
        }
        Ok(Network::Other) => Reason::PassNotOurs,
        Err(reason) => reason,
    }
}

/// From a parsed packet to its reason, in the order in which `ebpf/README.md` lists them.
#[inline(always)]
fn judge<F: Family>(packet: &Packet<F::Address>, course: &mut Course<'_>, flags: u64) -> Reason {
    // 1. Ours? Nearly everything that is not leaves here, after one byte of PORTS.
    let ours = ours::<F>(packet, flags);
    if ours == 0 {
        return if packet.kind == Kind::ChainTooLong {
            Reason::ExtensionChainTooLong
        } else {
            Reason::PassNotOurs
        };
    }
    let port_class = ours >> port_bit::CLASS_SHIFT & 0xf;

    // 2. Is anybody alive to answer for the verdicts?
    let config = course.config;
    course.now = now(flags);
    let dead_after = config.dead_after_ns.read();
    if dead_after != 0 && unknown(course.now, config).saturating_sub(config.heartbeat_ns.read()) > dead_after
    {
        return Reason::DeadGateway;
    }

    // 3. What the lists say.
    let rule = F::rule(&packet.source, flags);
    let key = F::key(&packet.source);
    match rule.kind() {
        TRUSTED => return Reason::PassTrusted,
        ALLOW => return Reason::PassAllowed,
        kind @ (DENY | BANNED) if kind == DENY || !rule.has_ended(course.now) => {
            let denies = kind == DENY;
            let (reason, list) =
                if denies { (Reason::DropDenied, rule.list()) } else { (Reason::DropBanned, 0) };
            // Who cannot connect is told by a new connection; other packets need not be looked up.
            let block = if packet.kind == Kind::Opens { block_of(key, config) } else { 0 };
            if course.refuses_source(reason, rule.bits(), list, key, block) {
                return reason;
            }
        }
        _ => {}
    }

    // 4. What the stack would throw away.
    let discarded = match (packet.kind, packet.protocol) {
        (Kind::ChainTooLong, _) => Some(Reason::DropExtensionChain),
        (Kind::Malformed, Protocol::Tcp) => Some(Reason::DropMalformedTcp),
        (Kind::Malformed, Protocol::Udp) => Some(Reason::DropMalformedUdp),
        _ => None,
    };
    if let Some(reason) = discarded
        && course.refuses(reason, 0)
    {
        return reason;
    }

    // 5. What the source has used up.
    let rule = unknown(rule_of(config, port_class, rule).into(), config) as u32;
    let (key, flow) = (unknown(key, config), unknown(packet.flow.into(), config) as u32);
    charge(key, packet.kind, flow, rule, course)
}

/// The number of the rule that takes the place of the general limits; 0 for none.
#[inline(always)]
fn rule_of(config: &Config, port_class: u32, rule: RuleWord) -> u32 {
    let prefix_class = rule.class();
    if port_class | prefix_class == 0 {
        return 0;
    }
    let (word, shift) = Config::rule_place(port_class, prefix_class);
    (config.rule_of[word].read() >> shift) as u32 & 0x3f
}

#[inline(always)]
fn block_of(key: u64, config: &Config) -> u64 {
    set_of(key, config).and_then(|set| way_of(set, key, config)).map_or(0, |way| way.block.read())
}

/// Ban, coarse limits of the unknown, packet bucket, new-connection bucket, bucket of the rule.
#[inline(always)]
fn charge(key: u64, kind: Kind, flow: u32, rule: u32, course: &mut Course<'_>) -> Reason {
    let mut passes = passing(kind);
    let (config, now) = (course.config, course.now);
    let Some(set) = set_of(key, config) else { return passes };
    let mut way = way_of(set, key, config);
    let block = way.map_or(0, |way| way.block.read());
    if bans(unknown(block, config), unknown(now, config)) {
        // An operator's ban is an order, not a guess that has to prove itself first.
        let ordered = bans_for(block, Reason::SourceBanned);
        if course.refuses_source(Reason::DropBanned, 0, 0, key, block) || ordered {
            return Reason::DropBanned;
        }
    }

    let opens = kind == Kind::Opens;
    let promoted = is_promoted(unknown(block, config), unknown(now, config), config.promoted_above_ns.read());
    let mut packets = config_packets(config, promoted);
    let mut connections = if opens { config_connections(config, promoted) } else { Cost::FREE };
    if unknown(rule.into(), config) != 0 {
        replace(&mut packets, &mut connections, rule, config);
    }

    // Whoever is over its limit of new connections uses up nothing else with further ones: neither what the unknown have
    // in common nor its own packets, or a flood of forged SYNs would cost a source the connections that it has. And
    // whoever has no way yet takes one only after all this, so that made-up sources do not crowd the table.
    let over = opens && way.is_some_and(|way| connections.is_over(way, unknown(now, config)));
    if over {
        if course.refuses_source(Reason::DropConnectionRate, 0, 0, key, block) {
            return Reason::DropConnectionRate;
        }
        connections = Cost::FREE;
    } else if opens && !establishes(unknown(block, config), unknown(now, config)) {
        if let Some(reason) = charge_unknown(key, flow, &mut passes, course) {
            return reason;
        }
    }

    // Without a limit to charge, a source needs no way of its own.
    if way.is_none() && !(packets.rate.is_unlimited() && connections.rate.is_unlimited()) {
        way = take_way(set, key, config, now);
        if way.is_none() {
            passes = Reason::PassContended;
        }
    }
    if let Some(way) = way {
        let packet = maps::charge(&way.packet_tat, now, packets.rate, packets.cost_ns, config);
        if packet == CONTENDED {
            passes = Reason::PassContended;
        }
        if packet == LIMITED && course.refuses_source(Reason::DropPacketRate, 0, 0, key, block) {
            return Reason::DropPacketRate;
        }
        let connection = maps::charge(&way.request_tat, now, connections.rate, connections.cost_ns, config);
        if connection == CONTENDED {
            passes = Reason::PassContended;
        }
        if connection == LIMITED && course.refuses_source(Reason::DropConnectionRate, 0, 0, key, block) {
            return Reason::DropConnectionRate;
        }
    }

    if unknown(rule.into(), config) != 0 && is_over_rule(key, opens, rule, config, now) != 0 {
        let bits = config.rules[rule as usize & 0x3f].bits.read() as u32;
        if course.refuses_source(Reason::DropRuleRate, bits, rule, key, block) {
            return Reason::DropRuleRate;
        }
    }
    passes
}

/// What a packet that nothing refuses is counted under.
#[inline(always)]
fn passing(kind: Kind) -> Reason {
    match kind {
        Kind::Segment => Reason::PassEstablished,
        Kind::LaterFragment => Reason::Fragment,
        _ => Reason::Pass,
    }
}

/// The limits that unknown sources share.
#[inline(always)]
fn charge_unknown(key: u64, flow: u32, passes: &mut Reason, course: &mut Course<'_>) -> Option<Reason> {
    let over = coarse::charge(key, flow, course.config, course.now);
    if over & coarse::NET != 0 && course.refuses(Reason::DropAggregateRate, 0) {
        return Some(Reason::DropAggregateRate);
    }
    if over & coarse::UNKNOWN != 0 && course.refuses(Reason::DropUnknownRate, 0) {
        return Some(Reason::DropUnknownRate);
    }
    if over & coarse::RETRIED != 0 {
        *passes = Reason::PassRetried;
    }
    None
}

/// A limit, and what a packet costs under it.
struct Cost {
    rate: Rate,
    cost_ns: u64,
}

impl Cost {
    const FREE: Cost = Cost { rate: Rate::UNLIMITED, cost_ns: 0 };

    /// Whether a source could not pay.
    #[inline(always)]
    fn is_over(&self, way: &Way, now: u64) -> bool {
        !self.rate.is_unlimited()
            && way.request_tat.read().saturating_add(self.cost_ns) > now.saturating_add(self.rate.burst_ns)
    }
}

#[inline(always)]
fn config_packets(config: &Config, promoted: bool) -> Cost {
    let interval_ns = config.packet_interval_ns.read();
    let cost_ns = if promoted { config.promoted_packet_interval_ns.read() } else { interval_ns };
    Cost { rate: Rate { interval_ns, burst_ns: config.packet_burst_ns.read() }, cost_ns }
}

#[inline(always)]
fn config_connections(config: &Config, promoted: bool) -> Cost {
    let interval_ns = config.connection_interval_ns.read();
    let cost_ns = if promoted { config.promoted_connection_interval_ns.read() } else { interval_ns };
    Cost { rate: Rate { interval_ns, burst_ns: config.connection_burst_ns.read() }, cost_ns }
}

/// What a rule limits costs nothing in general; debts from requests and penalties count all the same.
#[inline(always)]
fn replace(packets: &mut Cost, connections: &mut Cost, rule: u32, config: &Config) {
    let rule = &config.rules[rule as usize & 0x3f];
    if rule.connection_interval_ns.read() != 0 {
        connections.cost_ns = 0;
    }
    if rule.packet_interval_ns.read() != 0 {
        packets.cost_ns = 0;
    }
}

/// Charges the bucket that a source has under a rule; not 0 if that is over its limit.
#[inline(never)]
fn is_over_rule(key: u64, opens: bool, rule: u32, config: &Config, now: u64) -> u32 {
    let key = rule_key(key, rule, &config.secret);
    let rule = &config.rules[rule as usize & 0x3f];
    let Some(set) = set_of(key, config) else { return 0 };
    let Some(way) = way_or_take(set, key, config, now) else { return 0 };
    let packets = Rate { interval_ns: rule.packet_interval_ns.read(), burst_ns: rule.packet_burst_ns.read() };
    if maps::charge(&way.packet_tat, now, packets, packets.interval_ns, config) == LIMITED {
        return 1;
    }
    if !opens {
        return 0;
    }
    let connections =
        Rate { interval_ns: rule.connection_interval_ns.read(), burst_ns: rule.connection_burst_ns.read() };
    (maps::charge(&way.request_tat, now, connections, connections.interval_ns, config) == LIMITED).into()
}

/// Not 0 if a packet is for a listener: then with the bits of its port, whose class the rules go by.
#[inline(always)]
fn ours<F: Family>(packet: &Packet<F::Address>, flags: u64) -> u32 {
    let Packet { destination, protocol, port, .. } = packet;
    if packet.kind == Kind::LaterFragment || packet.kind == Kind::ChainTooLong {
        // No port to ask for: the address decides.
        let ours = flags & F::ANY_FLAG != 0
            || (flags & F::SOME_FLAG != 0
                && is_listener(&F::listener(destination, 0, Protocol::Tcp).address_only()));
        return ours.into();
    }
    let bits = port_bits(*protocol, *port);
    let ours = bits & F::ANY_PORT_BIT != 0
        || (bits & F::SOME_PORT_BIT != 0 && is_listener(&F::listener(destination, *port, *protocol)));
    if ours { bits.into() } else { 0 }
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
const BANNED: u32 = Rule::Banned as u32;
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
    fn rule(source: &Self::Address, flags: u64) -> RuleWord;
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
    fn rule(source: &u32, flags: u64) -> RuleWord {
        if flags & flag::RULES_V4 != 0 { rule_v4(*source) } else { RuleWord(0) }
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
    fn rule(source: &[u32; 4], flags: u64) -> RuleWord {
        if flags & flag::RULES_V6 != 0 { rule_v6(*source) } else { RuleWord(0) }
    }

    #[inline(always)]
    fn listener(destination: &[u32; 4], port: u16, protocol: Protocol) -> ListenerKey {
        ListenerKey::v6(*destination, port, protocol)
    }
}
