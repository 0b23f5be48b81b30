//! `request-transformer`: header fields, query parameters, path, method and body of a request, changed before it goes on.
//!
//! Owns the order of the parts and what each may do to the request. The edits of lists are `transform`'s, the syntax of
//! values made from the request is `template`'s, the edits of bodies are `body`'s.
//!
//! | key | sets |
//! |---|---|
//! | `replace.uri` | the path as the upstream sees it: nothing is stripped from it or put before it |
//! | `http_method` | the method as the upstream sees it; the client's decides whether it gets a body |
//! | `replace.headers: ["Host:.."]` | the upstream's Host, whatever `preserve_host` says |
//!
//! A body that is coded, or is not what its media type says, cannot be edited: 415 and 400. With Kong's defaults it goes
//! on unchanged, as in Kong.
//!
//! **Invariant.** A path made from what a client sent cannot leave the place that the configuration gave it: it is
//! normalised like every path, and one with dot segments is refused.

mod settings;
mod template;

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;

use super::body::{self, Format, Place};
use super::transform::{Edits, Rendered, Text};
use super::{Cx, Flow, Plugin, PluginSpec, Registration, Response, Wants};
use crate::http::h1::BodyFraming;
use crate::http::path::{PathPolicy, normalise};
use crate::http::query::parameters;
use crate::http::{FieldName, Known, Method, RequestHead};
use template::Template;

/// Kong's plugin of this name.
pub static REGISTRATION: Registration = Registration {
    name: "request-transformer",
    priority: 801,
    section: &settings::REQUEST_TRANSFORMER,
    compile: settings::compile,
};

/// The compiled plugin.
#[derive(Debug, Default)]
struct RequestTransformer {
    headers: Edits<FieldName>,
    host: Option<Text>,
    query: Edits<Box<[u8]>>,
    uri: Option<Uri>,
    method: Option<Box<[u8]>>,
    body: Edits<Place>,
    /// All that a body may hold after the edits, unless empty.
    allow: Vec<Place>,
    /// What cannot be edited goes on as it is.
    lenient: bool,
    /// What [`Text::Template`] refers to.
    templates: Vec<Template>,
}

#[derive(Debug)]
enum Uri {
    /// A normalised path.
    Path(Box<[u8]>),
    Template(Template),
}

impl PluginSpec for RequestTransformer {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(Instance { spec: self, rendered: RefCell::default(), path: RefCell::default() })
    }

    fn wants(&self) -> Wants {
        let of_path = match &self.uri {
            Some(Uri::Template(template)) => template.wants(),
            _ => Wants::default(),
        };
        self.templates.iter().map(Template::wants).fold(of_path, Wants::or)
    }
}

struct Instance {
    spec: Arc<RequestTransformer>,
    /// Kept for its memory.
    rendered: RefCell<Rendered>,
    /// A path as rendered and as normalised; kept for its memory.
    path: RefCell<(Vec<u8>, Vec<u8>)>,
}

impl Plugin for Instance {
    fn on_request(&self, cx: &mut Cx<'_>, head: &mut RequestHead) -> Flow {
        let spec = &*self.spec;
        let rendered = &mut *self.rendered.borrow_mut();
        if !spec.templates.is_empty() {
            rendered.clear();
            for template in &spec.templates {
                rendered.push(|out| template.render(cx, head, out, as_it_is));
            }
        }
        if let Some(uri) = &spec.uri {
            if self.set_path(uri, cx, head).is_err() {
                return Flow::Respond(Response::new(400, Reason::BadPathEncoding, "Bad request"));
            }
            cx.rewritten.path = true;
        }
        if let Some(method) = &spec.method {
            head.set_upstream_method(method);
        }
        spec.headers.apply(&mut head.head, rendered);
        if let Some(host) = &spec.host {
            let host = rendered.value(host);
            // A template may render as nothing, and no request may go without its host.
            if !host.is_empty() {
                head.head.set_known(Known::Host, host);
                cx.rewritten.host = true;
            }
        }
        apply_to_query(&spec.query, head, rendered);
        if self.edits_body(cx, head) {
            if body::is_coded(&head.head) {
                return match spec.lenient {
                    true => Flow::Continue,
                    false => {
                        Flow::Respond(Response::new(415, Reason::InvalidBody, "Unsupported content coding"))
                    }
                };
            }
            if !spec.templates.is_empty() {
                // Others are served while the body arrives.
                cx.held.push(Box::new(rendered.clone()));
            }
        }
        Flow::Continue
    }

    fn wants_request_body(&self, cx: &Cx<'_>, head: &RequestHead) -> bool {
        self.edits_body(cx, head) && !body::is_coded(&head.head)
    }

    fn on_request_body(&self, cx: &mut Cx<'_>, head: &mut RequestHead, body: &mut Vec<u8>) -> Flow {
        let spec = &*self.spec;
        let Some(format) = format(head) else { return Flow::Continue };
        let nothing = Rendered::new();
        let rendered = cx.held.iter().rev().find_map(|held| held.downcast_ref()).unwrap_or(&nothing);
        let edited = spec.body.apply_to_body(&format, body, rendered).and_then(|()| match &format {
            _ if spec.allow.is_empty() => Ok(()),
            Format::Json => body::allow_json(&spec.allow, body),
            Format::Form => {
                body::allow_form(&spec.allow, body);
                Ok(())
            }
            Format::Multipart { .. } => Ok(()),
        });
        match edited {
            Ok(()) if spec.edits_body() => body::drop_validators(&mut head.head),
            Ok(()) => {}
            Err(_) if spec.lenient => {}
            Err(body::Malformed) => {
                return Flow::Respond(Response::new(400, Reason::InvalidBody, "Malformed request body"));
            }
        }
        if format == Format::Form && spec.makes_query(head) {
            for one in parameters(body) {
                head.append_parameter(one.name(), one.value());
            }
        }
        Flow::Continue
    }
}

impl RequestTransformer {
    fn edits_body(&self) -> bool {
        !self.body.is_empty() || !self.allow.is_empty()
    }

    /// Whether a form is made part of the query: methods without bodies have their fields there.
    fn makes_query(&self, head: &RequestHead) -> bool {
        self.method.is_some() && matches!(head.upstream_method(), Method::Get | Method::Head)
    }
}

/// The format of the body, if it can be edited.
fn format(head: &RequestHead) -> Option<Format> {
    Format::of(head.head.get_known(Known::ContentType)?)
}

impl Instance {
    fn edits_body(&self, cx: &Cx<'_>, head: &RequestHead) -> bool {
        let spec = &self.spec;
        let has_body = cx.body != BodyFraming::None;
        let edits = spec.edits_body() && (has_body || !spec.body.adds_nothing());
        let makes_query = has_body && spec.makes_query(head);
        (edits || makes_query)
            && format(head).is_some_and(|format| edits || makes_query && format == Format::Form)
    }

    fn set_path(&self, uri: &Uri, cx: &Cx<'_>, head: &mut RequestHead) -> Result<(), BadPath> {
        let template = match uri {
            Uri::Path(path) => {
                head.set_path(path);
                return Ok(());
            }
            Uri::Template(template) => template,
        };
        let (rendered, normal) = &mut *self.path.borrow_mut();
        rendered.clear();
        normal.clear();
        template.render(cx, head, rendered, encoded);
        let dots = |segment: &[u8]| matches!(segment, b"." | b"..");
        if rendered.split(|&byte| byte == b'/').any(dots) {
            return Err(BadPath);
        }
        normalise(rendered, &PathPolicy::default(), normal).map_err(|_| BadPath)?;
        head.set_path(normal);
        Ok(())
    }
}

/// What a client sent makes no path.
struct BadPath;

fn as_it_is(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(text);
}

/// Text from a request as part of a path: its slashes separate segments, everything else is data.
fn encoded(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
            _ if byte.is_ascii_alphanumeric() => out.push(byte),
            _ => {
                let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
                out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
}

fn apply_to_query(edits: &Edits<Box<[u8]>>, head: &mut RequestHead, rendered: &Rendered) {
    for name in &edits.remove {
        head.remove_parameter(name);
    }
    for (old, new) in &edits.rename {
        head.rename_parameter(old, new);
    }
    for (name, value) in &edits.replace {
        head.replace_parameter(name, rendered.value(value));
    }
    for (name, value) in &edits.add {
        head.add_parameter(name, rendered.value(value));
    }
    for (name, value) in &edits.append {
        head.append_parameter(name, rendered.value(value));
    }
}

#[cfg(test)]
mod tests;
