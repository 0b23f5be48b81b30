//! Samples of dropped packets, as the kernel part gives them: kept for a while, and told in order.
//!
//! Owns a ring of bounded size in the control thread, and the reading of a packet's first bytes. Never: which packets
//! are sampled, which the program decides and bounds. A reader asks for what came after the last number it has seen.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portcullis_abi::Reason;
use serde::{Deserialize, Serialize};

use super::View;
use crate::limit::source_key;

/// Samples kept. Not more than 200 bytes each.
const KEPT: usize = 4096;

/// A sample as the kernel part hands it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    pub interface: String,
    pub reason: Reason,
    /// Of the whole packet.
    pub length: u32,
    /// Its first bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// A sample as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    pub number: u64,
    /// Microseconds since 1970.
    pub at_us: u64,
    pub interface: String,
    pub reason: String,
    pub protocol: String,
    pub from: String,
    pub to: String,
    pub length: u32,
    /// The packet's first bytes, hexadecimal.
    pub bytes: String,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// What to ask for next.
    pub next: u64,
    /// Samples that were forgotten before they were asked for.
    pub lost: u64,
    /// Why there are none and will be none, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none_because: Option<String>,
    pub samples: Vec<Sample>,
}

/// The samples of late.
#[derive(Clone, Debug, Default)]
pub struct DropLog {
    kept: VecDeque<Raw>,
    /// Of the first kept one.
    first: u64,
}

impl DropLog {
    /// Takes in what the kernel part has.
    pub fn add(&mut self, samples: impl IntoIterator<Item = Raw>) {
        for sample in samples {
            if self.kept.len() == KEPT {
                self.kept.pop_front();
                self.first += 1;
            }
            self.kept.push_back(sample);
        }
    }

    /// Samples that came.
    pub fn taken(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// Samples from number `from` on, at most `max`.
    pub fn after(&self, from: u64, max: usize, view: &View<'_>) -> Drops {
        let skipped = from.saturating_sub(self.first).min(self.kept.len() as u64);
        let begin = self.first + skipped;
        let told = self.kept.iter().enumerate().skip(skipped as usize).take(max);
        let samples: Vec<_> = told.map(|(at, raw)| sample(self.first + at as u64, raw, view)).collect();
        let none_because = (view.kernel.mode == "off").then(|| match &view.kernel.why {
            Some(why) => format!("the kernel part is off: {why}"),
            None => "the kernel part is off".into(),
        });
        let forgotten = if from > 0 { begin.saturating_sub(from) } else { 0 };
        Drops { next: begin + samples.len() as u64, lost: forgotten, none_because, samples }
    }

    /// The latest samples of a source, the latest first.
    pub fn of(&self, key: u64, max: usize, view: &View<'_>) -> Vec<Sample> {
        let numbered = self.kept.iter().enumerate().rev();
        let own = numbered
            .filter(|(_, raw)| Flow::read(&raw.bytes).is_some_and(|flow| source_key(flow.source) == key));
        own.take(max).map(|(at, raw)| sample(self.first + at as u64, raw, view)).collect()
    }
}

fn sample(number: u64, raw: &Raw, view: &View<'_>) -> Sample {
    let ago_us = view.now_ns.saturating_sub(raw.at_ns) / 1000;
    let flow = Flow::read(&raw.bytes);
    let end = |address: IpAddr, port: Option<u16>| match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    };
    Sample {
        number,
        at_us: (view.now_unix * 1_000_000).saturating_sub(ago_us),
        interface: raw.interface.clone(),
        reason: raw.reason.as_str().to_owned(),
        protocol: flow.as_ref().map_or_else(|| "?".into(), |flow| flow.protocol_name()),
        from: flow
            .as_ref()
            .map_or_else(|| "?".into(), |flow| end(flow.source, flow.ports.map(|ports| ports.0))),
        to: flow
            .as_ref()
            .map_or_else(|| "?".into(), |flow| end(flow.destination, flow.ports.map(|ports| ports.1))),
        length: raw.length,
        bytes: raw.bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// Who sent a packet to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Of TCP and UDP, unless it is a later fragment or cut off.
    pub ports: Option<(u16, u16)>,
}

impl Flow {
    /// Reads Ethernet, up to two VLAN tags, and IP. `None` for anything else.
    pub fn read(frame: &[u8]) -> Option<Flow> {
        let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
        let mut at = 12;
        let mut kind = word(at)?;
        for _ in 0..2 {
            if matches!(kind, 0x8100 | 0x88a8) {
                at += 4;
                kind = word(at)?;
            }
        }
        let ip = frame.get(at + 2..)?;
        match kind {
            0x0800 => Self::v4(ip),
            0x86dd => Self::v6(ip),
            _ => None,
        }
    }

    fn v4(ip: &[u8]) -> Option<Flow> {
        let octets = |at: usize| <[u8; 4]>::try_from(ip.get(at..at + 4)?).ok();
        let header = usize::from(ip.first()? & 15) * 4;
        let protocol = *ip.get(9)?;
        let is_later = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x1fff != 0;
        let ports = if is_later { None } else { ports(protocol, ip.get(header..)) };
        Some(Flow {
            source: Ipv4Addr::from(octets(12)?).into(),
            destination: Ipv4Addr::from(octets(16)?).into(),
            protocol,
            ports,
        })
    }

    fn v6(ip: &[u8]) -> Option<Flow> {
        let octets = |at: usize| <[u8; 16]>::try_from(ip.get(at..at + 16)?).ok();
        let protocol = *ip.get(6)?;
        Some(Flow {
            source: Ipv6Addr::from(octets(8)?).into(),
            destination: Ipv6Addr::from(octets(24)?).into(),
            protocol,
            ports: ports(protocol, ip.get(40..)),
        })
    }

    fn protocol_name(&self) -> String {
        match self.protocol {
            1 => "icmp".into(),
            6 => "tcp".into(),
            17 => "udp".into(),
            58 => "icmp6".into(),
            other => format!("ip-{other}"),
        }
    }
}

fn ports(protocol: u8, transport: Option<&[u8]>) -> Option<(u16, u16)> {
    let transport = transport.filter(|transport| matches!(protocol, 6 | 17) && transport.len() >= 4)?;
    let word = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
    Some((word(0), word(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tags: usize, kind: u16, ip: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        (0..tags).for_each(|_| frame.extend([0x81, 0, 0, 7]));
        frame.extend(kind.to_be_bytes());
        frame.extend(ip);
        frame
    }

    fn v4(protocol: u8, offset: u16) -> Vec<u8> {
        let mut ip = vec![0x45; 20];
        ip[6..8].copy_from_slice(&offset.to_be_bytes());
        ip[9] = protocol;
        ip[12..16].copy_from_slice(&[192, 0, 2, 1]);
        ip[16..20].copy_from_slice(&[10, 0, 0, 1]);
        ip.extend([0x30, 0x39, 0x01, 0xbb]);
        ip
    }

    #[test]
    fn packets_are_read_as_far_as_they_go() {
        let tcp = Flow::read(&frame(0, 0x0800, &v4(6, 0))).unwrap();
        assert_eq!(tcp.source, "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!((tcp.ports, tcp.protocol_name()), (Some((12345, 443)), "tcp".into()));
        assert_eq!(Flow::read(&frame(2, 0x0800, &v4(17, 0))).unwrap().ports, Some((12345, 443)));
        assert_eq!(Flow::read(&frame(0, 0x0800, &v4(6, 0x0010))).unwrap().ports, None, "a later fragment");
        assert_eq!(Flow::read(&frame(0, 0x0800, &v4(1, 0))).unwrap().ports, None);
        let mut v6 = vec![0x60; 40];
        v6[6] = 6;
        v6.extend([0, 80, 0, 81]);
        assert_eq!(Flow::read(&frame(1, 0x86dd, &v6)).unwrap().ports, Some((80, 81)));
        for cut in 0..34 {
            assert_eq!(Flow::read(&frame(0, 0x0800, &v4(6, 0))[..cut]), None, "{cut}");
        }
        assert_eq!(Flow::read(&frame(0, 0x0806, &[0; 28])), None, "ARP");
    }
}
