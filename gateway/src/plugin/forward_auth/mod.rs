//! `forward-auth`: another service decides (Traefik's `forwardAuth`; nginx's `auth_request`).
//!
//! | the service says | `traefik` | `nginx` |
//! |---|---|---|
//! | 2xx | the request goes on, with the fields of `auth_response_headers` | as before |
//! | 401, 403 | the client gets that answer | as before |
//! | anything else | the client gets that answer | `status_on_error` |
//! | nothing in time, or nothing valid | `status_on_error` | as before |
//!
//! Owns what the service is told, and what of its answer the upstream or the client sees. Calls go out from the shard
//! itself; see [`call`](super::call).
//!
//! **Invariant.** No request gets past without a 2xx of the service for it, fresh or within `cache_ttl`; and no field of
//! `auth_response_headers` reaches the upstream unless the service has set it.

mod cache;
mod settings;

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;

use self::cache::{Cache, Pass};
pub use self::settings::REGISTRATION;
use self::settings::{Convention, ForwardAuth};
use super::call::{CallError, Caller, Reply};
use super::{Content, Cx, Flow, Plugin, PluginSpec, Response, Resume};
use crate::http::h1::BodyFraming;
use crate::http::{Head, Known, KnownSet, Method, RequestHead};

impl PluginSpec for ForwardAuth {
    fn instantiate(self: Arc<Self>, previous: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        // Connections to the same service go on; what it said before a change of the settings does not.
        let memory = previous
            .and_then(|state| state.downcast::<Memory>().ok())
            .filter(|memory| memory.settings == self.fingerprint)
            .unwrap_or_else(|| {
                Rc::new(Memory {
                    settings: self.fingerprint.clone(),
                    caller: Caller::new(self.service.clone()),
                    cache: RefCell::new(Cache::default()),
                })
            });
        Rc::new(OnShard { spec: self, memory })
    }

    fn decides_by_body(&self) -> bool {
        self.forward_body
    }
}

/// What a shard keeps across reloads.
struct Memory {
    settings: String,
    caller: Caller,
    cache: RefCell<Cache>,
}

struct OnShard {
    spec: Arc<ForwardAuth>,
    memory: Rc<Memory>,
}

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, head: &mut RequestHead) -> Flow {
        let spec = &self.spec;
        let key = spec.cache_ttl.map(|_| spec.cache_key(head));
        if let Some(pass) = key.as_ref().and_then(|key| self.memory.cache.borrow_mut().get(key, cx.now_ns)) {
            spec.let_pass(&mut head.head, &pass);
            return Flow::Continue;
        }
        if spec.forward_body && cx.body != BodyFraming::None {
            cx.held.push(Box::new(BodyDue(spec.instance)));
            return Flow::Continue;
        }
        self.ask(cx, head, key, None)
    }

    fn wants_request_body(&self, cx: &Cx<'_>, _: &RequestHead) -> bool {
        let due = |held: &Box<dyn Any>| {
            held.downcast_ref::<BodyDue>().is_some_and(|due| due.0 == self.spec.instance)
        };
        self.spec.forward_body && cx.held.iter().any(due)
    }

    fn on_request_body(&self, cx: &mut Cx<'_>, head: &mut RequestHead, body: &mut Vec<u8>) -> Flow {
        if body.len() > self.spec.body_max {
            return Flow::Respond(Response::new(
                401,
                Reason::BodyTooLarge,
                "Request body too large to be judged",
            ));
        }
        self.ask(cx, head, None, Some(body))
    }

    fn state(&self) -> Option<Rc<dyn Any>> {
        Some(self.memory.clone())
    }
}

/// Marks an exchange whose body the instance with this number shows to its service.
struct BodyDue(u64);

impl OnShard {
    /// Asks the service about a request, with the body that it is to see. A yes is remembered under `key`.
    fn ask(&self, cx: &Cx<'_>, head: &RequestHead, key: Option<Vec<u8>>, body: Option<&[u8]>) -> Flow {
        let (message, method) = self.spec.question(cx, head, body);
        let (spec, memory) = (self.spec.clone(), self.memory.clone());
        Flow::Wait(Box::pin(async move {
            let asked = memory.caller.call(&message, method, spec.timeout, spec.response_max);
            let outcome = asked.await;
            let resume: Resume = Box::new(move |cx, head| match outcome {
                Ok(reply) if (200..300).contains(&reply.head.status()) => {
                    let pass = spec.pass(&reply);
                    spec.let_pass(&mut head.head, &pass);
                    spec.add_cookies(&reply.head.head, &mut cx.response_fields);
                    if let (Some(ttl), Some(key)) = (spec.cache_ttl, key) {
                        let until = cx.now_ns.saturating_add(ttl.as_nanos() as u64);
                        memory.cache.borrow_mut().insert(key, pass, until, cx.now_ns);
                    }
                    Flow::Continue
                }
                Ok(reply) => Flow::Respond(spec.denied(&reply, &mut cx.response_fields)),
                Err(error) => Flow::Respond(spec.unavailable(error)),
            });
            resume
        }))
    }
}

/// Fields of a request that never go to the service: they speak of the body's framing, or are ours.
const OWN: KnownSet = KnownSet::of(&[
    Known::Host,
    Known::ContentLength,
    Known::TransferEncoding,
    Known::Connection,
    Known::Expect,
    Known::Upgrade,
    Known::Forwarded,
    Known::XForwardedFor,
    Known::XForwardedProto,
    Known::XForwardedHost,
    Known::XForwardedPort,
]);

/// Fields of the service's answer that speak of its message and not of the decision.
const OF_THE_MESSAGE: KnownSet = KnownSet::of(&[
    Known::ContentLength,
    Known::TransferEncoding,
    Known::Connection,
    Known::KeepAlive,
    Known::ContentType,
    Known::Date,
    Known::Server,
    Known::Trailer,
    Known::Upgrade,
]);

impl ForwardAuth {
    /// The message that asks about a request.
    fn question(&self, cx: &Cx<'_>, request: &RequestHead, body: Option<&[u8]>) -> (Vec<u8>, Method) {
        let url = &self.service.url;
        let (text, method) = match (self.keep_method, request.method()) {
            (true, method) => (request.method_text(), method),
            (false, _) => (&b"GET"[..], Method::Get),
        };
        let mut out = Vec::with_capacity(1024);
        let mut line = |name: &[u8], value: &[u8]| {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        };
        line(b"Host", url.authority.as_bytes());
        for (known, name, value) in request.head.iter() {
            let wanted = self.request_fields.is_empty()
                || self.request_fields.iter().any(|wanted| wanted.as_bytes().eq_ignore_ascii_case(name));
            if wanted && !OWN.contains(known) && !self.is_told(name) {
                line(name, value);
            }
        }
        let told = |known: Known| request.head.get_known(known).filter(|_| self.trusts_forwarded);
        let client = cx.client.to_string();
        let source = cx.source.to_string();
        match told(Known::XForwardedFor) {
            Some(before) => line(b"X-Forwarded-For", &[before, b", ", source.as_bytes()].concat()),
            None => line(b"X-Forwarded-For", client.as_bytes()),
        }
        let proto: &[u8] = if cx.https { b"https" } else { b"http" };
        line(b"X-Forwarded-Proto", told(Known::XForwardedProto).unwrap_or(proto));
        let host = if request.authority().is_empty() { request.host() } else { request.authority() };
        line(b"X-Forwarded-Host", told(Known::XForwardedHost).unwrap_or(host));
        let mut uri = request.path().to_vec();
        if let Some(query) = request.query() {
            uri.push(b'?');
            uri.extend_from_slice(query);
        }
        let method_line = request.method_text();
        line(b"X-Forwarded-Method", method_line);
        line(b"X-Forwarded-Uri", &uri);
        if self.convention == Convention::Nginx {
            line(b"X-Original-Method", method_line);
            line(b"X-Original-URI", &uri);
        }
        match body {
            Some(body) => line(b"Content-Length", body.len().to_string().as_bytes()),
            None if method != Method::Get && method != Method::Head => line(b"Content-Length", b"0"),
            None => {}
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body.unwrap_or_default());
        let first = [text, b" ", url.target.as_bytes(), b" HTTP/1.1\r\n"].concat();
        ([first, out].concat(), method)
    }

    /// Whether the service is told this by us, so that a client's own copy would be a lie.
    fn is_told(&self, name: &[u8]) -> bool {
        const TOLD: [&str; 4] =
            ["X-Forwarded-Method", "X-Forwarded-Uri", "X-Original-Method", "X-Original-URI"];
        TOLD.iter().any(|told| told.as_bytes().eq_ignore_ascii_case(name))
    }

    /// What the upstream is to see of a good answer.
    fn pass(&self, reply: &Reply) -> Pass {
        let fields = reply.head.head.iter();
        let told =
            fields.filter(|(known, name, _)| !OF_THE_MESSAGE.contains(*known) && self.takes_over(name));
        told.map(|(_, name, value)| (name.into(), value.into())).collect()
    }

    /// Whether a field is the service's to say.
    fn takes_over(&self, name: &[u8]) -> bool {
        self.response_fields.iter().any(|wanted| wanted.as_bytes().eq_ignore_ascii_case(name))
            || self
                .response_pattern
                .as_ref()
                .is_some_and(|pattern| std::str::from_utf8(name).is_ok_and(|name| pattern.is_match(name)))
    }

    /// Takes the client's word out of the request, and puts the service's in.
    fn let_pass(&self, head: &mut Head, pass: &Pass) {
        for name in &self.response_fields {
            head.remove(name);
        }
        if self.response_pattern.is_some() {
            let names = head.iter().map(|(_, name, _)| name).filter(|name| self.takes_over(name));
            let names: Vec<Box<[u8]>> = names.map(Into::into).collect();
            names.iter().for_each(|name| _ = head.remove(name));
        }
        for (name, value) in pass {
            head.append(name, value);
        }
    }

    /// Cookies of a good answer that the client is to get.
    fn add_cookies(&self, told: &Head, response: &mut Head) {
        for cookie in told.all_known(Known::SetCookie) {
            let name = cookie.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii();
            if self.cookies.iter().any(|wanted| wanted.as_bytes() == name) {
                response.append_known(Known::SetCookie, cookie);
            }
        }
    }

    /// The service's own answer, for the client.
    fn denied(&self, reply: &Reply, fields: &mut Head) -> Box<Response> {
        let status = reply.head.status();
        if self.convention == Convention::Nginx && !matches!(status, 401 | 403) {
            return self.unavailable(CallError::BadResponse);
        }
        for (known, name, value) in reply.head.head.iter() {
            match known {
                known if OF_THE_MESSAGE.contains(known) => {}
                // Relative to the service, which is not where the client is.
                Known::Location
                    if !self.keep_location && value.starts_with(b"/") && !value.starts_with(b"//") =>
                {
                    let origin = self.service.url.origin();
                    fields.append_known(known, [origin.as_bytes(), value].concat());
                }
                _ => fields.append(name, value),
            }
        }
        let media_type = reply.head.head.get_known(Known::ContentType).unwrap_or_default();
        let media_type = String::from_utf8_lossy(media_type).into_owned().into();
        let content = Content { media_type, bytes: reply.body.as_slice().into() };
        let mut response = Response::with_content(status, content);
        response.reason = Some(Reason::ExternalDenied);
        response
    }

    fn unavailable(&self, _error: CallError) -> Box<Response> {
        let message = if self.status_on_error == 403 { "Forbidden" } else { "Service unavailable" };
        Response::new(self.status_on_error, Reason::ExternalUnavailable, message)
    }

    /// What an answer is remembered under: everything that the service may have looked at, as far as chosen.
    fn cache_key(&self, request: &RequestHead) -> Vec<u8> {
        let mut key = Vec::with_capacity(256);
        let mut part = |bytes: Option<&[u8]>| {
            // Lengths, so that no two lists of parts make one key.
            let bytes = bytes.map_or((u32::MAX, &b""[..]), |bytes| (bytes.len() as u32, bytes));
            key.extend_from_slice(&bytes.0.to_le_bytes());
            key.extend_from_slice(bytes.1);
        };
        for name in &self.cache_fields {
            let count = request.head.get_all(name).count() as u32;
            part(Some(&count.to_le_bytes()));
            request.head.get_all(name).for_each(|value| part(Some(value)));
        }
        part(Some(request.method_text()));
        part(Some(request.host()));
        if self.cache_uri {
            part(Some(request.path()));
            part(request.query());
        }
        key
    }
}

#[cfg(test)]
mod tests;
