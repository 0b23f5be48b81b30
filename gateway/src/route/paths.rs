//! The table of paths: a compressed byte trie for each group of hosts, all in one arena.
//!
//! Owns the trie and the walk along a request's path. A prefix sits at the node that spells it, an expression at the
//! node that spells its literal prefix, a route without paths at the root; so one walk meets every entry that could
//! take the path, and of the expressions only those whose literal beginning the path has. Never ranks: entries come
//! with the position that `rank` gave them. Invariant: the entries of a node are sorted, best first.

use std::collections::VecDeque;
use std::ops::Range;

use super::words;

/// Position of an entry in the order of precedence, best first. Also its index in the router's entries.
pub(super) type EntryId = u32;

/// Index of a node.
pub(super) type NodeId = u32;

/// The entries of the routes that share a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// The first of its leaves, the root of its trie, or the index of its [`super::lengths::Lengths`].
    pub(super) start: u32,
    /// The best entry.
    pub(super) best: EntryId,
    /// Number of leaves, or one of the constants below.
    pub(super) leaves: u8,
}

impl Group {
    /// As a number of leaves.
    pub(super) const TRIE: u8 = u8::MAX;
    pub(super) const LENGTHS: u8 = u8::MAX - 1;

    /// Without the first leaf, if it has leaves.
    #[inline]
    pub(super) fn behind_first(self) -> Group {
        match self.leaves {
            0 | Group::TRIE | Group::LENGTHS => self,
            leaves => Group { start: self.start + 1, leaves: leaves - 1, ..self },
        }
    }
}

/// All tries of a router.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    nodes: Vec<Node>,
    /// First byte of each node's label, for nodes with too many children to list them inside.
    first: Vec<u8>,
    /// The entries of nodes that have more than one.
    entries: Vec<EntryId>,
}

/// One cache line, since with many routes each node on the way is one miss and nothing else is slow.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Node {
    /// The best entry here and below: a walk stops where nothing can win any more.
    best: EntryId,
    /// Siblings are neighbours, sorted by first byte.
    children: NodeId,
    /// Where the node's entries are; if there is only one, and that without expression, the entry itself.
    entries: u32,
    plain_len: u32,
    /// The expressions follow the plain entries.
    expressions_len: u32,
    children_len: u16,
    label_len: u8,
    label: [u8; MOST_LABEL],
    /// First bytes of the children, if they fit.
    first: [u8; MOST_LISTED],
}

/// A longer label is a chain of nodes.
const MOST_LABEL: usize = 29;
const MOST_LISTED: usize = 12;
const _: () = assert!(size_of::<Node>() == 64);

/// An entry to be placed.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    /// The bytes that a path must begin with.
    pub(super) key: Vec<u8>,
    pub(super) entry: EntryId,
    /// Whether it must also be run.
    pub(super) expression: bool,
}

/// The entries of one node on a walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop<'t> {
    pub(super) node: NodeId,
    /// Bytes of the path spelled so far.
    pub(super) depth: usize,
    pub(super) plain: &'t [EntryId],
    pub(super) expressions: &'t [EntryId],
}

impl PathTable {
    /// Adds a trie and returns its root.
    pub(super) fn add(&mut self, mut placed: Vec<Placed>) -> NodeId {
        placed.sort_by(|a, b| (&a.key, a.expression, a.entry).cmp(&(&b.key, b.expression, b.entry)));
        let shared = match (placed.first(), placed.last()) {
            (Some(first), Some(last)) => common_len(&first.key, &last.key).min(MOST_LABEL),
            _ => 0,
        };
        let root = self.push_node(placed.first().map_or(&[], |first| &first.key[..shared]));
        // Breadth first, so that siblings are neighbours.
        let mut waiting = VecDeque::from([(root, 0..placed.len(), shared)]);
        while let Some((node, range, depth)) = waiting.pop_front() {
            let own = self.fill(node, &placed[range.clone()], depth);
            let children = self.nodes.len() as NodeId;
            for run in runs(&placed, range.start + own..range.end, depth) {
                let (first, last) = (&placed[run.start].key, &placed[run.end - 1].key);
                // Sorted, so what the outermost keys share all between them share too.
                let shared = common_len(&first[depth..], &last[depth..]).min(MOST_LABEL);
                let child = self.push_node(&first[depth..depth + shared]);
                waiting.push_back((child, run, depth + shared));
            }
            self.adopt(node, children);
        }
        root
    }

    /// Calls `visit` with the nodes along `path` that hold entries, from the root down, as long as some entry below
    /// is better than the one that `visit` last returned.
    #[inline]
    pub(super) fn walk<'t>(
        &'t self,
        root: NodeId,
        path: &[u8],
        mut bound: EntryId,
        mut visit: impl FnMut(Stop<'t>) -> EntryId,
    ) {
        let (mut id, mut depth) = (root, 0);
        loop {
            let node = &self.nodes[id as usize];
            if node.best >= bound {
                return;
            }
            if !words::starts_with(&path[depth..], &node.label[..usize::from(node.label_len)]) {
                return;
            }
            depth += usize::from(node.label_len);
            if node.plain_len + node.expressions_len > 0 {
                bound = visit(self.stop(id, depth));
            }
            let Some(&byte) = path.get(depth) else { return };
            let Some(child) = self.child(node, byte) else { return };
            id = child;
        }
    }

    #[inline]
    fn child(&self, node: &Node, byte: u8) -> Option<NodeId> {
        let len = usize::from(node.children_len);
        let at = match node.first.get(..len) {
            Some(first) => first.iter().position(|&own| own == byte)?,
            None => self.first[node.children as usize..][..len].binary_search(&byte).ok()?,
        };
        Some(node.children + at as NodeId)
    }

    #[inline]
    fn stop(&self, id: NodeId, depth: usize) -> Stop<'_> {
        let node = &self.nodes[id as usize];
        if (node.plain_len, node.expressions_len) == (1, 0) {
            return Stop { node: id, depth, plain: std::slice::from_ref(&node.entries), expressions: &[] };
        }
        let (plain, expressions) = self.entries[node.entries as usize..]
            [..(node.plain_len + node.expressions_len) as usize]
            .split_at(node.plain_len as usize);
        Stop { node: id, depth, plain, expressions }
    }

    /// All nodes with entries, for what is built on top.
    pub(super) fn stops(&self) -> impl Iterator<Item = Stop<'_>> {
        (0..self.nodes.len() as NodeId).map(|id| self.stop(id, 0))
    }

    fn push_node(&mut self, label: &[u8]) -> NodeId {
        let mut node = Node { label_len: label.len() as u8, best: EntryId::MAX, ..Node::default() };
        node.label[..label.len()].copy_from_slice(label);
        self.first.push(label.first().copied().unwrap_or(0));
        self.nodes.push(node);
        self.nodes.len() as NodeId - 1
    }

    /// Makes all nodes from `children` on the children of `node`.
    fn adopt(&mut self, node: NodeId, children: NodeId) {
        let first = &self.first[children as usize..];
        let node = &mut self.nodes[node as usize];
        node.children = children;
        node.children_len = first.len() as u16;
        if let Some(listed) = node.first.get_mut(..first.len()) {
            listed.copy_from_slice(first);
        }
    }

    /// Gives the node the entries whose key ends at it; returns how many.
    fn fill(&mut self, node: NodeId, placed: &[Placed], depth: usize) -> usize {
        let own = placed.iter().take_while(|entry| entry.key.len() == depth).count();
        let plain = placed[..own].iter().take_while(|entry| !entry.expression).count();
        let alone = own == 1 && plain == 1;
        let entries = if alone { placed[0].entry } else { self.entries.len() as u32 };
        if !alone {
            self.entries.extend(placed[..own].iter().map(|entry| entry.entry));
        }
        let node = &mut self.nodes[node as usize];
        node.entries = entries;
        node.plain_len = plain as u32;
        node.expressions_len = (own - plain) as u32;
        node.best = placed.iter().map(|entry| entry.entry).min().unwrap_or(EntryId::MAX);
        own
    }
}

/// Splits a sorted range into runs with the same byte at `depth`.
fn runs(placed: &[Placed], range: Range<usize>, depth: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for at in range {
        match runs.last_mut() {
            Some(run) if placed[run.start].key[depth] == placed[at].key[depth] => run.end = at + 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

fn common_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(key: &str, entry: EntryId, expression: bool) -> Placed {
        Placed { key: key.into(), entry, expression }
    }

    type Seen = Vec<(usize, Vec<EntryId>, Vec<EntryId>)>;

    fn walk(table: &PathTable, root: NodeId, path: &str, bound: EntryId) -> Seen {
        let mut seen = Vec::new();
        table.walk(root, path.as_bytes(), bound, |stop| {
            seen.push((stop.depth, stop.plain.to_vec(), stop.expressions.to_vec()));
            bound
        });
        seen
    }

    #[test]
    fn a_walk_meets_every_key_that_the_path_begins_with() {
        let mut table = PathTable::default();
        let other = table.add(vec![placed("/zzz", 9, false)]);
        let root = table.add(vec![
            placed("/api/users", 0, false),
            placed("/api/users", 5, true),
            placed("/api/us", 3, true),
            placed("/api", 2, false),
            placed("/apix", 1, false),
            placed("", 4, false),
            placed("/api", 7, false),
        ]);
        let all = EntryId::MAX;
        assert_eq!(
            walk(&table, root, "/api/users/1", all),
            [(0, vec![4], vec![]), (4, vec![2, 7], vec![]), (7, vec![], vec![3]), (10, vec![0], vec![5])]
        );
        assert_eq!(
            walk(&table, root, "/apix", all),
            [(0, vec![4], vec![]), (4, vec![2, 7], vec![]), (5, vec![1], vec![])]
        );
        assert_eq!(walk(&table, root, "/ap", all), [(0, vec![4], vec![])]);
        assert_eq!(walk(&table, root, "", all), [(0, vec![4], vec![])]);
        assert_eq!(walk(&table, other, "/api", all), []);
        assert_eq!(walk(&table, other, "/zzz/", all), [(4, vec![9], vec![])]);
    }

    #[test]
    fn a_walk_stops_where_nothing_below_can_win() {
        let mut table = PathTable::default();
        let root = table.add(vec![placed("/", 1, false), placed("/a", 2, false), placed("/a/b", 3, false)]);
        assert_eq!(walk(&table, root, "/a/b", 3).len(), 2);
        assert_eq!(walk(&table, root, "/a/b", 1), []);
    }

    #[test]
    fn labels_longer_than_a_node_are_chained() {
        let mut table = PathTable::default();
        let long = format!("/{}", "a".repeat(100));
        let root = table.add(vec![placed(&long, 1, false), placed(&format!("{long}/b"), 0, false)]);
        assert_eq!(walk(&table, root, &long, EntryId::MAX), [(101, vec![1], vec![])]);
        let deeper = [(101, vec![1], vec![]), (103, vec![0], vec![])];
        assert_eq!(walk(&table, root, &format!("{long}/bc"), EntryId::MAX), deeper);
        assert_eq!(walk(&table, root, &long[..100], EntryId::MAX), []);
    }

    #[test]
    fn a_node_has_up_to_256_children() {
        let mut table = PathTable::default();
        let keys = (0..=255_u8).map(|byte| Placed {
            key: vec![b'/', byte, byte],
            entry: EntryId::from(byte),
            expression: false,
        });
        let root = table.add(keys.collect());
        for byte in 0..=255_u8 {
            let mut seen = Vec::new();
            table.walk(root, &[b'/', byte, byte, b'/'], EntryId::MAX, |stop| {
                seen.extend_from_slice(stop.plain);
                EntryId::MAX
            });
            assert_eq!(seen, [EntryId::from(byte)]);
        }
    }
}
