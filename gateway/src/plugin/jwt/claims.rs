//! What a token must say beside its times, and what the upstream is told of it.
//!
//! Owns the rules about issuers, audiences, scopes and kinds (RFC 8725 sections 3.8 to 3.11, RFC 9068). Is asked about
//! tokens whose signature is good, and never before.

use portcullis_config::{Fault, Fields};
use serde_json::{Map, Value};

use super::Refused;
use super::token::{self, Members};
use crate::http::{Head, Known, KnownSet};

/// Rules about claims. Two equal ones judge all tokens alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    /// Empty for any.
    issuers: Vec<String>,
    /// One of them must be among the token's; empty for any.
    audiences: Vec<String>,
    /// All of them must be among the token's.
    scopes: Vec<String>,
    /// Media types; empty for JWT and at+jwt, or none.
    kinds: Vec<String>,
}

/// A claim that the upstream gets in a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    claim: Vec<String>,
    field: String,
}

/// What no claim may be sent as.
const OURS: KnownSet = KnownSet::of(&[
    Known::Host,
    Known::ContentLength,
    Known::TransferEncoding,
    Known::Connection,
    Known::Te,
    Known::Upgrade,
    Known::Expect,
    Known::XConsumerId,
    Known::XConsumerCustomId,
    Known::XConsumerUsername,
    Known::XCredentialIdentifier,
    Known::XAnonymousConsumer,
]);

impl Demands {
    /// Reads `issuers`, `audiences` and `scopes_required`.
    pub fn read(fields: &Fields<'_>) -> Self {
        Self {
            issuers: fields.strings("issuers"),
            audiences: fields.strings("audiences"),
            scopes: fields.strings("scopes_required"),
            kinds: Vec::new(),
        }
    }

    /// As [`read`](Self::read), with what only signed tokens have: `issuer` and `typ_allowed`.
    pub fn read_signed(fields: &Fields<'_>) -> Self {
        let mut demands = Self::read(fields);
        demands.issuers.extend(fields.optional_string("issuer"));
        demands.kinds = fields.strings("typ_allowed").iter().map(|kind| kind.to_ascii_lowercase()).collect();
        demands
    }

    /// Whether nothing is asked of claims.
    pub fn ask_nothing(&self) -> bool {
        self.issuers.is_empty() && self.audiences.is_empty() && self.scopes.is_empty()
    }

    /// The header's part.
    pub fn check_kind(&self, header: &Members<'_>) -> Result<(), &'static str> {
        match self.kinds.as_slice() {
            [] => token::check_kind(header, &["JWT", "at+jwt"], false),
            kinds => token::check_kind(header, kinds, true),
        }
    }

    /// The claims' part.
    pub fn check(&self, claims: &Map<String, Value>) -> Result<(), Refused> {
        let issuer = claims.get("iss").and_then(Value::as_str);
        if !self.issuers.is_empty()
            && !issuer.is_some_and(|issuer| self.issuers.iter().any(|known| known == issuer))
        {
            return Err(Refused::Claim("iss", "not an accepted issuer"));
        }
        if !self.audiences.is_empty()
            && !words(claims.get("aud"), false).any(|one| self.audiences.iter().any(|known| known == one))
        {
            return Err(Refused::Claim("aud", "not meant for this audience"));
        }
        let held = |wanted: &str| {
            let scopes = words(claims.get("scope"), true).chain(words(claims.get("scp"), true));
            scopes.into_iter().any(|scope| scope == wanted)
        };
        if self.scopes.iter().all(|wanted| held(wanted)) { Ok(()) } else { Err(Refused::Scope) }
    }
}

/// The texts of a claim that is one or a list of them; one is cut at spaces where it is `spaced`.
fn words(claim: Option<&Value>, spaced: bool) -> impl Iterator<Item = &str> {
    let list = match claim {
        Some(Value::Array(items)) => items.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let texts = list.iter().filter_map(Value::as_str);
    texts.flat_map(move |text| text.split(move |letter| spaced && letter == ' '))
}

impl Told {
    /// Reads `claims_to_headers`.
    pub fn read(fields: &Fields<'_>) -> Vec<Self> {
        let one = |(claim, field): (String, String)| {
            if !crate::http::head::is_token(field.as_bytes()) || OURS.contains(Known::of(field.as_bytes())) {
                let fault = Fault::new(format!("no claim can be sent as {field:?}"));
                fields.error("claims_to_headers", fault.hint("as in `{sub: X-User}`"));
            }
            Self { claim: claim.split('.').map(str::to_owned).collect(), field }
        };
        fields.map("claims_to_headers").into_iter().map(one).collect()
    }

    /// The texts of a claim that is one or a list of them, under dots as in `claims_to_headers`.
    pub fn list(claims: &Map<String, Value>, claim: &str) -> Vec<String> {
        let mut path = claim.split('.');
        let first = path.next().and_then(|name| claims.get(name));
        let found = first.and_then(|first| path.try_fold(first, |value, name| value.get(name)));
        words(found, false).map(str::to_owned).collect()
    }

    /// Removes the client's own field, and puts the claim there where there are claims.
    pub fn tell(&self, claims: Option<&Map<String, Value>>, head: &mut Head) {
        head.remove(&self.field);
        let Some(value) = claims.and_then(|claims| self.text(claims)) else { return };
        // A field value holds no controls (RFC 9110 section 5.5), and ours no bytes that servers read differently.
        if value.bytes().all(|byte| matches!(byte, b' '..=b'~')) && value.trim() == value && !value.is_empty()
        {
            head.append(&self.field, value);
        }
    }

    fn text(&self, claims: &Map<String, Value>) -> Option<String> {
        let (first, rest) = self.claim.split_first()?;
        let found = rest.iter().try_fold(claims.get(first)?, |value, name| value.get(name))?;
        match found {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(found.to_string()),
            Value::Array(items) => {
                let texts = items.iter().map(|item| item.as_str().filter(|text| !text.contains(',')));
                texts.collect::<Option<Vec<_>>>().map(|texts| texts.join(","))
            }
            Value::Null | Value::Object(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).expect("an object")
    }

    #[test]
    fn issuers_audiences_and_scopes() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let demands = Demands {
            issuers: list(&["a", "b"]),
            audiences: list(&["x", "y"]),
            scopes: list(&["read", "write"]),
            kinds: Vec::new(),
        };
        let good = r#"{"iss":"b","aud":["w","y"],"scope":"write read more"}"#;
        assert_eq!(demands.check(&claims(good)), Ok(()));
        assert_eq!(demands.check(&claims(r#"{"iss":"a","aud":"x","scp":["read","write"]}"#)), Ok(()));
        for (text, expected) in [
            (r#"{"aud":"x","scope":"read write"}"#, "iss"),
            (r#"{"iss":["a"],"aud":"x","scope":"read write"}"#, "iss"),
            (r#"{"iss":"a b","aud":"x","scope":"read write"}"#, "iss"),
            (r#"{"iss":"a","scope":"read write"}"#, "aud"),
            (r#"{"iss":"a","aud":"x y","scope":"read write"}"#, "aud"),
            (r#"{"iss":"a","aud":{"x":1},"scope":"read write"}"#, "aud"),
        ] {
            let said = demands.check(&claims(text)).map_err(|refused| match refused {
                Refused::Claim(claim, _) => claim,
                _ => "other",
            });
            assert_eq!(said, Err(expected), "{text}");
        }
        for text in
            [r#"{"iss":"a","aud":"x","scope":"read"}"#, r#"{"iss":"a","aud":"x","scope":"readwrite"}"#]
        {
            assert_eq!(demands.check(&claims(text)), Err(Refused::Scope), "{text}");
        }
    }

    #[test]
    fn claims_become_fields_only_where_they_can() {
        let held = claims(
            r#"{"sub":"ann","n":5,"t":true,"g":["a","b"],"bad":["a,b"],"o":{"r":"x"},"c":"a\r\nb","e":"","u":"é"}"#,
        );
        for (claim, expected) in [
            ("sub", Some("ann")),
            ("n", Some("5")),
            ("t", Some("true")),
            ("g", Some("a,b")),
            ("o.r", Some("x")),
            ("bad", None),
            ("o", None),
            ("c", None),
            ("e", None),
            ("u", None),
            ("none", None),
        ] {
            let mut head = Head::new();
            head.append("X-Claim", "client's");
            let told = Told { claim: claim.split('.').map(str::to_owned).collect(), field: "X-Claim".into() };
            told.tell(Some(&held), &mut head);
            assert_eq!(head.get("x-claim"), expected.map(str::as_bytes), "{claim}");
        }
    }
}
