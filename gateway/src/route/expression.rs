//! One regular expression, compiled so that a shard may run it: a table that is only read, hence needs no cache, no
//! lock and no allocation.
//!
//! Owns compilation and the two facts about an expression that the tables use (its literal prefix, and whether the
//! prefix alone decides). Never decides precedence. Invariant: the table and the engine that finds groups agree on
//! whether and up to where an expression matches.
//!
//! Expressions run over bytes with ASCII classes (PCRE without UTF, which is what Kong's users wrote them for), and
//! stay small that way. The few whose table would be too large run on the `regex` crate's engine, which keeps caches
//! in a pool that shards share; they are reported as heavy.

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::literal::{ExtractKind, Extractor};
use regex_syntax::hir::{Hir, HirKind};

use super::automaton::Table;

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression {
    engine: Engine,
    /// Kept where somebody asks for groups; finds what they matched.
    groups: Option<Regex>,
    /// Every match starts with these bytes.
    literal: Vec<u8>,
    /// Everything that starts with `literal` matches.
    literal_decides: bool,
}

#[derive(Debug)]
enum Engine {
    Table(Table),
    Heavy(Regex),
}

/// Where an expression must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// From the first byte, case as written: paths.
    Start,
    /// Anywhere, without regard to case: header values.
    Anywhere,
    /// Anywhere, case as written: Traefik's rules.
    Within,
}

impl Expression {
    /// Compiles `source`; the error is the parser's text.
    pub(super) fn compile(source: &str, place: Place) -> Result<Expression, String> {
        let hir = regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .case_insensitive(place == Place::Anywhere)
            .build()
            .parse(source)
            .map_err(|error| error.to_string())?;
        let (literal, literal_decides) = match place {
            Place::Start => literal_prefix(&hir),
            Place::Anywhere | Place::Within => (Vec::new(), false),
        };
        let (anchored, ignore_case) = (place == Place::Start, place == Place::Anywhere);
        let engine = match Table::build(source, anchored, ignore_case, &literal) {
            Some(table) => Engine::Table(table),
            None => Engine::Heavy(general(source, place)?),
        };
        Ok(Expression { engine, groups: None, literal, literal_decides })
    }

    /// Makes [`Expression::captures`] give more than the whole match. Takes some 10 KiB.
    pub(super) fn keep_groups(&mut self, source: &str, place: Place) -> Result<(), String> {
        if self.groups.is_none() {
            self.groups = Some(general(source, place)?);
        }
        Ok(())
    }

    /// Whether it matches, wherever `place` lets it.
    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        self.end_of_match(text).is_some()
    }

    /// The end of the leftmost match.
    pub(super) fn end_of_match(&self, text: &[u8]) -> Option<usize> {
        text.starts_with(&self.literal).then(|| self.end_of_match_behind_literal(text)).flatten()
    }

    /// The same for a text that is known to begin with [`Expression::literal`].
    #[inline]
    pub(super) fn end_of_match_behind_literal(&self, text: &[u8]) -> Option<usize> {
        match &self.engine {
            Engine::Table(table) => table.end_of_match(text),
            Engine::Heavy(regex) => regex.find(text).map(|found| found.end()),
        }
    }

    /// Names and ranges of all groups, the whole match first.
    pub(super) fn captures(&self, text: &[u8]) -> Vec<(Option<String>, Option<Range<usize>>)> {
        let Some(regex) = &self.groups else {
            return self.end_of_match(text).map(|end| (None, Some(0..end))).into_iter().collect();
        };
        let Some(captures) = regex.captures(text) else { return Vec::new() };
        let names = regex.capture_names().map(|name| name.map(str::to_owned));
        names.zip(captures.iter()).map(|(name, group)| (name, group.map(|found| found.range()))).collect()
    }

    /// The bytes with which every match starts.
    pub(super) fn literal(&self) -> &[u8] {
        &self.literal
    }

    /// Whether everything that starts with [`Expression::literal`] matches.
    pub(super) fn literal_decides(&self) -> bool {
        self.literal_decides
    }

    /// Whether it runs on the general engine.
    pub(super) fn is_heavy(&self) -> bool {
        matches!(self.engine, Engine::Heavy(_))
    }
}

fn general(source: &str, place: Place) -> Result<Regex, String> {
    let build = |text: &str| {
        RegexBuilder::new(text).unicode(false).case_insensitive(place == Place::Anywhere).build()
    };
    match place {
        Place::Anywhere | Place::Within => build(source),
        // A group of its own, so that the anchor holds for every branch of an alternation. The line feed ends a
        // closing comment of `(?x)`, the only thing that can make a valid expression invalid in a group.
        Place::Start => build(&format!("^(?:{source})")).or_else(|_| build(&format!("^(?:{source}\n)"))),
    }
    .map_err(|error| error.to_string())
}

/// The common prefix of all matches, and whether having it is enough to match.
fn literal_prefix(hir: &Hir) -> (Vec<u8>, bool) {
    if let Some(literal) = decided_by_literal(hir) {
        return (literal, true);
    }
    let mut extractor = Extractor::new();
    extractor.kind(ExtractKind::Prefix);
    let literals = extractor.extract(hir);
    (literals.longest_common_prefix().unwrap_or_default().to_vec(), false)
}

/// `Some(L)` if the expression is the literal `L` followed by what may match nothing: then every text that starts
/// with `L` matches. Look-around is excluded, since `^/a$` also has a minimum of nothing after its literal.
fn decided_by_literal(hir: &Hir) -> Option<Vec<u8>> {
    let parts = match hir.kind() {
        HirKind::Concat(parts) => parts.as_slice(),
        _ => std::slice::from_ref(hir),
    };
    let mut literal = Vec::new();
    let mut rest = parts.iter();
    for part in rest.by_ref() {
        match part.kind() {
            HirKind::Literal(bytes) => literal.extend_from_slice(&bytes.0),
            HirKind::Look(regex_syntax::hir::Look::Start) if literal.is_empty() => {}
            _ if may_be_nothing(part) => break,
            _ => return None,
        }
    }
    rest.all(may_be_nothing).then_some(literal)
}

fn may_be_nothing(hir: &Hir) -> bool {
    let properties = hir.properties();
    properties.minimum_len() == Some(0) && properties.look_set().is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(source: &str) -> Expression {
        Expression::compile(source, Place::Start).unwrap()
    }

    #[test]
    fn paths_match_from_the_first_byte_and_need_not_reach_the_last() {
        let check = |source: &str, text: &str, expected: Option<usize>| {
            assert_eq!(path(source).end_of_match(text.as_bytes()), expected, "{source} {text}");
        };
        check(r"/users/\d+", "/users/12/orders", Some(9));
        check(r"/users/\d+", "/x/users/12", None);
        check(r"/users/\d+$", "/users/12/orders", None);
        check(r"^/users", "/users", Some(6));
        check("/a|/b", "/b", Some(2));
        check("/a|/b", "/x/b", None);
        check("/a|/ab", "/ab", Some(2));
        check("(?i)/API", "/api/x", Some(4));
        check("/.*", "/\u{fc}", Some(3));
        check("", "/", Some(0));
    }

    #[test]
    fn header_values_match_anywhere_without_case() {
        let agent = Expression::compile(r"windows|linux|os\s+x\s*[\d\._]+", Place::Anywhere).unwrap();
        assert!(agent.is_match(b"Mozilla (X11; Linux)"));
        assert!(agent.is_match(b"Mozilla (OS  X 10_1)"));
        assert!(!agent.is_match(b"Mozilla (Plan 9)"));
        // Kong lower-cases the whole expression, which turns \S into \s.
        assert!(Expression::compile(r"^a\Sb$", Place::Anywhere).unwrap().is_match(b"AxB"));
    }

    #[test]
    fn literal_prefixes_are_found_and_never_too_long() {
        let check = |source: &str, literal: &str, decides: bool| {
            let compiled = path(source);
            let found = (String::from_utf8(compiled.literal.clone()).unwrap(), compiled.literal_decides);
            assert_eq!(found, (literal.to_owned(), decides), "{source}");
        };
        check(r"/users/\d+/orders", "/users/", false);
        check("^/users/(a|b)", "/users/", false);
        check("/a|/b", "/", false);
        check("(?i)/api", "/", false);
        check("/api", "/api", true);
        check("/api.*", "/api", true);
        check("/api(/.*)?", "/api", true);
        check("/api$", "/api", false);
        check("/api/?$", "/api", false);
        check(r"/api\b", "/api", false);
        check(".*", "", true);
        check("/.+", "/", false);
        check("/ab*", "/a", true);
        check("(/a)(/b)", "/a/b", false);
        check(r"\d+", "", false);
    }

    #[test]
    fn a_huge_automaton_falls_back_and_still_matches() {
        let heavy = path("/[ab]*a[ab]{24}$");
        assert!(heavy.is_heavy());
        let text = format!("/bba{}", "b".repeat(24));
        assert!(heavy.is_match(text.as_bytes()));
        assert!(!heavy.is_match(b"/bbb"));
        assert!(!path(r"/users/\d+").is_heavy());
    }

    #[test]
    fn captures_have_names_and_ranges() {
        let captures = |source: &str, text: &str| {
            let mut compiled = path(source);
            compiled.keep_groups(source, Place::Start).unwrap();
            compiled.captures(text.as_bytes())
        };
        let groups = captures(r"/version/(?<version>\d+)/users/(?<user>\S+)", "/version/1/users/john");
        let expected = [(None, 0..21), (Some("version"), 9..10), (Some("user"), 17..21)];
        let expected: Vec<_> =
            expected.into_iter().map(|(name, range)| (name.map(str::to_owned), Some(range))).collect();
        assert_eq!(groups, expected);
        assert_eq!(path("/a").captures(b"/ab"), [(None, Some(0..2))]);
        assert_eq!(path("/(a)").captures(b"/ab"), [(None, Some(0..2))], "not asked for groups");
        assert_eq!(captures("(?x) /a (b) # closes here", "/ab")[1], (None, Some(2..3)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        /// Random expressions and texts from few letters, so that they match often and in odd ways.
        #[test]
        fn the_table_agrees_with_the_general_engine(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "/", "a", "b", "ab", "a*", "b+?", "(a|ab)", "(ab|a)", "[ab]", "[^a]", ".", ".*", ".*?", "(/b)?",
                    "a{2}", "$", "^", r"\b", "(?i:A)", "|", r"\d", "()",
                ]),
                0..6,
            ),
            texts in prop::collection::vec("[ab/A1\n]{0,7}", 8),
        ) {
            let source = parts.concat();
            for place in [Place::Start, Place::Anywhere] {
                let compiled = Expression::compile(&source, place).unwrap();
                let engine = general(&source, place).unwrap();
                prop_assert!(!compiled.is_heavy());
                for text in &texts {
                    let expected = engine.find(text.as_bytes()).map(|found| found.end());
                    prop_assert_eq!(compiled.end_of_match(text.as_bytes()), expected, "{} {:?}", source, text);
                    prop_assert!(expected.is_none() || text.as_bytes().starts_with(compiled.literal()));
                    if compiled.literal_decides() && text.as_bytes().starts_with(compiled.literal()) {
                        prop_assert!(expected.is_some(), "{} {:?}", source, text);
                    }
                }
            }
        }
    }
}
