//! The query of a request, as a list of parameters.
//!
//! Owns reading and editing of parameters (`application/x-www-form-urlencoded`, as Kong reads
//! queries). Never touches the path. Invariant: parameters that an edit does not name keep their
//! bytes and their order.
//!
//! Names are compared decoded, so `%61pikey` is `apikey`: a parameter cannot hide from a plugin
//! behind its spelling. Text that is put in is encoded but for unreserved characters.

use std::borrow::Cow;

use super::head::Span;
use super::path::{byte_of, is_unreserved, push_encoded};
use super::request::RequestHead;

/// One parameter as it stands in the query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameter<'a> {
    /// The name, encoded.
    pub raw_name: &'a [u8],
    /// The value, encoded; `None` where there is no `=`.
    pub raw_value: Option<&'a [u8]>,
}

impl<'a> Parameter<'a> {
    fn split(text: &'a [u8]) -> Parameter<'a> {
        match text.iter().position(|&byte| byte == b'=') {
            Some(at) => Parameter { raw_name: &text[..at], raw_value: Some(&text[at + 1..]) },
            None => Parameter { raw_name: text, raw_value: None },
        }
    }

    /// The name, decoded. Copies only where something is encoded.
    pub fn name(&self) -> Cow<'a, [u8]> {
        decode(self.raw_name)
    }

    /// The value, decoded; empty where there is none.
    pub fn value(&self) -> Cow<'a, [u8]> {
        decode(self.raw_value.unwrap_or_default())
    }

    /// Whether the decoded name is `name`. Copies nothing.
    pub fn is(&self, name: &[u8]) -> bool {
        let mut wanted = name.iter();
        Decoded(self.raw_name).all(|byte| wanted.next() == Some(&byte)) && wanted.next().is_none()
    }
}

/// What becomes of a parameter in an edit.
enum Edit<'a> {
    Keep,
    Drop,
    Name(&'a [u8]),
    Value(&'a [u8]),
}

/// The parameters of a query or of a form, in order. Empty ones, as in `a=1&&b=2`, are left out.
pub fn parameters(text: &[u8]) -> impl Iterator<Item = Parameter<'_>> {
    text.split(|&byte| byte == b'&').filter(|text| !text.is_empty()).map(Parameter::split)
}

impl RequestHead {
    /// The [`parameters`] of the query.
    pub fn parameters(&self) -> impl Iterator<Item = Parameter<'_>> {
        parameters(self.query().unwrap_or_default())
    }

    /// The decoded value of the first parameter of that name.
    pub fn parameter(&self, name: impl AsRef<[u8]>) -> Option<Cow<'_, [u8]>> {
        let name = name.as_ref();
        self.parameters().find(|parameter| parameter.is(name)).map(|parameter| parameter.value())
    }

    /// Adds a parameter unless one of that name is there; says whether it did.
    pub fn add_parameter(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> bool {
        let name = name.as_ref();
        let absent = !self.parameters().any(|parameter| parameter.is(name));
        if absent {
            self.append_parameter(name, value);
        }
        absent
    }

    /// Adds a parameter after all others.
    pub fn append_parameter(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let old = self.query.unwrap_or_default();
        let arena = self.head.arena();
        let start = arena.len();
        arena.extend_from_within(old.start()..old.end());
        if !old.is_empty() {
            arena.push(b'&');
        }
        encode(name.as_ref(), arena);
        arena.push(b'=');
        encode(value.as_ref(), arena);
        self.query = Some(Span::new(start, arena.len() - start));
    }

    /// Gives the first parameter of that name a new value and drops its namesakes; says whether
    /// there was one.
    pub fn replace_parameter(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> bool {
        let mut found = false;
        self.edit_parameters(|parameter| {
            if !parameter.is(name.as_ref()) {
                Edit::Keep
            } else if std::mem::replace(&mut found, true) {
                Edit::Drop
            } else {
                Edit::Value(value.as_ref())
            }
        });
        found
    }

    /// Removes all parameters of that name; says how many. A query that has none left goes.
    pub fn remove_parameter(&mut self, name: impl AsRef<[u8]>) -> usize {
        let mut removed = 0;
        self.edit_parameters(|parameter| {
            if parameter.is(name.as_ref()) {
                removed += 1;
                Edit::Drop
            } else {
                Edit::Keep
            }
        });
        removed
    }

    /// Gives all parameters called `old` the name `new`; says how many. They replace what was called
    /// `new` before, as in Kong's transformer.
    pub fn rename_parameter(&mut self, old: impl AsRef<[u8]>, new: impl AsRef<[u8]>) -> usize {
        let (old, new) = (old.as_ref(), new.as_ref());
        if !self.parameters().any(|parameter| parameter.is(old)) {
            return 0;
        }
        let mut renamed = 0;
        self.edit_parameters(|parameter| {
            if parameter.is(old) {
                renamed += 1;
                Edit::Name(new)
            } else if parameter.is(new) {
                Edit::Drop
            } else {
                Edit::Keep
            }
        });
        renamed
    }

    /// Writes the query anew. Nothing is written where nothing would change.
    fn edit_parameters<'a>(&mut self, mut edit: impl FnMut(Parameter<'_>) -> Edit<'a>) {
        let Some(old) = self.query else { return };
        let arena = self.head.arena();
        let start = arena.len();
        let mut changed = false;
        let mut at = old.start();
        while at < old.end() {
            let text = &arena[at..old.end()];
            let len = text.iter().position(|&byte| byte == b'&').unwrap_or(text.len());
            let parameter = Parameter::split(&text[..len]);
            let name_len = parameter.raw_name.len();
            let decision = if len == 0 { Edit::Keep } else { edit(parameter) };
            if !matches!(decision, Edit::Drop) && arena.len() > start {
                arena.push(b'&');
            }
            changed |= !matches!(decision, Edit::Keep);
            match decision {
                Edit::Keep => arena.extend_from_within(at..at + len),
                Edit::Drop => {}
                Edit::Name(name) => {
                    encode(name, arena);
                    arena.extend_from_within(at + name_len..at + len);
                }
                Edit::Value(value) => {
                    arena.extend_from_within(at..at + name_len);
                    arena.push(b'=');
                    encode(value, arena);
                }
            }
            at += len + 1;
        }
        let len = arena.len() - start;
        if !changed {
            arena.truncate(start);
        } else if len == 0 {
            self.query = None;
        } else {
            self.query = Some(Span::new(start, len));
        }
    }
}

/// Decoded bytes of form-encoded text. `%` without two hex digits stands for itself.
struct Decoded<'a>(&'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        match *self.0 {
            [] => None,
            [b'%', high, low, ref rest @ ..] if byte_of(high, low).is_some() => {
                self.0 = rest;
                byte_of(high, low)
            }
            [byte, ref rest @ ..] => {
                self.0 = rest;
                Some(if byte == b'+' { b' ' } else { byte })
            }
        }
    }
}

fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        Cow::Owned(Decoded(text).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// Appends `text` with everything but unreserved characters encoded.
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        if is_unreserved(byte) { out.push(byte) } else { push_encoded(out, byte) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(query: Option<&str>) -> RequestHead {
        let mut request = RequestHead::new();
        request.set_query(query.map(str::as_bytes));
        request
    }

    fn query(request: &RequestHead) -> Option<String> {
        request.query().map(|query| String::from_utf8_lossy(query).into_owned())
    }

    #[test]
    fn parameters_are_read_decoded() {
        let request = request(Some("a=1&&b&c=&%61=2&d=x+y%20z%2&=e"));
        let read: Vec<_> = request
            .parameters()
            .map(|parameter| {
                let text = |bytes: Cow<'_, [u8]>| String::from_utf8_lossy(&bytes).into_owned();
                (text(parameter.name()), text(parameter.value()))
            })
            .collect();
        let want = [("a", "1"), ("b", ""), ("c", ""), ("a", "2"), ("d", "x y z%2"), ("", "e")];
        assert_eq!(read, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(request.parameter("a").as_deref(), Some(&b"1"[..]));
        assert!(matches!(request.parameter("a"), Some(Cow::Borrowed(_))));
        assert_eq!(request.parameter("A"), None);
        assert_eq!(request.parameter("b").as_deref(), Some(&b""[..]));
    }

    #[test]
    fn edits_leave_the_rest_alone() {
        type Act = fn(&mut RequestHead);
        let table: &[(Option<&str>, Act, Option<&str>)] = &[
            (None, |r| assert!(r.add_parameter("a b", "c&d=\u{e9}")), Some("a%20b=c%26d%3D%C3%A9")),
            (Some(""), |r| r.append_parameter("a", "1"), Some("a=1")),
            (Some("x=%2f"), |r| r.append_parameter("a", "1"), Some("x=%2f&a=1")),
            (Some("a=0"), |r| assert!(!r.add_parameter("a", "1")), Some("a=0")),
            (Some("a=0"), |r| r.append_parameter("a", "1"), Some("a=0&a=1")),
            (Some("x&%61=1&b=2&a=3"), |r| assert_eq!(r.remove_parameter("a"), 2), Some("x&b=2")),
            (Some("a=1"), |r| assert_eq!(r.remove_parameter("a"), 1), None),
            (Some("b=%zz&&c"), |r| assert_eq!(r.remove_parameter("a"), 0), Some("b=%zz&&c")),
            (None, |r| assert_eq!(r.remove_parameter("a"), 0), None),
            (Some("a=1&b&a=2"), |r| assert!(r.replace_parameter("a", "+")), Some("a=%2B&b")),
            (Some("a&b"), |r| assert!(r.replace_parameter("a", "1")), Some("a=1&b")),
            (Some("b=1"), |r| assert!(!r.replace_parameter("a", "1")), Some("b=1")),
            (Some("a=1&b=2&c"), |r| assert_eq!(r.rename_parameter("a", "b"), 1), Some("b=1&c")),
            (Some("a&c"), |r| assert_eq!(r.rename_parameter("a", "x y"), 1), Some("x%20y&c")),
            (Some("b=1"), |r| assert_eq!(r.rename_parameter("a", "b"), 0), Some("b=1")),
        ];
        for (before, act, after) in table {
            let mut request = request(*before);
            act(&mut request);
            assert_eq!(query(&request).as_deref(), *after, "{before:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_put_in_is_read_back(
            before in "[a-c=&%+]{0,12}",
            name in proptest::collection::vec(any::<u8>(), 0..8),
            value in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let mut request = request(Some(&before));
            let kept: Vec<_> = {
                let others = request.parameters().filter(|parameter| !parameter.is(&name));
                others.map(|parameter| (parameter.name().into_owned(), parameter.value().into_owned())).collect()
            };
            request.remove_parameter(&name);
            request.append_parameter(&name, &value);
            let mut read: Vec<_> = request
                .parameters()
                .map(|parameter| (parameter.name().into_owned(), parameter.value().into_owned()))
                .collect();
            prop_assert_eq!(read.pop(), Some((name.clone(), value.clone())));
            prop_assert_eq!(read, kept);
            prop_assert!(request.query().unwrap().is_ascii());
            let found = request.parameter(&name);
            prop_assert_eq!(found.as_deref(), Some(&value[..]));
        }
    }
}
