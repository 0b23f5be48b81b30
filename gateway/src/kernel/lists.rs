//! The tries of prefixes, kept in step with the lists. Edited, never rebuilt: freeing a large trie stalls CPUs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use ipnet::IpNet;
use portcullis_abi::{Config, RuleWord, flag, map};

use super::resolve::{Prefix, Resolved};
use super::{KernelError, load, set_flag};

/// Both tries and what they hold.
pub(super) struct Tries {
    v4: Trie<[u8; 4]>,
    v6: Trie<[u8; 16]>,
    max: u32,
}

struct Trie<A> {
    name: &'static str,
    flag: u64,
    map: LpmTrie<MapData, A, u32>,
    written: BTreeMap<Prefix, RuleWord>,
}

impl Tries {
    pub(super) fn open(ebpf: &mut Ebpf, max: u32) -> Result<Tries, KernelError> {
        Ok(Tries {
            v4: Trie::open(ebpf, map::RULES_V4, flag::RULES_V4)?,
            v6: Trie::open(ebpf, map::RULES_V6, flag::RULES_V6)?,
            max,
        })
    }

    /// `alive` is called now and then: a million prefixes take a second.
    pub(super) fn sync(
        &mut self,
        resolved: &Resolved,
        config: &Config,
        alive: &dyn Fn(),
    ) -> Result<(), KernelError> {
        for rules in [&resolved.v4, &resolved.v6] {
            if rules.len() > self.max as usize {
                return Err(KernelError::TooMany {
                    what: "prefixes in the XDP lists",
                    count: rules.len(),
                    max: self.max,
                    setting: "xdp.max_prefixes",
                });
            }
        }
        self.v4.sync(&resolved.v4, self.max, config, alive)?;
        self.v6.sync(&resolved.v6, self.max, config, alive)
    }

    /// The longest prefix that holds an address, as it was written.
    pub(super) fn lookup(&self, address: IpAddr) -> Option<(IpNet, RuleWord)> {
        let (bits, width, written) = match address.to_canonical() {
            IpAddr::V4(addr) => (u128::from(u32::from(addr)), 32, &self.v4.written),
            IpAddr::V6(addr) => (u128::from(addr), 128, &self.v6.written),
        };
        (0..=width).rev().find_map(|length: u8| {
            let host = u32::from(width - length);
            let network = bits.checked_shr(host).unwrap_or(0).checked_shl(host).unwrap_or(0);
            let word = written.get(&(network, length))?;
            let network = if width == 32 {
                IpAddr::from((network as u32).to_be_bytes())
            } else {
                IpAddr::from(network.to_be_bytes())
            };
            Some((IpNet::new(network, length).ok()?, *word))
        })
    }
}

/// The address part of a trie's key.
trait Address: aya::Pod {
    fn from_bits(bits: u128) -> Self;
    fn to_bits(self) -> u128;
}

impl Address for [u8; 4] {
    fn from_bits(bits: u128) -> Self {
        (bits as u32).to_be_bytes()
    }

    fn to_bits(self) -> u128 {
        u32::from_be_bytes(self).into()
    }
}

impl Address for [u8; 16] {
    fn from_bits(bits: u128) -> Self {
        bits.to_be_bytes()
    }

    fn to_bits(self) -> u128 {
        u128::from_be_bytes(self)
    }
}

impl<A: Address> Trie<A> {
    fn open(ebpf: &mut Ebpf, name: &'static str, flag: u64) -> Result<Trie<A>, KernelError> {
        let map: LpmTrie<MapData, A, u32> = load::typed(ebpf, name)?;
        let mut written = BTreeMap::new();
        for entry in map.iter() {
            let (key, value) = entry.map_err(KernelError::map(name))?;
            // A value that this build does not know is overwritten or removed by the next sync.
            written.insert((key.data().to_bits(), key.prefix_len() as u8), RuleWord(value));
        }
        Ok(Trie { name, flag, map, written })
    }

    /// Grants before refusals, additions before removals: at no moment is a source dropped that neither the
    /// old nor the new lists would drop.
    fn sync(
        &mut self,
        wanted: &BTreeMap<Prefix, RuleWord>,
        max: u32,
        config: &Config,
        alive: &dyn Fn(),
    ) -> Result<(), KernelError> {
        if !wanted.is_empty() {
            set_flag(config, self.flag, true);
        }
        let mut changes: Vec<_> = wanted
            .iter()
            .filter(|(prefix, word)| self.written.get(prefix) != Some(word))
            .map(|(prefix, word)| (*prefix, *word))
            .collect();
        changes.sort_by_key(|(_, word)| std::cmp::Reverse(word.kind()));
        let removals: Vec<_> =
            self.written.keys().filter(|prefix| !wanted.contains_key(prefix)).copied().collect();

        // With the map nearly full, additions may find no room before the removals: then those go first.
        let added = changes.iter().filter(|(prefix, _)| !self.written.contains_key(prefix)).count();
        let crowded = self.written.len() + added > max as usize;
        if crowded {
            self.remove(&removals, alive)?;
        }
        for (number, (prefix, word)) in changes.into_iter().enumerate() {
            if number % ALIVE_EVERY == 0 {
                alive();
            }
            self.map.insert(&key(prefix), word.0, 0).map_err(KernelError::map(self.name))?;
            self.written.insert(prefix, word);
        }
        if !crowded {
            self.remove(&removals, alive)?;
        }
        if self.written.is_empty() {
            set_flag(config, self.flag, false);
        }
        Ok(())
    }

    fn remove(&mut self, prefixes: &[Prefix], alive: &dyn Fn()) -> Result<(), KernelError> {
        for (number, prefix) in prefixes.iter().enumerate() {
            if number % ALIVE_EVERY == 0 {
                alive();
            }
            match self.map.remove(&key(*prefix)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                }
                Err(error) => return Err(KernelError::map(self.name)(error)),
            }
            self.written.remove(prefix);
        }
        Ok(())
    }
}

/// Changes between two signs of life: some milliseconds' worth.
const ALIVE_EVERY: usize = 4096;

fn key<A: Address>((bits, length): Prefix) -> Key<A> {
    Key::new(length.into(), A::from_bits(bits))
}
