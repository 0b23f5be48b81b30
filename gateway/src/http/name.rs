//! Field names that are looked at and written over and over: plugins compile them once.
//!
//! Owns [`FieldName`] and the operations of a [`Head`] that take one. They do what the operations of the same name
//! do on text, without looking at each byte of the name again.
//!
//! **Invariant.** A `FieldName` is a token (RFC 9110 section 5.6.2), so it cannot split a head.

use super::head::{Head, is_token};
use super::known::Known;

/// A field name, checked and looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldName {
    known: Known,
    text: Box<[u8]>,
}

impl FieldName {
    /// The name as spelled in `text`; `None` where that is no token.
    pub fn new(text: impl AsRef<[u8]>) -> Option<FieldName> {
        let text = text.as_ref();
        is_token(text).then(|| FieldName { known: Known::of(text), text: text.into() })
    }

    /// Which of the listed names it is.
    #[inline]
    pub fn known(&self) -> Known {
        self.known
    }

    /// The spelling.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }
}

impl Head {
    /// Value of the first field of that name.
    #[inline]
    pub fn get_field(&self, name: &FieldName) -> Option<&[u8]> {
        match name.known {
            Known::Other => {
                let same = |(known, found, value)| {
                    (known == Known::Other && name.text.eq_ignore_ascii_case(found)).then_some(value)
                };
                self.iter().find_map(same)
            }
            known => self.get_known(known),
        }
    }

    /// Adds a field after all others.
    #[inline]
    pub fn append_field(&mut self, name: &FieldName, value: impl AsRef<[u8]>) {
        self.append_checked(name.known, &name.text, &[value.as_ref()]);
    }

    /// [`append_field`](Self::append_field) with the value put together from `parts`.
    #[inline]
    pub fn append_field_parts(&mut self, name: &FieldName, parts: &[&[u8]]) {
        self.append_checked(name.known, &name.text, parts);
    }

    /// Replaces all fields of that name by one, in the place of the first. Where there is none, adds none.
    #[inline]
    pub fn replace_field(&mut self, name: &FieldName, value: impl AsRef<[u8]>) {
        if self.get_field(name).is_some() {
            self.set(&name.text, value);
        }
    }

    /// Removes all fields of that name.
    #[inline]
    pub fn remove_field(&mut self, name: &FieldName) {
        match name.known {
            Known::Other => self.remove(&name.text),
            known => self.remove_known(known),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_token_whatever_it_is_made_of() {
        for bad in ["", "a b", "a:", "a\r\nb", "é"] {
            assert_eq!(FieldName::new(bad), None, "{bad:?}");
        }
        let name = FieldName::new("content-TYPE").expect("a token");
        assert_eq!((name.known(), name.as_bytes()), (Known::ContentType, &b"content-TYPE"[..]));
    }

    #[test]
    fn operations_by_name_are_those_by_text() {
        let mut head = Head::new();
        let (listed, other) = (FieldName::new("ETag").unwrap(), FieldName::new("X-Other").unwrap());
        assert_eq!((head.get_field(&listed), head.get_field(&other)), (None, None));
        head.append("x-OTHER", "1");
        head.append_field(&other, "2");
        head.append_field_parts(&listed, &[b"a", b"\r\nb"]);
        assert_eq!(head.get_field(&other), Some(&b"1"[..]));
        assert_eq!(head.get_field(&listed), Some(&b"a  b"[..]), "no value ends its line");
        assert_eq!(head.get_all("x-other").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(head.get_known(Known::Etag), Some(&b"a  b"[..]));
        head.replace_field(&other, "3");
        head.replace_field(&FieldName::new("X-Absent").unwrap(), "4");
        let all: Vec<_> = head.iter().map(|(_, name, value)| (name, value)).collect();
        assert_eq!(all, [(&b"X-Other"[..], &b"3"[..]), (b"ETag", b"a  b")]);
        head.remove_field(&other);
        head.remove_field(&listed);
        assert!(head.is_empty());
    }
}
