//! Limits by port and prefix: their rates, and the table by which the program finds the one that holds.
//!
//! Ports and prefixes that no limit tells apart are one class. The tries and the port tables hold classes; one byte of
//! [`Config::rule_of`] says which limit holds for a pair of them. While a change is being written, a packet may be
//! charged under another limit than either the old or the new one; it is never dropped by a limit of neither.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use portcullis_abi::{Config, LimitRule, PORT_CLASSES, PREFIX_CLASSES, Rate};

use super::KernelError;
use super::resolve::{LimitSpec, bits};

/// What was written last.
#[derive(Default)]
pub(super) struct Rules {
    limits: Vec<LimitSpec>,
    /// By class of prefixes, the limits that name them.
    prefix_classes: Vec<u64>,
}

impl Rules {
    /// Takes the limits of new lists; `write` puts them in force.
    pub(super) fn replace(&mut self, limits: &[LimitSpec], prefix_classes: Vec<u64>) {
        self.limits = limits.to_vec();
        self.prefix_classes = prefix_classes;
    }

    /// The limit with a number; 0 is none.
    pub(super) fn limit(&self, number: u32) -> Option<&LimitSpec> {
        self.limits.get((number as usize).checked_sub(1)?)
    }

    /// The limits that name the prefixes of a class.
    pub(super) fn of_class(&self, class: u32) -> impl Iterator<Item = &LimitSpec> {
        let mask = self.prefix_classes.get(class as usize).copied().unwrap_or(0);
        self.limits.iter().enumerate().filter(move |(i, _)| mask >> i & 1 != 0).map(|(_, limit)| limit)
    }

    /// Writes rates and table, and gives the classes of the ports that listeners have.
    pub(super) fn write(
        &self,
        ports: impl Iterator<Item = u16>,
        config: &Config,
    ) -> Result<BTreeMap<u16, u8>, KernelError> {
        let mut masks = vec![0u64];
        let mut classes = BTreeMap::new();
        for port in ports {
            let named = |limit: &LimitSpec| limit.ports.iter().any(|range| range.contains(&port));
            let mask = self.mask(named);
            let class = masks.iter().position(|known| *known == mask).unwrap_or_else(|| {
                masks.push(mask);
                masks.len() - 1
            });
            classes.insert(port, class as u8);
        }
        if masks.len() > PORT_CLASSES {
            return Err(KernelError::TooMany {
                what: "kinds of ports that limits tell apart",
                count: masks.len() - 1,
                max: PORT_CLASSES as u32 - 1,
                setting: "nothing; let fewer listeners have limits of their own",
            });
        }
        for (number, rule) in config.rules.iter().enumerate().skip(1) {
            write_rule(rule, self.limit(number as u32));
        }
        self.write_table(&masks, config);
        Ok(classes)
    }

    fn mask(&self, named: impl Fn(&LimitSpec) -> bool) -> u64 {
        let bit = |(i, limit): (usize, &LimitSpec)| u64::from(named(limit)) << i;
        self.limits.iter().enumerate().map(bit).fold(0, |mask, bit| mask | bit)
    }

    fn write_table(&self, port_masks: &[u64], config: &Config) {
        let any_port = self.mask(|limit| limit.ports.is_empty());
        let any_prefix = self.mask(|limit| limit.prefixes.is_empty());
        let mut table = [0u64; PORT_CLASSES * PREFIX_CLASSES / 8];
        for (port_class, ports) in port_masks.iter().enumerate() {
            for (prefix_class, prefixes) in self.prefix_classes.iter().enumerate() {
                // The first limit that both name.
                let both = (ports | any_port) & (prefixes | any_prefix);
                if both != 0 {
                    let (word, shift) = Config::rule_place(port_class as u32, prefix_class as u32);
                    table[word] |= u64::from(both.trailing_zeros() + 1) << shift;
                }
            }
        }
        config.rule_of.iter().zip(table).for_each(|(word, value)| word.store(value, Relaxed));
    }
}

fn write_rule(rule: &LimitRule, limit: Option<&LimitSpec>) {
    let rate =
        |limit: Option<&LimitSpec>, which: fn(&LimitSpec) -> Rate| limit.map_or(Rate::UNLIMITED, which);
    let (connections, packets) = (rate(limit, |limit| limit.connections), rate(limit, |limit| limit.packets));
    let flags = limit.map_or(0, |limit| bits(limit.shadow, limit.reset));
    rule.bits.store(flags.into(), Relaxed);
    rule.connection_burst_ns.store(connections.burst_ns, Relaxed);
    rule.connection_interval_ns.store(connections.interval_ns, Relaxed);
    rule.packet_burst_ns.store(packets.burst_ns, Relaxed);
    rule.packet_interval_ns.store(packets.interval_ns, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_limit_that_fits_port_and_prefix_holds() {
        let limit = |ports: &[u16], prefixes: &[&str]| LimitSpec {
            name: String::new(),
            ports: ports.iter().map(|port| *port..=*port).collect(),
            prefixes: prefixes.iter().map(|text| text.parse().expect("a prefix")).collect(),
            connections: Rate::per_second(1, 1),
            packets: Rate::UNLIMITED,
            shadow: false,
            reset: false,
        };
        let mut rules = Rules::default();
        let limits = [limit(&[443], &["10.0.0.0/8"]), limit(&[443], &[]), limit(&[], &["10.0.0.0/8"])];
        rules.replace(&limits, vec![0, 0b101]);
        let config: Box<Config> = super::super::mmap::empty_config();
        let classes = rules.write([80, 443].into_iter(), &config).expect("few classes");
        let at = |port: u16, prefix_class: u32| {
            let (word, shift) = Config::rule_place(classes[&port].into(), prefix_class);
            config.rule_of[word].load(Relaxed) >> shift & 0xff
        };
        assert_eq!([at(443, 1), at(443, 0), at(80, 1), at(80, 0)], [1, 2, 3, 0]);
        assert_ne!(config.rules[1].connection_interval_ns.load(Relaxed), 0);
        assert_eq!(config.rules[4].connection_interval_ns.load(Relaxed), 0);
    }
}
