//! What some plugins look at that is not made for every request.
//!
//! A plugin says with [`PluginSpec::wants`](super::PluginSpec::wants) what it needs, the snapshot adds that up for a route,
//! and whoever has it (the router, an authentication plugin) leaves it in the exchange only then. So a route whose plugins
//! ask for nothing of it pays nothing.

use serde_json::{Map, Value};

use crate::route;

/// What is to be kept for the plugins of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// What the groups of the route's path expression matched.
    pub captures: bool,
    /// The claims of the client's token.
    pub claims: bool,
}

impl Wants {
    /// What one of the two wants.
    pub fn or(self, other: Self) -> Self {
        Self { captures: self.captures || other.captures, claims: self.claims || other.claims }
    }
}

/// What the groups of a path expression matched in the path that was routed by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures(Vec<(Option<String>, Vec<u8>)>);

impl Captures {
    /// The texts of groups that took part in the match; others are empty.
    pub fn new(groups: &route::Captures, path: &[u8]) -> Self {
        let text = |range: Option<std::ops::Range<usize>>| {
            range.and_then(|range| path.get(range)).unwrap_or_default().to_vec()
        };
        Self(groups.iter().map(|(name, range)| (name.map(str::to_owned), text(range))).collect())
    }

    /// The text of a group: by its name, or by its number, where 1 is the first.
    pub fn get(&self, group: &str) -> Option<&[u8]> {
        let named = self.0.iter().find(|(name, _)| name.as_deref() == Some(group));
        let found = named.or_else(|| self.0.get(group.parse::<usize>().ok()?));
        found.map(|(_, text)| &**text)
    }
}

/// A claim as text; `None` where it has no text that a header field could hold: objects, null, lists of other than texts.
pub fn claim_text(claims: &Map<String, Value>, path: &[String]) -> Option<String> {
    let (first, rest) = path.split_first()?;
    let found = rest.iter().try_fold(claims.get(first)?, |value, name| value.get(name))?;
    let text = match found {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => found.to_string(),
        Value::Array(items) => {
            let texts = items.iter().map(|item| item.as_str().filter(|text| !text.contains(',')));
            texts.collect::<Option<Vec<_>>>().map(|texts| texts.join(","))?
        }
        Value::Null | Value::Object(_) => return None,
    };
    // A field value holds no controls (RFC 9110 section 5.5), and ours no bytes that servers read differently.
    let plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text;
    plain.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_texts_only_where_a_field_could_hold_them() {
        let held: Map<String, Value> = serde_json::from_str(
            r#"{"sub":"ann","n":5,"g":["a","b"],"bad":["a,b"],"o":{"r":"x"},"c":"a\r\nb","u":"é","z":null}"#,
        )
        .expect("an object");
        for (path, expected) in [
            ("sub", Some("ann")),
            ("n", Some("5")),
            ("g", Some("a,b")),
            ("o.r", Some("x")),
            ("bad", None),
            ("o", None),
            ("c", None),
            ("u", None),
            ("z", None),
            ("none", None),
        ] {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            assert_eq!(claim_text(&held, &path).as_deref(), expected, "{path:?}");
        }
    }
}
