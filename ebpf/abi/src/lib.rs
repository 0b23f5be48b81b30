//! What the XDP program and the gateway share: map names and layouts, the reasons for refusing, and
//! the bucket algorithm itself. The same source is compiled for the BPF target and for the host.
//!
//! Owns: the shape of every map, the meaning of every bit in it, GCRA arithmetic, the set-associative
//! table with its eviction order. Never does I/O, never reads a clock (`now` is an argument, in
//! nanoseconds of `CLOCK_MONOTONIC`), never allocates, never panics.
//!
//! Invariant: everything two sides write concurrently is one 64-bit word changed by compare-exchange,
//! so an update is seen whole or not at all, on any number of CPUs and across the kernel boundary.
#![no_std]
// The BPF target has no stable compare-exchange (see `word`); the host build uses stable Rust only.
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    allow(internal_features, reason = "atomic_cxchg has no stable form on the BPF target")
)]

mod block;
mod gcra;
mod key;
mod layout;
mod reason;
mod table;
mod word;

pub use block::{
    BAN_LEVEL_MAX, Block, ban, bans, bans_for, establishes, is_known_good, is_promoted, mark_authenticated,
    mark_established, next_level, unblock,
};
pub use gcra::{Charge, KERNEL_TRIES, Rate, charge, charge_ns, charge_within, penalize, refund};
pub use key::{aggregate_key, is_v4, key_v4, key_v6, key_v6_halves, offence_key, rule_key};
pub use layout::{
    BAN_UNIT_NS, Config, DropEvent, Family, GOOD_HITS, GoodHit, GoodKey, LimitRule, ListenerKey, LpmKeyV4,
    LpmKeyV6, PORT_CLASSES, PORTS_PER_PROTOCOL, PREFIX_CLASSES, PortTable, Protocol, RULES, Rule, RuleWord,
    SAMPLE_BYTES, STEER_CORES, STEER_GROUPS, SharedBuckets, TOP_WORDS, Tally, ban_end, flag, map, port_bit,
    rule_bit, top_place,
};
pub use layout::{
    LAYOUT_VERSION, PROGRAM, PROGRAM_FRAGS, PROGRAM_RANDOM_SOURCES, PROGRAM_SCRAMBLE_ONLY, PROGRAM_STEER,
};
pub use reason::Reason;
pub use table::{Secret, Set, WAYS, Way, find, find_or_take, find_or_take_within, set_index};
pub use word::Word;
