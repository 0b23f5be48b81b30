//! The gateways of this host: packets from them are never dropped, whatever a list or a limit says, or the host could cut
//! itself off.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Flag of a route that goes through a gateway (linux/route.h).
const RTF_GATEWAY: u32 = 0x2;

/// Gateways of all routes of this network namespace. What cannot be read counts as absent.
pub fn gateways() -> Vec<IpAddr> {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut gateways: Vec<IpAddr> = v4(&text("/proc/net/route")).map(IpAddr::V4).collect();
    gateways.extend(v6(&text("/proc/net/ipv6_route")).map(IpAddr::V6));
    gateways.sort_unstable();
    gateways.dedup();
    gateways
}

/// `Iface Destination Gateway Flags ...`, hexadecimal, addresses as they lie in memory.
fn v4(table: &str) -> impl Iterator<Item = Ipv4Addr> {
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(2);
        let gateway = u32::from_str_radix(fields.next()?, 16).ok()?;
        let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
        (flags & RTF_GATEWAY != 0).then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    })
}

/// `destination length source length next-hop metric refs use flags interface`, hexadecimal.
fn v6(table: &str) -> impl Iterator<Item = Ipv6Addr> {
    table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let gateway = u128::from_str_radix(fields.get(4)?, 16).ok()?;
        let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
        (flags & RTF_GATEWAY != 0 && gateway != 0).then(|| Ipv6Addr::from(gateway))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_and_no_others() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        assert_eq!(v4(table).collect::<Vec<_>>(), [Ipv4Addr::new(172, 17, 0, 1)]);
        let table = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                     fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n\
                     fe800000000000000000000000000000 40 00000000000000000000000000000000 00 \
                     00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0\n";
        let gateway: Ipv6Addr = "fe80::1".parse().expect("an address");
        assert_eq!(v6(table).collect::<Vec<_>>(), [gateway]);
    }
}
