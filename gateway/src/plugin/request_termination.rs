//! `request-termination`: an answer from the configuration, in place of the upstream's (Kong's plugin of the same name).
//!
//! Owns what is answered and when. Everything else of the chain runs before it, so an answer is still authenticated and
//! limited.
//!
//! **Invariant.** Without a `trigger`, no request of its scope reaches an upstream.

use std::any::Any;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;
use portcullis_config::schema::text;
use portcullis_config::{self as config, Diagnostics, Fields, Key, Kind, Section};
use serde_json::{Map, Value, json};

use super::{CompileCx, Content, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::RequestHead;
use crate::http::h1::reason_phrase;

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "request-termination", priority: 2, section: &SECTION, compile };

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "request-termination",
    "Answers requests by itself; no upstream sees them.",
    &[
        Key::new("status_code", Kind::integer(200, 599), "Status of the answer.").default("503"),
        Key::new(
            "message",
            Kind::NAME,
            "Message of the answer, sent as `{\"message\": ..}`. Left out with `body` too: what the status says.",
        ),
        Key::new("body", Kind::STRING, "Body of the answer as it is, in place of a message."),
        Key::new("content_type", Kind::NAME, "Type of `body`. Left out: application/json; charset=utf-8."),
        Key::new(
            "echo",
            Kind::Bool,
            "Whether the answer tells of the request as the plugin sees it, but for its body.",
        )
        .default("false"),
        Key::new(
            "trigger",
            Kind::Text(&text::HEADER_NAME),
            "Name of a header or query parameter without which a request passes.",
        ),
    ],
);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    Some(Arc::new(RequestTermination::read(&plugin.fields(&SECTION, found))))
}

/// Compiled settings, and the plugin itself: it keeps no state.
struct RequestTermination {
    status: u16,
    message: Cow<'static, str>,
    content: Option<Content>,
    echo: bool,
    trigger: Option<String>,
}

const JSON: &str = "application/json; charset=utf-8";

impl RequestTermination {
    fn read(fields: &Fields<'_>) -> Self {
        let status = fields.integer("status_code");
        let body = fields.optional_string("body");
        let media_type = fields.optional_string("content_type");
        if body.is_some() && fields.is_set("message") {
            fields.error("message", "only one of 'message' and 'body' can be given");
        }
        if body.is_none() && media_type.is_some() {
            fields.error("content_type", "it is the type of 'body', which is not given");
        }
        if body.is_some() && fields.bool("echo") {
            fields.error("echo", "the answer cannot be both 'body' and what the request is");
        }
        if matches!(status, 204 | 304) && (body.is_some() || fields.is_set("message") || fields.bool("echo"))
        {
            fields.warning("status_code", format!("an answer with status {status} has no body"));
        }
        let message = fields.optional_string("message").map(Cow::Owned);
        Self {
            status,
            message: message.unwrap_or(Cow::Borrowed(default_message(status))),
            content: body.map(|body| Content {
                media_type: media_type.map_or(Cow::Borrowed(JSON), Cow::Owned),
                bytes: body.into_bytes().into(),
            }),
            echo: fields.bool("echo"),
            trigger: fields.optional_string("trigger"),
        }
    }

    fn is_triggered(&self, request: &RequestHead) -> bool {
        let Some(name) = &self.trigger else { return true };
        request.head.contains(name) || request.parameter(name).is_some()
    }

    fn answer(&self, cx: &Cx<'_>, request: &RequestHead) -> Box<Response> {
        let content = if self.echo { Some(self.describe(cx, request)) } else { self.content.clone() };
        match content {
            Some(content) => Response::with_content(self.status, content),
            None => {
                let mut response = Response::new(self.status, Reason::InternalError, self.message.clone());
                response.reason = None;
                response
            }
        }
    }

    /// The request as JSON.
    fn describe(&self, cx: &Cx<'_>, request: &RequestHead) -> Content {
        let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes));
        let mut headers = Map::new();
        for (_, name, value) in request.head.iter() {
            add(&mut headers, &String::from_utf8_lossy(name).to_ascii_lowercase(), text(value));
        }
        let mut query = Map::new();
        for parameter in request.parameters() {
            add(&mut query, &String::from_utf8_lossy(&parameter.name()), text(&parameter.value()));
        }
        let told = json!({
            "message": self.message,
            "request": {
                "scheme": if cx.https { "https" } else { "http" },
                "host": text(request.host()),
                "port": request.port().unwrap_or(if cx.https { 443 } else { 80 }),
                "method": text(request.method_text()),
                "path": text(request.path()),
                "query": query,
                "headers": headers,
            },
            "matched_route": cx.route_name,
            "matched_service": cx.service_name,
        });
        Content { media_type: Cow::Borrowed(JSON), bytes: told.to_string().into_bytes().into() }
    }
}

/// Puts a value under a name; the second of a name makes a list.
fn add(map: &mut Map<String, Value>, name: &str, value: Value) {
    match map.get_mut(name) {
        None => {
            map.insert(name.to_owned(), value);
        }
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = json!([first.take(), value]),
    }
}

/// Kong's words where it has some.
fn default_message(status: u16) -> &'static str {
    match status {
        404 => "Not found",
        405 => "Method not allowed",
        500 => "An unexpected error occurred",
        503 => "Service unavailable",
        _ => reason_phrase(status),
    }
}

impl PluginSpec for RequestTermination {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }
}

struct OnShard(Arc<RequestTermination>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        if self.0.is_triggered(request) {
            return Flow::Respond(self.0.answer(cx, request));
        }
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, request_with as request};

    fn send(config: &str, target: &str, lines: &[&str]) -> Option<Box<Response>> {
        let bed = Fixture::default();
        let plugin = bed.accepted("request-termination", config);
        match plugin.on_request(&mut bed.cx_from("192.0.2.7"), &mut request(target, lines)) {
            Flow::Continue => None,
            Flow::Respond(answer) => Some(answer),
            Flow::Wait(_) => panic!("waits"),
        }
    }

    #[test]
    fn a_message_or_a_body() {
        let table = [
            ("{}", 503, "Service unavailable", None),
            ("{status_code: 404}", 404, "Not found", None),
            ("{status_code: 418, message: tea}", 418, "tea", None),
            ("{status_code: 200, body: '{}'}", 200, "", Some((JSON, "{}"))),
            ("{body: <p>, content_type: text/html}", 503, "", Some(("text/html", "<p>"))),
            ("{body: ''}", 503, "", Some((JSON, ""))),
        ];
        for (config, status, message, content) in table {
            let answer = send(config, "/", &[]).expect("an answer");
            assert_eq!((answer.status, &*answer.message, answer.reason), (status, message, None), "{config}");
            let sent = answer.content.as_ref();
            let sent = sent.map(|it| (&*it.media_type, std::str::from_utf8(&it.bytes).expect("text")));
            assert_eq!(sent, content, "{config}");
        }
    }

    #[test]
    fn a_trigger_is_a_header_or_a_parameter() {
        let config = "{trigger: X-Stop}";
        assert!(send(config, "/", &[]).is_none());
        assert!(send(config, "/?x-go=1", &["X-Go: 1"]).is_none());
        assert!(send(config, "/", &["x-stop:"]).is_some());
        assert!(send(config, "/?a&X-Stop", &[]).is_some());
    }

    #[test]
    fn an_echo_tells_of_the_request() {
        let lines = ["X-Many: 1", "x-many: 2", "X-One: \"quoted\""];
        let answer = send("{echo: true, message: seen, status_code: 200}", "/a%20b?q=1&q=2&r=%41", &lines);
        let content = answer.and_then(|answer| answer.content).expect("content");
        let told: Value = serde_json::from_slice(&content.bytes).expect("JSON");
        assert_eq!(told["message"], "seen");
        assert_eq!(told["matched_service"], "web");
        let told = &told["request"];
        assert_eq!(
            (&told["method"], &told["host"], &told["port"]),
            (&json!("GET"), &json!("example.com"), &json!(80))
        );
        assert_eq!(told["query"], json!({"q": ["1", "2"], "r": "A"}));
        assert_eq!(told["headers"]["x-many"], json!(["1", "2"]));
        assert_eq!(told["headers"]["x-one"], "\"quoted\"");
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        let bed = Fixture::default();
        for (config, place) in [
            ("{body: a, message: b}", "error: message"),
            ("{content_type: text/html}", "error: content_type"),
            ("{body: a, echo: true}", "error: echo"),
            ("{status_code: 100}", "error: status_code"),
        ] {
            let said = bed.refused("request-termination", config);
            assert!(said.contains(place), "{config}: {said}");
        }
    }
}
