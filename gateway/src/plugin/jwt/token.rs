//! The compact serialisation of a token (RFC 7515 section 7.1), and what stands in its header and claims.
//!
//! Owns base64url and the reading of the two JSON objects. Never checks a signature: nothing read here is to be
//! believed. Stricter than JSON parsers use to be, because the upstream may read the token again with another one:
//! no member twice, no padding, no stray bits.
//!
//! **Invariant.** Work and memory are linear in the length of the token, however deep its claims are nested.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use portcullis_config::JwtAlgorithm;

/// A token cut into its parts. What is wrong with it is said as Kong says it, after `Bad token; `.
pub struct Compact<'a> {
    /// The whole token.
    pub text: &'a [u8],
    /// Header and claims as they are signed, encoded.
    pub signed: &'a [u8],
    /// The signature, encoded.
    pub signature: &'a str,
    header: Vec<u8>,
    claims: Vec<u8>,
}

/// A member's value, as far as anything depends on it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Bool(bool),
    /// `null`, an array or an object.
    Other,
}

/// The members of a JSON object, each name once.
#[derive(Debug, PartialEq)]
pub struct Members<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl<'a> Compact<'a> {
    /// Cuts a token apart: three parts, of which the first two are base64url of UTF-8 text.
    pub fn split(text: &'a [u8]) -> Result<Self, &'static str> {
        let mut parts = text.split(|&byte| byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("invalid JSON");
        };
        let signed = &text[..header.len() + 1 + claims.len()];
        let signature = std::str::from_utf8(signature).map_err(|_| "invalid signature")?;
        let part = |text| base64(text, Alphabet::Url).ok_or("invalid JSON");
        Ok(Self { text, signed, signature, header: part(header)?, claims: part(claims)? })
    }

    /// The header.
    pub fn header(&self) -> Result<Members<'_>, &'static str> {
        Members::parse(&self.header).ok_or("invalid JSON")
    }

    /// The claims.
    pub fn claims(&self) -> Result<Members<'_>, &'static str> {
        Members::parse(&self.claims).ok_or("invalid JSON")
    }

    /// The claims with all that is in them. `None` too where they are nested deeper than the parser's bound.
    pub fn all_claims(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        serde_json::from_slice(&self.claims).ok()
    }
}

/// The algorithm that a header asks for, if it asks for nothing that we do not do. Keys in the header (`jwk`, `jku`,
/// `x5c`, `x5u`) are never looked at: whoever makes a token must not choose what it is checked with.
pub fn algorithm(header: &Members<'_>) -> Result<JwtAlgorithm, &'static str> {
    check_extensions(header)?;
    match header.get("alg") {
        // `none` is no word of ours, in whatever case.
        Some(Value::Text(word)) => JwtAlgorithm::from_word(word).ok_or("invalid alg"),
        _ => Err("invalid alg"),
    }
}

/// Refuses what a header asks for beside an algorithm that we do not do.
pub fn check_extensions(header: &Members<'_>) -> Result<(), &'static str> {
    // RFC 7515 section 4.1.11: who does not understand a critical extension must refuse, and we have none.
    if header.get("crit").is_some() {
        return Err("unknown critical header parameter");
    }
    // RFC 7797: an unencoded payload. Without `crit` it is against the rules, and ambiguous.
    if !matches!(header.get("b64"), None | Some(Value::Bool(true))) {
        return Err("unencoded payload");
    }
    Ok(())
}

/// Refuses a token of a kind that is not among `kinds`, lower-case media types without `application/`. Without a kind it
/// is refused where `needed`.
pub fn check_kind(header: &Members<'_>, kinds: &[impl AsRef<str>], needed: bool) -> Result<(), &'static str> {
    // RFC 8725 section 3.11: a token of another kind that was signed with the same key is none of ours.
    match header.get("typ") {
        None if needed => Err("invalid typ"),
        None => Ok(()),
        Some(Value::Text(kind)) => {
            let kind = kind.strip_prefix("application/").unwrap_or(kind);
            let fits = kinds.iter().any(|known| kind.eq_ignore_ascii_case(known.as_ref()));
            if fits { Ok(()) } else { Err("invalid typ") }
        }
        Some(_) => Err("invalid typ"),
    }
}

impl<'a> Members<'a> {
    /// Reads one JSON object and nothing after it. `None` too when a name is there twice (RFC 7519 section 4).
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let members: Self = serde_json::from_slice(text).ok()?;
        let mut names: Vec<&str> = members.0.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        let unique = names.windows(2).all(|pair| pair[0] != pair[1]);
        unique.then_some(members)
    }

    /// The value of a member.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key()? {
                    // A name is a text in JSON.
                    let Value::Text(name) = name else { return Err(de::Error::custom("a name")) };
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
                Ok(Value::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
                Ok(Value::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
                Ok(Value::Bool(value))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
                Ok(Value::Number(number as f64))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
                Ok(Value::Number(number as f64))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
                Ok(Value::Number(number))
            }

            fn visit_unit<E>(self) -> Result<Value<'de>, E> {
                Ok(Value::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Value::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value<'de>, A::Error> {
                while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Value::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Which base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// base64url without padding (RFC 7515 section 2).
    Url,
    /// Either alphabet, with or without padding: what people write into configurations.
    Any,
}

/// Decodes base64. `None` for a foreign byte, an impossible length, or bits that belong to no byte: an encoding that
/// is not the only one would let one token have several spellings.
pub fn base64(text: &[u8], alphabet: Alphabet) -> Option<Vec<u8>> {
    let text = match alphabet {
        Alphabet::Url => text,
        Alphabet::Any => text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text),
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut word = 0;
        for &digit in group {
            word = word << 6 | digit_value(digit, alphabet)?;
        }
        let [_, first, second, third] = (word << (6 * (4 - group.len()))).to_be_bytes();
        match (group.len(), second, third) {
            (4, ..) => bytes.extend([first, second, third]),
            (3, _, 0) => bytes.extend([first, second]),
            (2, 0, 0) => bytes.push(first),
            _ => return None,
        }
    }
    Some(bytes)
}

fn digit_value(digit: u8, alphabet: Alphabet) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        b'+' if alphabet == Alphabet::Any => 62,
        b'/' if alphabet == Alphabet::Any => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
