//! Values made from the request and what is known of it: `$(headers.x)` and the like.
//!
//! Owns the syntax and the rendering. In Kong what stands in `$(..)` is Lua; here it is one of these look-ups, and
//! everything else is an error of the configuration, never literal text. What is absent renders as nothing.
//!
//! | look-up | stands for |
//! |---|---|
//! | `headers.name` | the first field of that name |
//! | `query_params.name` | the first parameter of that name, decoded |
//! | `uri_captures.name`, `uri_captures[1]` | a group of the route's path expression |
//! | `consumer.username`, `.id`, `.custom_id`, `.groups` | who the request is from |
//! | `claims.sub`, `claims.realm.role` | a claim of the token that was accepted |
//!
//! Of Kong's `shared`, where plugins leave things for each other, there is `shared.authenticated_consumer`, which is
//! `consumer`, and `shared.authenticated_claims`, which is `claims`.
//!
//! **Invariant.** Rendering reads the request as it came: templates are rendered before any edit.

use portcullis_config::Fault;

use crate::http::{FieldName, RequestHead};
use crate::plugin::wants::claim_text;
use crate::plugin::{Cx, Wants};

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
    /// A group of the path expression, by name or number.
    Capture(Box<str>),
    Consumer(OfConsumer),
    /// The way down to a claim.
    Claim(Vec<String>),
}

/// What is told of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OfConsumer {
    Id,
    Username,
    CustomId,
    Groups,
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

    /// What must be kept of a request for the template.
    pub fn wants(&self) -> Wants {
        let has = |is: fn(&Piece) -> bool| self.0.iter().any(is);
        Wants {
            captures: has(|piece| matches!(piece, Piece::Capture(_))),
            claims: has(|piece| matches!(piece, Piece::Claim(_))),
        }
    }

    /// Appends the text for `request`; what was looked up goes through `put`.
    pub fn render(
        &self,
        cx: &Cx<'_>,
        request: &RequestHead,
        out: &mut Vec<u8>,
        put: fn(&[u8], &mut Vec<u8>),
    ) {
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Header(name) => put(request.head.get_field(name).unwrap_or_default(), out),
                Piece::Parameter(name) => {
                    if let Some(value) = request.parameter(name) {
                        put(&value, out);
                    }
                }
                Piece::Capture(group) => put(cx.captures.get(group).unwrap_or_default(), out),
                Piece::Consumer(what) => put(what.of(cx).as_bytes(), out),
                Piece::Claim(path) => {
                    let claims = cx.claims.as_deref();
                    put(
                        claims.and_then(|claims| claim_text(claims, path)).unwrap_or_default().as_bytes(),
                        out,
                    );
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

impl OfConsumer {
    fn read(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "username" => Self::Username,
            "custom_id" => Self::CustomId,
            "groups" => Self::Groups,
            _ => return None,
        })
    }

    fn of<'c>(self, cx: &Cx<'c>) -> &'c str {
        let Some(id) = cx.identity.consumer else { return "" };
        let consumer = cx.consumers.consumer(id);
        match self {
            Self::Id => &consumer.id,
            Self::Username => consumer.username.as_deref().unwrap_or_default(),
            Self::CustomId => consumer.custom_id.as_deref().unwrap_or_default(),
            Self::Groups => cx.consumers.group_list(id),
        }
    }
}

/// Kong's names for what its plugins leave for each other.
const SHARED: [(&str, &str); 2] =
    [("shared.authenticated_consumer", "consumer"), ("shared.authenticated_claims", "claims")];

fn look_up(expression: &str) -> Result<Piece, Fault> {
    let unknown = || {
        let fault = Fault::new(format!("the template '$({expression})' is none that is understood"));
        fault.hint(
            "the templates are `$(headers.name)`, `$(query_params.name)`, `$(uri_captures.name)`, `$(consumer.username)` and \
             `$(claims.name)`; Lua is not run",
        )
    };
    let shared = SHARED.iter().find_map(|(long, short)| Some((*short, expression.strip_prefix(long)?)));
    let root_len = expression.bytes().take_while(|&byte| is_name(byte)).count();
    let (root, access) = shared.unwrap_or_else(|| expression.split_at(root_len));
    let name = key(access);
    match (root, name) {
        ("headers", Some(name)) => {
            // Lua has no dashes in names, so Kong takes an underscore for one here.
            let name = FieldName::new(name.replace('_', "-")).ok_or_else(unknown)?;
            Ok(Piece::Header(name))
        }
        ("query_params", Some(name)) if !name.is_empty() => Ok(Piece::Parameter(name.as_bytes().into())),
        ("uri_captures", Some(name)) if !name.is_empty() => Ok(Piece::Capture(name.into())),
        ("uri_captures", None) => {
            let number = access.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let number = number.map(str::trim).filter(|text| text.parse::<usize>().is_ok());
            number.map(|text| Piece::Capture(text.into())).ok_or_else(unknown)
        }
        ("consumer", Some(name)) => OfConsumer::read(name).map(Piece::Consumer).ok_or_else(unknown),
        ("claims", _) => claim(access).map(Piece::Claim).ok_or_else(unknown),
        _ => Err(unknown()),
    }
}

/// The way to a claim: `.a.b`, or one key in brackets, whose dots are part of it.
fn claim(access: &str) -> Option<Vec<String>> {
    let Some(names) = access.strip_prefix('.') else { return key(access).map(|name| vec![name.to_owned()]) };
    let names: Vec<String> = names.split('.').map(str::to_owned).collect();
    let named = |name: &String| !name.is_empty() && name.bytes().all(|byte| is_name(byte) || byte == b'-');
    names.iter().all(named).then_some(names)
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
    use super::super::super::fixture::{Fixture, request_with};
    use super::*;
    use crate::plugin::Captures;
    use crate::route::{PathPattern, Query, RouteSpec, Router, Scheme};

    fn rendered(text: &str) -> String {
        let template = Template::parse(text).expect("right").expect("a template");
        let request =
            request_with("/p?user=a%20b&empty=&flag", &["X-Forwarded-User: ann", "X-Two: 1", "X-Two: 2"]);
        let fixture =
            Fixture::new("consumers: [{username: ann, custom_id: c-7, acls: [{group: a}, {group: b}]}]\n");
        let mut cx = fixture.cx();
        cx.identity.consumer = fixture.consumers.by_name("ann");
        cx.captures = captures();
        cx.claims =
            serde_json::from_str(r#"{"sub":"ann@x","realm":{"role":"boss"},"a.b":1,"l":["x","y"]}"#).ok();
        let mut out = Vec::new();
        template.render(&cx, &request, &mut out, |text, out| out.extend_from_slice(text));
        String::from_utf8(out).expect("ASCII")
    }

    /// Of `/users/(?<id>\\d+)/(\\w+)`.
    fn captures() -> Captures {
        let source = r"/users/(?<id>\d+)/(\w+)".to_owned();
        let paths = vec![PathPattern::Regex { source, priority: 0 }];
        let protocols = crate::route::Protocols { http: true, https: true };
        let spec = RouteSpec { paths, protocols, wants_captures: true, ..RouteSpec::default() };
        let router = Router::compile(vec![spec]).expect("a route");
        let path = b"/users/17/orders";
        let found = router.route(&Query {
            host: b"",
            port: 80,
            path,
            method: b"GET",
            scheme: Scheme::Http,
            sni: None,
            headers: &crate::route::NoHeaders,
            query: None,
            client: None,
        });
        let groups = router.captures(&found.expect("matches"), path).expect("groups");
        Captures::new(&groups, path)
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
            (
                "$(uri_captures.id)|$(uri_captures[\"id\"])|$(uri_captures[2])|$(uri_captures.none)",
                "17|17|orders|",
            ),
            ("$(consumer.username) $(consumer.custom_id) $(consumer.groups)", "ann c-7 a, b"),
            ("$(shared.authenticated_consumer.username)", "ann"),
            (
                "$(claims.sub)/$(claims.realm.role)/$(claims[\"a.b\"])/$(claims.l)/$(claims.none)",
                "ann@x/boss/1/x,y/",
            ),
            ("$(shared.authenticated_claims.sub)", "ann@x"),
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
            "$(uri_captures)",
            "$(uri_captures[x])",
            "$(uri_captures.)",
            "$(consumer)",
            "$(consumer.password)",
            "$(claims)",
            "$(claims..a)",
            "$(shared.x)",
            "$(header.x)",
            "$((function() return headers.x end)())",
            "a$(headers.x)b$(headers.",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
