//! What the names of targets stand for, as far as somebody has asked.
//!
//! Owns the last answer for each name and when it runs out. Never asks: the control thread does (`control::names`), and a
//! compilation reads here. Invariant: an answer is replaced by another answer only; while a name does not resolve, its
//! last addresses stay in use.

#![allow(clippy::disallowed_types, reason = "no shard takes the lock: control alone asks and compiles")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portcullis_config::{self as config, Address, Config};

/// One place that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: IpAddr,
    /// The port of a service record; `None` for the one in the configuration.
    pub port: Option<u16>,
    /// The weight of a service record; `None` for the one in the configuration.
    pub weight: Option<u16>,
    /// Of another than the best priority of a service record.
    pub backup: bool,
}

impl Endpoint {
    /// A place with the port and weight of the configuration.
    pub fn plain(ip: IpAddr) -> Self {
        Self { ip, port: None, weight: None, backup: false }
    }
}

#[derive(Debug, Default)]
struct Known {
    endpoints: Vec<Endpoint>,
    /// Why there is none.
    fault: Option<String>,
    /// CLOCK_MONOTONIC in ns at which it is to be asked for again.
    due_ns: u64,
}

/// The names of a configuration and their addresses. Never locked on a shard.
#[derive(Debug, Default)]
pub struct Names {
    known: Mutex<BTreeMap<String, Known>>,
}

impl Names {
    /// Takes the names of `config` in and gives those that nobody has asked for yet.
    pub fn enlist(&self, config: &Config) -> Vec<String> {
        let mut known = self.lock();
        let mut new = Vec::new();
        for name in of(config) {
            if !known.contains_key(&name) {
                known.insert(name.clone(), Known::default());
                new.push(name);
            }
        }
        new
    }

    /// Forgets the names that `config` does not have.
    pub fn keep(&self, config: &Config) {
        let wanted = of(config);
        self.lock().retain(|name, _| wanted.contains(name));
    }

    /// Names whose answer has run out.
    pub fn due(&self, now_ns: u64) -> Vec<String> {
        let known = self.lock();
        known.iter().filter(|(_, known)| known.due_ns <= now_ns).map(|(name, _)| name.clone()).collect()
    }

    /// Takes an answer in, sorted. True if it differs from the one before.
    pub fn learn(&self, name: &str, mut endpoints: Vec<Endpoint>, due_ns: u64) -> bool {
        endpoints.sort();
        endpoints.dedup();
        let mut known = self.lock();
        let Some(entry) = known.get_mut(name) else { return false };
        let changed = entry.endpoints != endpoints;
        *entry = Known { endpoints, fault: None, due_ns };
        changed
    }

    /// Notes that a name does not resolve; what it stood for stays. True if it did resolve at the last try.
    pub fn fail(&self, name: &str, fault: String, due_ns: u64) -> bool {
        let mut known = self.lock();
        let Some(entry) = known.get_mut(name) else { return false };
        entry.due_ns = due_ns;
        entry.fault.replace(fault).is_none()
    }

    /// What a name stands for, or why nothing is known of it.
    ///
    /// # Errors
    /// The name has never resolved.
    pub fn endpoints(&self, name: &str) -> Result<Vec<Endpoint>, String> {
        match self.lock().get(name) {
            Some(known) if !known.endpoints.is_empty() => Ok(known.endpoints.clone()),
            Some(Known { fault: Some(fault), .. }) => Err(fault.clone()),
            _ => Err("nobody has asked for it".into()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a name asks for service records (RFC 2782): `_http._tcp.example.com`.
pub fn is_service(name: &str) -> bool {
    name.starts_with('_')
}

/// The names of targets in a configuration.
fn of(config: &Config) -> BTreeSet<String> {
    let targets =
        config.upstreams.iter().flat_map(|upstream| &upstream.targets).map(|target| &target.address);
    let services = config.services.iter().filter_map(|service| match &service.destination {
        config::Destination::Target(address) => Some(address),
        config::Destination::Upstream(_) => None,
    });
    let name = |address: &Address| match address {
        Address::Name { host, .. } => Some(host.clone()),
        Address::Socket(_) => None,
    };
    targets.chain(services).filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Names {
        let names = Names::default();
        names.lock().extend(list.iter().map(|name| ((*name).to_owned(), Known::default())));
        names
    }

    fn at(ip: &str) -> Endpoint {
        Endpoint::plain(ip.parse().unwrap())
    }

    #[test]
    fn an_answer_in_another_order_is_no_change() {
        let names = names(&["a"]);
        assert!(names.learn("a", vec![at("10.0.0.2"), at("10.0.0.1")], 5));
        assert!(!names.learn("a", vec![at("10.0.0.1"), at("10.0.0.2"), at("10.0.0.1")], 6));
        assert_eq!(names.endpoints("a"), Ok(vec![at("10.0.0.1"), at("10.0.0.2")]));
        assert!(names.learn("a", vec![at("10.0.0.1")], 7));
    }

    #[test]
    fn a_name_that_no_longer_resolves_keeps_its_addresses() {
        let names = names(&["a", "b"]);
        names.learn("a", vec![at("10.0.0.1")], 5);
        assert!(names.fail("a", "no answer".into(), 9), "news");
        assert!(!names.fail("a", "no answer".into(), 9), "no news");
        assert_eq!(names.endpoints("a"), Ok(vec![at("10.0.0.1")]));
        names.fail("b", "no such name".into(), 9);
        assert_eq!(names.endpoints("b"), Err("no such name".into()));
        assert!(names.endpoints("c").is_err());
    }

    #[test]
    fn names_are_due_when_their_time_is_over() {
        let names = names(&["a", "b"]);
        names.learn("a", vec![at("10.0.0.1")], 5);
        names.learn("b", vec![at("10.0.0.1")], 50);
        assert_eq!(names.due(10), ["a"]);
        assert_eq!(names.due(50), ["a", "b"]);
    }
}
