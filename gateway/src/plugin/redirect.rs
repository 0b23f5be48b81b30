//! `redirect`: answers with another place (Kong's plugin of the same name, and Traefik's `redirectScheme` and
//! `redirectRegex`).
//!
//! Owns the choice of the place and of the status. A request that is where it should be already passes.
//!
//! | given | a request is sent to |
//! |---|---|
//! | `location` | that URL, with the request's path and query behind it if `keep_incoming_path` |
//! | `scheme` | its own URL with that scheme (and `port`), unless it came so |
//! | `regex`, `replacement` | its own URL with the first match replaced, unless nothing matches or changes |
//!
//! **Invariant.** What a client sent cannot end the field that it is put into.

use std::any::Any;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section, schema::text};
use regex::Regex;

use super::{CompileCx, Content, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::{Known, Method, RequestHead};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "redirect", priority: 779, section: &SECTION, compile };

static SECTION: Section = Section::new(
    "redirect",
    "Sends clients to another place. Exactly one of `location`, `scheme` and `regex` is given.",
    &[
        Key::new("status_code", Kind::integer(300, 399), "Status of the answer.").default("301"),
        Key::new("location", Kind::Text(&text::URL), "The place."),
        Key::new(
            "keep_incoming_path",
            Kind::Bool,
            "Whether the request's path and query go behind `location`, which loses its own.",
        )
        .default("false"),
        Key::new("scheme", Kind::Word(&["http", "https"]), "The scheme of the place. Not Kong's."),
        Key::new("port", Kind::PORT, "Its port; left out: the scheme's own. Not Kong's."),
        Key::new(
            "regex",
            Kind::NAME,
            "Regular expression for the whole URL, as in `^https?://www\\.(.*)`. Not Kong's.",
        ),
        Key::new(
            "replacement",
            Kind::STRING,
            "What the match becomes; `$1` or `${1}` is its first group. Not Kong's.",
        ),
        Key::new(
            "permanent",
            Kind::Bool,
            "Chooses the status by the method, so that none is changed: 301 or 308 if true, 302 or 307 if false. Left \
             out: `status_code`. Not Kong's.",
        ),
    ],
);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let place = place(&fields)?;
    let status = match fields.optional_bool("permanent") {
        None => Status::Fixed(fields.integer("status_code")),
        Some(permanent) => Status::ByMethod { permanent },
    };
    Some(Arc::new(Redirect { place, status }))
}

fn place(fields: &Fields<'_>) -> Option<Place> {
    let given: Vec<_> =
        ["location", "scheme", "regex"].into_iter().filter(|key| fields.is_set(key)).collect();
    if given.len() != 1 {
        if !fields.has_unknown_keys() {
            let origin = fields.origin();
            let fault = Fault::new("exactly one of `location`, `scheme` and `regex` says where to go");
            fields.diagnostics().error(origin.span, &origin.path, fault);
        }
        return None;
    }
    if let Some(scheme) = fields.optional_word("scheme") {
        let default = if scheme == "https" { 443 } else { 80 };
        let port = fields.optional_integer::<u16>("port").filter(|port| *port != default);
        return Some(Place::Scheme { https: scheme == "https", port });
    }
    if let Some(source) = fields.optional_string("regex") {
        let Some(replacement) = fields.optional_string("replacement") else {
            fields.error("regex", "`regex` needs `replacement`");
            return None;
        };
        return match Regex::new(&source) {
            Ok(regex) => Some(Place::Regex { regex, replacement }),
            Err(error) => {
                let why = error.to_string();
                let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
                fields.error("regex", format!("the regular expression does not compile: {why}"));
                None
            }
        };
    }
    let location = fields.optional_string("location")?;
    if !fields.bool("keep_incoming_path") {
        return Some(Place::Fixed(location));
    }
    let scheme_end = location.find("://")? + 3;
    let end = location[scheme_end..].find(['/', '?', '#']).map_or(location.len(), |at| at + scheme_end);
    Some(Place::Origin(location[..end].to_owned()))
}

enum Place {
    Fixed(String),
    /// Scheme and authority; path and query are the request's.
    Origin(String),
    Scheme {
        https: bool,
        port: Option<u16>,
    },
    Regex {
        regex: Regex,
        replacement: String,
    },
}

#[derive(Clone, Copy)]
enum Status {
    Fixed(u16),
    ByMethod { permanent: bool },
}

struct Redirect {
    place: Place,
    status: Status,
}

impl Redirect {
    /// Where the request is to go; `None` if it may stay.
    fn target(&self, cx: &Cx<'_>, request: &RequestHead) -> Option<String> {
        match &self.place {
            Place::Fixed(location) => Some(location.clone()),
            Place::Origin(origin) => Some(format!("{origin}{}", path_and_query(request))),
            Place::Scheme { https, port } => {
                let host = String::from_utf8_lossy(request.host());
                let came = request.port();
                if is_https(cx, request) == *https && (port.is_none() || *port == came) {
                    return None;
                }
                let scheme = if *https { "https" } else { "http" };
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                Some(format!("{scheme}://{host}{port}{}", path_and_query(request)))
            }
            Place::Regex { regex, replacement } => {
                let scheme = if is_https(cx, request) { "https" } else { "http" };
                let authority = String::from_utf8_lossy(request.authority());
                let url = format!("{scheme}://{authority}{}", path_and_query(request));
                match regex.replace_all(&url, replacement.as_str()) {
                    Cow::Borrowed(_) => None,
                    Cow::Owned(new) if new == url => None,
                    Cow::Owned(new) => Some(new),
                }
            }
        }
    }

    fn status(&self, request: &RequestHead) -> u16 {
        let kept = !matches!(request.method(), Method::Get | Method::Head);
        match self.status {
            Status::Fixed(status) => status,
            Status::ByMethod { permanent: true } => {
                if kept {
                    308
                } else {
                    301
                }
            }
            Status::ByMethod { permanent: false } => {
                if kept {
                    307
                } else {
                    302
                }
            }
        }
    }
}

/// What the client says was its scheme: only a trusted proxy's word is still there.
fn is_https(cx: &Cx<'_>, request: &RequestHead) -> bool {
    match request.head.get_known(Known::XForwardedProto) {
        Some(proto) => proto.eq_ignore_ascii_case(b"https"),
        None => cx.https,
    }
}

fn path_and_query(request: &RequestHead) -> String {
    let mut text = String::from_utf8_lossy(request.path()).into_owned();
    if let Some(query) = request.query() {
        text.push('?');
        text.push_str(&String::from_utf8_lossy(query));
    }
    text
}

impl PluginSpec for Redirect {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }
}

struct OnShard(Arc<Redirect>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let Some(target) = self.0.target(cx, request) else { return Flow::Continue };
        // Request text has no control characters; a replacement may.
        let target: String = target.chars().filter(|c| !c.is_control()).collect();
        let answer = Response::with_content(self.0.status(request), Content::empty());
        Flow::Respond(answer.with_field("Location", target))
    }
}

#[cfg(test)]
mod tests {
    use crate::plugin::fixture::{Fixture, answer, request, request_with};

    fn send(settings: &str, head: &str, https: bool) -> Option<(u16, String)> {
        let fixture = Fixture::default();
        let plugin = fixture.accepted("redirect", settings);
        let mut cx = fixture.cx();
        cx.https = https;
        let answer = answer(plugin.on_request(&mut cx, &mut request(head)))?;
        let (name, value) = &answer.fields[0];
        assert_eq!(*name, "Location");
        Some((answer.status, value.to_string()))
    }

    #[test]
    fn places() {
        let get = "GET /a%20b?q=1 HTTP/1.1\nHost: www.Example.com:8080";
        let post = "POST /a HTTP/1.1\nHost: example.com";
        for (settings, head, https, expected) in [
            ("{location: 'https://new.example/x'}", get, false, Some((301, "https://new.example/x"))),
            (
                "{location: 'https://new.example/x', keep_incoming_path: true, status_code: 308}",
                get,
                false,
                Some((308, "https://new.example/a%20b?q=1")),
            ),
            ("{scheme: https}", get, false, Some((301, "https://www.example.com/a%20b?q=1"))),
            ("{scheme: https}", get, true, None),
            ("{scheme: https, permanent: true}", post, false, Some((308, "https://example.com/a"))),
            ("{scheme: https, permanent: false}", post, false, Some((307, "https://example.com/a"))),
            (
                "{scheme: https, permanent: false}",
                get,
                false,
                Some((302, "https://www.example.com/a%20b?q=1")),
            ),
            ("{scheme: https, port: 8443}", post, false, Some((301, "https://example.com:8443/a"))),
            ("{scheme: https, port: 443}", post, false, Some((301, "https://example.com/a"))),
            (
                "{regex: '^https?://www\\.([^/:]+)(:[0-9]+)?/(.*)', replacement: 'https://${1}/$3'}",
                get,
                false,
                Some((301, "https://Example.com/a%20b?q=1")),
            ),
            ("{regex: '^http://other/', replacement: 'x'}", get, false, None),
            ("{regex: '^http', replacement: 'http'}", get, false, None),
        ] {
            let expected = expected.map(|(status, place)| (status, place.to_owned()));
            assert_eq!(send(settings, head, https), expected, "{settings}");
        }
    }

    #[test]
    fn a_trusted_proxys_word_about_the_scheme_counts() {
        let fixture = Fixture::default();
        let plugin = fixture.accepted("redirect", "{scheme: https}");
        let mut head = request_with("/", &["X-Forwarded-Proto: https"]);
        assert!(answer(plugin.on_request(&mut fixture.cx(), &mut head)).is_none());
    }

    #[test]
    fn one_place_is_needed() {
        let fixture = Fixture::default();
        for settings in ["{}", "{scheme: https, location: 'http://a'}"] {
            assert!(fixture.refused("redirect", settings).contains("exactly one of"), "{settings}");
        }
        assert!(fixture.refused("redirect", "{regex: 'a'}").contains("needs `replacement`"));
        assert!(fixture.refused("redirect", "{regex: '(', replacement: a}").contains("does not compile"));
    }
}
