//! Names and layouts of the maps. `ebpf/README.md` has the same as a table.
//!
//! Every struct is `repr(C)` without implicit padding; sizes are asserted at compile time. A change here
//! that an older pinned map could not bear raises [`LAYOUT_VERSION`].

use core::sync::atomic::AtomicU64;

use crate::{Reason, Secret};

/// Version of everything that outlives a process in pinned maps: layouts, meaning of words, the hash.
/// It names the pin directory and is stored in [`Config::layout`].
pub const LAYOUT_VERSION: u32 = 3;

/// The XDP program that the gateway attaches.
pub const PROGRAM: &str = "portcullis";

/// The same for interfaces whose packets span buffers; needs Linux 5.18.
pub const PROGRAM_FRAGS: &str = "portcullis_frags";

/// Which socket of a listener a new connection goes to; needs Linux 5.14.
pub const PROGRAM_STEER: &str = "portcullis_steer";

/// The same decision behind a scrambler of source addresses. For test-run only: the gateway never loads it.
pub const PROGRAM_RANDOM_SOURCES: &str = "portcullis_random_sources";

/// The scrambler alone, to be subtracted from a measurement.
pub const PROGRAM_SCRAMBLE_ONLY: &str = "portcullis_scramble_only";

/// Map names; each is pinned under the same name.
pub mod map {
    /// One [`super::Config`]; mmapable.
    pub const CONFIG: &str = "CONFIG";
    /// [`crate::Set`] by set index; mmapable; sized at load.
    pub const BUCKETS: &str = "BUCKETS";
    /// [`super::Tally`] by kernel [`crate::Reason`], per CPU; after the last, of the resets sent.
    pub const COUNTERS: &str = "COUNTERS";
    /// [`super::PortTable`] by [`super::Protocol`]: the first, cheap question.
    pub const PORTS: &str = "PORTS";
    /// [`super::ListenerKey`] of listeners on one address, and of those addresses alone; hash.
    pub const LISTENERS: &str = "LISTENERS";
    /// [`super::Rule`] by IPv4 prefix; LPM trie.
    pub const RULES_V4: &str = "RULES_V4";
    /// [`super::Rule`] by IPv6 prefix; LPM trie.
    pub const RULES_V6: &str = "RULES_V6";
    /// A bit for each IPv4 /16: whether RULES_V4 holds anything in or around it; array of [`super::TOP_WORDS`] words.
    pub const TOP_V4: &str = "TOP_V4";
    /// [`super::DropEvent`]s; a ring; not pinned.
    pub const DROPS: &str = "DROPS";
    /// SYNs of unknown sources that wait for their retransmission; not pinned; sized at load.
    pub const RETRIES: &str = "RETRIES";
    /// [`super::GoodHit`] by [`super::GoodKey`]: known-good sources that were, or would have been, dropped; LRU hash.
    pub const KNOWN_GOOD: &str = "KNOWN_GOOD";
    /// The number of a listener, by [`super::ListenerKey`]; hash.
    pub const STEER_GROUP: &str = "STEER_GROUP";
    /// A listener's socket for each core, at number times [`super::STEER_CORES`]; array of sockets.
    pub const STEER_SOCKETS: &str = "STEER_SOCKETS";
    /// aya-log's ring; not pinned.
    pub const LOGS: &str = "AYA_LOGS";
    /// Tokens of the common limit that a CPU has in hand, per CPU; not pinned.
    pub const LEASED: &str = "LEASED";
    /// State of the source scrambler, per CPU; not pinned.
    pub const SCRAMBLER: &str = "SCRAMBLER";
}

/// Bits of [`Config::flags`].
pub mod flag {
    /// RULES_V4 has an entry.
    pub const RULES_V4: u64 = 1 << 0;
    /// RULES_V6 has an entry.
    pub const RULES_V6: u64 = 1 << 1;
    /// Read the coarse clock: every configured burst is long enough to bear its tick.
    pub const COARSE_CLOCK: u64 = 1 << 3;
    /// A listener takes any IPv4 address, so a packet without ports may be ours.
    pub const ANY_V4: u64 = 1 << 4;
    /// A listener takes any IPv6 address.
    pub const ANY_V6: u64 = 1 << 5;
    /// A listener has one IPv4 address of its own.
    pub const SOME_V4: u64 = 1 << 6;
    /// A listener has one IPv6 address of its own.
    pub const SOME_V6: u64 = 1 << 7;
    /// Lets [`super::PROGRAM_RANDOM_SOURCES`] rewrite packets. Set by tests and benches only.
    pub const RANDOM_SOURCES: u64 = 1 << 32;
}

/// Words of TOP_V4.
pub const TOP_WORDS: u32 = (1 << 16) / 64;

/// Where an IPv4 address, as a number, has its bit in TOP_V4: the word, and the shift in it. Most packets are from places
/// that no list names, and one bit in the nearest cache costs a tenth of a question to the trie.
#[inline(always)]
pub const fn top_place(address: u32) -> (u32, u32) {
    (address >> 22, address >> 16 & 63)
}

/// Listeners that can be steered.
pub const STEER_GROUPS: u32 = 64;

/// Cores that connections are steered by; those received elsewhere go by the kernel's hash.
pub const STEER_CORES: u32 = 256;

/// What the gateway tells the program. Written through a shared mapping, one word at a time; the program
/// reads each word once a packet. Two words of one limit may be seen one update apart for one packet.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Config {
    /// [`LAYOUT_VERSION`] of the process that made these maps.
    pub layout: u32,
    /// Number of sets in BUCKETS, a power of two.
    pub sets: u32,
    /// Made once a boot, kept as long as the maps are pinned.
    pub secret: Secret,
    /// [`flag`] bits.
    pub flags: AtomicU64,
    /// When the gateway was last alive, ns of CLOCK_MONOTONIC.
    pub heartbeat_ns: AtomicU64,
    /// A heartbeat older than this and everything passes; 0 is never.
    pub dead_after_ns: AtomicU64,
    /// [`crate::Rate`] of packets, by source.
    pub packet_interval_ns: AtomicU64,
    /// See [`crate::Rate`].
    pub packet_burst_ns: AtomicU64,
    /// [`crate::Rate`] of new connections, by source, on the word that requests also pay from.
    pub connection_interval_ns: AtomicU64,
    /// See [`crate::Rate`].
    pub connection_burst_ns: AtomicU64,
    /// What a packet costs a promoted source; its burst in nanoseconds is the same.
    pub promoted_packet_interval_ns: AtomicU64,
    /// What a new connection costs a promoted source.
    pub promoted_connection_interval_ns: AtomicU64,
    /// A source is promoted while its authentication has more time left than this.
    pub promoted_above_ns: AtomicU64,
    /// [`crate::Reason::drop_bit`]s of the reasons that are only counted.
    pub shadow: AtomicU64,
    /// [`crate::Reason::drop_bit`]s of the reasons for which TCP is answered with a reset.
    pub reset: AtomicU64,
    /// [`crate::Rate`] of samples of dropped packets, for each reason on each CPU; 0 takes none.
    pub sample_interval_ns: AtomicU64,
    /// [`crate::Rate`] of new connections from unknown sources of one /24.
    pub v4_net_interval_ns: AtomicU64,
    /// See [`crate::Rate`].
    pub v4_net_burst_ns: AtomicU64,
    /// [`crate::Rate`] of new connections from unknown sources of one /48.
    pub v6_net_interval_ns: AtomicU64,
    /// See [`crate::Rate`].
    pub v6_net_burst_ns: AtomicU64,
    /// [`crate::Rate`] of new connections from all unknown sources together.
    pub unknown_interval_ns: AtomicU64,
    /// See [`crate::Rate`].
    pub unknown_burst_ns: AtomicU64,
    /// See [`Config::sample_interval_ns`].
    pub sample_burst_ns: AtomicU64,
    /// [`crate::Rate`] of resets that are sent.
    pub reset_interval_ns: AtomicU64,
    /// See [`crate::Rate`].
    pub reset_burst_ns: AtomicU64,
    /// Slots of RETRIES less one; a power of two less one.
    pub retries_mask: AtomicU64,
    /// Zero. The program adds it to numbers that its verifier had better not know: it follows each known value apart.
    pub zero: AtomicU64,
    /// Tokens of [`Config::unknown_interval_ns`] that a CPU takes beyond the one it needs, to spend them by itself.
    pub unknown_lease: AtomicU64,
    /// Zero.
    pub reserved: [u64; 2],
    /// The bucket of all unknown sources, charged by the program; and that of the resets.
    pub shared: SharedBuckets,
    /// By rule number; 0 is no rule.
    pub rules: [LimitRule; RULES],
    /// Which rule holds for a class of ports and a class of prefixes, a byte each: [`Config::rule_of`].
    pub rule_of: [AtomicU64; PORT_CLASSES * PREFIX_CLASSES / 8],
}

/// Buckets that all CPUs write; on a line of their own, so that the rest of [`Config`] stays in every cache.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct SharedBuckets {
    /// TAT of new connections from unknown sources.
    pub unknown_tat: AtomicU64,
    /// TAT of resets.
    pub reset_tat: AtomicU64,
    /// Zero.
    pub reserved: [u64; 14],
}

/// A limit for some ports, some prefixes, or both. Each source has a bucket of its own under it, and it takes the place
/// of the general limits that it sets.
#[derive(Debug)]
#[repr(C)]
pub struct LimitRule {
    /// [`crate::Rate`] of new connections; an interval of 0 leaves the general one in force.
    pub connection_interval_ns: AtomicU64,
    /// See [`crate::Rate`].
    pub connection_burst_ns: AtomicU64,
    /// [`crate::Rate`] of packets; likewise.
    pub packet_interval_ns: AtomicU64,
    /// See [`crate::Rate`].
    pub packet_burst_ns: AtomicU64,
    /// [`rule_bit`]s.
    pub bits: AtomicU64,
    /// Zero.
    pub reserved: [u64; 3],
}

/// Rules, with number 0, which is none.
pub const RULES: usize = 64;

/// Classes of ports that rules tell apart; class 0 is in no rule.
pub const PORT_CLASSES: usize = 16;

/// Classes of prefixes that rules tell apart; class 0 is in no rule.
pub const PREFIX_CLASSES: usize = 64;

impl Config {
    /// Where the rule for two classes stands: the word in [`Config::rule_of`] and the shift of its byte.
    #[inline(always)]
    pub const fn rule_place(port_class: u32, prefix_class: u32) -> (usize, u32) {
        let index =
            (port_class as usize % PORT_CLASSES) * PREFIX_CLASSES + prefix_class as usize % PREFIX_CLASSES;
        (index / 8, (index % 8 * 8) as u32)
    }
}

const _: () = assert!(size_of::<SharedBuckets>() == 128 && size_of::<LimitRule>() == 64);
const _: () =
    assert!(core::mem::offset_of!(Config, shared) == 256 && core::mem::offset_of!(Config, rules) == 384);
const _: () = assert!(size_of::<Config>() == 384 + 64 * RULES + PORT_CLASSES * PREFIX_CLASSES);
const _: () = assert!(Reason::FIRST_SHADOW - Reason::FIRST_DROP <= 64, "a drop is a bit");

/// Transport protocols that listeners have; the value is the index into PORTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// IP protocol 6.
    Tcp = 0,
    /// IP protocol 17.
    Udp = 1,
}

/// IP versions; the value goes into [`ListenerKey::family`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

/// Ports that exist.
pub const PORTS_PER_PROTOCOL: usize = 65536;

/// By port, the [`port_bit`]s: which addresses have a listener there. Most packets that are not ours are
/// told apart by this one byte.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct PortTable {
    /// Indexed by port, host order.
    pub bits: [u8; PORTS_PER_PROTOCOL],
}

const _: () = assert!(size_of::<PortTable>() == PORTS_PER_PROTOCOL);

/// Bits of a [`PortTable`] byte. The upper four are the port's class in the rules.
pub mod port_bit {
    /// Where the class begins.
    pub const CLASS_SHIFT: u32 = 4;
    /// Any IPv4 address.
    pub const ANY_V4: u8 = 1 << 0;
    /// Any IPv6 address.
    pub const ANY_V6: u8 = 1 << 1;
    /// Some IPv4 address: ask LISTENERS.
    pub const SOME_V4: u8 = 1 << 2;
    /// Some IPv6 address: ask LISTENERS.
    pub const SOME_V6: u8 = 1 << 3;
}

/// Key of LISTENERS. With port and protocol 0 it says that the address is one of ours, for packets
/// without ports. The value is one unused byte-quad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct ListenerKey {
    /// Four octets each as they lie in a packet, read as a native number; an IPv4 address in the first, the rest
    /// zero. Words and not octets, because the program would copy octets one by one.
    pub addr: [u32; 4],
    /// Host order.
    pub port: u16,
    /// A [`Protocol`] plus 1, or 0 with port 0.
    pub protocol: u8,
    /// A [`Family`].
    pub family: u8,
}

const _: () = assert!(size_of::<ListenerKey>() == 20);

impl ListenerKey {
    /// A listener on one IPv4 address, as it lies in a packet (`u32::from_ne_bytes(octets)`).
    #[inline(always)]
    pub const fn v4(addr: u32, port: u16, protocol: Protocol) -> ListenerKey {
        ListenerKey { addr: [addr, 0, 0, 0], port, protocol: protocol as u8 + 1, family: Family::V4 as u8 }
    }

    /// A listener on one IPv6 address.
    #[inline(always)]
    pub const fn v6(addr: [u32; 4], port: u16, protocol: Protocol) -> ListenerKey {
        ListenerKey { addr, port, protocol: protocol as u8 + 1, family: Family::V6 as u8 }
    }

    /// The entry for the address alone.
    #[inline(always)]
    pub const fn address_only(self) -> ListenerKey {
        ListenerKey { port: 0, protocol: 0, ..self }
    }
}

/// Key of RULES_V4, as the kernel's LPM trie wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct LpmKeyV4 {
    /// 0 to 32.
    pub prefix_len: u32,
    /// Network order; bits past the prefix zero.
    pub addr: [u8; 4],
}

/// Key of RULES_V6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct LpmKeyV6 {
    /// 0 to 128.
    pub prefix_len: u32,
    /// Network order; bits past the prefix zero.
    pub addr: [u8; 16],
}

const _: () = assert!(size_of::<LpmKeyV4>() == 8 && size_of::<LpmKeyV6>() == 20);

/// What the longest matching prefix says about a source: [`RuleWord::kind`]. The gateway resolves nested prefixes before
/// it writes them, so the program asks one trie once: a prefix inside a trusted one is written as trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Rule {
    /// Nothing by itself; only a class for the limits.
    Limit = 0,
    /// Drop, as an operator's list says.
    Deny = 1,
    /// Drop, as an operator's ban of a prefix says.
    Banned = 2,
    /// Pass, exempt from limits and bans.
    Allow = 3,
    /// As `Allow`, and no deny rule overrides it.
    Trusted = 4,
}

/// Bits of rules, of prefixes and limits alike.
pub mod rule_bit {
    /// Only counted.
    pub const SHADOW: u32 = 1 << 3;
    /// TCP is answered with a reset.
    pub const RESET: u32 = 1 << 4;
}

/// The value of RULES_V4 and RULES_V6: a [`Rule`] in bits 0 to 2, [`rule_bit`]s, the class of the prefix in the limits in
/// bits 8 to 15, and from bit 16 the number of the list, of a ban its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleWord(pub u32);

impl RuleWord {
    const KIND: u32 = 0b111;

    /// A word of its parts: [`rule_bit`]s, the class of the prefix in the limits, the number of the list.
    pub const fn new(kind: Rule, bits: u32, class: u8, list: u16) -> RuleWord {
        RuleWord(kind as u32 | bits | (class as u32 % PREFIX_CLASSES as u32) << 8 | (list as u32) << 16)
    }

    /// A [`Rule`], as a number.
    #[inline(always)]
    pub const fn kind(self) -> u32 {
        self.0 & Self::KIND
    }

    /// The [`Rule`], if this build knows it.
    pub const fn rule(self) -> Option<Rule> {
        match self.kind() {
            0 => Some(Rule::Limit),
            1 => Some(Rule::Deny),
            2 => Some(Rule::Banned),
            3 => Some(Rule::Allow),
            4 => Some(Rule::Trusted),
            _ => None,
        }
    }

    /// [`rule_bit`]s.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0 & (rule_bit::SHADOW | rule_bit::RESET)
    }

    /// The class of the prefix in the limits.
    #[inline(always)]
    pub const fn class(self) -> u32 {
        self.0 >> 8 & (PREFIX_CLASSES as u32 - 1)
    }

    /// The number of the list; 0 is the one written inline. Of a ban it is the end.
    #[inline(always)]
    pub const fn list(self) -> u32 {
        self.0 >> 16
    }

    /// Whether a ban has ended at `now`. The gateway takes ended ones off within a second; this is for when it cannot.
    #[inline(always)]
    pub const fn has_ended(self, now: u64) -> bool {
        // Serial numbers: a half of them lies ahead.
        let ahead = self.list().wrapping_sub((now >> BAN_UNIT_SHIFT) as u32) as u16;
        ahead == 0 || ahead > u16::MAX / 2
    }
}

const BAN_UNIT_SHIFT: u32 = 37;

/// What the word of a banned prefix has in place of the list's number: the end of the ban, ns of CLOCK_MONOTONIC, rounded up
/// to [`BAN_UNIT_NS`]. At most 52 days ahead.
pub const fn ban_end(until: u64) -> u16 {
    (until.div_ceil(BAN_UNIT_NS) & 0xffff) as u16
}

/// To what the end of a prefix's ban is kept: 137 s, of which 16 bits count 104 days.
pub const BAN_UNIT_NS: u64 = 1 << BAN_UNIT_SHIFT;

/// The value of COUNTERS: what a CPU has seen of one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// The TAT of its samples: beside the count, as each drop needs both.
    pub sampled_tat: u64,
}

/// Bytes of a dropped packet that are kept, from Ethernet on.
pub const SAMPLE_BYTES: usize = 128;

/// A dropped packet, or one that would have been dropped.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct DropEvent {
    /// When, ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// On which interface.
    pub interface: u32,
    /// How long the packet was.
    pub length: u32,
    /// The index of the [`crate::Reason`] that it was counted under.
    pub reason: u32,
    /// How many bytes of `data` are the packet's; a multiple of 8, so up to 7 of a short packet are missing.
    pub captured: u32,
    /// The first bytes.
    pub data: [u64; SAMPLE_BYTES / 8],
}

const _: () = assert!(size_of::<DropEvent>() == 24 + SAMPLE_BYTES);

/// A known-good source under one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct GoodKey {
    /// The source.
    pub source: u64,
    /// The index of the drop's [`crate::Reason`], also in shadow mode.
    pub reason: u32,
    /// The number of the list for `drop_denied`, of the rule for `drop_rule_rate`; else 0.
    pub number: u32,
}

/// What happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GoodHit {
    /// Packets dropped, or that would have been.
    pub packets: u64,
    /// The last of them, ns of CLOCK_MONOTONIC; the lowest bit is set if it was dropped indeed.
    pub last_ns: u64,
}

/// Known-good sources that are remembered.
pub const GOOD_HITS: u32 = 4096;

const _: () = assert!(size_of::<GoodKey>() == 16 && size_of::<GoodHit>() == 16 && size_of::<Tally>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_banned_until_its_end_and_a_unit_longer_at_most() {
        const DAY: u64 = 86_400_000_000_000;
        for now in [1, BAN_UNIT_NS, 100 * DAY, 104 * DAY, 1000 * DAY] {
            for lasts in [1, 1_000_000_000, DAY, 30 * DAY] {
                let word = RuleWord::new(Rule::Banned, 0, 63, ban_end(now + lasts));
                assert_eq!((word.rule(), word.class()), (Some(Rule::Banned), 63));
                for at in [now, now + lasts / 2, now + lasts - 1] {
                    assert!(!word.has_ended(at), "{now} + {lasts} at {at}");
                }
                for at in [now + lasts + BAN_UNIT_NS, now + lasts + 20 * DAY] {
                    assert!(word.has_ended(at), "{now} + {lasts} at {at}");
                }
            }
        }
    }
}

#[cfg(feature = "user")]
mod pod {
    //! aya copies map values as bytes; these types promise to bear it.
    #![allow(unsafe_code, reason = "aya::Pod is an unsafe trait")]

    use super::{GoodHit, GoodKey, ListenerKey, PortTable, Tally};

    // SAFETY: repr(C), integers only, no padding (20 = 16 + 2 + 1 + 1), any bytes are a valid value.
    unsafe impl aya::Pod for ListenerKey {}
    // SAFETY: repr(C), bytes only, size equals the array's.
    unsafe impl aya::Pod for PortTable {}
    // SAFETY: repr(C), integers only, no padding (16 = 8 + 4 + 4), any bytes are a valid value.
    unsafe impl aya::Pod for GoodKey {}
    // SAFETY: repr(C), two words, any bytes are a valid value.
    unsafe impl aya::Pod for GoodHit {}
    // SAFETY: repr(C), two words, any bytes are a valid value.
    unsafe impl aya::Pod for Tally {}
}
