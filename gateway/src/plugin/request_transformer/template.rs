//! Values made from the request: `$(headers.x)` and `$(query_params.x)`.
//!
//! Owns the syntax and the rendering. In Kong what stands in `$(..)` is Lua; here it is one of these two look-ups, and
//! everything else is an error of the configuration, never literal text. What is absent renders as nothing.
//!
//! **Invariant.** Rendering reads the request as it came: templates are rendered before any edit.

use portcullis_config::Fault;

use crate::http::{FieldName, RequestHead};

/// A value with look-ups in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<[u8]>),
    /// The first field of that name.
    Header(FieldName),
    /// The first parameter of that name, decoded.
    Parameter(Box<[u8]>),
}

impl Template {
    /// The template that `text` is; `None` for a plain text.
    pub fn parse(text: &str) -> Result<Option<Template>, Fault> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("$(") {
            let end = closing(after).ok_or_else(|| Fault::new(format!("'$({after}' is not closed")))?;
            if !before.is_empty() {
                pieces.push(Piece::Literal(before.as_bytes().into()));
            }
            pieces.push(look_up(after[..end].trim())?);
            rest = &after[end + 1..];
        }
        if pieces.is_empty() {
            return Ok(None);
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.as_bytes().into()));
        }
        Ok(Some(Template(pieces)))
    }

    /// What the template begins with, if that is no look-up.
    pub fn literal_start(&self) -> &[u8] {
        match self.0.first() {
            Some(Piece::Literal(text)) => text,
            _ => b"",
        }
    }

    /// The literal parts.
    pub fn literals(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Literal(text) => Some(&**text),
            _ => None,
        })
    }

    /// Appends the text for `request`; what was looked up goes through `put`.
    pub fn render(&self, request: &RequestHead, out: &mut Vec<u8>, put: fn(&[u8], &mut Vec<u8>)) {
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Header(name) => put(request.head.get_field(name).unwrap_or_default(), out),
                Piece::Parameter(name) => {
                    if let Some(value) = request.parameter(name) {
                        put(&value, out);
                    }
                }
            }
        }
    }
}

/// Where the parenthesis closes that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' if depth == 0 => return Some(at),
            b')' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn look_up(expression: &str) -> Result<Piece, Fault> {
    let unknown = || {
        let fault = Fault::new(format!("the template '$({expression})' is none that is understood"));
        fault.hint("the templates are `$(headers.name)` and `$(query_params.name)`; Lua is not run")
    };
    let root_len = expression.bytes().take_while(|&byte| is_name(byte)).count();
    let (root, access) = expression.split_at(root_len);
    let name = key(access);
    match (root, name) {
        ("headers", Some(name)) => {
            // Lua has no dashes in names, so Kong takes an underscore for one here.
            let name = FieldName::new(name.replace('_', "-")).ok_or_else(unknown)?;
            Ok(Piece::Header(name))
        }
        ("query_params", Some(name)) if !name.is_empty() => Ok(Piece::Parameter(name.as_bytes().into())),
        ("uri_captures", _) => {
            let fault = Fault::new(format!("the template '$({expression})' is not rendered yet"));
            Err(fault.hint("the templates are `$(headers.name)` and `$(query_params.name)` for now"))
        }
        _ => Err(unknown()),
    }
}

/// The key in `.key`, `["key"]` or `['key']`.
fn key(access: &str) -> Option<&str> {
    if let Some(name) = access.strip_prefix('.') {
        return name.bytes().all(|byte| is_name(byte) || byte == b'-').then_some(name);
    }
    let inside = access.strip_prefix('[')?.strip_suffix(']')?.trim();
    let quoted =
        |quote| inside.strip_prefix(quote)?.strip_suffix(quote).filter(|name: &&str| !name.contains(quote));
    quoted('"').or_else(|| quoted('\''))
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::request_with;
    use super::*;

    fn rendered(text: &str) -> String {
        let template = Template::parse(text).expect("right").expect("a template");
        let request =
            request_with("/p?user=a%20b&empty=&flag", &["X-Forwarded-User: ann", "X-Two: 1", "X-Two: 2"]);
        let mut out = Vec::new();
        template.render(&request, &mut out, |text, out| out.extend_from_slice(text));
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn look_ups_are_rendered_in_their_place() {
        for (text, expected) in [
            ("$(headers.x_forwarded_user)", "ann"),
            ("$(headers[\"X-Forwarded-User\"])", "ann"),
            ("$( headers['x-forwarded-user'] )", "ann"),
            ("$(headers.x-forwarded-user)", "ann"),
            ("$(headers.x_two)", "1"),
            ("<$(query_params.user)>", "<a b>"),
            ("$(query_params[\"user\"])$(headers.x_two)!", "a b1!"),
            ("-$(headers.none)$(query_params.none)$(query_params.empty)$(query_params.flag)-", "--"),
        ] {
            assert_eq!(rendered(text), expected, "{text}");
        }
    }

    #[test]
    fn a_text_without_look_ups_is_no_template() {
        for text in ["", "$", "$5 (five)", "$ (headers.x)", "(headers.x)", "$$", "${headers.x}"] {
            assert_eq!(Template::parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn whatever_is_not_understood_is_an_error() {
        for text in [
            "$(",
            "$(headers.x",
            "$()",
            "$(headers)",
            "$(headers.)",
            "$(headers.a b)",
            "$(headers[x])",
            "$(headers[\"x])",
            "$(headers[\"a\"] or \"b\"])",
            "$(headers.x or 'none')",
            "$(query_params.)",
            "$(uri_captures.id)",
            "$(uri_captures[1])",
            "$(shared.x)",
            "$(header.x)",
            "$((function() return headers.x end)())",
            "a$(headers.x)b$(headers.",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
