//! What the service let pass, for a while.
//!
//! **Invariant.** Never more than [`ENTRIES_MAX`] entries, and never one past its time.

use std::collections::HashMap;

/// Most answers that a shard remembers.
pub const ENTRIES_MAX: usize = 8192;

/// Fields that the service set for the upstream.
pub type Pass = Vec<(Box<[u8]>, Box<[u8]>)>;

/// Answers that let a request pass, by what it was asked about.
#[derive(Default)]
pub struct Cache {
    /// Hashed with a key of this process; compared whole.
    entries: HashMap<Vec<u8>, (Pass, u64)>,
}

impl Cache {
    /// What was said about the same before.
    pub fn get(&mut self, key: &[u8], now_ns: u64) -> Option<Pass> {
        let (pass, until) = self.entries.get(key)?;
        if now_ns < *until {
            return Some(pass.clone());
        }
        self.entries.remove(key);
        None
    }

    /// Remembers an answer. A full cache first forgets what is over, and then everything: the service is asked again.
    pub fn insert(&mut self, key: Vec<u8>, pass: Pass, until_ns: u64, now_ns: u64) {
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.retain(|_, (_, until)| now_ns < *until);
        }
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.clear();
        }
        self.entries.insert(key, (pass, until_ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_forgotten_in_time_and_for_room() {
        let mut cache = Cache::default();
        cache.insert(b"a".to_vec(), vec![], 10, 0);
        assert!(cache.get(b"a", 9).is_some());
        assert!(cache.get(b"b", 9).is_none());
        assert!(cache.get(b"a", 10).is_none());
        for n in 0..ENTRIES_MAX as u64 * 2 {
            cache.insert(n.to_le_bytes().to_vec(), vec![], u64::MAX, 0);
            assert!(cache.entries.len() <= ENTRIES_MAX);
        }
    }
}
