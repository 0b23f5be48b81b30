//! `buffering`: takes bodies into memory before they are passed on (Traefik's middleware of the same name).
//!
//! Owns the limits. A request that is held whole can be sent again to another target, and no target waits for a slow
//! client; a response that is held whole is refused whole when it is too long.
//!
//! **Invariant.** No more than `limits.buffered_body` is held of one body, whatever is asked for here.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;
use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section};

use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::h1::BodyFraming;
use crate::http::{RequestHead, ResponseHead};

/// The plugin's line of the registry: after the limits, before the transformers, which hold bodies by themselves.
pub static REGISTRATION: Registration =
    Registration { name: "buffering", priority: 810, section: &SECTION, compile };

const SIZE: Kind = Kind::Size { min: 1, max: 1 << 40 };

static SECTION: Section = Section::new(
    "buffering",
    "Holds bodies in memory before they are passed on, up to `limits.buffered_body`.",
    &[
        Key::new("request", Kind::Bool, "Whether bodies of requests are held.").default("true"),
        Key::new("response", Kind::Bool, "Whether bodies of responses are held.").default("true"),
        Key::new(
            "max_request_body_bytes",
            SIZE,
            "Longer requests are refused with 413. Left out: `limits.buffered_body`.",
        ),
        Key::new(
            "max_response_body_bytes",
            SIZE,
            "Longer responses become a 502. Left out: `limits.buffered_body`.",
        ),
    ],
);

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    // What a route holds of its own is held to when the body comes.
    let (_, room) = cx.config.buffered_body_range();
    let limit = |key| limit(&fields, key, room);
    Some(Arc::new(Buffering {
        request: fields.bool("request").then(|| limit("max_request_body_bytes")),
        response: fields.bool("response").then(|| limit("max_response_body_bytes")),
    }))
}

fn limit(fields: &Fields<'_>, key: &str, room: u64) -> u64 {
    let asked = fields.optional_size(key).unwrap_or(room);
    if asked > room {
        let fault = Fault::new(format!("no more than {room} bytes are held"));
        fields.warning(key, fault.hint("raise `limits.buffered_body`, or `buffered_body` of the route"));
    }
    asked.min(room)
}

struct Buffering {
    /// The longest body; `None` where they are not held.
    request: Option<u64>,
    response: Option<u64>,
}

impl PluginSpec for Buffering {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }
}

struct OnShard(Arc<Buffering>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, _: &mut RequestHead) -> Flow {
        let Some(limit) = self.0.request else { return Flow::Continue };
        if matches!(cx.body, BodyFraming::Length(length) if length > limit) {
            return Flow::Respond(Response::new(413, Reason::BodyTooLarge, "Request size limit exceeded"));
        }
        cx.body_limit = Some(cx.body_limit.map_or(limit, |known| known.min(limit)));
        Flow::Continue
    }

    fn wants_request_body(&self, cx: &Cx<'_>, _: &RequestHead) -> bool {
        self.0.request.is_some() && cx.body != BodyFraming::None
    }

    fn wants_response_body(&self, _: &Cx<'_>, _: &ResponseHead) -> bool {
        self.0.response.is_some()
    }

    fn on_response_body(
        &self,
        _: &mut Cx<'_>,
        _: &mut ResponseHead,
        body: &mut Vec<u8>,
    ) -> Result<(), Box<Response>> {
        match self.0.response {
            Some(limit) if body.len() as u64 > limit => {
                let message = "An invalid response was received from the upstream server";
                Err(Response::new(502, Reason::ResponseTooLarge, message))
            }
            _ => Ok(()),
        }
    }
}
