//! Parts of a tree that nobody wrote, each with the place that it stands for.

use crate::node::{Entry, Node, Scalar, Value};
use crate::source::Span;

/// A map under construction.
#[derive(Clone, Debug)]
pub(super) struct Map(Node);

impl Map {
    pub(super) fn new(span: Span) -> Self {
        Self(Node::empty_map(span))
    }

    /// Adds a key, or gives it another value.
    pub(super) fn put(&mut self, name: &str, value: Node) {
        let Value::Map(entries) = &mut self.0.value else { return };
        entries.retain(|entry| entry.name != name);
        entries.push(Entry { name: name.to_owned(), name_span: value.span, value });
    }

    /// Adds a key unless there is nothing to add.
    pub(super) fn maybe(&mut self, name: &str, value: Option<Node>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    pub(super) fn with(mut self, name: &str, value: Node) -> Self {
        self.put(name, value);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.entries().is_empty()
    }

    pub(super) fn node(self) -> Node {
        self.0
    }
}

/// A text that can only be a text.
pub(super) fn text(span: Span, text: impl Into<String>) -> Node {
    scalar(span, text.into(), true)
}

/// A number, a word, a duration.
pub(super) fn plain(span: Span, value: impl ToString) -> Node {
    scalar(span, value.to_string(), false)
}

fn scalar(span: Span, text: String, quoted: bool) -> Node {
    Node { span, value: Value::Scalar(Scalar { text, quoted, ..Scalar::default() }) }
}

pub(super) fn list(span: Span, items: Vec<Node>) -> Node {
    Node { span, value: Value::List(items) }
}
