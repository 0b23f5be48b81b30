//! `grpc-web`: browsers call gRPC (Kong's plugin of the same name).
//!
//! Owns the settings, and the word that the exchange is to translate: it does so on the way, message by message, see
//! `http::grpc_web`. Routes of services with the protocol `grpc` or `grpcs` are translated for without it.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_config::schema::text;
use portcullis_config::{self as config, Diagnostics, Fields, Key, Kind, Section};

use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration};
use crate::http::{RequestHead, grpc};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "grpc-web", priority: 3, section: &SECTION, compile };

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "grpc-web",
    "Makes calls of gRPC-Web (binary, and text in base64) calls of gRPC for the targets, and their answers gRPC-Web again. \
     Services with the protocol grpc or grpcs need it only for its header field.",
    &[
        Key::new(
            "allow_origin_header",
            Kind::Text(&text::ANY),
            "Value of Access-Control-Allow-Origin in the answers to calls of gRPC-Web.",
        )
        .default("*"),
        Key::new("pass_stripped_path", Kind::Bool, "In Kong, for services that are described by `proto`.")
            .reserved(),
        Key::new("proto", Kind::Text(&text::ANY), "In Kong, a description for translating JSON.").reserved(),
    ],
);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    Some(Arc::new(GrpcWeb::read(&plugin.fields(&SECTION, found))))
}

/// Compiled settings, and the plugin itself: it keeps no state.
struct GrpcWeb {
    allow_origin: String,
}

impl GrpcWeb {
    fn read(fields: &Fields<'_>) -> Self {
        Self { allow_origin: fields.string("allow_origin_header") }
    }
}

impl PluginSpec for GrpcWeb {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }
}

struct OnShard(Arc<GrpcWeb>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let web = grpc::Call::of(request).is_some_and(|call| call.wire != grpc::Wire::Grpc);
        if web {
            cx.grpc_web = true;
            cx.response_fields.set("Access-Control-Allow-Origin", &self.0.allow_origin);
        }
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, request};

    #[test]
    fn only_calls_of_grpc_web_are_translated() {
        let fixture = Fixture::new("");
        let plugin = fixture.accepted("grpc-web", "{allow_origin_header: 'https://a.test'}");
        for (media_type, translated) in [
            ("application/grpc-web+proto", true),
            ("application/grpc-web-text", true),
            ("application/grpc", false),
            ("application/json", false),
        ] {
            let mut cx = fixture.cx();
            let mut head = request(&format!("POST /s/m HTTP/1.1\nHost: a\nContent-Type: {media_type}"));
            assert!(matches!(plugin.on_request(&mut cx, &mut head), Flow::Continue));
            assert_eq!(cx.grpc_web, translated, "{media_type}");
            let origin = cx.response_fields.get("access-control-allow-origin");
            assert_eq!(origin, translated.then_some(&b"https://a.test"[..]), "{media_type}");
        }
    }
}
