//! The tables as comments: what makes the reference file.
//!
//! Owns the description of a key in words, and [`annotate`], which writes it above the first use of each key in
//! a file without comments. So the reference cannot say something else than the gateway does, and a test finds
//! every key that it leaves out with [`unmentioned`].

use std::collections::BTreeSet;

use super::leaf::{show_duration, show_size};
use super::{Key, Kind, PluginCatalog, Section, Status};
use crate::node::{Node, Value};
use crate::sections::{PLUGIN, RECORD, ROOT};

/// What a key means, its range, its default, and Kong's word and default for it.
pub fn describe(key: &Key) -> String {
    let mut text = key.doc.trim_end().to_owned();
    let mut say = |more: String| {
        if !text.ends_with(['.', ')']) {
            text.push('.');
        }
        text.push(' ');
        text.push_str(&more);
    };
    if let Some(range) = range(&key.kind) {
        say(format!("{range}."));
    }
    match key.default {
        Some("[]") => say("Default: none.".into()),
        Some(default) => say(format!("Default: {default}.")),
        None if key.required => say("Required.".into()),
        None => {}
    }
    let kong_default = key.kong_default.map(|text| if text.is_empty() { "not set" } else { text });
    match (key.kong, kong_default) {
        (Some(name), Some(default)) => say(format!("Kong: {name}, {default}.")),
        (Some(name), None) => say(format!("Kong: {name}.")),
        (None, Some(default)) => say(format!("Kong's default: {default}.")),
        (None, None) => {}
    }
    match key.status {
        Status::Reserved => say("Accepted, not acted on yet.".into()),
        Status::Deprecated(hint) => say(format!("Deprecated: {hint}.")),
        Status::Ignored => say("Ignored.".into()),
        Status::Acts => {}
    }
    text
}

/// The range or the words of a kind.
fn range(kind: &Kind) -> Option<String> {
    Some(match kind {
        Kind::Integer { min, max } if *max >= i64::from(u32::MAX) => format!("At least {min}"),
        Kind::Integer { min, max } => format!("From {min} to {max}"),
        Kind::Number { min, max } => format!("From {min} to {max}"),
        Kind::Duration { min, max, .. } => format!("From {} to {}", show_duration(*min), show_duration(*max)),
        Kind::Size { min, max } => format!("From {} to {}", show_size(*min), show_size(*max)),
        Kind::Word(words) => format!("One of {}", words.join(", ")),
        Kind::List { of: Kind::Word(words), .. } => format!("Any of {}", words.join(", ")),
        Kind::Either(kinds) => {
            let all: Vec<_> = kinds.iter().filter_map(range).collect();
            return (!all.is_empty()).then(|| all.join(", or ").replace("One of auto", "`auto`"));
        }
        _ => return None,
    })
}

/// A walk over a tree with the tables beside it.
struct Walk<'a> {
    catalog: &'a dyn PluginCatalog,
    /// Section and key names met, in the order of meeting for the comments.
    seen: BTreeSet<(&'static str, &'static str)>,
    /// Line number and comment.
    comments: Vec<(u32, String)>,
}

impl Walk<'_> {
    fn section(&mut self, node: &Node, section: &'static Section) {
        for entry in node.entries() {
            let Some(key) = section.key(&entry.name) else { continue };
            let line = entry.name_span.line;
            if self.seen.insert((owner(section, key), key.name)) {
                self.comments.push((line, describe(key)));
            }
            if section.name == PLUGIN.name && key.name == "config" {
                let name = node.get("name").and_then(Node::text).unwrap_or_default();
                if let Some(inner) = self.catalog.section(name) {
                    if self.seen.insert((inner.name, "")) {
                        self.comments.push((line, inner.doc.into()));
                    }
                    self.section(&entry.value, inner);
                }
            }
            self.value(&entry.value, &key.kind);
        }
    }

    fn value(&mut self, node: &Node, kind: &'static Kind) {
        match (kind, &node.value) {
            (Kind::Section(section), Value::Map(_)) => self.section(node, section),
            (Kind::List { of, .. }, Value::List(items)) => items.iter().for_each(|item| self.value(item, of)),
            (Kind::Either(kinds), _) => kinds.iter().for_each(|kind| self.value(node, kind)),
            _ => {}
        }
    }
}

/// Writes the description of each key above its first use. `tree` is the parsed `text`.
pub fn annotate(text: &str, tree: &Node, catalog: &dyn PluginCatalog) -> String {
    let mut walk = Walk { catalog, seen: BTreeSet::new(), comments: Vec::new() };
    walk.section(tree, &ROOT);
    walk.comments.sort_by_key(|(line, _)| *line);
    let mut comments = walk.comments.into_iter().peekable();
    let mut out = String::with_capacity(text.len() * 4);
    for (number, line) in (1..).zip(text.lines()) {
        let indent = line.len() - line.trim_start().len();
        while let Some((_, comment)) = comments.next_if(|(at, _)| *at == number) {
            wrap(&comment, indent, &mut out);
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Keys of the tables, plugins included, that `tree` does not use, as `section.key`.
pub fn unmentioned(tree: &Node, catalog: &dyn PluginCatalog) -> Vec<String> {
    let mut walk = Walk { catalog, seen: BTreeSet::new(), comments: Vec::new() };
    walk.section(tree, &ROOT);
    let mut all = BTreeSet::new();
    for section in sections(catalog) {
        let names = section.keys().map(|key| (owner(section, key), key.name));
        all.extend(
            names.filter(|name| !walk.seen.contains(name)).map(|(owner, key)| format!("{owner}.{key}")),
        );
    }
    all.into_iter().collect()
}

/// Every section of a configuration file with the plugins of `catalog`, each once: what is true of all tables can be
/// tested with it.
pub fn sections(catalog: &dyn PluginCatalog) -> Vec<&'static Section> {
    let mut ahead = vec![&ROOT];
    ahead.extend(catalog.names().into_iter().filter_map(|name| catalog.section(name)));
    let mut all: Vec<&'static Section> = Vec::new();
    while let Some(section) = ahead.pop() {
        if !all.iter().any(|one| std::ptr::eq(*one, section)) {
            section.keys().for_each(|key| inner_sections(&key.kind, &mut ahead));
            all.push(section);
        }
    }
    all
}

/// Whose key it is in the reference: those that all records share are explained once.
fn owner(section: &'static Section, key: &Key) -> &'static str {
    let shared = section.name != ROOT.name && section.shared.iter().any(|one| one.name == key.name);
    if shared && RECORD.iter().any(|one| one.name == key.name) { "record" } else { section.name }
}

fn inner_sections(kind: &'static Kind, sections: &mut Vec<&'static Section>) {
    match kind {
        Kind::Section(section) => sections.push(section),
        Kind::List { of, .. } | Kind::Map { of, .. } => inner_sections(of, sections),
        Kind::Either(kinds) => kinds.iter().for_each(|kind| inner_sections(kind, sections)),
        _ => {}
    }
}

/// Longest comment line.
const WIDTH: usize = 110;

fn wrap(text: &str, indent: usize, out: &mut String) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent + 2 + line.len() + 1 + word.len() > WIDTH {
            out.push_str(&format!("{:indent$}# {line}\n", ""));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(&format!("{:indent$}# {line}\n", ""));
}
