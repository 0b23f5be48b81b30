//! The maps and how the program reads them. Layouts live in `portcullis_abi`, sizes here are the smallest;
//! the gateway sets the real ones when it loads the object.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
};
use portcullis_abi::{
    Config, GOOD_HITS, GoodHit, GoodKey, ListenerKey, PortTable, Protocol, Reason, RuleWord, Set, set_index,
};

#[map]
static CONFIG: Array<Config> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static BUCKETS: Array<Set> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::KERNEL_COUNT as u32 + 1, 0);

#[map]
pub static DROPS: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

#[map]
pub static SAMPLED: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::KERNEL_COUNT as u32, 0);

#[map]
pub static RETRIES: Array<u64> = Array::with_max_entries(1, 0);

#[map]
pub static KNOWN_GOOD: LruHashMap<GoodKey, GoodHit> = LruHashMap::with_max_entries(GOOD_HITS, 0);

#[map]
static PORTS: Array<PortTable> = Array::with_max_entries(2, 0);

#[map]
static LISTENERS: HashMap<ListenerKey, u32> = HashMap::with_max_entries(1, 0);

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
    RuleWord(RULES_V4.get(Key::new(32, source)).map_or(0, |rule| *rule))
}

/// The same for IPv6.
#[inline(always)]
pub fn rule_v6(source: [u32; 4]) -> RuleWord {
    RuleWord(RULES_V6.get(Key::new(128, source)).map_or(0, |rule| *rule))
}
