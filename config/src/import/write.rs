//! Trees as YAML text, with findings as comments beside what they are about.
//!
//! Owns quoting. Invariant: what is written reads as the same tree, but for keys that are null.

use std::fmt::Write as _;

use crate::diagnostic::Diagnostic;
use crate::node::{Entry, Node, Scalar, Value};
use crate::source::{Sources, Span};

/// The text of a tree whose top is a map. Each note stands before the key or item that it is about, else before the
/// first one of its line; what belongs to no line that is left stands at the top.
pub(crate) fn write(tree: &Node, notes: &[Diagnostic], sources: &Sources) -> String {
    let mut writer = Writer { out: String::new(), notes, sources, points: Vec::new(), placed: None, at: 0 };
    // Once to learn which places there are, once to write.
    writer.map(tree.entries(), 0);
    let (placed, homeless) = writer.place();
    (writer.out, writer.placed) = (String::new(), Some(placed));
    writer.map(tree.entries(), 0);
    let mut text = String::new();
    homeless.into_iter().for_each(|note| comment(&mut text, &notes[note], 0));
    if !text.is_empty() {
        text.push('\n');
    }
    text + &writer.out
}

struct Writer<'n> {
    out: String,
    notes: &'n [Diagnostic],
    sources: &'n Sources,
    /// Where a comment could stand: of the key, of the value, and whether the value is a single one.
    points: Vec<(Span, Span, bool)>,
    /// The notes of each point, once they are known.
    placed: Option<Vec<Vec<usize>>>,
    /// Points passed while writing.
    at: usize,
}

impl Writer<'_> {
    fn map(&mut self, entries: &[Entry], indent: usize) {
        for entry in entries.iter().filter(|entry| !entry.value.is_null()) {
            self.notes_at(&entry.value, entry.name_span, indent);
            self.pad(indent);
            self.entry(entry, indent);
        }
    }

    /// A key and its value; the line is begun.
    fn entry(&mut self, entry: &Entry, indent: usize) {
        self.out.push_str(&key(&entry.name));
        self.out.push(':');
        self.value(&entry.value, indent + 2);
    }

    /// What follows a colon or a dash.
    fn value(&mut self, node: &Node, indent: usize) {
        match &node.value {
            Value::Null => self.out.push_str(" ~\n"),
            Value::Scalar(scalar) => {
                self.out.push(' ');
                self.out.push_str(&text(scalar, indent));
                self.out.push('\n');
            }
            Value::Map(entries) if entries.iter().all(|entry| entry.value.is_null()) => {
                self.out.push_str(" {}\n")
            }
            Value::List(items) if items.is_empty() => self.out.push_str(" []\n"),
            Value::List(items) if short(items) && !self.has_notes(items) => {
                let items: Vec<_> =
                    items.iter().filter_map(Node::scalar).map(|one| flow_text(one, indent)).collect();
                let _ = writeln!(self.out, " [{}]", items.join(", "));
            }
            Value::Map(entries) => {
                self.out.push('\n');
                self.map(entries, indent);
            }
            Value::List(items) => {
                self.out.push('\n');
                items.iter().for_each(|item| self.item(item, indent));
            }
        }
    }

    fn item(&mut self, item: &Node, indent: usize) {
        self.notes_at(item, item.span, indent);
        self.pad(indent);
        self.out.push('-');
        let entries: Vec<&Entry> = item.entries().iter().filter(|entry| !entry.value.is_null()).collect();
        let Some((first, rest)) = entries.split_first() else {
            return self.value(item, indent + 2);
        };
        self.out.push(' ');
        self.entry(first, indent + 2);
        for entry in rest {
            self.notes_at(&entry.value, entry.name_span, indent + 2);
            self.pad(indent + 2);
            self.entry(entry, indent + 2);
        }
    }

    fn pad(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }

    fn has_notes(&self, items: &[Node]) -> bool {
        let lines = |note: &Diagnostic| {
            let here = |item: &Node| item.span.line == note.line && item.span.column == note.column;
            items.iter().any(|item| here(item) && self.sources.name(item.span.file) == note.file)
        };
        self.notes.iter().any(lines)
    }

    /// The notes of each point, and those without one.
    fn place(&self) -> (Vec<Vec<usize>>, Vec<usize>) {
        let mut placed = vec![Vec::new(); self.points.len()];
        let mut homeless = Vec::new();
        for (index, note) in self.notes.iter().enumerate() {
            let on_line = |span: &Span| {
                span.is_in_text() && span.line == note.line && self.sources.name(span.file) == note.file
            };
            let exact = |span: &Span| on_line(span) && span.column == note.column;
            let nearness = |(key, value, single): &(Span, Span, bool)| match () {
                () if *single && exact(value) => 0,
                () if exact(key) => 1,
                () if exact(value) => 2,
                () if on_line(key) || on_line(value) => 3,
                () => 4,
            };
            let best = (0..self.points.len()).min_by_key(|&point| nearness(&self.points[point]));
            match best.filter(|&point| nearness(&self.points[point]) < 4) {
                Some(point) => placed[point].push(index),
                None => homeless.push(index),
            }
        }
        (placed, homeless)
    }

    fn notes_at(&mut self, value: &Node, key: Span, indent: usize) {
        let Some(placed) = &self.placed else {
            let single = matches!(value.value, Value::Scalar(_));
            return self.points.push((key, value.span, single));
        };
        for &note in &placed[self.at] {
            comment(&mut self.out, &self.notes[note], indent);
        }
        self.at += 1;
    }
}

fn comment(out: &mut String, note: &Diagnostic, indent: usize) {
    let mut line = |text: &str| {
        out.extend(std::iter::repeat_n(' ', indent));
        let _ = writeln!(out, "# {text}");
    };
    let place = if note.line > 0 { format!(" (line {})", note.line) } else { String::new() };
    line(&format!("{}{place}: {}", note.severity, one_line(&note.message)));
    if let Some(hint) = &note.hint {
        line(&format!("hint: {}", one_line(hint)));
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn key(name: &str) -> String {
    let plain = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    let special = name.starts_with('-') || matches!(name, "null" | "Null" | "NULL" | "<<");
    if plain && !special { name.to_owned() } else { quoted(name) }
}

/// Whether a list fits one line.
fn short(items: &[Node]) -> bool {
    let widths: Option<Vec<usize>> = items.iter().map(|item| Some(item.scalar()?.text.len())).collect();
    widths.is_some_and(|widths| widths.iter().sum::<usize>() + 4 * widths.len() < 80)
        && items.iter().all(|item| item.text().is_some_and(|text| !text.contains('\n')))
}

fn flow_text(scalar: &Scalar, indent: usize) -> String {
    let written = text(scalar, indent);
    let plain = !written.starts_with('"');
    if plain && written.contains([',', '[', ']', '{', '}']) { quoted(&scalar.text) } else { written }
}

fn text(scalar: &Scalar, indent: usize) -> String {
    let escaped = match scalar.secret {
        // A reference to outside, or a value that came from there, which was never in the text.
        true => scalar.text.clone(),
        false => scalar.text.replace("${env:", "$${env:").replace("${file:", "$${file:"),
    };
    if !scalar.quoted && is_plain(&escaped) {
        return escaped;
    }
    if is_block(&escaped) {
        let strip = if escaped.ends_with('\n') { "|" } else { "|-" };
        let pad = " ".repeat(indent);
        let lines = escaped
            .trim_end_matches('\n')
            .split('\n')
            .map(|line| if line.is_empty() { String::new() } else { format!("{pad}{line}") });
        return format!("{strip}\n{}", lines.collect::<Vec<_>>().join("\n"));
    }
    quoted(&escaped)
}

/// Whether a text reads as itself without quotes, wherever it stands.
fn is_plain(text: &str) -> bool {
    let first = text.chars().next();
    first.is_some_and(|first| {
        !first.is_whitespace() && !"!&*-?|>@`'\"#%,[]{}:".contains(first)
            || first == '-' && text.len() > 1 && text.as_bytes()[1].is_ascii_digit()
    }) && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.chars().any(char::is_control)
        && !matches!(text, "~" | "null" | "Null" | "NULL" | "<<" | "---" | "...")
}

fn is_block(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.ends_with('\n')
        && !body.starts_with([' ', '\n'])
        && !text.chars().any(|c| c.is_control() && c != '\n')
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
