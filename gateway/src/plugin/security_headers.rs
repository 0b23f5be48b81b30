//! `security-headers`: fields that every response is to have or to lack (Traefik's `headers`).
//!
//! Owns the fields. They are on the answers of the gateway too; what the upstream says under the same names is replaced.
//!
//! **Invariant.** `Strict-Transport-Security` goes only where TLS was spoken (RFC 6797 section 7.2), unless forced.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_config::{self as config, Diagnostics, Key, Kind, Section, schema::text};

use super::transform::{Side, Step, field_name};
use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration};
use crate::http::{FieldName, Known, RequestHead, ResponseHead};

/// The plugin's line of the registry: before everything that may answer.
pub static REGISTRATION: Registration =
    Registration { name: "security-headers", priority: 100_000, section: &SECTION, compile };

static SECTION: Section = Section::new(
    "security-headers",
    "Fields that every response has or lacks.",
    &[
        Key::new(
            "set",
            Kind::Map { keys: &text::HEADER_NAME, of: &Kind::STRING },
            "Fields with their values, in place of what the upstream says under these names.",
        ),
        Key::new(
            "remove",
            Kind::list(&const { Kind::Text(&text::HEADER_NAME) }),
            "Fields of the upstream that are taken away.",
        )
        .default("[]"),
        Key::new("hsts", Kind::Section(&HSTS), "Strict-Transport-Security."),
    ],
);

static HSTS: Section = Section::new(
    "security-headers.hsts",
    "Tells browsers to come back with TLS only (RFC 6797).",
    &[
        Key::new("max_age", Kind::Integer { min: 0, max: i64::MAX }, "Seconds that they are to remember.")
            .required(),
        Key::new("include_subdomains", Kind::Bool, "Whether it holds for names below too.").default("false"),
        Key::new("preload", Kind::Bool, "Whether browsers may be shipped with it.").default("false"),
        Key::new("force", Kind::Bool, "Whether it is sent without TLS too.").default("false"),
    ],
);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let name = |key: &str, text: &str| match field_name(Side::Response, Step::Add, text) {
        Ok(name) => Some(name),
        Err(fault) => {
            fields.error(key, fault);
            None
        }
    };
    let mut set = Vec::new();
    for (field, value) in fields.map("set") {
        if value.chars().any(char::is_control) {
            fields.error("set", format!("the value of `{field}` holds a control character"));
        }
        set.extend(name("set", &field).map(|name| (name, value.into_bytes())));
    }
    let remove = fields.strings("remove").iter().filter_map(|field| name("remove", field)).collect();
    let hsts = fields.optional_section("hsts").map(|hsts| {
        let mut value = format!("max-age={}", hsts.integer::<u64>("max_age"));
        for (key, word) in [("include_subdomains", "; includeSubDomains"), ("preload", "; preload")] {
            if hsts.bool(key) {
                value.push_str(word);
            }
        }
        (value.into_bytes(), hsts.bool("force"))
    });
    Some(Arc::new(SecurityHeaders { set, remove, hsts }))
}

struct SecurityHeaders {
    set: Vec<(FieldName, Vec<u8>)>,
    remove: Vec<FieldName>,
    /// The value, and whether plain text gets it too.
    hsts: Option<(Vec<u8>, bool)>,
}

const HSTS_NAME: &str = "Strict-Transport-Security";

impl SecurityHeaders {
    fn hsts(&self, cx: &Cx<'_>, request: Option<&RequestHead>) -> Option<&[u8]> {
        let (value, force) = self.hsts.as_ref()?;
        let proto = request.and_then(|request| request.head.get_known(Known::XForwardedProto));
        let https = cx.https || proto.is_some_and(|proto| proto.eq_ignore_ascii_case(b"https"));
        (https || *force).then_some(value.as_slice())
    }
}

impl PluginSpec for SecurityHeaders {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }
}

struct OnShard(Arc<SecurityHeaders>);

impl Plugin for OnShard {
    /// For the answers of the gateway: they have what stands in `response_fields`.
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let plugin = &*self.0;
        for (name, value) in &plugin.set {
            cx.response_fields.append_field(name, value);
        }
        if let Some(value) = plugin.hsts(cx, Some(request)) {
            cx.response_fields.append(HSTS_NAME, value);
        }
        Flow::Continue
    }

    /// The fields have been added to those of the upstream: one of each is enough.
    fn on_response(&self, _: &mut Cx<'_>, response: &mut ResponseHead) {
        let plugin = &*self.0;
        for name in &plugin.remove {
            response.head.remove_field(name);
        }
        for (name, value) in &plugin.set {
            response.head.remove_field(name);
            response.head.append_field(name, value);
        }
        if plugin.hsts.is_some() {
            // Ours is the last of them.
            let ours = response.head.get_all(HSTS_NAME).last().map(<[u8]>::to_vec);
            if let Some(ours) = ours {
                response.head.set(HSTS_NAME, ours);
            }
        }
    }

    fn sees_response(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, request_with};

    fn lines(head: &crate::http::Head) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        head.iter().map(|(_, name, value)| format!("{}: {}", text(name), text(value))).collect()
    }

    /// The fields of an answer of the gateway, and those of a response of the upstream.
    fn send(settings: &str, https: bool, upstream: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let fixture = Fixture::default();
        let plugin = fixture.accepted("security-headers", settings);
        let mut cx = fixture.cx();
        cx.https = https;
        plugin.on_request(&mut cx, &mut request_with("/", &[]));
        let mut response = ResponseHead::new();
        upstream.iter().for_each(|(name, value)| response.head.append(name, value));
        response.head.append_head(&cx.response_fields);
        plugin.on_response(&mut cx, &mut response);
        (lines(&cx.response_fields), lines(&response.head))
    }

    #[test]
    fn fields_are_set_once_whoever_answers() {
        let settings = "{set: {X-Frame-Options: DENY, X-A: '1'}, remove: [Server]}";
        let (own, passed) =
            send(settings, false, &[("Server", "x"), ("x-frame-options", "ALLOW"), ("B", "2")]);
        assert_eq!(own, ["X-Frame-Options: DENY", "X-A: 1"]);
        assert_eq!(passed, ["B: 2", "X-Frame-Options: DENY", "X-A: 1"]);
    }

    #[test]
    fn hsts_is_for_tls() {
        let settings = "{hsts: {max_age: 60, include_subdomains: true, preload: true}}";
        let expected = "Strict-Transport-Security: max-age=60; includeSubDomains; preload";
        let (own, passed) = send(settings, true, &[("Strict-Transport-Security", "max-age=1")]);
        assert_eq!((own, passed), (vec![expected.to_owned()], vec![expected.to_owned()]));
        assert_eq!(send(settings, false, &[]), (vec![], vec![]));
        let forced = send("{hsts: {max_age: 5, force: true}}", false, &[]).1;
        assert_eq!(forced, ["Strict-Transport-Security: max-age=5"]);
    }

    #[test]
    fn framing_is_out_of_reach() {
        let fixture = Fixture::default();
        assert!(
            fixture.refused("security-headers", "{set: {Content-Length: '0'}}").contains("cannot be edited")
        );
        assert!(
            fixture.refused("security-headers", "{remove: [Transfer-Encoding]}").contains("cannot be edited")
        );
        assert!(
            fixture.refused("security-headers", "{set: {X-A: \"a\\r\\nb\"}}").contains("control character")
        );
    }
}
