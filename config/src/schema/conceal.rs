//! Marks the values of secret keys before anything looks at them.
//!
//! Owns the walk. Afterwards no error repeats such a value, no line is shown with it, and `Debug` masks it.

use super::{Kind, Section};
use crate::diagnostic::Diagnostics;
use crate::node::{Node, Value};

/// Marks what stands under the secret keys of `section`.
pub(crate) fn conceal(node: &mut Node, section: &'static Section, found: &Diagnostics) {
    let Value::Map(entries) = &mut node.value else { return };
    for entry in entries {
        let Some(key) = section.key(&entry.name) else { continue };
        if key.secret {
            conceal_all(&mut entry.value, found);
        }
        conceal_kind(&mut entry.value, &key.kind, found);
    }
}

fn conceal_kind(node: &mut Node, kind: &Kind, found: &Diagnostics) {
    match (kind, &mut node.value) {
        (Kind::Section(section), _) => conceal(node, section, found),
        (Kind::List { of, .. }, Value::List(items)) => {
            items.iter_mut().for_each(|item| conceal_kind(item, of, found));
        }
        (Kind::Either(kinds), _) => kinds.iter().for_each(|kind| conceal_kind(node, kind, found)),
        _ => {}
    }
}

/// Marks every text below. The span of a list or map is only its beginning, so each text is masked by itself.
fn conceal_all(node: &mut Node, found: &Diagnostics) {
    match &mut node.value {
        // What stands in the text is then the reference, which is no secret.
        Value::Scalar(scalar) if scalar.secret => {}
        Value::Scalar(scalar) => {
            scalar.secret = true;
            found.conceal(node.span);
        }
        Value::List(items) => items.iter_mut().for_each(|item| conceal_all(item, found)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| conceal_all(&mut entry.value, found)),
        Value::Null => {}
    }
}
