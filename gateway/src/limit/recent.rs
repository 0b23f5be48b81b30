//! Sources that were banned just now, on their way from the shard that banned them to whoever closes their connections.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// As many as fit between two looks; a ban beyond that is in force all the same, its connections only die slower, as
/// the kernel drops their packets.
const ROOM: usize = 256;

/// A ring of keys; 0 is none. Lock-free: any thread adds, one takes.
pub(super) struct RecentBans {
    slots: [AtomicU64; ROOM],
    next: AtomicUsize,
}

impl Default for RecentBans {
    fn default() -> RecentBans {
        RecentBans { slots: [const { AtomicU64::new(0) }; ROOM], next: AtomicUsize::new(0) }
    }
}

impl RecentBans {
    pub(super) fn add(&self, key: u64) {
        let index = self.next.fetch_add(1, Relaxed) % ROOM;
        self.slots[index].store(key, Relaxed);
    }

    pub(super) fn take(&self, out: &mut Vec<u64>) {
        let taken = self.slots.iter().map(|slot| slot.swap(0, Relaxed));
        out.extend(taken.filter(|key| *key != 0));
    }
}
