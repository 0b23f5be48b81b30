//! From a host to the groups of routes that may take it: one hash probe for the exact name, and one for each label
//! where wildcards exist.
//!
//! Owns the hash table. Never ranks. Invariant: a lookup reads each byte of the host at most three times, however many
//! labels it has, since the host is the client's text.

use super::spec::HostName;

/// What is kept for a host name pattern: while routes are compiled the index of its group, then the root of the
/// group's paths.
pub(super) type GroupId = u32;

/// Finds groups by host.
#[derive(Debug, Default)]
pub(super) struct HostTable {
    exact: Table,
    leading: Table,
    trailing: Table,
}

/// Open addressing with linear probing. The keys are the configuration's, so that a client can not make them collide.
#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    used: usize,
    /// Keys that do not fit their slot.
    long_keys: Vec<Box<[u8]>>,
}

/// One cache line, key and all: a lookup among many hosts costs one miss.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Slot {
    hash: u64,
    /// [`FREE`] in an empty slot.
    group: GroupId,
    key_len: u8,
    /// Of a key that is too long for this: its index in `long_keys`.
    key: [u8; MOST_KEY],
}

const MOST_KEY: usize = 51;
const _: () = assert!(size_of::<Slot>() == 64);

impl HostTable {
    /// The group of this name, `fresh` if it has none yet.
    pub(super) fn group_or_insert(&mut self, name: &HostName, fresh: GroupId) -> GroupId {
        let key = name.text().as_bytes();
        match name {
            HostName::Exact(_) => self.exact.get_or_insert(wide_hash(key), key, fresh),
            HostName::Leading(_) => self.leading.get_or_insert(fold(key.iter().rev()), key, fresh),
            HostName::Trailing(_) => self.trailing.get_or_insert(fold(key.iter()), key, fresh),
        }
    }

    /// Replaces each group by what `root` gives for it.
    pub(super) fn map(&mut self, root: impl Fn(GroupId) -> u32) {
        for table in [&mut self.exact, &mut self.leading, &mut self.trailing] {
            for slot in table.slots.iter_mut().filter(|slot| slot.group != FREE) {
                slot.group = root(slot.group);
            }
        }
    }

    /// Calls `visit` with each group whose name pattern takes this bare lower-case host.
    #[inline]
    pub(super) fn visit(&self, host: &[u8], mut visit: impl FnMut(GroupId)) {
        if self.exact.used > 0
            && let Some(group) = self.exact.get(wide_hash(host), host)
        {
            visit(group);
        }
        if self.leading.used > 0 {
            self.visit_suffixes(host, &mut visit);
        }
        if self.trailing.used > 0 {
            self.visit_prefixes(host, &mut visit);
        }
    }

    /// The hash runs from the last byte, so that every suffix on the way is probed with the hash at hand.
    fn visit_suffixes(&self, host: &[u8], visit: &mut impl FnMut(GroupId)) {
        let mut hash = FOLD_START;
        for at in (1..host.len()).rev() {
            if host[at] == b'.'
                && let Some(group) = self.leading.get(hash, &host[at + 1..])
            {
                visit(group);
            }
            hash = fold_byte(hash, host[at]);
        }
    }

    fn visit_prefixes(&self, host: &[u8], visit: &mut impl FnMut(GroupId)) {
        let mut hash = FOLD_START;
        for at in 0..host.len().saturating_sub(1) {
            if host[at] == b'.'
                && let Some(group) = self.trailing.get(hash, &host[..at])
            {
                visit(group);
            }
            hash = fold_byte(hash, host[at]);
        }
    }
}

impl Table {
    #[inline]
    fn get(&self, hash: u64, key: &[u8]) -> Option<GroupId> {
        let mut at = self.home(hash);
        loop {
            let slot = &self.slots[at];
            if slot.group == FREE {
                return None;
            }
            if slot.hash == hash && self.key(slot) == key {
                return Some(slot.group);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    #[inline]
    fn key<'t>(&'t self, slot: &'t Slot) -> &'t [u8] {
        match slot.key.get(..usize::from(slot.key_len)) {
            Some(key) => key,
            None => {
                &self.long_keys
                    [u32::from_le_bytes([slot.key[0], slot.key[1], slot.key[2], slot.key[3]]) as usize]
            }
        }
    }

    fn get_or_insert(&mut self, hash: u64, key: &[u8], fresh: GroupId) -> GroupId {
        // At most three quarters full.
        if self.used * 4 >= self.slots.len() * 3 {
            self.grow();
        }
        if let Some(group) = self.get(hash, key) {
            return group;
        }
        let mut slot = Slot { hash, group: fresh, key_len: u8::MAX, key: [0; MOST_KEY] };
        if let Some(place) = slot.key.get_mut(..key.len()) {
            place.copy_from_slice(key);
            slot.key_len = key.len() as u8;
        } else {
            slot.key[..4].copy_from_slice(&(self.long_keys.len() as u32).to_le_bytes());
            self.long_keys.push(key.into());
        }
        self.place(slot);
        self.used += 1;
        fresh
    }

    fn grow(&mut self) {
        let free = Slot { hash: 0, group: FREE, key_len: 0, key: [0; MOST_KEY] };
        let doubled = vec![free; (self.slots.len() * 2).max(8)];
        for slot in std::mem::replace(&mut self.slots, doubled) {
            if slot.group != FREE {
                self.place(slot);
            }
        }
    }

    fn place(&mut self, slot: Slot) {
        let mut at = self.home(slot.hash);
        while self.slots[at].group != FREE {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = slot;
    }

    /// The length is a power of two; the high bits of a product are its best ones.
    fn home(&self, hash: u64) -> usize {
        (hash.wrapping_mul(MULTIPLIER) >> 32) as usize & (self.slots.len() - 1)
    }
}

/// No router has as many groups or nodes: each takes a cache line.
const FREE: GroupId = GroupId::MAX;
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
const FOLD_START: u64 = 0xcbf2_9ce4_8422_2325;

/// Byte by byte, so that prefixes (or, run backwards, suffixes) share their work.
fn fold<'b>(bytes: impl Iterator<Item = &'b u8>) -> u64 {
    bytes.fold(FOLD_START, |hash, &byte| fold_byte(hash, byte))
}

fn fold_byte(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}

/// Eight bytes a step, for whole names.
#[inline]
fn wide_hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(MULTIPLIER);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(bytes.len() as u64, |hash, word| step(hash, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    step(hash, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::HostPattern;

    fn table(patterns: &[&str]) -> HostTable {
        let mut table = HostTable::default();
        for (number, text) in patterns.iter().enumerate() {
            table.group_or_insert(&HostPattern::parse(text).unwrap().name, number as GroupId);
        }
        table
    }

    #[test]
    fn a_host_finds_every_pattern_that_takes_it() {
        let patterns =
            ["a.example.com", "*.example.com", "*.com", "a.*", "a.example.*", "b.example.com", "*.a"];
        let table = table(&patterns);
        for host in
            ["a.example.com", "b.example.com", "x.com", "com", ".com", "a.", "a.com", "a.a.a", "", "."]
        {
            let mut found = Vec::new();
            table.visit(host.as_bytes(), |group| found.push(group));
            found.sort_unstable();
            let takes = |text: &str| HostPattern::parse(text).unwrap().name.matches(host.as_bytes());
            let expected: Vec<GroupId> =
                (0..).zip(patterns).filter(|(_, text)| takes(text)).map(|(number, _)| number).collect();
            assert_eq!(found, expected, "{host}");
        }
    }

    #[test]
    fn many_names_are_all_found_and_keep_their_first_group() {
        let mut table = HostTable::default();
        // Some fit a slot, some do not.
        let name =
            |n: u32| HostName::Exact(format!("tenant-{}-{n}.example.com", "x".repeat(n as usize % 50)));
        for n in 0..5_000 {
            assert_eq!(table.group_or_insert(&name(n), n), n);
        }
        for n in 0..5_000 {
            assert_eq!(table.group_or_insert(&name(n), 9_999), n);
            let mut found = Vec::new();
            table.visit(name(n).text().as_bytes(), |group| found.push(group));
            assert_eq!(found, [n]);
        }
    }
}
