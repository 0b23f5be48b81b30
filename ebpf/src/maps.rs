//! The maps and how the program reads them. Layouts live in `portcullis_abi`, sizes here are the smallest;
//! the gateway sets the real ones when it loads the object.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
};
use core::sync::atomic::AtomicU64;

use portcullis_abi::{
    Charge, Config, GOOD_HITS, GoodHit, GoodKey, KERNEL_TRIES, ListenerKey, PortTable, Protocol, Rate,
    Reason, RuleWord, Set, TOP_WORDS, Tally, WAYS, Way, Word, charge_within, find_or_take_within, set_index,
    top_place,
};

#[map]
static CONFIG: Array<Config> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static BUCKETS: Array<Set> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
pub static COUNTERS: PerCpuArray<Tally> = PerCpuArray::with_max_entries(Reason::KERNEL_COUNT as u32 + 1, 0);

#[map]
pub static DROPS: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

#[map]
pub static LEASED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub static RETRIES: Array<u64> = Array::with_max_entries(1, 0);

#[map]
pub static KNOWN_GOOD: LruHashMap<GoodKey, GoodHit> = LruHashMap::with_max_entries(GOOD_HITS, 0);

#[map]
static PORTS: Array<PortTable> = Array::with_max_entries(2, 0);

#[map]
static LISTENERS: HashMap<ListenerKey, u32> = HashMap::with_max_entries(1, 0);

#[map]
static TOP_V4: Array<u64> = Array::with_max_entries(TOP_WORDS, 0);

// Addresses as they lie in the packet: the trie compares bytes, so no swap is needed.
#[map]
static RULES_V4: LpmTrie<u32, u32> = LpmTrie::with_max_entries(1, 0);

#[map]
static RULES_V6: LpmTrie<[u32; 4], u32> = LpmTrie::with_max_entries(1, 0);

#[inline(always)]
pub fn config() -> Option<&'static Config> {
    // SAFETY: an array map's values live as long as the program; `Config` is written a word at a time.
    unsafe { CONFIG.get_ptr(0).map(|config| &*config) }
}

/// The set of ways that `key` lives in.
#[inline(always)]
pub fn set_of(key: u64, config: &Config) -> Option<&'static Set> {
    let index = set_index(key, &config.secret, config.sets as usize);
    // SAFETY: as above; every word of a set is atomic.
    unsafe { BUCKETS.get_ptr(index as u32).map(|set| &*set) }
}

/// The way of `key`, if its set holds it. The verifier walks what follows once for each way that it can tell apart, so it
/// is told an index that it does not know.
#[inline(always)]
pub fn way_of<'a>(set: &'a Set, key: u64, config: &Config) -> Option<&'a Way> {
    let index = 'found: {
        for (i, way) in set.ways.iter().enumerate() {
            if way.key.read() == key {
                break 'found i;
            }
        }
        return None;
    };
    Some(unknown_way(set, index, config))
}

#[inline(always)]
fn unknown_way<'a>(set: &'a Set, index: usize, config: &Config) -> &'a Way {
    &set.ways[index.wrapping_add(config.zero.read() as usize) % WAYS]
}

/// As [`way_of`], taking one if there is none; `None` if another CPU took it first.
#[inline(always)]
pub fn way_or_take<'a>(set: &'a Set, key: u64, config: &Config, now: u64) -> Option<&'a Way> {
    // Most have theirs, and then there is no call to make.
    if let Some(way) = way_of(set, key, config) {
        return Some(way);
    }
    take_way(set, key, config, now)
}

/// As [`way_or_take`], for a key that the set did not hold a moment ago.
#[inline(always)]
pub fn take_way<'a>(set: &'a Set, key: u64, config: &Config, now: u64) -> Option<&'a Way> {
    let index = taken(set, key, unknown(now, config)) as usize;
    if index == WAYS { None } else { Some(unknown_way(set, index, config)) }
}

/// An index, not a reference: the verifier forgets nothing about where a pointer points.
#[inline(never)]
fn taken(set: &Set, key: u64, now: u64) -> u64 {
    let first = set.ways.as_ptr() as u64;
    match find_or_take_within(set, key, now) {
        Some(way) => ((&raw const *way) as u64).wrapping_sub(first) / size_of::<Way>() as u64,
        None => WAYS as u64,
    }
}

/// A number that the verifier knows nothing about. It follows each path with what it has learned of every number that is
/// still in use, so a comparison in one place multiplies the paths of all that comes after, unless it was made on a
/// number of its own.
#[inline(always)]
pub fn unknown(number: u64, config: &Config) -> u64 {
    number.wrapping_add(config.zero.read())
}

/// The outcome of [`charge`].
pub const CONFORMING: u32 = 0;
/// Over the limit.
pub const LIMITED: u32 = 1;
/// Lost to other CPUs, uncharged.
pub const CONTENDED: u32 = 2;

/// Charges a word in the kernel's form: the first try here, what follows a lost one out of line.
#[inline(always)]
pub fn charge(word: &AtomicU64, now: u64, rate: Rate, cost_ns: u64, config: &Config) -> u32 {
    if rate.is_unlimited() {
        return CONFORMING;
    }
    match outcome(charge_within::<_, 1>(word, unknown(now, config), rate, cost_ns)) {
        CONTENDED => charge_again(word, unknown(now, config), rate.burst_ns, cost_ns),
        outcome => outcome,
    }
}

#[inline(never)]
fn charge_again(word: &AtomicU64, now: u64, burst_ns: u64, cost_ns: u64) -> u32 {
    outcome(charge_within::<_, { KERNEL_TRIES - 1 }>(word, now, Rate { interval_ns: 1, burst_ns }, cost_ns))
}

#[inline(always)]
fn outcome(charge: Option<Charge>) -> u32 {
    match charge {
        Some(Charge::Conforming { .. }) => CONFORMING,
        Some(Charge::Limited { .. }) => LIMITED,
        None => CONTENDED,
    }
}

/// `port_bit`s of one port.
#[inline(always)]
pub fn port_bits(protocol: Protocol, port: u16) -> u8 {
    let Some(table) = PORTS.get_ptr(protocol as u32) else { return 0 };
    // SAFETY: the table has an entry for every u16; bytes are written whole.
    unsafe { (&raw const (*table).bits).cast::<u8>().add(port as usize).read_volatile() }
}

#[inline(always)]
pub fn is_listener(key: &ListenerKey) -> bool {
    // SAFETY: only the presence of the value is used.
    unsafe { LISTENERS.get(key) }.is_some()
}

/// The rule of the longest prefix that holds this IPv4 source; none is 0, which does nothing.
#[inline(always)]
pub fn rule_v4(source: u32) -> RuleWord {
    let (word, shift) = top_place(u32::from_be(source));
    // SAFETY: a value of an array map lives as long as the program; the word is written whole.
    let top = TOP_V4.get_ptr(word).map_or(0, |top| unsafe { top.read_volatile() });
    if top >> shift & 1 == 0 {
        return RuleWord(0);
    }
    RuleWord(RULES_V4.get(Key::new(32, source)).map_or(0, |rule| *rule))
}

/// The same for IPv6.
#[inline(always)]
pub fn rule_v6(source: [u32; 4]) -> RuleWord {
    RuleWord(RULES_V6.get(Key::new(128, source)).map_or(0, |rule| *rule))
}
