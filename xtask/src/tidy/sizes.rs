//! File and function length. A long file hides a second concept; a long function hides a phase.
//!
//! Dispatch is exempt: a function that is one `match` with little around it is as long as its enum.

use super::rust;
use super::{Finding, Source};

/// Lines a file may have.
const FILE_LINES: usize = 600;
/// Lines a function may have, signature and braces included.
const FUNCTION_LINES: usize = 70;
/// The same under test, where a table of cases or a story of steps is one piece.
const TEST_FUNCTION_LINES: usize = 120;
/// Lines that a dispatch function may have outside its one `match`.
const AROUND_MATCH_LINES: usize = 14;

/// Functions that are a sequence of named phases, read top to bottom: cutting one in two would hide the
/// order that it is there to show. With the lines each may have.
const SEQUENCES: [(&str, &str, usize); 1] = [("gateway/src/exchange/mod.rs", "carry", 120)];

pub fn file(source: &Source, found: &mut Vec<Finding>) {
    let lines = source.text.lines().count();
    if lines > FILE_LINES {
        found.push(Finding {
            path: source.path.clone(),
            line: lines,
            rule: "file-length",
            message: format!("{lines} lines, {FILE_LINES} at most: split by concept"),
        });
    }
}

pub fn functions(source: &Source, found: &mut Vec<Finding>) {
    let tests = rust::test_regions(&source.code);
    for at in rust::words(&source.code, "fn") {
        let Some((name, open)) = signature(&source.code, at) else { continue };
        let Some(end) = rust::close_of(&source.code, open) else { continue };
        let lines = newlines(&source.code[at..end]) + 1;
        let under_test = source.is_test() || tests.iter().any(|r| r.contains(&at));
        let sequence = SEQUENCES.iter().find(|s| s.0 == source.path && s.1 == name);
        let limit = match sequence {
            Some((_, _, lines)) => *lines,
            None if under_test => TEST_FUNCTION_LINES,
            None => FUNCTION_LINES,
        };
        if lines > limit && !is_dispatch(&source.code[open + 1..end - 1]) {
            let message = format!("`{name}` has {lines} lines, {limit} at most");
            found.push(source.finding(at, "function-length", message));
        }
    }
}

/// The name after `fn` and the offset of its body's brace; `None` for `fn` types and bodiless methods.
fn signature(code: &str, at: usize) -> Option<(&str, usize)> {
    let rest = code[at + 2..].trim_start();
    let name_len = rest.bytes().take_while(|b| rust::is_word_byte(*b)).count();
    if name_len == 0 {
        return None;
    }
    let start = code.len() - rest.len();
    let mut depth = 0i32;
    for (n, byte) in code.bytes().enumerate().skip(start + name_len) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some((&rest[..name_len], n)),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// True where all but a few lines of the body are one `match` at its top level.
fn is_dispatch(body: &str) -> bool {
    let total = newlines(body);
    let longest = rust::words(body, "match")
        .filter(|at| depth_at(body, *at) == 0)
        .filter_map(|at| {
            let open = body[at..].find('{').map(|n| at + n)?;
            let end = rust::close_of(body, open)?;
            Some(newlines(&body[at..end]))
        })
        .max()
        .unwrap_or(0);
    longest > 0 && total - longest <= AROUND_MATCH_LINES
}

fn depth_at(body: &str, at: usize) -> i32 {
    body.as_bytes()[..at].iter().fold(0, |depth, byte| match byte {
        b'{' => depth + 1,
        b'}' => depth - 1,
        _ => depth,
    })
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|b| *b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;

    #[test]
    fn a_file_may_have_600_lines() {
        assert!(findings(file, "a.rs", &"x\n".repeat(600)).is_empty());
        let found = findings(file, "a.rs", &"x\n".repeat(601));
        assert_eq!(found, ["601: 601 lines, 600 at most: split by concept"]);
    }

    fn function(lines: usize, inside: &str) -> String {
        let mut text = String::from("\nfn f<const N: usize>(a: [u8; N]) -> u8 {\n");
        text.push_str(&inside.repeat(lines));
        text.push_str("}\n");
        text
    }

    #[test]
    fn a_function_may_have_70_lines() {
        assert!(findings(functions, "gateway/src/a.rs", &function(68, "    g();\n")).is_empty());
        let found = findings(functions, "gateway/src/a.rs", &function(69, "    g();\n"));
        assert_eq!(found, ["2: `f` has 71 lines, 70 at most"]);
    }

    #[test]
    fn braces_in_text_are_not_counted() {
        assert!(findings(functions, "a.rs", &function(60, "    g(\"{{{\"); // {\n")).is_empty());
    }

    #[test]
    fn tests_may_be_longer() {
        let long = function(100, "    g();\n");
        assert_eq!(findings(functions, "gateway/src/a.rs", &long).len(), 1);
        assert!(findings(functions, "tests/suites/a.rs", &long).is_empty());
        let inside = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert!(findings(functions, "gateway/src/a.rs", &inside).is_empty());
        let longer = function(120, "    g();\n");
        assert_eq!(findings(functions, "tests/suites/a.rs", &longer).len(), 1);
    }

    #[test]
    fn a_sequence_has_its_own_limit() {
        let named = |lines| function(lines, "    g();\n").replace("fn f<", "fn carry<");
        assert!(findings(functions, "gateway/src/exchange/mod.rs", &named(110)).is_empty());
        assert_eq!(findings(functions, "gateway/src/exchange/mod.rs", &named(130)).len(), 1);
        assert_eq!(findings(functions, "gateway/src/exchange/relay.rs", &named(110)).len(), 1);
    }

    #[test]
    fn dispatch_is_exempt() {
        let arms = "        A => {\n            g();\n        }\n".repeat(40);
        let dispatch = format!("fn f() {{\n    let x = y();\n    match x {{\n{arms}    }}\n}}\n");
        assert!(findings(functions, "gateway/src/a.rs", &dispatch).is_empty());
        let around = "    g();\n".repeat(20);
        let mixed = format!("fn f() {{\n{around}    match x {{\n{arms}    }}\n}}\n");
        assert_eq!(findings(functions, "gateway/src/a.rs", &mixed).len(), 1);
        let nested = format!("fn f() {{\n    for x in y {{\n    match x {{\n{arms}    }}\n}}\n}}\n");
        assert_eq!(findings(functions, "gateway/src/a.rs", &nested).len(), 1);
    }

    #[test]
    fn function_types_and_trait_methods_have_no_body() {
        let text = "type F = fn(u8) -> u8;\ntrait T { fn a(&self) -> [u8; 4]; }\n";
        assert!(findings(functions, "a.rs", text).is_empty());
    }
}
