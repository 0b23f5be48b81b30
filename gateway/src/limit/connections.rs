//! Open downstream connections: of the whole process, and by source.
//!
//! Exact for the process. By source it is a fixed table of counters that sources are hashed into with a secret of the
//! process: two sources in one cell (one chance in 65,536 for a given pair) are counted together, which bounds memory
//! and needs no lock.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use portcullis_abi::{Secret, set_index};

use super::key::{random_secret, source_key};

const CELLS: usize = 1 << 16;

/// The counters, shared by all shards.
#[derive(Debug)]
pub struct Connections {
    total: AtomicU32,
    by_source: Box<[AtomicU32]>,
    secret: Secret,
}

impl Default for Connections {
    fn default() -> Self {
        let by_source = (0..CELLS).map(|_| AtomicU32::new(0)).collect();
        Self { total: AtomicU32::new(0), by_source, secret: random_secret() }
    }
}

impl Connections {
    /// Takes a place for a connection of `source`; false when `max` are open, or `max_per_source` of that source
    /// (0: no such limit). Each place that was taken must be given back with [`Connections::close`].
    pub fn open(&self, source: IpAddr, max: u32, max_per_source: u32) -> bool {
        let cell = self.cell(source);
        let fits = self.total.fetch_add(1, Relaxed) < max;
        let fits_source = cell.fetch_add(1, Relaxed) < max_per_source || max_per_source == 0;
        if !(fits && fits_source) {
            self.close(source);
        }
        fits && fits_source
    }

    /// Gives a place back.
    pub fn close(&self, source: IpAddr) {
        self.total.fetch_sub(1, Relaxed);
        self.cell(source).fetch_sub(1, Relaxed);
    }

    /// Open connections of `source`, and of whoever shares its cell.
    pub fn of(&self, source: IpAddr) -> u32 {
        self.cell(source).load(Relaxed)
    }

    fn cell(&self, source: IpAddr) -> &AtomicU32 {
        &self.by_source[set_index(source_key(source), &self.secret, CELLS)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn both_limits_hold_and_places_come_back() {
        let connections = Connections::default();
        let (a, b) = (address("192.0.2.1"), address("192.0.2.77"));
        assert!(connections.open(a, 3, 2) && connections.open(a, 3, 2));
        assert!(!connections.open(a, 3, 2), "the third of one source");
        assert!(connections.open(b, 3, 2));
        assert!(!connections.open(b, 3, 2), "the fourth of all");
        connections.close(a);
        assert!(connections.open(b, 3, 2));
        assert!(connections.open(a, 9, 0), "0 sets no limit");
    }

    #[test]
    fn an_ipv6_source_is_its_64() {
        let connections = Connections::default();
        assert!(connections.open(address("2001:db8::1"), 9, 1));
        assert!(!connections.open(address("2001:db8::2"), 9, 1));
        assert!(connections.open(address("2001:db8:0:1::2"), 9, 1));
    }

    #[test]
    fn threads_never_take_more_places_than_there_are() {
        let connections = Connections::default();
        let source = address("192.0.2.1");
        let taken = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| connections.open(source, 100, 0)).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        // A place may be refused while another thread hands its refused one back; none is given twice.
        assert!((1..=100).contains(&taken), "{taken}");
        for _ in 0..taken {
            connections.close(source);
        }
        assert!(connections.open(source, 1, 1));
    }
}
