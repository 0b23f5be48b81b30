//! Edits of bodies, for the two transformers.
//!
//! Owns which formats can be edited, and how one entry of a configuration is read as a place in a body. The steps and
//! their order are `transform`'s. Never reads from or writes to a connection: a body is a whole text here.
//!
//! | format | media type | a name is |
//! |---|---|---|
//! | `json` | `application/json`, `*/*+json` | a member; `a.b`, `a[0].b`, `a[*].b` go down, unless dots are part of names |
//! | `form` | `application/x-www-form-urlencoded` | a field, whatever its characters |
//! | `multipart` | `multipart/form-data` | the name of a part, whatever its characters |
//!
//! **Invariant.** What an edit does not name keeps its bytes: numbers their digits, members their order, parts their
//! fields.

mod form;
mod json;
mod multipart;
mod read;

use portcullis_config::Fault;

use super::transform::{Edits, Reader, Rendered, Step, Text};
use crate::http::Head;

/// A format that can be edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Form,
    Multipart {
        /// What stands between the parts, without the leading dashes.
        boundary: Vec<u8>,
    },
}

/// A body that is not what its media type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A place in a body, and how a value that is put there is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    text: Box<str>,
    path: Box<[Segment]>,
    value: ValueKind,
}

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Member(Box<str>),
    Item(usize),
    Items,
}

/// How a configured value is written in JSON (Kong's `json_types`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ValueKind {
    #[default]
    String,
    Number,
    Boolean,
}

impl ValueKind {
    /// Whether the text is of this kind.
    pub fn fits(self, text: &[u8]) -> bool {
        match self {
            ValueKind::String => true,
            ValueKind::Number => serde_json::from_slice::<serde_json::Number>(text).is_ok(),
            ValueKind::Boolean => matches!(text, b"true" | b"false"),
        }
    }
}

impl Format {
    /// The format of a body of this `Content-Type`; `None` for one that cannot be edited.
    pub fn of(content_type: &[u8]) -> Option<Format> {
        let (media, parameters) = match content_type.iter().position(|&byte| byte == b';') {
            Some(at) => (&content_type[..at], &content_type[at + 1..]),
            None => (content_type, &[][..]),
        };
        let media = media.trim_ascii().to_ascii_lowercase();
        match &*media {
            b"application/json" => Some(Format::Json),
            b"application/x-www-form-urlencoded" => Some(Format::Form),
            b"multipart/form-data" => Some(Format::Multipart { boundary: boundary(parameters)? }),
            _ if media.contains(&b'/') && media.ends_with(b"+json") => Some(Format::Json),
            _ => None,
        }
    }
}

/// RFC 2046 section 5.1.1: a token or a quoted text of up to 70 characters.
fn boundary(parameters: &[u8]) -> Option<Vec<u8>> {
    for parameter in parameters.split(|&byte| byte == b';') {
        let parameter = parameter.trim_ascii();
        let Some(equals) = parameter.iter().position(|&byte| byte == b'=') else { continue };
        if !parameter[..equals].trim_ascii().eq_ignore_ascii_case(b"boundary") {
            continue;
        }
        let value = parameter[equals + 1..].trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
        let fits = (1..=70).contains(&value.len()) && value.iter().all(|byte| (0x20..0x7f).contains(byte));
        return fits.then(|| value.to_vec());
    }
    None
}

impl Place {
    /// Reads a name as it is configured.
    pub fn parse(text: &str) -> Result<Place, Fault> {
        if text.is_empty() {
            return Err(Fault::new("a field of a body has a name"));
        }
        if text.contains("$(") {
            return Err(Fault::new(format!("'{text}' is a template, which a name cannot be")));
        }
        Ok(Place { text: text.into(), path: segments(text), value: ValueKind::String })
    }

    /// The same as the name of one member, dots and all.
    pub fn whole(mut self) -> Place {
        self.path = [Segment::Member(self.text.clone())].into();
        self
    }

    /// The same with values of another kind.
    pub fn with_values(mut self, value: ValueKind) -> Place {
        self.value = value;
        self
    }

    /// The name as it is configured.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// `a.b[0].c[*]` in steps. A bracket that holds neither a number nor `*` is part of the name.
fn segments(text: &str) -> Box<[Segment]> {
    let mut all = Vec::new();
    for part in text.split('.') {
        let mut name = part;
        let mut behind = Vec::new();
        while let Some((before, inside)) = name.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
            let segment = match inside {
                "*" => Segment::Items,
                _ => match inside.parse() {
                    Ok(index) => Segment::Item(index),
                    Err(_) => break,
                },
            };
            behind.push(segment);
            name = before;
        }
        if !name.is_empty() || behind.is_empty() {
            all.push(Segment::Member(name.into()));
        }
        all.extend(behind.into_iter().rev());
    }
    all.into()
}

/// Names in lists of edits are places, values are texts.
pub struct Places<V> {
    /// How a value is read.
    pub value: V,
    /// Kong's `dots_in_keys`: a dot in a name is part of it, and nothing goes down.
    pub dots_in_keys: bool,
}

impl<V: FnMut(&str) -> Result<Text, Fault>> Reader for Places<V> {
    type Name = Place;

    fn name(&mut self, _: Step, text: &str) -> Result<Place, Fault> {
        let place = Place::parse(text)?;
        Ok(if self.dots_in_keys { place.whole() } else { place })
    }

    fn value(&mut self, text: &str) -> Result<Text, Fault> {
        (self.value)(text)
    }
}

/// Whether the body is coded (gzip and the like), so that its text is out of reach.
pub fn is_coded(head: &Head) -> bool {
    let mut codings = head.get_all("Content-Encoding");
    codings
        .any(|value| !value.trim_ascii().is_empty() && !value.trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// Takes away what is true of the bytes that were sent, and not of those that go on.
pub fn drop_validators(head: &mut Head) {
    for name in ["ETag", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest", "Accept-Ranges"] {
        head.remove(name);
    }
}

impl Edits<Place> {
    /// Whether there is anything to do at all.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.rename.is_empty() && self.replace.is_empty() && self.adds_nothing()
    }

    /// Whether nothing is done to a body that is empty: Kong makes one only to add to it.
    pub fn adds_nothing(&self) -> bool {
        self.add.is_empty() && self.append.is_empty()
    }

    /// Makes the edits, step by step.
    pub fn apply_to_body(
        &self,
        format: &Format,
        body: &mut Vec<u8>,
        rendered: &Rendered,
    ) -> Result<(), Malformed> {
        if body.is_empty() && self.adds_nothing() {
            return Ok(());
        }
        *body = match format {
            Format::Json => json::edited(self, body, rendered)?,
            Format::Form => form::edited(self, body, rendered),
            Format::Multipart { boundary } => multipart::edited(self, boundary, body, rendered)?,
        };
        Ok(())
    }
}

/// Leaves of a JSON body what the places name, and nothing else. A body that is no object stays as it is.
pub fn allow_json(places: &[Place], body: &mut Vec<u8>) -> Result<(), Malformed> {
    if !body.trim_ascii().is_empty() {
        *body = json::allowed(places, body)?;
    }
    Ok(())
}

/// The same of a form.
pub fn allow_form(places: &[Place], body: &mut Vec<u8>) {
    *body = form::allowed(places, body);
}

#[cfg(test)]
mod tests;
