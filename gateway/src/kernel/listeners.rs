//! The listeners that the program acts on: the port tables and the exact addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError};
use portcullis_abi::{
    Config, Family, ListenerKey, PORTS_PER_PROTOCOL, PortTable, Protocol, flag, map, port_bit,
};

use super::rules::Rules;
use super::{KernelError, load};

/// One listening socket. `0.0.0.0` and `::` stand for any address of their version, also for packets that
/// this machine only forwards: a router should list its own addresses. A dual-stack socket is two listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    /// Address bound to. v4-mapped IPv6 counts as IPv4.
    pub address: IpAddr,
    /// Port bound to.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

const ANY: u64 = flag::ANY_V4 | flag::ANY_V6 | flag::SOME_V4 | flag::SOME_V6;

/// The maps and what they hold.
pub(super) struct Ports {
    tables: Array<MapData, PortTable>,
    exact: HashMap<MapData, ListenerKey, u32>,
    written: BTreeSet<ListenerKey>,
    max: u32,
    /// What was synced last, for when the limits by port change.
    listeners: Vec<Listener>,
}

/// What a set of listeners comes to.
struct Wanted {
    tables: [Box<PortTable>; 2],
    exact: BTreeSet<ListenerKey>,
    flags: u64,
}

impl Ports {
    pub(super) fn open(ebpf: &mut Ebpf, max: u32) -> Result<Ports, KernelError> {
        let tables = load::typed(ebpf, map::PORTS)?;
        let exact: HashMap<MapData, ListenerKey, u32> = load::typed(ebpf, map::LISTENERS)?;
        let written = exact.keys().collect::<Result<_, _>>().map_err(KernelError::map(map::LISTENERS))?;
        Ok(Ports { tables, exact, written, max, listeners: Vec::new() })
    }

    /// Exact addresses come before the port bits that lead to them, and go after.
    pub(super) fn sync(
        &mut self,
        listeners: &[Listener],
        rules: &Rules,
        config: &Config,
    ) -> Result<(), KernelError> {
        self.listeners = listeners.to_vec();
        let wanted = Wanted::of(listeners, rules, config)?;
        if wanted.exact.len() > self.max as usize {
            return Err(KernelError::TooMany {
                what: "listeners on one address",
                count: wanted.exact.len(),
                max: self.max,
                setting: "xdp.max_listeners",
            });
        }
        let stale: Vec<_> = self.written.difference(&wanted.exact).copied().collect();
        let crowded = self.written.union(&wanted.exact).count() > self.max as usize;
        if crowded {
            self.remove(&stale)?;
        }
        for key in wanted.exact.difference(&self.written.clone()) {
            self.exact.insert(key, 0, 0).map_err(KernelError::map(map::LISTENERS))?;
            self.written.insert(*key);
        }
        for (index, table) in wanted.tables.iter().enumerate() {
            self.tables.set(index as u32, **table, 0).map_err(KernelError::map(map::PORTS))?;
        }
        // One process writes flags; the others keep.
        let _ = config.flags.fetch_update(Relaxed, Relaxed, |flags| Some(flags & !ANY | wanted.flags));
        if !crowded {
            self.remove(&stale)?;
        }
        Ok(())
    }

    /// Writes the classes of the ports anew.
    pub(super) fn again(&mut self, rules: &Rules, config: &Config) -> Result<(), KernelError> {
        let listeners = std::mem::take(&mut self.listeners);
        self.sync(&listeners, rules, config)
    }

    fn remove(&mut self, keys: &[ListenerKey]) -> Result<(), KernelError> {
        for key in keys {
            match self.exact.remove(key) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(KernelError::map(map::LISTENERS)(error)),
            }
            self.written.remove(key);
        }
        Ok(())
    }
}

impl Wanted {
    fn of(listeners: &[Listener], rules: &Rules, config: &Config) -> Result<Wanted, KernelError> {
        let empty = || Box::new(PortTable { bits: [0; PORTS_PER_PROTOCOL] });
        let mut wanted = Wanted { tables: [empty(), empty()], exact: BTreeSet::new(), flags: 0 };
        let classes = rules.write(listeners.iter().map(|listener| listener.port), config)?;
        for listener in listeners {
            wanted.add(listener);
            let class = classes.get(&listener.port).copied().unwrap_or(0);
            let bits = &mut wanted.tables[listener.protocol as usize].bits[usize::from(listener.port)];
            *bits |= class << port_bit::CLASS_SHIFT;
        }
        Ok(wanted)
    }

    fn add(&mut self, listener: &Listener) {
        let Listener { address, port, protocol } = *listener;
        let bits = &mut self.tables[protocol as usize].bits[usize::from(port)];
        let key = match address.to_canonical() {
            IpAddr::V4(addr) if addr.is_unspecified() => {
                *bits |= port_bit::ANY_V4;
                self.flags |= flag::ANY_V4;
                return;
            }
            IpAddr::V6(addr) if addr.is_unspecified() => {
                *bits |= port_bit::ANY_V6;
                self.flags |= flag::ANY_V6;
                return;
            }
            IpAddr::V4(addr) => ListenerKey::v4(u32::from_ne_bytes(addr.octets()), port, protocol),
            IpAddr::V6(addr) => {
                let octets = addr.octets();
                let word =
                    |i: usize| u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
                ListenerKey::v6([word(0), word(4), word(8), word(12)], port, protocol)
            }
        };
        let (bit, flag) = if key.family == Family::V4 as u8 {
            (port_bit::SOME_V4, flag::SOME_V4)
        } else {
            (port_bit::SOME_V6, flag::SOME_V6)
        };
        *bits |= bit;
        self.flags |= flag;
        self.exact.insert(key);
        self.exact.insert(key.address_only());
    }
}
