//! Statuses of responses that a plugin is about: `200`, `500-599` (Kong's `if_status`, Traefik's `status`).

use std::ops::RangeInclusive;

use portcullis_config::{Fault, Fields, Node};

/// Statuses; an empty list is every status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Reads a list of numbers and ranges; several may stand in one text with commas between them. What is wrong is reported and left out.
    pub fn read(fields: &Fields<'_>, key: &str) -> Self {
        let items = fields.get(key).map(Node::items).unwrap_or_default();
        let mut all = Vec::new();
        for (number, item) in items.iter().enumerate() {
            for text in item.text().unwrap_or_default().split(',') {
                let Some(range) = range(text) else {
                    let fault = Fault::new(format!("{text:?} is neither a status nor a range of them"));
                    let path = format!("{}[{number}]", fields.path_of(key));
                    fields.diagnostics().error(item.span, path, fault.hint("as in `404` or `500-599`"));
                    continue;
                };
                all.push(range);
            }
        }
        Self(all)
    }

    /// One status, or one range of them.
    pub fn one(text: &str) -> Option<Self> {
        range(text).map(|range| Self(vec![range]))
    }

    pub fn is_every(&self) -> bool {
        self.0.is_empty()
    }

    pub fn include(&self, status: u16) -> bool {
        self.0.is_empty() || self.0.iter().any(|range| range.contains(&status))
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| {
        let text = text.trim();
        text.parse::<u16>().ok().filter(|status| text.len() == 3 && (100..=599).contains(status))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges() {
        assert_eq!(range("404"), Some(404..=404));
        assert_eq!(range("500 - 599"), Some(500..=599));
        for text in ["", "5xx", "600", "99", "599-500", "200-", "+200"] {
            assert_eq!(range(text), None, "{text}");
        }
    }
}
