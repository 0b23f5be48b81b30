//! The lists of prefixes: trusted, allowed, denied.
//!
//! The program asks one LPM trie once, and the longest prefix answers. So everything that is not "longest
//! prefix wins" is resolved here: a prefix inside a trusted one is written as trusted, and of two equal
//! prefixes the more permissive wins. Tries are edited, never rebuilt: freeing a large one stalls CPUs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use ipnet::IpNet;
use portcullis_abi::{Config, Rule, flag, map};

use super::{KernelError, load, set_flag};

/// What an operator configures, in any order and overlap. The longest prefix decides between allow and
/// deny; nothing overrides trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Never dropped: proxies in front, health checkers, upstream targets, administrators.
    pub trusted: Vec<IpNet>,
    /// Exempt from limits and bans.
    pub allow: Vec<IpNet>,
    /// Dropped.
    pub deny: Vec<IpNet>,
}

/// Network address (IPv4 in the low 32 bits) and prefix length: sorts a prefix right before its parts.
type Prefix = (u128, u8);

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
    written: BTreeMap<Prefix, Rule>,
}

impl Tries {
    pub(super) fn open(ebpf: &mut Ebpf, max: u32) -> Result<Tries, KernelError> {
        Ok(Tries {
            v4: Trie::open(ebpf, map::RULES_V4, flag::RULES_V4)?,
            v6: Trie::open(ebpf, map::RULES_V6, flag::RULES_V6)?,
            max,
        })
    }

    pub(super) fn sync(&mut self, lists: &Lists, config: &Config) -> Result<(), KernelError> {
        let (v4, v6) = resolve(lists);
        for rules in [&v4, &v6] {
            if rules.len() > self.max as usize {
                return Err(KernelError::TooMany {
                    what: "prefixes in the XDP lists",
                    count: rules.len(),
                    max: self.max,
                    setting: "xdp.max_prefixes",
                });
            }
        }
        self.v4.sync(v4, self.max, config)?;
        self.v6.sync(v6, self.max, config)
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
            // A value this build does not know is overwritten by the next sync, whatever it is taken for.
            let rule = [Rule::Deny, Rule::Allow, Rule::Trusted]
                .into_iter()
                .find(|rule| *rule as u32 == value)
                .unwrap_or(Rule::Allow);
            written.insert((key.data().to_bits(), key.prefix_len() as u8), rule);
        }
        Ok(Trie { name, flag, map, written })
    }

    /// Grants before refusals, additions before removals: at no moment is a source dropped that neither the
    /// old nor the new lists would drop.
    fn sync(&mut self, wanted: BTreeMap<Prefix, Rule>, max: u32, config: &Config) -> Result<(), KernelError> {
        if !wanted.is_empty() {
            set_flag(config, self.flag, true);
        }
        let mut changes: Vec<_> = wanted
            .iter()
            .filter(|(prefix, rule)| self.written.get(prefix) != Some(rule))
            .map(|(prefix, rule)| (*prefix, *rule))
            .collect();
        changes.sort_by_key(|(_, rule)| std::cmp::Reverse(*rule));
        let removals: Vec<_> =
            self.written.keys().filter(|prefix| !wanted.contains_key(prefix)).copied().collect();

        // With the map nearly full, additions may find no room before the removals: then those go first.
        let added = changes.iter().filter(|(prefix, _)| !self.written.contains_key(prefix)).count();
        let crowded = self.written.len() + added > max as usize;
        if crowded {
            self.remove(&removals)?;
        }
        for (prefix, rule) in changes {
            self.map.insert(&key(prefix), rule as u32, 0).map_err(KernelError::map(self.name))?;
            self.written.insert(prefix, rule);
        }
        if !crowded {
            self.remove(&removals)?;
        }
        if self.written.is_empty() {
            set_flag(config, self.flag, false);
        }
        Ok(())
    }

    fn remove(&mut self, prefixes: &[Prefix]) -> Result<(), KernelError> {
        for prefix in prefixes {
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

fn key<A: Address>((bits, length): Prefix) -> Key<A> {
    Key::new(length.into(), A::from_bits(bits))
}

/// Both families' rules as they are written: see the module.
fn resolve(lists: &Lists) -> (BTreeMap<Prefix, Rule>, BTreeMap<Prefix, Rule>) {
    let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
    // In ascending order of permission, so that the later one of equal prefixes wins.
    for (rule, prefixes) in
        [(Rule::Deny, &lists.deny), (Rule::Allow, &lists.allow), (Rule::Trusted, &lists.trusted)]
    {
        for net in prefixes {
            match net.network() {
                IpAddr::V4(addr) => v4.insert((u32::from(addr).into(), net.prefix_len()), rule),
                IpAddr::V6(addr) => v6.insert((u128::from(addr), net.prefix_len()), rule),
            };
        }
    }
    spread_trust(&mut v4, 32);
    spread_trust(&mut v6, 128);
    (v4, v6)
}

/// Prefixes come sorted, a prefix before its parts, so the last trusted one seen is the only candidate to
/// contain the next: trusted prefixes inside a trusted one need not be remembered.
fn spread_trust(rules: &mut BTreeMap<Prefix, Rule>, width: u8) {
    let mut trusted: Option<Prefix> = None;
    for (&(bits, length), rule) in rules.iter_mut() {
        let inside = trusted.is_some_and(|(network, outer)| {
            outer == 0 || bits >> (width - outer) == network >> (width - outer)
        });
        if inside {
            *rule = Rule::Trusted;
        } else if *rule == Rule::Trusted {
            trusted = Some((bits, length));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a prefix")).collect()
    }

    #[track_caller]
    fn check(trusted: &[&str], allow: &[&str], deny: &[&str], expected: &[(&str, Rule)]) {
        let lists = Lists { trusted: nets(trusted), allow: nets(allow), deny: nets(deny) };
        let (v4, v6) = resolve(&lists);
        let mut written: Vec<(IpNet, Rule)> = v4
            .into_iter()
            .map(|((bits, length), rule)| {
                (IpNet::new(IpAddr::from((bits as u32).to_be_bytes()), length).expect("net"), rule)
            })
            .chain(v6.into_iter().map(|((bits, length), rule)| {
                (IpNet::new(IpAddr::from(bits.to_be_bytes()), length).expect("net"), rule)
            }))
            .collect();
        let mut expected: Vec<(IpNet, Rule)> =
            expected.iter().map(|(text, rule)| (text.parse().expect("a prefix"), *rule)).collect();
        written.sort();
        expected.sort();
        assert_eq!(written, expected);
    }

    #[test]
    fn the_longest_prefix_decides_between_allow_and_deny() {
        check(
            &[],
            &["10.1.0.0/16"],
            &["10.0.0.0/8", "10.1.2.0/24"],
            &[("10.0.0.0/8", Rule::Deny), ("10.1.0.0/16", Rule::Allow), ("10.1.2.0/24", Rule::Deny)],
        );
    }

    #[test]
    fn nothing_inside_a_trusted_prefix_is_denied() {
        check(
            &["10.1.0.0/16", "2001:db8::/32"],
            &[],
            &["10.0.0.0/8", "10.1.2.3/32", "10.2.0.0/16", "2001:db8:1::/48", "2001:db9::/32"],
            &[
                ("10.0.0.0/8", Rule::Deny),
                ("10.1.0.0/16", Rule::Trusted),
                ("10.1.2.3/32", Rule::Trusted),
                ("10.2.0.0/16", Rule::Deny),
                ("2001:db8::/32", Rule::Trusted),
                ("2001:db8:1::/48", Rule::Trusted),
                ("2001:db9::/32", Rule::Deny),
            ],
        );
    }

    #[test]
    fn of_equal_prefixes_the_more_permissive_wins() {
        check(&[], &["192.0.2.0/24"], &["192.0.2.0/24"], &[("192.0.2.0/24", Rule::Allow)]);
        check(&["192.0.2.7/24"], &[], &["192.0.2.9/24"], &[("192.0.2.0/24", Rule::Trusted)]);
    }

    #[test]
    fn trust_in_everything_covers_everything() {
        check(
            &["0.0.0.0/0"],
            &[],
            &["255.255.255.255/32"],
            &[("0.0.0.0/0", Rule::Trusted), ("255.255.255.255/32", Rule::Trusted)],
        );
    }
}
