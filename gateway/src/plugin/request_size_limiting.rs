//! `request-size-limiting`: how large the body of a request may be (Kong's plugin of the same name).
//!
//! Owns the limit and the refusal of bodies that announce their length. A body of unknown length is stopped on its way,
//! by the exchange, at the first byte too many: unlike in Kong it is never held in memory to be measured.
//!
//! **Invariant.** It only ever lowers a limit: that of the route holds too.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;
use portcullis_config::{self as config, Diagnostics, Fields, Key, Kind, Section};

use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::h1::BodyFraming;
use crate::http::{Known, Method, RequestHead};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "request-size-limiting", priority: 951, section: &SECTION, compile };

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "request-size-limiting",
    "Limits the size of request bodies. The lower of this limit and `limits.body` (or the route's) holds.",
    &[
        Key::new(
            "allowed_payload_size",
            Kind::Integer { min: 0, max: u32::MAX as i64 },
            "Largest body, in `size_unit`.",
        )
        .default("128"),
        Key::new(
            "size_unit",
            Kind::Word(&["megabytes", "kilobytes", "bytes"]),
            "A megabyte is 2^20 bytes and a kilobyte 2^10.",
        )
        .default("megabytes"),
        Key::new(
            "require_content_length",
            Kind::Bool,
            "Whether a body must announce its length. So must a POST, PUT or PATCH without a body, but not a GET.",
        )
        .default("false"),
    ],
);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    Some(Arc::new(RequestSizeLimiting::read(&plugin.fields(&SECTION, found))))
}

/// Compiled settings, and the plugin itself: it keeps no state.
struct RequestSizeLimiting {
    bytes: u64,
    require_length: bool,
}

impl RequestSizeLimiting {
    fn read(fields: &Fields<'_>) -> Self {
        let unit = match fields.string("size_unit").as_str() {
            "bytes" => 1,
            "kilobytes" => 1 << 10,
            _ => 1 << 20,
        };
        Self {
            bytes: fields.integer::<u64>("allowed_payload_size") * unit,
            require_length: fields.bool("require_content_length"),
        }
    }

    /// RFC 9110 section 8.6: these methods have content, so a client tells of an empty one too.
    fn lacks_length(&self, request: &RequestHead, framing: BodyFraming) -> bool {
        match framing {
            BodyFraming::Length(_) => false,
            BodyFraming::None => {
                request.head.get_known(Known::ContentLength).is_none()
                    && matches!(request.method(), Method::Post | Method::Put | Method::Patch)
            }
            BodyFraming::Chunked | BodyFraming::UntilClose => true,
        }
    }
}

impl PluginSpec for RequestSizeLimiting {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }
}

struct OnShard(Arc<RequestSizeLimiting>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let plugin = &*self.0;
        if plugin.require_length && plugin.lacks_length(request, cx.body) {
            let message = "A valid Content-Length header is required";
            return Flow::Respond(Response::new(411, Reason::BadContentLength, message));
        }
        if matches!(cx.body, BodyFraming::Length(length) if length > plugin.bytes) {
            let status = if cx.expects_continue { 417 } else { 413 };
            let message = "Request size limit exceeded";
            return Flow::Respond(Response::new(status, Reason::BodyTooLarge, message));
        }
        cx.body_limit = Some(plugin.bytes);
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, request_with as request};

    /// What becomes of a request: the limit for the rest of its way, or the status and message of the refusal.
    fn send(config: &str, body: BodyFraming, expects: bool) -> Result<Option<u64>, (u16, String)> {
        let bed = Fixture::default();
        let plugin = bed.accepted("request-size-limiting", config);
        let mut cx = bed.cx_from("192.0.2.7");
        (cx.body, cx.expects_continue) = (body, expects);
        match plugin.on_request(&mut cx, &mut request("/", &[])) {
            Flow::Continue => Ok(cx.body_limit),
            Flow::Respond(answer) => Err((answer.status, answer.message.into_owned())),
            Flow::Wait(_) => panic!("waits"),
        }
    }

    #[test]
    fn units_are_powers_of_two() {
        for (config, bytes) in [
            ("{}", 128 << 20),
            ("{allowed_payload_size: 3}", 3 << 20),
            ("{allowed_payload_size: 3, size_unit: kilobytes}", 3 << 10),
            ("{allowed_payload_size: 3, size_unit: bytes}", 3),
            ("{allowed_payload_size: 4294967295}", u64::from(u32::MAX) << 20),
        ] {
            assert_eq!(send(config, BodyFraming::Length(bytes), true), Ok(Some(bytes)), "{config}");
            let said = |status| Err((status, "Request size limit exceeded".to_owned()));
            assert_eq!(send(config, BodyFraming::Length(bytes + 1), false), said(413), "{config}");
            assert_eq!(send(config, BodyFraming::Length(bytes + 1), true), said(417), "{config}");
            assert_eq!(send(config, BodyFraming::Chunked, false), Ok(Some(bytes)), "{config}");
            assert_eq!(send(config, BodyFraming::None, false), Ok(Some(bytes)), "{config}");
        }
    }

    #[test]
    fn a_length_can_be_asked_for() {
        let config = "{require_content_length: true}";
        assert_eq!(send(config, BodyFraming::Chunked, false).map_err(|it| it.0), Err(411));
        assert!(send(config, BodyFraming::None, false).is_ok(), "a GET has no body");
        assert!(send(config, BodyFraming::Length(7), false).is_ok());
    }

    #[test]
    fn no_limit_is_below_zero() {
        let said = Fixture::default().refused("request-size-limiting", "{allowed_payload_size: -1}");
        assert!(said.contains("error: allowed_payload_size"), "{said}");
    }
}
