//! YAML text to a [`Node`] tree.
//!
//! Owns the walk over the parser's events: places, anchors and aliases, merge keys, substitution, and the
//! refusal of what YAML allows and a configuration must not hold (duplicate keys, keys that are not text, foreign
//! tags). JSON is read as the subset of YAML that it is. It never interprets a value.
//! Invariant: work and memory are bounded by [`MAX_TEXT`], [`MAX_DEPTH`] and [`MAX_ALIASED`], whatever the text.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use saphyr_parser::{Event, Parser as Events, ScalarStyle, ScanError, Span as Marks, StrInput, Tag};

use crate::diagnostic::{Diagnostics, Fault};
use crate::environment::{Environment, substitute};
use crate::node::{Entry, Node, Scalar, Value};
use crate::source::{FileId, Span};

/// Largest text of one file, in bytes. A hundred thousand routes take about thirty million.
pub const MAX_TEXT: usize = 64 << 20;

/// Deepest nesting. The deepest meaningful place in a configuration is about ten.
pub const MAX_DEPTH: usize = 48;

/// Most documents of one file.
pub const MAX_DOCUMENTS: usize = 100_000;

/// Most nodes and text bytes that aliases may add to one file: what stops "a billion laughs".
pub const MAX_ALIASED: usize = 1 << 20;

/// Parses one text into its documents, at least one. Errors go to `found`; `None` means that nothing could be made of
/// it.
pub(crate) fn parse(
    file: FileId,
    folder: &Path,
    environment: &dyn Environment,
    found: &Diagnostics,
) -> Option<Vec<Node>> {
    let whole = Span::of_file(file);
    let sources = found.sources().clone();
    let text = sources.get(file)?.text();
    let text = text.as_str();
    if text.len() > MAX_TEXT {
        found.error(whole, "", format!("the file has {} bytes, more than {MAX_TEXT}", text.len()));
        return None;
    }
    let mut tree = Tree::new(file, text, folder, environment, found);
    // The scanner asserts its own invariants. A reload must survive a text that breaks one of them.
    match catch_unwind(AssertUnwindSafe(|| tree.documents())) {
        Ok(Ok(nodes)) => Some(nodes),
        Ok(Err(Stop)) => None,
        Err(_) => {
            found.error(whole, "", "the YAML parser failed on this text");
            None
        }
    }
}

/// The text cannot be read further; why has been reported.
struct Stop;

struct Tree<'a> {
    events: Events<'a, StrInput<'a>>,
    file: FileId,
    folder: &'a Path,
    environment: &'a dyn Environment,
    found: &'a Diagnostics,
    /// Byte offset of each character, empty for ASCII where the two are one: the parser counts characters.
    offsets: Vec<u32>,
    text: &'a str,
    /// Finished anchors with the number of nodes and text bytes below each.
    anchors: HashMap<usize, (Node, usize)>,
    /// Nodes and text bytes read so far, aliases expanded.
    read: usize,
    aliased: usize,
    /// What has been read of the lists and maps around the place, each behind those around it: a finished one is copied
    /// out in its exact size. A million small maps would waste most of their memory otherwise.
    items: Vec<Node>,
    entries: Vec<Entry>,
}

/// A map of more keys has an index.
const FEW_KEYS: usize = 16;

/// The keys of one map being read.
struct Keys {
    /// Its first entry among those of [`Tree::entries`].
    start: usize,
    /// Where each stands, once there are more than [`FEW_KEYS`].
    places: HashMap<String, Span>,
}

impl<'a> Tree<'a> {
    fn new(
        file: FileId,
        text: &'a str,
        folder: &'a Path,
        environment: &'a dyn Environment,
        found: &'a Diagnostics,
    ) -> Self {
        let offsets = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices().map(|(at, _)| at as u32).chain([text.len() as u32]).collect()
        };
        Self {
            events: Events::new_from_str(text),
            file,
            folder,
            environment,
            found,
            offsets,
            text,
            anchors: HashMap::new(),
            read: 0,
            aliased: 0,
            items: Vec::new(),
            entries: Vec::new(),
        }
    }

    fn documents(&mut self) -> Result<Vec<Node>, Stop> {
        let mut roots = Vec::new();
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                _ if roots.len() == MAX_DOCUMENTS => {
                    return self
                        .stop(span, Fault::new(format!("more than {MAX_DOCUMENTS} documents in one file")));
                }
                event => {
                    let node = self.node(event, span, 0)?;
                    // What stands between two separators with nothing in it is no document.
                    if !node.is_null() {
                        roots.push(node);
                    }
                }
            }
        }
        if roots.is_empty() {
            roots.push(Node { span: Span::of_file(self.file), value: Value::Null });
        }
        Ok(roots)
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Stop> {
        match self.events.next_event() {
            Some(Ok((event, marks))) => Ok((event, self.span(marks))),
            Some(Err(error)) => self.scan_error(&error),
            None => Ok((Event::StreamEnd, Span::of_file(self.file))),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Stop> {
        if depth > MAX_DEPTH {
            return self.stop(span, Fault::new(format!("nested more than {MAX_DEPTH} levels deep")));
        }
        self.read += 1;
        let before = self.read;
        let (anchor, value) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, self.scalar(&text, style, tag.as_deref(), span))
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "seq", span);
                (anchor, self.list(depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "map", span);
                (anchor, self.map(depth)?)
            }
            _ => return self.stop(span, Fault::new("a value is missing here")),
        };
        let node = Node { span, value };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.read - before + 1));
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Stop> {
        let Some((node, weight)) = self.anchors.get(&anchor) else {
            return self.stop(span, Fault::new("an alias may not stand inside its own anchor"));
        };
        self.aliased += weight;
        self.read += weight;
        if self.aliased > MAX_ALIASED {
            return self.stop(span, Fault::new("aliases expand to more than a configuration can hold"));
        }
        Ok(node.clone())
    }

    fn list(&mut self, depth: usize) -> Result<Value, Stop> {
        let start = self.items.len();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Value::List(self.items.split_off(start)));
            }
            let node = self.node(event, span, depth + 1)?;
            self.items.push(node);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Stop> {
        let mut keys = Keys { start: self.entries.len(), places: HashMap::new() };
        let mut merged: Vec<Node> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = self.node(event, span, depth + 1)?;
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span, depth + 1)?;
            if merge {
                merged.push(value);
                continue;
            }
            let name = match key.value {
                Value::Scalar(scalar) if !scalar.secret => scalar.text,
                Value::Null => "null".to_owned(),
                _ => {
                    self.found.error(span, "", "a key must be a plain text");
                    continue;
                }
            };
            if let Some(first) = self.place_of(&keys, &name) {
                let fault = Fault::new(format!("the key `{name}` is given twice"))
                    .hint(format!("it was first given at {}", self.found.place(first)));
                self.found.error(span, "", fault);
                continue;
            }
            self.add(&mut keys, Entry { name, name_span: span, value });
        }
        for node in merged {
            self.merge(&mut keys, node);
        }
        Ok(Value::Map(self.entries.split_off(keys.start)))
    }

    /// Where a key of the map is, if it is there.
    fn place_of(&self, keys: &Keys, name: &str) -> Option<Span> {
        if !keys.places.is_empty() {
            return keys.places.get(name).copied();
        }
        self.entries[keys.start..].iter().find(|entry| entry.name == name).map(|entry| entry.name_span)
    }

    fn add(&mut self, keys: &mut Keys, entry: Entry) {
        self.entries.push(entry);
        let all = &self.entries[keys.start..];
        if all.len() > FEW_KEYS {
            let fresh = if keys.places.is_empty() { all } else { &all[all.len() - 1..] };
            keys.places.extend(fresh.iter().map(|entry| (entry.name.clone(), entry.name_span)));
        }
    }

    /// `<<`: keys of the map itself win, then those of earlier merged maps (the YAML merge key type).
    fn merge(&mut self, keys: &mut Keys, node: Node) {
        let maps = match node.value {
            Value::Map(_) => vec![node],
            Value::List(items) => items,
            _ => vec![node],
        };
        for map in maps {
            let Value::Map(new) = map.value else {
                self.found.error(map.span, "", "`<<` takes a map or a list of maps");
                continue;
            };
            for entry in new {
                if self.place_of(keys, &entry.name).is_none() {
                    self.add(keys, entry);
                }
            }
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Value {
        let tagged = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
        self.check_tag(tag, "scalar", span);
        let quoted = style != ScalarStyle::Plain || tagged;
        if !quoted && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
            return Value::Null;
        }
        let scalar = match substitute(text, self.folder, self.environment) {
            Ok(Some(new)) => Scalar { text: new.text, quoted, secret: new.secret, unresolved: false },
            Ok(None) => Scalar { text: text.to_owned(), quoted, secret: false, unresolved: false },
            Err(fault) => {
                self.found.error(span, "", fault);
                Scalar { text: text.to_owned(), quoted, secret: true, unresolved: true }
            }
        };
        self.read += scalar.text.len();
        Value::Scalar(scalar)
    }

    fn check_tag(&self, tag: Option<&Tag>, shape: &str, span: Span) {
        let Some(tag) = tag else { return };
        let known = match shape {
            "scalar" => matches!(tag.suffix.as_str(), "str" | "int" | "float" | "bool" | "null"),
            shape => tag.suffix == shape,
        };
        let plain = tag.handle.is_empty() && tag.suffix == "!";
        let core = tag.is_yaml_core_schema() && known;
        if !plain && !core {
            let shown = format!("{}{}", tag.handle, tag.suffix);
            self.found.error(span, "", format!("the tag {shown:?} means nothing here"));
        }
    }

    fn span(&self, marks: Marks) -> Span {
        let byte = |character: usize| match self.offsets.get(character) {
            Some(at) => *at,
            None => character.min(self.text.len()) as u32,
        };
        let (start, end) = (byte(marks.start.index()), byte(marks.end.index()));
        Span {
            file: self.file,
            line: marks.start.line() as u32,
            column: marks.start.col() as u32 + 1,
            start,
            end: end.max(start),
        }
    }

    fn scan_error<T>(&self, error: &ScanError) -> Result<T, Stop> {
        let marker = *error.marker();
        let span = self.span(Marks::empty(marker));
        let fault =
            Fault::new(format!("not valid YAML: {}", error.info())).maybe_hint(self.scan_hint(error, span));
        self.stop(span, fault)
    }

    /// A guess at what is behind an error of the scanner, from the line it stopped at.
    fn scan_hint(&self, error: &ScanError, span: Span) -> Option<String> {
        let text = self.found.sources().get(self.file)?.text();
        let line = text.line(span.line);
        if error.info().contains("tab") || line.trim_start_matches(' ').starts_with('\t') {
            return Some("indent with spaces; YAML does not allow tabs".into());
        }
        let value = line.trim_start().trim_start_matches("- ");
        let value = value.split_once(": ").map_or(value, |(_, value)| value).trim();
        let special = value.starts_with(['*', '&', '!', '%', '@', '`', '{', '[']);
        special.then(|| format!("quote the value when it is meant as text: `{value:?}`"))
    }

    fn stop<T>(&self, span: Span, fault: Fault) -> Result<T, Stop> {
        self.found.error(span, "", fault);
        Err(Stop)
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
