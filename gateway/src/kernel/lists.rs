//! The tries of prefixes, kept in step with the lists. Edited, never rebuilt: freeing a large trie stalls CPUs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, MapData, MapError};
use ipnet::IpNet;
use portcullis_abi::{Config, RuleWord, TOP_WORDS, flag, map, top_place};

use super::resolve::{Prefix, Resolved};
use super::{KernelError, load, set_flag};

/// Both tries and what they hold.
pub(super) struct Tries {
    top: Top,
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
            top: Top::open(ebpf)?,
            v4: Trie::open(ebpf, map::RULES_V4, flag::RULES_V4)?,
            v6: Trie::open(ebpf, map::RULES_V6, flag::RULES_V6)?,
            max,
        })
    }

    /// How many prefixes it wrote or removed. `alive` is called now and then: a million prefixes take a second.
    pub(super) fn sync(
        &mut self,
        resolved: &Resolved,
        config: &Config,
        alive: &dyn Fn(),
    ) -> Result<usize, KernelError> {
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
        // Whoever is in a trie has his bit, at every moment.
        let (mut before, after) = (top_of(self.v4.written.keys()), top_of(resolved.v4.keys()));
        before.iter_mut().zip(&after).for_each(|(before, after)| *before |= after);
        self.top.set(&before)?;
        let changed = self.v4.sync(&resolved.v4, self.max, config, alive)?;
        self.top.set(&after)?;
        Ok(changed + self.v6.sync(&resolved.v6, self.max, config, alive)?)
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

/// The /16 networks that the trie of IPv4 knows something about.
struct Top {
    map: Array<MapData, u64>,
    written: Vec<u64>,
}

impl Top {
    fn open(ebpf: &mut Ebpf) -> Result<Top, KernelError> {
        let map: Array<MapData, u64> = load::typed(ebpf, map::TOP_V4)?;
        let written = map.iter().collect::<Result<_, _>>().map_err(KernelError::map(map::TOP_V4))?;
        Ok(Top { map, written })
    }

    fn set(&mut self, wanted: &[u64]) -> Result<(), KernelError> {
        for (index, (written, wanted)) in self.written.iter_mut().zip(wanted).enumerate() {
            if written != wanted {
                self.map.set(index as u32, wanted, 0).map_err(KernelError::map(map::TOP_V4))?;
                *written = *wanted;
            }
        }
        Ok(())
    }
}

/// A bit for each /16 that one of the prefixes is in, or is around.
fn top_of<'a>(prefixes: impl Iterator<Item = &'a Prefix>) -> Vec<u64> {
    let mut words = vec![0u64; TOP_WORDS as usize];
    for &(network, length) in prefixes {
        let first = network as u32 >> 16;
        let count = 1u32 << 16u8.saturating_sub(length);
        for net in first..first.saturating_add(count).min(1 << 16) {
            let (word, shift) = top_place(net << 16);
            words[word as usize] |= 1 << shift;
        }
    }
    words
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
    ) -> Result<usize, KernelError> {
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
        let changed = changes.len() + removals.len();
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
        Ok(changed)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_prefix_has_its_bit() {
        let set = |prefixes: &[Prefix]| {
            let words = top_of(prefixes.iter());
            let bit = |net: u32| {
                let (word, shift) = top_place(net << 16 | 0x1234);
                words[word as usize] >> shift & 1 != 0
            };
            (0..1 << 16).filter(|net| bit(*net)).collect::<Vec<u32>>()
        };
        let address = |text: &str| u128::from(u32::from(text.parse::<std::net::Ipv4Addr>().expect("one")));
        assert!(set(&[]).is_empty());
        assert_eq!(set(&[(address("192.0.2.1"), 32), (address("192.0.3.0"), 24)]), [0xc000]);
        assert_eq!(set(&[(address("10.4.0.0"), 14)]), [0x0a04, 0x0a05, 0x0a06, 0x0a07]);
        assert_eq!(set(&[(address("255.255.255.255"), 32)]), [0xffff]);
        assert_eq!(set(&[(0, 0)]).len(), 1 << 16);
    }
}
