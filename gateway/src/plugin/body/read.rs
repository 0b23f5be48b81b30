//! Looking up one field of a body, for who does not edit it.
//!
//! Owns nothing. Never decides which of several values counts: it gives them all.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::{Format, Malformed, multipart};
use crate::http::query::parameters;

impl Format {
    /// All values under a name: of members of the outermost object, of fields, of parts. Numbers are given as they are
    /// written; what is neither text nor number is left out.
    ///
    /// # Errors
    /// The body is not what its media type says.
    pub fn values(&self, body: &[u8], name: &str) -> Result<Vec<Vec<u8>>, Malformed> {
        match self {
            Format::Json => {
                if !body.trim_ascii_start().starts_with(b"{") {
                    // Another JSON text has no members; whether it is one, others look.
                    return Ok(Vec::new());
                }
                let members: Members = serde_json::from_slice(body).map_err(|_| Malformed)?;
                let own = members.0.into_iter().filter(|(known, _)| known == name);
                let text = |value| match value {
                    Value::String(text) => Some(text.into_bytes()),
                    Value::Number(number) => Some(number.to_string().into_bytes()),
                    _ => None,
                };
                Ok(own.filter_map(|(_, value)| text(value)).collect())
            }
            Format::Form => {
                let own = parameters(body).filter(|parameter| parameter.is(name.as_bytes()));
                Ok(own.map(|parameter| parameter.value().into_owned()).collect())
            }
            Format::Multipart { boundary } => multipart::values(boundary, body, name),
        }
    }
}

/// An object that keeps members of the same name apart.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AllMembers)
    }
}

struct AllMembers;

impl<'de> Visitor<'de> for AllMembers {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.len() < MEMBERS_MAX {
                members.push((name, map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Members(members))
    }
}

/// Members that are looked at.
const MEMBERS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_under_a_name_is_given() {
        let multipart = Format::of(b"multipart/form-data; boundary=x").expect("a format");
        let parts = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
                     --x\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n2\r\n\
                     --x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n3\r\n--x--\r\n";
        for (format, body, expected) in [
            (&Format::Json, r#"{"b": "1", "a": "2", "c": {"a": "3"}}"#, Ok(vec!["2"])),
            (&Format::Json, r#"{"a": "1", "a": 2}"#, Ok(vec!["1", "2"])),
            (&Format::Json, r#"{"a": null, "\u0061": ["x"]}"#, Ok(vec![])),
            (&Format::Json, r#"[{"a": "1"}]"#, Ok(vec![])),
            (&Format::Json, r#"{"a": "#, Err(Malformed)),
            (&Format::Form, "b=1&a=x%20y&%61=z", Ok(vec!["x y", "z"])),
            (&Format::Form, "", Ok(vec![])),
            (&multipart, parts, Ok(vec!["1", "3"])),
            (&multipart, "no parts", Err(Malformed)),
            (&multipart, "", Ok(vec![])),
        ] {
            let values = format.values(body.as_bytes(), "a");
            let texts =
                values.map(|all| all.into_iter().map(|one| String::from_utf8(one).expect("text")).collect());
            assert_eq!(
                texts,
                expected.map(|all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<Vec<_>>()),
                "{body}"
            );
        }
    }
}
