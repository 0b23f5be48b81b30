//! The parsed tree: YAML values that remember where they were written.
//!
//! Owns [`Node`] and the masked views of it. It never interprets a scalar: whether `10` is an integer, a
//! duration or a name is decided by the [`crate::schema::Kind`] of its key. Invariant: the names in a map
//! are unique, because `parse` refuses duplicates.

use std::fmt;

use crate::secret::MASK;
use crate::source::Span;

/// One value with its place.
#[derive(Clone, PartialEq, Default)]
pub struct Node {
    /// Where the value was written. An alias has the place of its anchor.
    pub span: Span,
    /// The value.
    pub value: Value,
}

/// The shapes that YAML knows.
#[derive(Clone, PartialEq, Default)]
pub enum Value {
    /// Nothing: an empty value, `~` or `null`. The same as leaving the key out.
    #[default]
    Null,
    /// A text, not yet interpreted.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order written.
    Map(Vec<Entry>),
}

/// A text as written, after substitution of `${env:..}` and `${file:..}`.
#[derive(Clone, PartialEq, Default)]
pub struct Scalar {
    /// The text.
    pub text: String,
    /// Whether it was quoted (or tagged `!!str`) and so can only be a string.
    pub quoted: bool,
    /// Whether it must not be shown: some of it came from `${env:..}` or `${file:..}`, or its key is secret.
    pub secret: bool,
    /// Whether it refers to something that could not be found. That is reported; checks let it pass.
    pub unresolved: bool,
}

/// One `name: value` of a mapping.
#[derive(Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub name: String,
    /// Where the key was written.
    pub name_span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// A map with no entries at `span`: what an absent section reads as.
    pub fn empty_map(span: Span) -> Self {
        Self { span, value: Value::Map(Vec::new()) }
    }

    /// The value under `name`, when this is a map that has it and it is not null.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|entry| &entry.value).filter(|node| !node.is_null())
    }

    /// The entry under `name`, null or not.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.name == name)
    }

    /// The entries of a map; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        self.scalar().map(|scalar| scalar.text.as_str())
    }

    /// The scalar, if it is one.
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// Whether the value is absent.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// What the value is, in words for an error: `a list`, `a map`, `nothing` or `"text"` (masked when secret).
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a map".into(),
            Value::Scalar(scalar) if scalar.secret => MASK.into(),
            Value::Scalar(scalar) => {
                let mut shown: String = scalar.text.chars().take(DESCRIBED_CHARS).collect();
                if shown.len() < scalar.text.len() {
                    shown.push('…');
                }
                format!("{shown:?}")
            }
        }
    }
}

/// How much of a wrong value an error repeats.
const DESCRIBED_CHARS: usize = 60;

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Null => f.write_str("~"),
            Value::Scalar(scalar) if scalar.secret => f.write_str(MASK),
            Value::Scalar(scalar) => write!(f, "{:?}", scalar.text),
            Value::List(items) => f.debug_list().entries(items).finish(),
            Value::Map(entries) => {
                f.debug_map().entries(entries.iter().map(|entry| (&entry.name, &entry.value))).finish()
            }
        }
    }
}
