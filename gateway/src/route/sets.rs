//! Many expressions at once: automata that say in one pass over a path which of them match.
//!
//! Owns the sets of the few nodes where so many expressions have the same literal beginning that trying them one by
//! one would show. Never says how far an expression matched; the winner is asked for that alone. Invariant: a set
//! names exactly those of its expressions whose own automaton matches.
//!
//! Every expression is followed by "anything up to the end", so that the state at the end of the path knows them all.
//! Sets of expressions that overlap a lot may need far more states than each alone. Where a set would exceed its
//! limit it is halved, and what does not fit in small sets either is tried one by one: a failed attempt takes tens of
//! milliseconds of a reload.

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::start;
use regex_automata::util::syntax;
use regex_automata::{Anchored, MatchKind};

use super::paths::EntryId;

/// From so many expressions on a node has sets.
pub(super) const WORTHWHILE: usize = if cfg!(test) { 3 } else { 8 };

/// Size of a set, in members and in bytes.
const MOST_MEMBERS: usize = 128;
const FEWEST_MEMBERS: usize = if cfg!(test) { 2 } else { 8 };
const SET_LIMIT: usize = 512 * 1024;

/// One expression, and who asks for it: several routes may.
#[derive(Clone, Debug)]
pub(super) struct Asked<'s> {
    pub(super) source: &'s str,
    /// Not empty.
    pub(super) entries: Vec<EntryId>,
    /// Too large for an automaton of its own, hence for any set.
    pub(super) heavy: bool,
}

/// The expressions of one node.
#[derive(Debug, Default)]
pub(super) struct Sets {
    sets: Vec<Set>,
    /// Entries to be tried by themselves.
    singles: Vec<EntryId>,
}

#[derive(Debug)]
struct Set {
    automaton: dense::DFA<Vec<u32>>,
    /// The entries of each member; several routes may ask for the same expression.
    members: Vec<Vec<EntryId>>,
    /// Best of all members, so that a set that can not win is not run.
    best: EntryId,
}

impl Sets {
    pub(super) fn new(mut expressions: Vec<Asked<'_>>) -> Sets {
        // Neighbours in rank share a set, hence a good match spares the sets of worse ones.
        expressions.sort_by_key(|asked| asked.entries.iter().min().copied());
        let (heavy, light): (Vec<_>, Vec<_>) = expressions.into_iter().partition(|asked| asked.heavy);
        let mut sets = Sets::default();
        light.chunks(MOST_MEMBERS).for_each(|chunk| sets.add(chunk));
        sets.singles.extend(heavy.into_iter().flat_map(|asked| asked.entries));
        sets
    }

    fn add(&mut self, expressions: &[Asked<'_>]) {
        if expressions.len() < FEWEST_MEMBERS {
            return self.singles.extend(expressions.iter().flat_map(|asked| &asked.entries));
        }
        let sources: Vec<&str> = expressions.iter().map(|asked| asked.source).collect();
        if let Some(automaton) = automaton(&sources) {
            let members: Vec<Vec<EntryId>> = expressions.iter().map(|asked| asked.entries.clone()).collect();
            let best = members.iter().flatten().copied().min().unwrap_or(EntryId::MAX);
            return self.sets.push(Set { automaton, members, best });
        }
        let (front, back) = expressions.split_at(expressions.len() / 2);
        self.add(front);
        self.add(back);
    }

    /// Calls `visit` with each entry whose expression matches `path`, in no order; `visit` returns the bound from which
    /// on nothing is of interest. `single` runs one entry's own automaton.
    pub(super) fn matches(
        &self,
        path: &[u8],
        mut bound: EntryId,
        single: impl Fn(EntryId) -> bool,
        mut visit: impl FnMut(EntryId) -> EntryId,
    ) {
        for set in &self.sets {
            if set.best < bound {
                set.run(path, |entry| {
                    if entry < bound {
                        bound = visit(entry);
                    }
                });
            }
        }
        for &entry in &self.singles {
            if entry < bound && single(entry) {
                bound = visit(entry);
            }
        }
    }
}

impl Set {
    fn run(&self, path: &[u8], mut visit: impl FnMut(EntryId)) {
        let dfa = &self.automaton;
        let Ok(mut state) = dfa.start_state(&start::Config::new().anchored(Anchored::Yes)) else { return };
        for &byte in path {
            state = dfa.next_state(state, byte);
            if dfa.is_dead_state(state) {
                return;
            }
        }
        state = dfa.next_eoi_state(state);
        if dfa.is_match_state(state) {
            for nth in 0..dfa.match_len(state) {
                self.members[dfa.match_pattern(state, nth).as_usize()].iter().for_each(|&entry| visit(entry));
            }
        }
    }
}

fn automaton(sources: &[&str]) -> Option<dense::DFA<Vec<u32>>> {
    // A comment of `(?x)` would swallow what follows; such an expression does not parse here and stays single.
    let to_the_end: Vec<String> = sources.iter().map(|source| format!(r"(?:{source})(?s-u:.)*\z")).collect();
    dense::Builder::new()
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Anchored)
                .match_kind(MatchKind::All)
                .dfa_size_limit(Some(SET_LIMIT))
                .determinize_size_limit(Some(4 * SET_LIMIT)),
        )
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(4 * SET_LIMIT)))
        .build_many(&to_the_end)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::expression::{Expression, Place};

    fn matching(sets: &Sets, sources: &[&str], path: &str) -> Vec<EntryId> {
        let mut found = Vec::new();
        let single = |entry: EntryId| {
            Expression::compile(sources[entry as usize], Place::Start).unwrap().is_match(path.as_bytes())
        };
        sets.matches(path.as_bytes(), EntryId::MAX, single, |entry| {
            found.push(entry);
            EntryId::MAX
        });
        found.sort_unstable();
        found
    }

    fn sets(expressions: &[(&'static str, Vec<EntryId>)]) -> Sets {
        let asked = |(source, entries): &(&'static str, Vec<EntryId>)| Asked {
            source,
            entries: entries.clone(),
            heavy: Expression::compile(source, Place::Start).unwrap().is_heavy(),
        };
        Sets::new(expressions.iter().map(asked).collect())
    }

    #[test]
    fn a_set_names_those_that_match_alone() {
        let sources =
            ["/a", "/a$", "/a/.*", ".*b", r"/\d+", "(?i)/A", "/a|/b", "", r"/a\b", "(?x) /a # c", "/x/y/z"];
        let sets = sets(&(0..).zip(sources).map(|(entry, source)| (source, vec![entry])).collect::<Vec<_>>());
        assert!(!sets.sets.is_empty());
        for path in ["/", "/a", "/ab", "/a/b", "/b", "/12", "/A/", "", "/x/y", "/a\n", "/a-b"] {
            let alone =
                |source: &str| Expression::compile(source, Place::Start).unwrap().is_match(path.as_bytes());
            let expected: Vec<EntryId> =
                (0..).zip(sources).filter(|(_, source)| alone(source)).map(|(entry, _)| entry).collect();
            assert_eq!(matching(&sets, &sources, path), expected, "{path:?}");
        }
    }

    #[test]
    fn what_fits_no_set_stays_single() {
        let heavy = "/[ab]*a[ab]{24}$";
        assert_eq!(sets(&[(heavy, vec![0, 1]), ("/a", vec![2]), ("/b", vec![3])]).singles, [0, 1]);
        // Each small, together not: the set must remember where each of the others last was.
        let sources = ["/[ab]*a[ab]{9}$", "/[bc]*b[bc]{9}$", "/[ac]*c[ac]{9}$"];
        let sets = sets(&[(sources[0], vec![0]), (sources[1], vec![1]), (sources[2], vec![2])]);
        assert_eq!(matching(&sets, &sources, "/abbbbbbbbb"), [0]);
        assert_eq!(matching(&sets, &sources, "/bbbbbbbbbb"), [1]);
    }

    #[test]
    fn a_bound_ends_the_search() {
        let sets = sets(&[("/a", vec![3, 5]), ("/", vec![4])]);
        let mut seen = Vec::new();
        sets.matches(
            b"/a",
            5,
            |_| false,
            |entry| {
                seen.push(entry);
                entry
            },
        );
        assert!(seen == [3] || seen == [4, 3], "{seen:?}");
        sets.matches(b"/a", 3, |_| false, |_| panic!("nothing is better than 3"));
    }
}
