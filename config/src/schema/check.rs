//! Validation of a tree against a table.
//!
//! Owns the walk. It reports everything it finds and changes nothing; rules that span several keys are not
//! its business. Invariant: after a walk without errors, every value of the tree reads as its key's kind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use super::suggest::nearest;
use super::{Entity, Key, Kind, Section, Status, leaf};
use crate::diagnostic::{Diagnostics, Fault};
use crate::node::{Entry, Node, Value};
use crate::source::Span;

/// The way from the top to a value, held on the stack while walking.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Base(&'a str),
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Base(text) => f.write_str(text),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Self::Key(parent, name) => {
                let start = parent.to_string();
                f.write_str(&start)?;
                if name.is_empty() || name.contains(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-'))
                {
                    return write!(f, "[{name:?}]");
                }
                write!(f, "{}{name}", if start.is_empty() { "" } else { "." })
            }
        }
    }
}

/// Keys that were left out although Kong's default differs, counted over all sections.
pub(crate) type Differences = BTreeMap<(&'static str, &'static str), Difference>;

/// One key that was left out, with the place of the first section that leaves it out.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    pub(crate) key: &'static Key,
    pub(crate) count: usize,
    pub(crate) span: Span,
    pub(crate) path: String,
}

/// A walk in progress.
pub(crate) struct Checker<'a> {
    pub(crate) found: &'a Diagnostics,
    /// Where differences from Kong's defaults are counted, when they are wanted.
    pub(crate) differences: Option<&'a RefCell<Differences>>,
}

impl Checker<'_> {
    /// Checks a map against its table.
    pub(crate) fn section(&self, node: &Node, section: &'static Section, path: &Path<'_>) {
        if !matches!(node.value, Value::Map(_)) {
            let fault = Fault::new(format!("expected a map ({}), found {}", section.name, node.describe()));
            self.found.error(node.span, path, fault);
            return;
        }
        let mut misspelt = Vec::new();
        for entry in node.entries() {
            let path = Path::Key(path, &entry.name);
            match section.key(&entry.name) {
                Some(key) => self.key(entry, key, &path),
                None => misspelt.extend(self.unknown(entry, section, &path)),
            }
        }
        for key in section.keys() {
            if node.get(key.name).is_some() {
                continue;
            }
            // One mistake, one error: the key is there, only not under its name.
            if key.required && !misspelt.contains(&key.name) {
                let fault = Fault::new(format!("`{}` is missing", key.name)).hint(key.doc);
                self.found.error(first_line(node), path, fault);
            }
            self.absent(key, section, node.span, path);
        }
    }

    fn key(&self, entry: &Entry, key: &'static Key, path: &Path<'_>) {
        if entry.value.is_null() {
            return;
        }
        match key.status {
            Status::Acts | Status::Ignored => {}
            Status::Reserved => self.found.warning(entry.name_span, path, "accepted, not acted on yet"),
            Status::Deprecated(hint) => {
                self.found.warning(entry.name_span, path, Fault::new("deprecated").hint(hint));
            }
        }
        self.value(&entry.value, &key.kind, path);
    }

    /// Reports an unknown key; gives back the known one that was probably meant.
    fn unknown(&self, entry: &Entry, section: &'static Section, path: &Path<'_>) -> Option<&'static str> {
        // Kong injects these two into every record; `x-` is the custom for anchors kept at the top.
        let free = matches!(entry.name.as_str(), "_comment" | "_ignore");
        if free || section.name == "configuration" && entry.name.starts_with("x-") {
            return None;
        }
        if self.found.is_full() {
            self.found.error(entry.name_span, path, "unknown key");
            return None;
        }
        let meant = nearest(&entry.name, section.keys().map(|key| key.name));
        let hint = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the keys are {}", words(section.keys().map(|key| key.name))),
        };
        // What stands under a misspelt `secret` is one too.
        if meant.and_then(|meant| section.key(meant)).is_some_and(|key| key.secret) {
            self.found.conceal(entry.value.span);
        }
        let fault = Fault::new(format!("unknown key `{}` in {}", entry.name, section.name)).hint(hint);
        self.found.error(entry.name_span, path, fault);
        meant
    }

    /// Counts a key that was left out, and those of a whole section that was.
    fn absent(&self, key: &'static Key, section: &'static Section, span: Span, path: &Path<'_>) {
        let Some(differences) = self.differences else { return };
        if key.kong_default.is_some() {
            let mut differences = differences.borrow_mut();
            let new = || Difference { key, count: 0, span, path: path.to_string() };
            differences.entry((section.name, key.name)).or_insert_with(new).count += 1;
        }
        if let Kind::Section(inner) = key.kind {
            for inner_key in inner.keys() {
                self.absent(inner_key, inner, span, &Path::Key(path, key.name));
            }
        }
    }

    /// Checks one value against a kind.
    pub(crate) fn value(&self, node: &Node, kind: &Kind, path: &Path<'_>) {
        match (kind, &node.value) {
            (Kind::Either(kinds), _) => self.either(node, kinds, path),
            (Kind::Section(section), _) => self.section(node, section, path),
            (Kind::Any, _) | (Kind::Reference(_), Value::Null) => {}
            (Kind::List { of, max }, Value::List(items)) => self.list(node, items, of, *max, path),
            (Kind::List { .. }, Value::Scalar(_)) => {
                let hint = format!("write `[{}]`", shown(node));
                self.wrong_shape(node, kind, path, Some(hint));
            }
            (Kind::Map { keys, of }, Value::Map(entries)) => {
                for entry in entries {
                    let path = Path::Key(path, &entry.name);
                    if let Err(fault) = (keys.check)(&entry.name) {
                        self.found.error(entry.name_span, path, fault);
                    }
                    self.value(&entry.value, of, &path);
                }
            }
            (Kind::Reference(entity), Value::Map(_)) => self.reference(node, *entity, path),
            (kind, Value::Scalar(scalar)) => match leaf::check(kind, scalar) {
                Some(Ok(())) => {}
                Some(Err(fault)) => self.fault(node, fault, path),
                None => self.wrong_shape(node, kind, path, None),
            },
            _ => self.wrong_shape(node, kind, path, None),
        }
    }

    fn list(&self, node: &Node, items: &[Node], of: &Kind, max: usize, path: &Path<'_>) {
        if items.len() > max {
            self.found.error(node.span, path, format!("has {} items, more than {max}", items.len()));
            return;
        }
        for (index, item) in items.iter().enumerate() {
            self.value(item, of, &Path::Index(path, index));
        }
    }

    /// The first kind that takes the shape of the value judges it; among scalars the first that accepts it.
    fn either(&self, node: &Node, kinds: &[Kind], path: &Path<'_>) {
        let takes = |kind: &&Kind| match (&node.value, kind) {
            (Value::Scalar(scalar), kind) => leaf::check(kind, scalar).is_some(),
            (Value::List(_), kind) => matches!(kind, Kind::List { .. } | Kind::Any),
            (Value::Map(_), kind) => {
                matches!(kind, Kind::Section(_) | Kind::Map { .. } | Kind::Reference(_) | Kind::Any)
            }
            (Value::Null, _) => false,
        };
        let accepts = |kind: &&Kind| match &node.value {
            Value::Scalar(scalar) => matches!(leaf::check(kind, scalar), Some(Ok(()))),
            _ => true,
        };
        let fitting = kinds.iter().filter(takes);
        match fitting.clone().find(accepts).or_else(|| fitting.clone().next()) {
            Some(kind) if fitting.count() == 1 || accepts(&kind) => self.value(node, kind, path),
            _ => self.wrong_shape(node, &Kind::Either(&[]), path, Some(alternatives(kinds))),
        }
    }

    fn reference(&self, node: &Node, entity: Entity, path: &Path<'_>) {
        let keys = entity.reference_keys();
        for entry in node.entries() {
            let path = Path::Key(path, &entry.name);
            if !keys.contains(&entry.name.as_str()) {
                let fault = Fault::new(format!("unknown key `{}` in a reference", entry.name));
                self.found.error(
                    entry.name_span,
                    path,
                    fault.hint(format!("one of {}", words(keys.iter().copied()))),
                );
            } else if !matches!(entry.value.value, Value::Scalar(_) | Value::Null) {
                self.wrong_shape(&entry.value, &Kind::NAME, &path, None);
            }
        }
        if node.entries().iter().all(|entry| entry.value.is_null()) {
            let fault = Fault::new(format!("the reference names no {}", entity.as_str()));
            self.found.error(
                node.span,
                path,
                fault.hint(format!("give one of {}", words(keys.iter().copied()))),
            );
        }
    }

    fn wrong_shape(&self, node: &Node, kind: &Kind, path: &Path<'_>, hint: Option<String>) {
        let found = node.describe();
        let fault = match kind {
            Kind::Either(_) => Fault::new(format!("{found} does not fit here")),
            kind => Fault::new(format!("expected {}, found {found}", describe(kind))),
        };
        self.fault(node, fault.maybe_hint(hint), path);
    }

    fn fault(&self, node: &Node, fault: Fault, path: &Path<'_>) {
        self.found.error(node.span, path, fault);
    }
}

/// The place of a map for "is missing": its first key, not the whole block.
fn first_line(node: &Node) -> Span {
    node.entries().first().map_or(node.span, |entry| entry.name_span)
}

fn shown(node: &Node) -> String {
    match node.scalar() {
        Some(scalar) if scalar.secret => "..".into(),
        Some(scalar) if scalar.quoted => format!("{:?}", scalar.text),
        Some(scalar) => scalar.text.clone(),
        None => "..".into(),
    }
}

fn words<'a>(all: impl Iterator<Item = &'a str>) -> String {
    all.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn alternatives(kinds: &[Kind]) -> String {
    format!("expected {}", kinds.iter().map(describe).collect::<Vec<_>>().join(", or "))
}

/// A kind in words.
pub(crate) fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".into(),
        Kind::Integer { .. } => "a whole number".into(),
        Kind::Number { .. } => "a number".into(),
        Kind::Text(text) => text.what.into(),
        Kind::Duration { .. } => "a duration such as `3s`".into(),
        Kind::Size { .. } => "a size such as `10MiB`".into(),
        Kind::Rate => "a rate such as `100/s`".into(),
        Kind::Word(all) => format!("one of {}", words(all.iter().copied())),
        Kind::Cidr => "an address or prefix".into(),
        Kind::SocketAddress => "an address with a port".into(),
        Kind::List { .. } => "a list".into(),
        Kind::Map { .. } => "a map".into(),
        Kind::Section(section) => format!("a map ({})", section.name),
        Kind::Reference(entity) => format!("the name of a {}", entity.as_str()),
        Kind::Either(kinds) => kinds.iter().map(describe).collect::<Vec<_>>().join(", or "),
        Kind::Any => "anything".into(),
    }
}
