//! Names and layouts of the maps. `ebpf/README.md` has the same as a table.
//!
//! Every struct is `repr(C)` without implicit padding; sizes are asserted at compile time. A change here
//! that an older pinned map could not bear raises [`LAYOUT_VERSION`].

use core::sync::atomic::AtomicU64;

use crate::Secret;

/// Version of everything that outlives a process in pinned maps: layouts, meaning of words, the hash.
/// It names the pin directory and is stored in [`Config::layout`].
pub const LAYOUT_VERSION: u32 = 1;

/// The XDP program that the gateway attaches.
pub const PROGRAM: &str = "portcullis";

/// The same for interfaces whose packets span buffers; needs Linux 5.18.
pub const PROGRAM_FRAGS: &str = "portcullis_frags";

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
    /// Packets by kernel [`crate::Reason`], per CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// [`super::PortTable`] by [`super::Protocol`]: the first, cheap question.
    pub const PORTS: &str = "PORTS";
    /// [`super::ListenerKey`] of listeners on one address, and of those addresses alone; hash.
    pub const LISTENERS: &str = "LISTENERS";
    /// [`super::Rule`] by IPv4 prefix; LPM trie.
    pub const RULES_V4: &str = "RULES_V4";
    /// [`super::Rule`] by IPv6 prefix; LPM trie.
    pub const RULES_V6: &str = "RULES_V6";
    /// aya-log's ring; not pinned.
    pub const LOGS: &str = "AYA_LOGS";
    /// State of the source scrambler, per CPU; not pinned.
    pub const SCRAMBLER: &str = "SCRAMBLER";
}

/// Bits of [`Config::flags`].
pub mod flag {
    /// RULES_V4 has an entry.
    pub const RULES_V4: u64 = 1 << 0;
    /// RULES_V6 has an entry.
    pub const RULES_V6: u64 = 1 << 1;
    /// Count what would be dropped, and pass it.
    pub const SHADOW: u64 = 1 << 2;
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
    /// Zero.
    pub reserved: [u64; 6],
}

const _: () = assert!(size_of::<Config>() == 128 && align_of::<Config>() == 128);

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

/// Bits of a [`PortTable`] byte.
pub mod port_bit {
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

/// What the longest matching prefix says about a source. The gateway resolves nested prefixes before it
/// writes them, so the program asks one trie once: a prefix inside a trusted one is written as trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Rule {
    /// Drop.
    Deny = 1,
    /// Pass, exempt from limits and bans.
    Allow = 2,
    /// As `Allow`, and no deny rule overrides it.
    Trusted = 3,
}

#[cfg(feature = "user")]
mod pod {
    //! aya copies map values as bytes; these types promise to bear it.
    #![allow(unsafe_code, reason = "aya::Pod is an unsafe trait")]

    use super::{ListenerKey, PortTable};

    // SAFETY: repr(C), integers only, no padding (20 = 16 + 2 + 1 + 1), any bytes are a valid value.
    unsafe impl aya::Pod for ListenerKey {}
    // SAFETY: repr(C), bytes only, size equals the array's.
    unsafe impl aya::Pod for PortTable {}
}
