//! A file in Kong's format, in our own words.
//!
//! Owns what falls away (bookkeeping, notes of tools) and what is written otherwise today: paths of formats before 3.0,
//! keys that have moved. Invariant: the result means what the file meant.

use super::tree::{Map, plain};
use crate::model::Defaults;
use crate::node::{Entry, Node, Value};
use crate::schema::{Kind, PluginCatalog, Section, Status};
use crate::sections::{PLUGIN, ROOT, ROUTE};

/// Makes our own of one file's tree.
pub(crate) fn rewrite(tree: &mut Node, catalog: &dyn PluginCatalog) {
    let old_paths = tree.get("_format_version").and_then(Node::text).is_some_and(|version| version != "3.0");
    let Value::Map(entries) = &mut tree.value else { return };
    entries.retain(|entry| !entry.name.starts_with("x-") && entry.name != "_format_version");
    Rewriter { catalog, old_paths }.section(tree, &ROOT);
}

/// One tree of several files: lists joined, of everything else the first.
pub(crate) fn join(trees: Vec<Node>, defaults: Defaults) -> Node {
    let span = trees.first().map(|tree| tree.span).unwrap_or_default();
    let mut root = Map::new(span);
    let chosen = match defaults {
        Defaults::Kong => "kong",
        Defaults::Portcullis => "portcullis",
    };
    root.put("defaults", plain(span, chosen));
    let mut root = root.node();
    for tree in trees {
        let Value::Map(entries) = tree.value else { continue };
        for entry in entries {
            let Value::Map(all) = &mut root.value else { continue };
            match all.iter_mut().find(|known| known.name == entry.name) {
                None => all.push(entry),
                Some(known) => {
                    if let (Value::List(known), Value::List(more)) =
                        (&mut known.value.value, entry.value.value)
                    {
                        known.extend(more);
                    }
                }
            }
        }
    }
    root
}

struct Rewriter<'c> {
    catalog: &'c dyn PluginCatalog,
    old_paths: bool,
}

impl Rewriter<'_> {
    fn section(&self, node: &mut Node, section: &'static Section) {
        if std::ptr::eq(section, &ROUTE) && self.old_paths {
            mark_expressions(node);
        }
        let plugin =
            std::ptr::eq(section, &PLUGIN).then(|| node.get("name").and_then(Node::text).map(str::to_owned));
        let Value::Map(entries) = &mut node.value else { return };
        let keep = |entry: &Entry| match section.key(&entry.name) {
            Some(key) => key.status != Status::Ignored,
            None => !matches!(entry.name.as_str(), "_comment" | "_ignore"),
        };
        entries.retain(keep);
        for entry in entries {
            let Some(key) = section.key(&entry.name) else { continue };
            if entry.name == "config"
                && let Some(of) = plugin.as_ref().and_then(|name| self.catalog.section(name.as_deref()?))
            {
                move_redis(&mut entry.value);
                self.section(&mut entry.value, of);
                continue;
            }
            self.kind(&mut entry.value, &key.kind);
        }
    }

    fn kind(&self, node: &mut Node, kind: &Kind) {
        match (kind, &mut node.value) {
            (Kind::Section(section), Value::Map(_)) => self.section(node, section),
            (Kind::List { of, .. }, Value::List(items)) => {
                items.iter_mut().for_each(|item| self.kind(item, of))
            }
            (Kind::Either(kinds), Value::Map(_) | Value::List(_)) => {
                kinds.iter().for_each(|kind| self.kind(node, kind))
            }
            _ => {}
        }
    }
}

/// Before 3.0 a path that holds other characters than a plain one was an expression.
fn mark_expressions(route: &mut Node) {
    let Value::Map(entries) = &mut route.value else { return };
    let Some(paths) = entries.iter_mut().find(|entry| entry.name == "paths") else { return };
    let Value::List(items) = &mut paths.value.value else { return };
    for item in items {
        let Value::Scalar(scalar) = &mut item.value else { continue };
        if !scalar.text.starts_with('~') && !crate::build::is_plain_path(&scalar.text) {
            scalar.text.insert(0, '~');
            scalar.quoted = true;
        }
    }
}

/// `redis_host` and its like have a section of their own now.
fn move_redis(config: &mut Node) {
    let Value::Map(entries) = &mut config.value else { return };
    let is_moved = |entry: &Entry| entry.name.starts_with("redis_") && !entry.value.is_null();
    let (moved, rest): (Vec<Entry>, Vec<Entry>) = std::mem::take(entries).into_iter().partition(is_moved);
    *entries = rest;
    if moved.is_empty() {
        return;
    }
    if entries.iter().all(|entry| entry.name != "redis") {
        let span = moved[0].name_span;
        entries.push(Entry { name: "redis".into(), name_span: span, value: Node::empty_map(span) });
    }
    let Some(Value::Map(inner)) =
        entries.iter_mut().find(|entry| entry.name == "redis").map(|entry| &mut entry.value.value)
    else {
        return;
    };
    for entry in moved {
        let name = entry.name.trim_start_matches("redis_").to_owned();
        if inner.iter().all(|known| known.name != name) {
            inner.push(Entry { name, ..entry });
        }
    }
}

/// References to the outside as they are written, so that no value from there is ever printed.
pub(crate) struct AsWritten;

impl crate::environment::Environment for AsWritten {
    fn variable(&self, name: &str) -> Option<String> {
        Some(format!("${{env:{name}}}"))
    }

    fn file(&self, path: &std::path::Path) -> Result<String, String> {
        Ok(format!("${{file:{}}}", path.display()))
    }
}
