//! `error-pages`: other bodies for errors, the upstream's and the gateway's (Traefik's `errors`).
//!
//! Owns which statuses have a page, and where it comes from: a service that is asked for it, or a text. A service that
//! has no page (it fails, or does not answer in time) leaves the error as it was.
//!
//! | in a page | stands for |
//! |---|---|
//! | `{status}` | the status that the client gets |
//! | `{originalStatus}` | the status before `status_rewrites` |
//! | `{url}` | in `query`: the URL of the request, encoded as a part of a query |
//! | `{message}` | in `body`: the usual words for the status |
//!
//! **Invariant.** Nothing that a client sent gets into a page as it is.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section, schema::text};

use super::call::{Caller, Service};
use super::status::Statuses;
use super::{CompileCx, Content, Cx, Page, PageFuture, Plugin, PluginSpec, Registration};
use crate::http::{Known, Method, RequestHead, query};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "error-pages", priority: 790, section: &SECTION, compile };

static SECTION: Section = Section::new(
    "error-pages",
    "Gives errors another body, from a service or from a text.",
    &[
        Key::new(
            "status",
            Kind::STRINGS,
            "Statuses (`404`) and ranges of them (`500-599`) that have a page.",
        )
        .required(),
        Key::new(
            "url",
            Kind::Text(&text::URL),
            "The service that has the pages; its path is put before a page's.",
        ),
        Key::new(
            "service",
            Kind::NAME,
            "The service of this configuration that has them, in place of `url`.",
        ),
        Key::new("query", Kind::NAME, "Path of a page there; `{status}` and `{url}` are filled in.")
            .default("/{status}.html"),
        Key::new("body", Kind::STRING, "The page itself; `{status}` and `{message}` are filled in."),
        Key::new("content_type", Kind::NAME, "Media type of `body`.").default("text/html; charset=utf-8"),
        Key::new(
            "status_rewrites",
            Kind::Map { keys: &text::NAME, of: &Kind::integer(200, 599) },
            "Statuses and ranges, and the status that the client gets in their place.",
        )
        .default("{}"),
        Key::new("timeout", Kind::duration(0, 60), "How long a page is waited for; bare: milliseconds.")
            .default("3s"),
        Key::new("max_size", Kind::Size { min: 1, max: 1 << 30 }, "Longer pages are none.").default("1MiB"),
    ],
);

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let given = ["url", "service", "body"].into_iter().filter(|key| fields.is_set(key)).count();
    if given != 1 {
        if !fields.has_unknown_keys() {
            let origin = fields.origin();
            let fault = Fault::new("exactly one of `url`, `service` and `body` says where pages come from");
            found.error(origin.span, &origin.path, fault);
        }
        return None;
    }
    if !fields.string("query").starts_with('/') {
        fields.error("query", "a path starts with `/`");
    }
    let from = match fields.optional_string("body") {
        Some(body) => From::Text { body, media_type: fields.string("content_type") },
        None => From::Service { place: place(&fields, cx)?, query: fields.string("query") },
    };
    Some(Arc::new(ErrorPages {
        statuses: Statuses::read(&fields, "status"),
        from,
        rewrites: rewrites(&fields),
        timeout: fields.duration("timeout"),
        size_max: fields.size("max_size") as usize,
    }))
}

fn place(fields: &Fields<'_>, cx: &CompileCx<'_>) -> Option<Arc<Service>> {
    let Some(name) = fields.optional_string("service") else { return Service::read(fields, "url", true) };
    let mut places = super::mirror::of_service(fields, &name, cx.config)?;
    (!places.is_empty()).then(|| places.swap_remove(0))
}

fn rewrites(fields: &Fields<'_>) -> Vec<(Statuses, u16)> {
    let one = |(statuses, status): (String, String)| match (Statuses::one(&statuses), status.parse()) {
        (Some(statuses), Ok(status)) => Some((statuses, status)),
        _ => {
            let fault = Fault::new(format!("{statuses:?} is neither a status nor a range of them"));
            fields.error("status_rewrites", fault.hint("as in `\"502-504\": 500`"));
            None
        }
    };
    fields.map("status_rewrites").into_iter().filter_map(one).collect()
}

struct ErrorPages {
    statuses: Statuses,
    from: From,
    rewrites: Vec<(Statuses, u16)>,
    timeout: Duration,
    size_max: usize,
}

enum From {
    Text { body: String, media_type: String },
    Service { place: Arc<Service>, query: String },
}

impl ErrorPages {
    fn rewritten(&self, status: u16) -> u16 {
        self.rewrites.iter().find(|(statuses, _)| statuses.include(status)).map_or(status, |(_, new)| *new)
    }
}

/// The message that asks for a page.
fn question(place: &Service, path: &str, request: &RequestHead) -> Vec<u8> {
    // The path of the service is put before, as with requests to it.
    let base = place.url.target.trim_end_matches('/');
    let mut out = format!("GET {base}{path} HTTP/1.1\r\nHost: {}\r\n", place.url.authority).into_bytes();
    for known in [Known::Accept, Known::AcceptLanguage] {
        if let Some(value) = request.head.get_known(known) {
            out.extend_from_slice(known.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The URL of a request as a part of a query.
fn encoded_url(cx: &Cx<'_>, request: &RequestHead) -> String {
    let scheme: &[u8] = if cx.https { b"https://" } else { b"http://" };
    let mut url = [scheme, request.authority(), request.path()].concat();
    if let Some(query) = request.query() {
        url.push(b'?');
        url.extend_from_slice(query);
    }
    let mut out = Vec::new();
    query::encode(&url, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// The usual words for a status (RFC 9110 section 15).
fn words(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        status if status < 500 => "Client Error",
        status if status < 600 => "Server Error",
        _ => "",
    }
}

impl PluginSpec for ErrorPages {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        let caller = match &self.from {
            From::Text { .. } => None,
            From::Service { place, .. } => Some(Rc::new(Caller::new(place.clone()))),
        };
        Rc::new(OnShard { spec: self, caller })
    }
}

struct OnShard {
    spec: Arc<ErrorPages>,
    caller: Option<Rc<Caller>>,
}

impl Plugin for OnShard {
    fn error_page(&self, cx: &Cx<'_>, request: &RequestHead, original: u16) -> Option<PageFuture> {
        let spec = self.spec.clone();
        if !spec.statuses.include(original) {
            return None;
        }
        let status = spec.rewritten(original);
        let fill = |text: &str| {
            text.replace("{status}", &status.to_string()).replace("{originalStatus}", &original.to_string())
        };
        match (&spec.from, &self.caller) {
            (From::Text { body, media_type }, _) => {
                let bytes = fill(body).replace("{message}", words(status)).into_bytes();
                let content = Content { media_type: media_type.clone().into(), bytes: bytes.into() };
                Some(Box::pin(std::future::ready(Some(Page { status, content }))))
            }
            (From::Service { place, query }, Some(caller)) => {
                let mut path = fill(query);
                if path.contains("{url}") {
                    path = path.replace("{url}", &encoded_url(cx, request));
                }
                let message = question(place, &path, request);
                let (caller, timeout, most) = (caller.clone(), spec.timeout, spec.size_max);
                Some(Box::pin(async move {
                    let reply = caller.call(&message, Method::Get, timeout, most).await.ok()?;
                    if reply.head.status() >= 400 {
                        return None;
                    }
                    let media_type = reply.head.head.get_known(Known::ContentType).unwrap_or(b"text/html");
                    let media_type = String::from_utf8_lossy(media_type).into_owned().into();
                    Some(Page { status, content: Content { media_type, bytes: reply.body.into() } })
                }))
            }
            _ => None,
        }
    }
}
