//! A regular expression as a plain table: a few hundred bytes that are only read.
//!
//! Owns the table and the run over it. The states come from `regex-automata`, whose own automata are built for long
//! texts: 5 to 10 KiB each with their start tables, so that among thousands of routes every run would miss the caches
//! dozens of times. Here a typical path expression takes 300 bytes to 1 KiB, and the run starts behind the literal
//! that the path table has compared already. Never finds groups. Invariant: reports the same end as the automaton that
//! it was made from.

use std::collections::HashMap;

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::{start, syntax};
use regex_automata::{Anchored, MatchKind};

/// Most bytes that the automaton may take while it is built. Tables are far smaller.
const BUILD_LIMIT: usize = 512 * 1024;

/// The table. Matching states have the highest numbers; a state is matching if the text before the byte that led to it
/// is a match, hence the end of the text counts as one more byte. Half a cache line, and behind it one block: of
/// thousands of tables none is at hand, and one that lay in several places would cost a miss for each of them in turn.
#[derive(Debug)]
#[repr(align(32))]
pub(super) struct Table {
    /// First the class of each byte, then `next[state + class]` in two bytes each, a state being the index of its row.
    /// The last class is the end of the text.
    block: Box<[u8]>,
    classes: u16,
    start: u16,
    first_match: u16,
    /// Bytes that lie behind at the start.
    skipped: u16,
    /// The end of the best match among the skipped bytes, [`NEVER`] if there is none.
    early: u16,
}

const _: () = assert!(size_of::<Table>() == 32);

/// Where the rows begin in a block.
const ROWS: usize = 256;
/// No literal is as long.
const NEVER: u16 = u16::MAX;

/// From here no match begins or goes on.
const DEAD: u16 = 0;

impl Table {
    /// The table for `source`, if it is small enough. The run will start behind `literal`, with which every match must
    /// begin if it is not empty.
    pub(super) fn build(source: &str, anchored: bool, ignore_case: bool, literal: &[u8]) -> Option<Table> {
        let start_kind = if anchored { StartKind::Anchored } else { StartKind::Unanchored };
        let dfa = dense::Builder::new()
            .configure(
                dense::Config::new()
                    .start_kind(start_kind)
                    .match_kind(MatchKind::LeftmostFirst)
                    .dfa_size_limit(Some(BUILD_LIMIT))
                    .determinize_size_limit(Some(4 * BUILD_LIMIT)),
            )
            .syntax(syntax::Config::new().unicode(false).utf8(false).case_insensitive(ignore_case))
            .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(4 * BUILD_LIMIT)))
            .build(source)
            .ok()?;
        let anchored = if anchored { Anchored::Yes } else { Anchored::No };
        let mut state = dfa.start_state(&start::Config::new().anchored(anchored)).ok()?;
        let mut early = None;
        for (at, &byte) in literal.iter().enumerate() {
            state = dfa.next_state(state, byte);
            if dfa.is_match_state(state) {
                early = Some(at);
            }
        }
        let skipped = u16::try_from(literal.len()).ok().filter(|&len| len < NEVER)?;
        Table::from_states(&dfa, state, skipped, early.map_or(NEVER, |at| at as u16))
    }

    /// Copies what can be reached from `start`.
    fn from_states(dfa: &dense::DFA<Vec<u32>>, start: StateID, skipped: u16, early: u16) -> Option<Table> {
        let (class_of, samples) = classes(dfa);
        let classes = samples.len() + 1;
        let mut numbers: HashMap<StateID, usize> = HashMap::from([(start, 0)]);
        let mut states = vec![start];
        let mut rows: Vec<usize> = Vec::new();
        let mut at = 0;
        while at < states.len() {
            let state = states[at];
            let by_byte = samples.iter().map(|&byte| dfa.next_state(state, byte));
            for next in by_byte.chain([dfa.next_eoi_state(state)]) {
                let fresh = states.len();
                let number = *numbers.entry(next).or_insert(fresh);
                if number == fresh {
                    states.push(next);
                }
                rows.push(number);
            }
            at += 1;
        }
        // Renumbered: the dead state first, whether reached or not, then the others, then those that match.
        let is_match = |number: &usize| dfa.is_match_state(states[*number]);
        let (matching, others): (Vec<usize>, Vec<usize>) =
            (0..states.len()).filter(|&number| !dfa.is_dead_state(states[number])).partition(is_match);
        let order: Vec<usize> = others.iter().chain(&matching).copied().collect();
        // All rows lie within 16 bits, hence so do the casts below.
        u16::try_from((order.len() + 1) * classes).ok()?;
        let mut new_number = vec![DEAD; states.len()];
        for (new, &old) in (1..).zip(&order) {
            new_number[old] = (new * classes) as u16;
        }
        let mut block = class_of.to_vec();
        block.extend(std::iter::repeat_n(DEAD, classes).flat_map(u16::to_le_bytes));
        for &old in &order {
            let row = rows[old * classes..][..classes].iter().map(|&to| new_number[to]);
            block.extend(row.flat_map(u16::to_le_bytes));
        }
        Some(Table {
            block: block.into(),
            classes: classes as u16,
            start: new_number[0],
            first_match: ((others.len() + 1) * classes) as u16,
            skipped,
            early,
        })
    }

    /// The end of the leftmost match in `text`, which must begin with the literal that the table was built for.
    #[inline]
    pub(super) fn end_of_match(&self, text: &[u8]) -> Option<usize> {
        let mut state = self.start;
        let mut end = (self.early != NEVER).then_some(usize::from(self.early));
        for (at, &byte) in text.iter().enumerate().skip(usize::from(self.skipped)) {
            state = self.next(state, u16::from(self.block[usize::from(byte)]));
            if state >= self.first_match {
                end = Some(at);
            }
            if state == DEAD {
                return end;
            }
        }
        if self.next(state, self.classes - 1) >= self.first_match { Some(text.len()) } else { end }
    }

    #[inline]
    fn next(&self, state: u16, class: u16) -> u16 {
        let at = ROWS + 2 * (usize::from(state) + usize::from(class));
        u16::from_le_bytes([self.block[at], self.block[at + 1]])
    }
}

/// Classes of bytes that the automaton does not tell apart, and one byte of each.
fn classes(dfa: &dense::DFA<Vec<u32>>) -> ([u8; 256], Vec<u8>) {
    let mut class_of = [0; 256];
    let mut samples: Vec<u8> = Vec::new();
    let mut class_numbers: HashMap<u8, u8> = HashMap::new();
    for byte in 0..=255_u8 {
        let class = dfa.byte_classes().get(byte);
        let fresh = samples.len() as u8;
        let number = *class_numbers.entry(class).or_insert(fresh);
        if number == fresh {
            samples.push(byte);
        }
        class_of[usize::from(byte)] = number;
    }
    (class_of, samples)
}
