//! Looking into a table of sources, for people: what is owed, who is banned, and whose key it is.
//!
//! Owns the reading of whole ways and of the whole table. Never a change, and never on the path of a request: a scan
//! reads every way once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering::Relaxed;

use ipnet::IpNet;
use portcullis_abi::{Block, key_v4};

use super::table::Table;

/// The words of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// Theoretical arrival time of packets, ns of CLOCK_MONOTONIC.
    pub packet_tat: u64,
    /// The same of connections, requests and penalties.
    pub request_tat: u64,
    /// Ban or mark now.
    pub block: Block,
}

impl Table {
    /// The words of `key` at `now`; `None` if it has no way: nothing is owed then.
    pub fn words(&self, key: u64, now: u64) -> Option<Words> {
        let way = self.find(key)?;
        Some(Words {
            packet_tat: way.packet_tat.load(Relaxed),
            request_tat: way.request_tat.load(Relaxed),
            block: way.block_at(now),
        })
    }

    /// Keys that are banned at `now`, at most `max` of them.
    pub fn banned(&self, now: u64, max: usize) -> Vec<(u64, Block)> {
        let ways = self.sets().iter().flat_map(|set| &set.ways);
        let banned = ways.filter_map(|way| match (way.key.load(Relaxed), way.block_at(now)) {
            (key, block @ Block::Banned { .. }) if is_source(key) => Some((key, block)),
            _ => None,
        });
        banned.take(max).collect()
    }

    /// Ways in use, of all. A way whose debt is paid still counts until another source takes it.
    pub fn ways_in_use(&self) -> usize {
        let ways = self.sets().iter().flat_map(|set| &set.ways);
        ways.filter(|way| way.key.load(Relaxed) != 0).count()
    }
}

/// Whether a key is that of one source, and not of a group of them or of something else that is counted.
fn is_source(key: u64) -> bool {
    matches!(key >> 48, 1 | 2 | 0x1000..)
}

/// The source that a key stands for: `192.0.2.1`, `2001:db8::/64`; the network of an aggregate, `192.0.2.0/24`; the
/// number of a key that no address has.
pub fn source_text(key: u64) -> String {
    match key >> 48 {
        1 => Ipv4Addr::from_bits(key as u32).to_string(),
        3 => format!("{}/24", Ipv4Addr::from_bits((key as u32) << 8)),
        4 => format!("{}/48", Ipv6Addr::from_bits(u128::from(key & ((1 << 48) - 1)) << 80)),
        2 => format!("{}/64", Ipv6Addr::from_bits(u128::from(key & ((1 << 48) - 1)) << 64)),
        0x1000.. => format!("{}/64", Ipv6Addr::from_bits(u128::from(key) << 64)),
        _ => format!("{key:#x}"),
    }
}

const _: () = assert!(key_v4(0) >> 48 == 1);

/// The prefix that holds the addresses of a source's key, and no other; `None` for the key of anything else.
pub fn source_prefix(key: u64) -> Option<IpNet> {
    match key >> 48 {
        1 => Some(IpNet::from(IpAddr::from(Ipv4Addr::from_bits(key as u32)))),
        2 | 0x1000.. => source_text(key).parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use portcullis_abi::Reason;

    use super::super::{random_secret, source_key};
    use super::*;

    const NOW: u64 = 3_600_000_000_000;

    #[test]
    fn a_key_names_its_source() {
        for (address, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8:0:7:1::1", "2001:db8:0:7::/64"),
            ("::2", "::/64"),
        ] {
            assert_eq!(source_text(source_key(address.parse().unwrap())), expected, "{address}");
        }
        assert_eq!(source_text(3 << 48 | 0xc0_0002), "192.0.2.0/24");
        assert_eq!(source_text(4 << 48 | 0x2001_0db8_0007), "2001:db8:7::/48");
    }

    #[test]
    fn the_banned_are_found_until_their_time_is_up() {
        let table = Table::new(64, random_secret()).unwrap();
        let key = |number: u32| key_v4(number);
        for number in 1..=5 {
            table.block(key(number), NOW, NOW + u64::from(number) * 1_000_000_000, 1, Reason::SourceBanned);
        }
        table.mark_established(key(9), NOW, NOW + 9_000_000_000);
        let banned = |now| table.banned(now, 100).len();
        assert_eq!((banned(NOW), banned(NOW + 3_000_000_000), banned(NOW + 6_000_000_000)), (5, 2, 0));
        assert_eq!(table.banned(NOW, 2).len(), 2);
        assert_eq!(table.ways_in_use(), 6);
        let words = table.words(key(9), NOW).unwrap();
        assert!(matches!(words.block, Block::Established { .. }) && words.request_tat == 0);
        assert_eq!(table.words(key(77), NOW), None);
    }
}
