//! Rust text as tidy sees it: the same length and the same lines, but with comments and the insides of
//! literals blanked, so that a rule can look for a word or count a brace without being fooled.
//!
//! It is a lexer, not a parser: it never fails, whatever the input. Invariant: the blanked text has the
//! line breaks of the original at the same byte offsets.

/// Replaces comments and the contents of string and character literals by spaces.
pub fn blank(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if starts_literal(bytes, at) => match raw_string_end(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            b'\'' => match char_end(text, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    // Whole literals and comments were replaced, so no character was cut; lossy never loses here.
    String::from_utf8_lossy(&out).into_owned()
}

/// True where `text[at..]` starts with `word` and neither side continues it.
pub fn is_word_at(text: &str, at: usize, word: &str) -> bool {
    let bytes = text.as_bytes();
    bytes[at..].starts_with(word.as_bytes())
        && !follows_word(bytes, at)
        && !bytes.get(at + word.len()).is_some_and(|b| is_word_byte(*b))
}

/// Offsets of `word` as a whole word.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |at| is_word_at(text, *at, word))
}

/// The line of a byte offset, from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1
}

/// The offset just past the brace that closes the one at `open`, in blanked text.
pub fn close_of(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Byte ranges of modules that exist only under test, in blanked text.
pub fn test_regions(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("#[cfg(test)]") {
        let Some(open) = text[at..].find('{').map(|n| at + n) else { continue };
        // `#[cfg(test)] mod tests;` or a `use`: nothing in this file belongs to it.
        if text[at..open].contains(';') {
            continue;
        }
        if let Some(end) = close_of(text, open) {
            found.push(at..end);
        }
    }
    found
}

pub fn is_word_byte(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || byte >= 0x80
}

fn follows_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && is_word_byte(bytes[at - 1])
}

/// An `r` that may open a raw string: alone, or after the `b` or `c` of a byte or C string.
fn starts_literal(bytes: &[u8], at: usize) -> bool {
    !follows_word(bytes, at) || (matches!(bytes[at - 1], b'b' | b'c') && !follows_word(bytes, at - 1))
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0usize;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `r"…"`, `r#"…"#` and so on; `None` where the `r` starts something else (`r#ident` too).
fn raw_string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let hashes = bytes[start + 1..].iter().take_while(|b| **b == b'#').count();
    let open = start + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.extend(std::iter::repeat_n(b'#', hashes));
    let found = bytes[open + 1..].windows(close.len()).position(|w| w == close);
    Some(found.map_or(bytes.len(), |n| open + 1 + n + close.len()))
}

/// The end of a character literal; `None` for a lifetime or a loop label.
fn char_end(text: &str, start: usize) -> Option<usize> {
    let inside = &text[start + 1..];
    if inside.starts_with('\\') {
        // The search begins past the escaped character itself, which may be a quote.
        let tail = text.as_bytes().get(start + 3..)?;
        return tail.iter().position(|b| *b == b'\'').map(|n| start + 3 + n + 1);
    }
    let first = inside.chars().next()?;
    let end = start + 1 + first.len_utf8();
    text[end..].starts_with('\'').then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: &str) {
        let got = blank(input);
        assert_eq!(got, expected);
        assert_eq!(got.len(), input.len());
    }

    #[test]
    fn comments_go() {
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check("//! doc\n/// more", "       \n        ");
    }

    #[test]
    fn literals_go() {
        check(r#"f("}{\"", x)"#, "f(      , x)");
        check(r##"f(r#"a"}"#, x)"##, "f(        , x)");
        check(r##"f(b"{", br"}")"##, "f(b   , b    )");
    }

    #[test]
    fn characters_go_and_lifetimes_stay() {
        check("'{' '\\'' '\\u{7d}' 'é'", "                      ");
        check("fn f<'a>(x: &'a str) { 'l: loop {} }", "fn f<'a>(x: &'a str) { 'l: loop {} }");
    }

    #[test]
    fn an_unclosed_literal_ends_with_the_text() {
        check("a \"b", "a   ");
        check("a /* b", "a     ");
    }

    #[test]
    fn test_modules_are_found_and_declarations_are_not() {
        let text = "#[cfg(test)]\nmod tests;\nfn a() {}\n#[cfg(test)]\nmod t { fn b() {} }\nfn c() {}\n";
        let regions = test_regions(text);
        assert_eq!(regions.len(), 1);
        assert_eq!(&text[regions[0].clone()], "#[cfg(test)]\nmod t { fn b() {} }");
    }
}
