//! From a host to the groups of routes that may take it: one hash probe for the exact name, and one for each label
//! where wildcards exist.
//!
//! Owns the kinds of names. Never ranks. Invariant: a lookup reads each byte of the host at most three times, however many
//! labels it has, since the host is the client's text.

use super::leaves::Leaf;
use super::paths::{EntryId, Group};
use super::spec::HostName;
use super::table::{GroupId, Table};
use super::words;

/// Finds groups by host.
#[derive(Debug, Default)]
pub(super) struct HostTable {
    exact: Table,
    leading: Table,
    trailing: Table,
}

impl HostTable {
    /// The group of this name, `fresh` if it has none yet.
    pub(super) fn group_or_insert(&mut self, name: &HostName, fresh: GroupId) -> GroupId {
        let key = name.text().as_bytes();
        match name {
            HostName::Exact(_) => self.exact.get_or_insert(words::hash(key), key, fresh),
            HostName::Leading(_) => self.leading.get_or_insert(fold(key.rsplit(is_dot)), key, fresh),
            HostName::Trailing(_) => self.trailing.get_or_insert(fold(key.split(is_dot)), key, fresh),
        }
    }

    /// Replaces each group by what `filed` gives for it, with the first of its leaves if it has some.
    pub(super) fn map(&mut self, filed: impl Fn(GroupId) -> (Group, Option<Leaf>)) {
        for table in [&mut self.exact, &mut self.leading, &mut self.trailing] {
            table.map(&filed);
        }
    }

    /// Calls `visit` with the groups whose name pattern takes this bare lower-case host and that hold an entry better
    /// than the one that `visit` last returned.
    #[inline]
    pub(super) fn visit(&self, host: &[u8], mut visit: impl FnMut(Group, &Leaf) -> EntryId) {
        let mut bound = EntryId::MAX;
        if let Some(slot) = self.exact.get(words::hash(host), host) {
            bound = visit(slot.group, &slot.first);
        }
        // No wildcard has a better entry than this: mostly so, where an exact name was found.
        if self.leading.best() < bound {
            bound = self.visit_suffixes(host, bound, &mut visit);
        }
        if self.trailing.best() < bound {
            self.visit_prefixes(host, bound, &mut visit);
        }
    }

    /// The hash runs from the last label, so that every suffix on the way is probed with the hash at hand.
    fn visit_suffixes(
        &self,
        host: &[u8],
        mut bound: EntryId,
        visit: &mut impl FnMut(Group, &Leaf) -> EntryId,
    ) -> EntryId {
        let (mut hash, mut end) = (0, host.len());
        while let Some(at) = host[..end].iter().rposition(is_dot) {
            hash = words::step(hash, words::hash(&host[at + 1..end]));
            end = at;
            if at > 0
                && let Some(slot) = self.leading.get(hash, &host[at + 1..])
                && slot.group.best < bound
            {
                bound = visit(slot.group, &slot.first);
            }
        }
        bound
    }

    fn visit_prefixes(
        &self,
        host: &[u8],
        mut bound: EntryId,
        visit: &mut impl FnMut(Group, &Leaf) -> EntryId,
    ) {
        let (mut hash, mut start) = (0, 0);
        while let Some(len) = host[start..].iter().position(is_dot) {
            let at = start + len;
            hash = words::step(hash, words::hash(&host[start..at]));
            start = at + 1;
            if start < host.len()
                && let Some(slot) = self.trailing.get(hash, &host[..at])
                && slot.group.best < bound
            {
                bound = visit(slot.group, &slot.first);
            }
        }
    }
}

fn is_dot(byte: &u8) -> bool {
    *byte == b'.'
}

/// Label by label, so that the prefixes of a name (or, from the last label on, its suffixes) share their work.
fn fold<'b>(labels: impl Iterator<Item = &'b [u8]>) -> u64 {
    labels.fold(0, |hash, label| words::step(hash, words::hash(label)))
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
            table.visit(host.as_bytes(), |group, _| {
                found.push(group.start);
                EntryId::MAX
            });
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
            table.visit(name(n).text().as_bytes(), |group, _| {
                found.push(group.start);
                EntryId::MAX
            });
            assert_eq!(found, [n]);
        }
    }
}
