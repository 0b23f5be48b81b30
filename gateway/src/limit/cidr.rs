//! Sets of IP prefixes.
//!
//! Owns the lookup "is this address in one of these prefixes" in `log2(n)` steps: the prefixes become
//! sorted ranges that neither overlap nor touch, and a binary search finds the only range that could hold
//! the address. A v4-mapped IPv6 address is looked up as the IPv4 address it stands for, and a prefix of
//! such addresses is an IPv4 prefix, so neither spelling slips past the other.

use std::net::IpAddr;

use ipnet::IpNet;

/// An immutable set of prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CidrSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl CidrSet {
    /// The set of all addresses in any of `prefixes`. Host bits of a prefix are ignored.
    pub fn new(prefixes: impl IntoIterator<Item = IpNet>) -> CidrSet {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            let (first, last) = (prefix.network(), prefix.broadcast());
            match (first.to_canonical(), last.to_canonical()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits())),
                // Also a short IPv6 prefix that merely covers the mapped addresses: whoever writes
                // `::/0` means IPv6.
                _ => v6.push((bits(first), bits(last))),
            }
        }
        CidrSet { v4: merge(v4, |end| end.checked_add(1)), v6: merge(v6, |end| end.checked_add(1)) }
    }

    /// Whether `addr` is in the set.
    #[inline]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match addr.to_canonical() {
            IpAddr::V4(addr) => holds(&self.v4, addr.to_bits()),
            IpAddr::V6(addr) => holds(&self.v6, addr.to_bits()),
        }
    }

    /// Memory that the ranges take, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.v4) + size_of_val(&*self.v6)
    }

    /// Whether the set holds no address at all.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromIterator<IpNet> for CidrSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> CidrSet {
        CidrSet::new(prefixes)
    }
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().to_bits(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

fn merge<T: Copy + Ord>(mut ranges: Vec<(T, T)>, after: impl Fn(T) -> Option<T>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            // `None`: the range before ends at the highest address, so this one lies within it.
            Some(before) if after(before.1).is_none_or(|next| first <= next) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged.into()
}

#[inline]
fn holds<T: Copy + Ord>(ranges: &[(T, T)], addr: T) -> bool {
    let above = ranges.partition_point(|&(first, _)| first <= addr);
    above > 0 && addr <= ranges[above - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn set(prefixes: &[&str]) -> CidrSet {
        prefixes.iter().map(|text| text.parse::<IpNet>().expect("a prefix")).collect()
    }

    fn check(set: &CidrSet, addr: &str, expected: bool) {
        assert_eq!(set.contains(addr.parse().expect("an address")), expected, "{addr}");
    }

    #[test]
    fn edges_belong_to_a_prefix() {
        let set = set(&["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "255.255.255.255/32"]);
        for (addr, expected) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("255.255.255.255", true),
            ("2001:db7:ffff::", false),
            ("2001:db8::", true),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
        ] {
            check(&set, addr, expected);
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4_in_both_spellings() {
        check(&set(&["192.0.2.0/24"]), "::ffff:192.0.2.9", true);
        check(&set(&["::ffff:192.0.2.0/120"]), "192.0.2.9", true);
        check(&set(&["::/0"]), "192.0.2.9", false);
        check(&set(&["0.0.0.0/0"]), "2001:db8::1", false);
        check(&set(&["0.0.0.0/0", "0.0.0.0/32", "255.0.0.0/8"]), "255.1.2.3", true);
        assert!(CidrSet::default().is_empty() && !set(&["::/0"]).is_empty());
    }

    proptest! {
        #[test]
        fn the_search_agrees_with_asking_each_prefix(
            v4 in prop::collection::vec((any::<u32>(), 0u8..=32), 0..12),
            v6 in prop::collection::vec((any::<u128>(), 0u8..=128), 0..12),
            offsets in prop::collection::vec(-2i32..3, 24),
        ) {
            let mut nets = Vec::new();
            for &(addr, len) in &v4 {
                nets.push(IpNet::new(Ipv4Addr::from_bits(addr).into(), len).expect("a length"));
            }
            for &(addr, len) in &v6 {
                nets.push(IpNet::new(Ipv6Addr::from_bits(addr).into(), len).expect("a length"));
            }
            let set: CidrSet = nets.iter().copied().collect();
            for (net, offset) in nets.iter().zip(offsets) {
                for edge in [net.network(), net.broadcast()] {
                    let near = match edge {
                        IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits().wrapping_add_signed(offset))),
                        IpAddr::V6(a) => {
                            IpAddr::V6(Ipv6Addr::from_bits(a.to_bits().wrapping_add_signed(offset.into())))
                        }
                    };
                    let naive = nets.iter().any(|net| net.contains(&near.to_canonical()) || net.contains(&near));
                    prop_assert_eq!(set.contains(near), naive, "{} near {}", near, net);
                }
            }
        }
    }
}
