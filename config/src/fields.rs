//! Typed reading of a map by its table.
//!
//! Owns [`Fields`], which the builder of the model and every plugin parser use. It fills in defaults from the
//! table (ours or Kong's), and reads a value that `check` has refused as if it were absent, because the refusal
//! is already reported. Reading a key that the table lacks is a mistake in the program and fails a debug build.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::diagnostic::{Diagnostics, Fault};
use crate::model::{Defaults, Plugin, Rate};
use crate::node::{Node, Scalar, Value};
use crate::schema::check::{Checker, Path};
use crate::schema::{Key, Kind, Section, leaf};
use crate::secret::Secret;
use crate::source::{Origin, Span};

/// A map read through its table. Cheap to make; sections inside are read through `Fields` of their own.
///
/// Methods named after a type give the value, else the default of the table, else the type's empty value;
/// those named `optional_..` give `None` in the last case.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    node: &'a Node,
    span: Span,
    section: &'static Section,
    path: String,
    defaults: Defaults,
    found: &'a Diagnostics,
}

/// A reference as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// The key of a reference written as a map (`id`, `name`, `username`, ..); `None` for a bare text.
    pub by: Option<&'a str>,
    /// The name or id.
    pub text: &'a str,
    /// Where it was written.
    pub span: Span,
}

/// What an absent section is read from.
static ABSENT: Node = Node {
    span: Span { file: crate::source::FileId(0), line: 0, column: 0, start: 0, end: 0 },
    value: Value::Map(Vec::new()),
};

impl<'a> Fields<'a> {
    /// Reads `node`, found at `path`, by `section`.
    pub fn new(
        node: &'a Node,
        section: &'static Section,
        path: impl Into<String>,
        defaults: Defaults,
        found: &'a Diagnostics,
    ) -> Self {
        Self { node, span: node.span, section, path: path.into(), defaults, found }
    }

    /// Where the map is, for the model.
    pub fn origin(&self) -> Origin {
        Origin { span: self.span, path: self.path.clone() }
    }

    /// The map as written.
    pub(crate) fn node(&self) -> &'a Node {
        self.node
    }

    /// The way to the map.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The way to one of its keys.
    pub fn path_of(&self, key: &str) -> String {
        Path::Key(&Path::Base(&self.path), key).to_string()
    }

    /// The place of a key's value, or of the map when the key is absent.
    pub fn span_of(&self, key: &str) -> Span {
        self.get(key).map_or(self.span, |node| node.span)
    }

    /// Whose defaults are filled in.
    pub fn defaults(&self) -> Defaults {
        self.defaults
    }

    /// Where findings go.
    pub fn diagnostics(&self) -> &'a Diagnostics {
        self.found
    }

    /// Reports an error at a key.
    pub fn error(&self, key: &str, fault: impl Into<Fault>) {
        self.found.error(self.span_of(key), self.path_of(key), fault);
    }

    /// Reports a warning at a key.
    pub fn warning(&self, key: &str, fault: impl Into<Fault>) {
        self.found.warning(self.span_of(key), self.path_of(key), fault);
    }

    /// Whether the key is written, with a value.
    pub fn is_set(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether the map has keys that the table lacks, which is reported. What seems left out may only be
    /// misspelt then.
    pub fn has_unknown_keys(&self) -> bool {
        self.node.entries().iter().any(|entry| self.section.key(&entry.name).is_none())
    }

    /// The value as written.
    pub fn get(&self, key: &str) -> Option<&'a Node> {
        debug_assert!(self.section.key(key).is_some(), "{} has no key {key}", self.section.name);
        self.node.get(key)
    }

    /// A text.
    pub fn string(&self, key: &str) -> String {
        self.optional_string(key).unwrap_or_default()
    }

    /// A text.
    pub fn optional_string(&self, key: &str) -> Option<String> {
        self.read(key, |kind, scalar| leaf::check(kind, scalar)?.ok().map(|()| scalar.text.clone()))
    }

    /// A text that is not to be shown.
    pub fn secret(&self, key: &str) -> Option<Secret> {
        self.optional_string(key).map(Secret::new)
    }

    /// A yes or no.
    pub fn bool(&self, key: &str) -> bool {
        self.optional_bool(key).unwrap_or_default()
    }

    /// A yes or no.
    pub fn optional_bool(&self, key: &str) -> Option<bool> {
        self.read(key, |_, scalar| leaf::boolean(scalar).ok())
    }

    /// A whole number. The table must keep it within `T`.
    pub fn integer<T: TryFrom<i64> + Default>(&self, key: &str) -> T {
        self.optional_integer(key).unwrap_or_default()
    }

    /// A whole number. The table must keep it within `T`.
    pub fn optional_integer<T: TryFrom<i64>>(&self, key: &str) -> Option<T> {
        self.read(key, whole).and_then(|value| T::try_from(value).ok())
    }

    /// A number.
    pub fn number(&self, key: &str) -> f64 {
        self.optional_number(key).unwrap_or_default()
    }

    /// A number.
    pub fn optional_number(&self, key: &str) -> Option<f64> {
        self.read(key, |kind, scalar| match kind {
            Kind::Number { min, max } => leaf::number(scalar, *min, *max).ok(),
            _ => None,
        })
    }

    /// A time.
    pub fn duration(&self, key: &str) -> Duration {
        self.optional_duration(key).unwrap_or_default()
    }

    /// A time.
    pub fn optional_duration(&self, key: &str) -> Option<Duration> {
        self.read(key, |kind, scalar| match kind {
            Kind::Duration { bare, min, max } => leaf::duration(scalar, *bare, *min, *max).ok(),
            _ => None,
        })
    }

    /// A number of bytes.
    pub fn size(&self, key: &str) -> u64 {
        self.optional_size(key).unwrap_or_default()
    }

    /// A number of bytes.
    pub fn optional_size(&self, key: &str) -> Option<u64> {
        self.read(key, |kind, scalar| match kind {
            Kind::Size { min, max } => leaf::size(scalar, *min, *max).ok(),
            _ => None,
        })
    }

    /// A rate.
    pub fn rate(&self, key: &str) -> Option<Rate> {
        self.read(key, |kind, scalar| match kind {
            Kind::Rate => leaf::rate(scalar).ok(),
            _ => None,
        })
    }

    /// One of the words of the table; empty when there is none.
    pub fn word(&self, key: &str) -> &'static str {
        self.optional_word(key).unwrap_or_default()
    }

    /// One of the words of the table.
    pub fn optional_word(&self, key: &str) -> Option<&'static str> {
        self.read(key, known_word)
    }

    /// An address with a port.
    pub fn socket_address(&self, key: &str) -> Option<SocketAddr> {
        self.read(key, |_, scalar| leaf::socket_address(scalar).ok())
    }

    /// A list of addresses with ports.
    pub fn socket_addresses(&self, key: &str) -> Vec<SocketAddr> {
        self.list(key, |_, scalar| leaf::socket_address(scalar).ok())
    }

    /// A list of texts.
    pub fn strings(&self, key: &str) -> Vec<String> {
        self.list(key, |kind, scalar| leaf::check(kind, scalar)?.ok().map(|()| scalar.text.clone()))
    }

    /// A list of whole numbers. The table must keep them within `T`.
    pub fn integers<T: TryFrom<i64>>(&self, key: &str) -> Vec<T> {
        self.list(key, |kind, scalar| whole(kind, scalar).and_then(|value| T::try_from(value).ok()))
    }

    /// A list of times.
    pub fn durations(&self, key: &str) -> Vec<Duration> {
        self.list(key, |kind, scalar| match kind {
            Kind::Duration { bare, min, max } => leaf::duration(scalar, *bare, *min, *max).ok(),
            _ => None,
        })
    }

    /// A list of words of the table.
    pub fn words(&self, key: &str) -> Vec<&'static str> {
        self.list(key, known_word)
    }

    /// A list of addresses and prefixes.
    pub fn cidrs(&self, key: &str) -> Vec<IpNet> {
        self.list(key, |_, scalar| leaf::cidr(scalar).ok())
    }

    /// A map with free keys and text values, in the order written.
    pub fn map(&self, key: &str) -> Vec<(String, String)> {
        let entries = self.get(key).map(Node::entries).unwrap_or_default();
        let text = |node: &Node| node.text().map(str::to_owned);
        entries.iter().filter_map(|entry| Some((entry.name.clone(), text(&entry.value)?))).collect()
    }

    /// A map with free keys and lists of texts, in the order written.
    pub fn map_of_lists(&self, key: &str) -> Vec<(String, Vec<String>)> {
        let entries = self.get(key).map(Node::entries).unwrap_or_default();
        let texts = |node: &Node| node.items().iter().filter_map(Node::text).map(str::to_owned).collect();
        entries.iter().map(|entry| (entry.name.clone(), texts(&entry.value))).collect()
    }

    /// A section inside; read as an empty one, all defaults, when it is absent.
    pub fn section(&self, key: &str) -> Fields<'a> {
        let section = self.kind(key).and_then(section_of).unwrap_or(self.section);
        let node = self.get(key).filter(|node| matches!(node.value, Value::Map(_)));
        Fields {
            node: node.unwrap_or(&ABSENT),
            span: node.map_or(self.span, |node| node.span),
            section,
            path: self.path_of(key),
            ..self.clone()
        }
    }

    /// A section inside, when it is written as a map.
    pub fn optional_section(&self, key: &str) -> Option<Fields<'a>> {
        matches!(self.get(key)?.value, Value::Map(_)).then(|| self.section(key))
    }

    /// A list of sections; items of another shape are left out.
    pub fn sections(&self, key: &str) -> Vec<Fields<'a>> {
        let Some(Kind::List { of, .. }) = self.kind(key) else { return Vec::new() };
        let Some(section) = section_of(of) else { return Vec::new() };
        let items = self.get(key).map(Node::items).unwrap_or_default();
        let maps = items.iter().enumerate().filter(|(_, node)| matches!(node.value, Value::Map(_)));
        let path = self.path_of(key);
        let fields =
            |(index, node)| Fields::new(node, section, format!("{path}[{index}]"), self.defaults, self.found);
        maps.map(fields).collect()
    }

    /// A reference.
    pub fn reference(&self, key: &str) -> Option<Reference<'a>> {
        reference(self.get(key)?)
    }

    /// A list of references.
    pub fn references(&self, key: &str) -> Vec<Reference<'a>> {
        self.get(key).map(Node::items).unwrap_or_default().iter().filter_map(reference).collect()
    }

    fn kind(&self, key: &str) -> Option<&'static Kind> {
        self.key(key).map(|key| &key.kind)
    }

    fn key(&self, key: &str) -> Option<&'static Key> {
        let known = self.section.key(key);
        debug_assert!(known.is_some(), "{} has no key {key}", self.section.name);
        known
    }

    fn default_text(&self, key: &Key) -> Option<&'static str> {
        match (self.defaults, key.kong_default) {
            (Defaults::Kong, Some("")) => None,
            (Defaults::Kong, Some(text)) => Some(text),
            _ => key.default,
        }
    }

    fn read<T>(&self, key: &str, read: impl Fn(&Kind, &Scalar) -> Option<T>) -> Option<T> {
        let known = self.key(key)?;
        let alternatives = match &known.kind {
            Kind::Either(kinds) => kinds,
            kind => std::slice::from_ref(kind),
        };
        let read = |scalar: &Scalar| alternatives.iter().find_map(|kind| read(kind, scalar));
        match self.get(key) {
            Some(node) => node.scalar().and_then(read).or_else(|| read(&plain(self.default_text(known)?))),
            None => read(&plain(self.default_text(known)?)),
        }
    }

    fn list<T>(&self, key: &str, read: impl Fn(&Kind, &Scalar) -> Option<T>) -> Vec<T> {
        let Some(known) = self.key(key) else { return Vec::new() };
        let Kind::List { of, .. } = &known.kind else { return Vec::new() };
        if let Some(node) = self.get(key) {
            return node.items().iter().filter_map(|item| read(of, item.scalar()?)).collect();
        }
        default_items(self.default_text(known)).filter_map(|text| read(of, &plain(text))).collect()
    }
}

impl Plugin {
    /// Reads the plugin's `config:` by its section, which `load` has already checked it against.
    pub fn fields<'a>(&'a self, section: &'static Section, found: &'a Diagnostics) -> Fields<'a> {
        Fields::new(&self.config, section, format!("{}.config", self.origin.path), self.defaults, found)
    }
}

/// Checks a map against a section; for sections that are read outside of `load`, such as those in tests.
pub fn check_section(node: &Node, section: &'static Section, path: &str, found: &Diagnostics) {
    Checker { found, differences: None }.section(node, section, &Path::Base(path));
}

/// The items of a default written as `[a, b]`.
pub(crate) fn default_items(text: Option<&'static str>) -> impl Iterator<Item = &'static str> {
    let inside = text.unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    inside.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn plain(text: &str) -> Scalar {
    Scalar { text: text.to_owned(), ..Scalar::default() }
}

fn whole(kind: &Kind, scalar: &Scalar) -> Option<i64> {
    match kind {
        Kind::Integer { min, max } => leaf::integer(scalar, *min, *max).ok(),
        Kind::Word(words) => leaf::word(scalar, words).ok()?.parse().ok(),
        _ => None,
    }
}

fn known_word(kind: &Kind, scalar: &Scalar) -> Option<&'static str> {
    match kind {
        Kind::Word(words) => leaf::word(scalar, words).ok(),
        _ => None,
    }
}

fn section_of(kind: &'static Kind) -> Option<&'static Section> {
    match kind {
        Kind::Section(section) => Some(section),
        Kind::Either(kinds) => kinds.iter().find_map(section_of),
        _ => None,
    }
}

fn reference(node: &Node) -> Option<Reference<'_>> {
    if let Some(scalar) = node.scalar() {
        return Some(Reference { by: None, text: &scalar.text, span: node.span });
    }
    let known = |name: &str| matches!(name, "id" | "name" | "username" | "custom_id");
    let entry = node.entries().iter().find(|entry| known(&entry.name) && !entry.value.is_null())?;
    Some(Reference { by: Some(&entry.name), text: entry.value.text()?, span: entry.value.span })
}
