//! Configuration text and places in it.
//!
//! Owns the texts that were read, and turns a place into the line a person sees. It never opens a file
//! (`load` does). Invariant: a [`Span`] made for a [`Sources`] always falls inside one of its texts.

#![allow(
    clippy::disallowed_types,
    reason = "no shard takes the lock: only who loads, compiles or reports reads a text"
)]

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// Which text of a [`Sources`] a span belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A place in a configuration text.
///
/// `line` and `column` count from 1, columns in characters; `start` and `end` are byte offsets. The line and
/// column are kept beside the offsets so that printing a place needs no second walk over the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// The text.
    pub file: FileId,
    /// Line of the first byte, from 1; 0 means that the place is not in any text (a default, a whole file).
    pub line: u32,
    /// Column of the first byte, from 1, in characters.
    pub column: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// A place for a whole text, for errors that belong to no line.
    pub const fn of_file(file: FileId) -> Self {
        Self { file, line: 0, column: 0, start: 0, end: 0 }
    }

    /// Whether the span names a line.
    pub const fn is_in_text(&self) -> bool {
        self.line != 0
    }
}

/// Where a part of the validated model was written: enough to point at it in a later error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The place in the text.
    pub span: Span,
    /// The way to it from the top, as in `services[0].routes[1]`.
    pub path: String,
}

/// One configuration text.
pub struct Source {
    /// The name shown in errors, usually the path as it was given.
    pub name: String,
    text: RwLock<Arc<Text>>,
}

/// What stands in a text.
#[derive(Default)]
pub struct Text {
    text: String,
    /// Byte offset of the first byte of each line.
    lines: Vec<u32>,
}

impl Source {
    fn new(name: String, text: String) -> Self {
        // YAML 1.2 section 5.4: a line ends at LF, CR LF, or a CR alone.
        let bytes = text.as_bytes();
        let ends = |at: usize| bytes[at] == b'\n' || bytes[at] == b'\r' && bytes.get(at + 1) != Some(&b'\n');
        let starts = (0..bytes.len()).filter(|at| ends(*at)).map(|at| at as u32 + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        Self { name, text: RwLock::new(Arc::new(Text { text, lines })) }
    }

    /// The text, empty once it is forgotten.
    pub fn text(&self) -> Arc<Text> {
        Arc::clone(&self.text.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn forget(&self) {
        *self.text.write().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }
}

impl Text {
    /// The whole of it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Line `number` (from 1) without its line break; empty when there is no such line.
    pub fn line(&self, number: u32) -> &str {
        self.line_at(number).1
    }

    /// The same with the byte offset of its beginning.
    pub fn line_at(&self, number: u32) -> (u32, &str) {
        let Some(index) = number.checked_sub(1).map(|n| n as usize) else { return (0, "") };
        let Some(start) = self.lines.get(index) else { return (0, "") };
        let rest = self.text.get(*start as usize..).unwrap_or("");
        (*start, rest.split(['\r', '\n']).next().unwrap_or(""))
    }
}

/// The text is left out: it may hold secrets, and a `Config` carries it along.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({:?}, {} bytes)", self.name, self.text().text.len())
    }
}

/// Every text of one load, in the order of reading.
#[derive(Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
}

impl Sources {
    /// Adds a text and returns its id. The caller bounds its length below 4 GiB (`parse` does).
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> FileId {
        let id = FileId(self.files.len() as u32);
        self.files.push(Source::new(name.into(), text.into()));
        id
    }

    /// Gives the texts back: they hold every secret, and a large one takes as much memory as what it means. Names and
    /// places stay, but no line can be shown any more.
    pub fn forget_texts(&self) {
        self.files.iter().for_each(Source::forget);
    }

    /// The text with this id; `None` for an id of another `Sources`.
    pub fn get(&self, id: FileId) -> Option<&Source> {
        self.files.get(id.0 as usize)
    }

    /// All texts in the order of reading.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.files.iter()
    }

    /// The name of a text, `"?"` for an unknown id.
    pub fn name(&self, id: FileId) -> &str {
        self.get(id).map_or("?", |source| source.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_with_every_line_break() {
        let mut sources = Sources::default();
        let id = sources.add("a.yaml", "one\r\ntwo\n\nfour\rfive");
        let text = sources.get(id).unwrap().text();
        let lines: Vec<_> = (0..7).map(|n| text.line(n)).collect();
        assert_eq!(lines, ["", "one", "two", "", "four", "five", ""]);
        sources.forget_texts();
        assert_eq!((sources.get(id).unwrap().text().line(2), sources.name(id)), ("", "a.yaml"));
    }
}
