//! Which interfaces carry the listeners, for an `xdp` section that names none.
//!
//! | listener | interfaces |
//! |---|---|
//! | `0.0.0.0`, `::` | every interface that is up, but for loopback (`/proc/net/dev`) |
//! | an IPv4 address | the one whose directly connected network holds it (`/proc/net/route`) |
//! | an IPv6 address | the one that has it (`/proc/net/if_inet6`) |
//! | a loopback address | none: loopback is never dropped |
//!
//! Owns: that table. Never: a change to an interface. Invariant: an address that no interface is found for is
//! an error in words, not an interface less.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::kernel::gateways;

/// What the kernel says about its interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Up and not loopback.
    up: BTreeSet<String>,
    /// Directly connected networks: interface, network, mask.
    v4: Vec<(String, Ipv4Addr, Ipv4Addr)>,
    /// Addresses: interface, address.
    v6: Vec<(String, Ipv6Addr)>,
    /// Routers of its routes.
    gateways: Vec<IpAddr>,
}

impl Network {
    /// The interfaces of this network namespace. What cannot be read counts as absent.
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        // sysfs shows the namespace it was mounted in, procfs that of the reader; they differ after
        // `nsenter --net`. So the names are procfs's, and an interface that sysfs does not know counts as up.
        let is_up = |name: &String| {
            let flags = fs::read_to_string(format!("/sys/class/net/{name}/flags"));
            flags.map_or(true, |flags| carries_traffic(&flags))
        };
        Self {
            up: names(&text("/proc/net/dev")).into_iter().filter(is_up).collect(),
            v4: connected(&text("/proc/net/route")),
            v6: addresses(&text("/proc/net/if_inet6")),
            gateways: gateways(),
        }
    }

    /// The routers that routes go by.
    pub fn gateways(&self) -> &[IpAddr] {
        &self.gateways
    }

    /// The interfaces that packets to `listeners` come in on, sorted.
    ///
    /// # Errors
    /// The addresses that no interface is found for.
    pub fn carrying(&self, listeners: &[IpAddr]) -> Result<Vec<String>, Vec<IpAddr>> {
        let mut found = BTreeSet::new();
        let mut missing = Vec::new();
        for &address in listeners {
            let address = address.to_canonical();
            if address.is_loopback() {
                continue;
            }
            if address.is_unspecified() {
                found.extend(self.up.iter().cloned());
                continue;
            }
            match self.interface_of(address) {
                Some(name) => drop(found.insert(name.to_owned())),
                None => missing.push(address),
            }
        }
        if missing.is_empty() { Ok(found.into_iter().collect()) } else { Err(missing) }
    }

    fn interface_of(&self, address: IpAddr) -> Option<&str> {
        match address {
            IpAddr::V4(v4) => {
                // Of nested networks the longest prefix is the interface's own.
                let holding = self.v4.iter().filter(|(_, network, mask)| v4 & *mask == *network);
                holding.max_by_key(|(_, _, mask)| mask.to_bits()).map(|(name, ..)| name.as_str())
            }
            IpAddr::V6(v6) => self.v6.iter().find(|(_, own)| *own == v6).map(|(name, _)| name.as_str()),
        }
    }
}

/// From `/proc/net/dev`, after its two lines of headings: every interface but loopback.
fn names(table: &str) -> Vec<String> {
    let named = table.lines().skip(2).filter_map(|line| line.split_once(':'));
    named.map(|(name, _)| name.trim().to_owned()).filter(|name| name != "lo").collect()
}

/// From `/sys/class/net/*/flags`: IFF_UP (1) without IFF_LOOPBACK (8).
fn carries_traffic(flags: &str) -> bool {
    let digits = flags.trim().trim_start_matches("0x");
    u32::from_str_radix(digits, 16).is_ok_and(|flags| flags & 9 == 1)
}

/// From `/proc/net/route`: rows without a gateway. Addresses are hexadecimal in the machine's byte order.
fn connected(table: &str) -> Vec<(String, Ipv4Addr, Ipv4Addr)> {
    let row = |line: &str| {
        let columns = line.split_whitespace().collect::<Vec<_>>();
        let address = |column: usize| {
            let word = u32::from_str_radix(columns.get(column)?, 16).ok()?;
            Some(Ipv4Addr::from(word.to_ne_bytes()))
        };
        let (network, gateway, mask) = (address(1)?, address(2)?, address(7)?);
        let is_connected = gateway.is_unspecified() && !mask.is_unspecified();
        is_connected.then(|| (columns[0].to_owned(), network, mask))
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// From `/proc/net/if_inet6`: address, index, prefix, scope, flags, name.
fn addresses(table: &str) -> Vec<(String, Ipv6Addr)> {
    let row = |line: &str| {
        let columns = line.split_whitespace().collect::<Vec<_>>();
        let address = u128::from_str_radix(columns.first()?, 16).ok()?;
        Some(((*columns.get(5)?).to_owned(), Ipv6Addr::from(address)))
    };
    table.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        // 10.1.0.0/16 on eth1 and, inside it, 10.1.2.0/24 on eth2; the default route has a gateway.
        let word = |address: &str| {
            let address = address.parse::<Ipv4Addr>().unwrap();
            format!("{:08X}", u32::from_ne_bytes(address.octets()))
        };
        let row = |name: &str, network: &str, gateway: &str, mask: &str| {
            let (network, gateway, mask) = (word(network), word(gateway), word(mask));
            format!("{name}\t{network}\t{gateway}\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n")
        };
        let routes = String::from("Iface\tDestination\tGateway\n")
            + &row("eth1", "0.0.0.0", "10.1.0.1", "0.0.0.0")
            + &row("eth1", "10.1.0.0", "0.0.0.0", "255.255.0.0")
            + &row("eth2", "10.1.2.0", "0.0.0.0", "255.255.255.0")
            + "damaged row\n";
        let v6 = "00000000000000000000000000000001 01 80 10 80       lo\n\
                  20010db8000000000000000000000001 03 40 00 80     eth2\n";
        Network {
            up: ["eth1".to_owned(), "eth2".to_owned()].into(),
            v4: connected(&routes),
            v6: addresses(v6),
            gateways: Vec::new(),
        }
    }

    fn check(listeners: &[&str], expected: &[&str]) {
        let listeners = listeners.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(network().carrying(&listeners).unwrap(), expected, "{listeners:?}");
    }

    #[test]
    fn listeners_find_their_interfaces() {
        check(&["0.0.0.0"], &["eth1", "eth2"]);
        check(&["::"], &["eth1", "eth2"]);
        check(&["127.0.0.1", "::1"], &[]);
        check(&["10.1.9.9"], &["eth1"]);
        check(&["10.1.2.9"], &["eth2"]);
        check(&["::ffff:10.1.2.9"], &["eth2"]);
        check(&["2001:db8::1", "10.1.2.9"], &["eth2"]);
    }

    #[test]
    fn an_address_of_no_interface_is_named() {
        let strange = ["192.0.2.1", "10.1.2.9", "2001:db8::2"].map(|text| text.parse().unwrap());
        assert_eq!(network().carrying(&strange).unwrap_err(), [strange[0], strange[2]]);
    }

    #[test]
    fn names_of_interfaces() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 1 2\n  eth0: 1 2\nwg-a.7:1 2\n";
        assert_eq!(names(table), ["eth0", "wg-a.7"]);
    }

    #[test]
    fn flags() {
        assert!(carries_traffic("0x1003\n"));
        assert!(!carries_traffic("0x9\n"), "loopback");
        assert!(!carries_traffic("0x1002\n"), "down");
        assert!(!carries_traffic(""));
    }

    #[test]
    fn this_machine_can_be_read() {
        let network = Network::read();
        assert!(!network.up.contains("lo"));
        assert_eq!(network.carrying(&["127.0.0.1".parse().unwrap()]), Ok(Vec::new()));
    }
}
