//! Whether the routers of this host are still those that the generation in force trusts.
//!
//! Owns how often that is looked at. A route that changes (another lease, a failover) makes the plane ask for a compilation,
//! so that the new router is never dropped nor banned. Never on the path of a request.

use std::cell::Cell;
use std::net::IpAddr;

use crate::kernel::gateways;
use crate::net::clock;

/// How often it is looked, at most.
const INTERVAL_NS: u64 = 5_000_000_000;
/// A table of a million routes takes its time to read: this part of the thread's time at most.
const SHARE: u64 = 100;

/// What was seen last.
#[derive(Debug, Default)]
pub struct Routers {
    changed: Cell<bool>,
    next_ns: u64,
}

impl Routers {
    /// Looks, when it is time, whether they are other than `known`, as [`gateways`] gives them.
    pub fn look(&mut self, known: &[IpAddr], now_ns: u64) {
        if now_ns < self.next_ns {
            return;
        }
        self.changed.set(gateways() != known);
        let took_ns = clock::now_ns().saturating_sub(now_ns);
        self.next_ns = now_ns + INTERVAL_NS.max(took_ns.saturating_mul(SHARE));
    }

    /// Whether they were others at the last look, and no compilation has begun since.
    pub fn have_changed(&self) -> bool {
        self.changed.get()
    }

    /// A compilation begins, which reads them.
    pub fn settle(&self) {
        self.changed.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_routers_are_seen_at_the_next_look() {
        let mut routers = Routers::default();
        let (known, others) = (gateways(), ["203.0.113.1".parse().unwrap()]);
        let now = clock::now_ns();
        routers.look(&known, now);
        assert!(!routers.have_changed());
        routers.look(&others, now + INTERVAL_NS - 1);
        assert!(!routers.have_changed(), "too soon for a look");
        routers.look(&others, u64::MAX >> 1);
        assert!(routers.have_changed());
        routers.settle();
        assert!(!routers.have_changed());
    }
}
