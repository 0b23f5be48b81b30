//! `correlation-id`: a header field by which a request is recognised wherever it goes (Kong's plugin of the same name).
//!
//! Owns how such a name is made. A request that brings one keeps it.
//!
//! **Invariant.** No two requests get the same name, on whichever shard, though nobody counts across shards.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;

use portcullis_config::schema::text;
use portcullis_config::{self as config, Diagnostics, Key, Kind, Section};

use super::transform::{Side, Step, field_name};
use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration};
use crate::http::{FieldName, RequestHead};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "correlation-id", priority: 100_001, section: &SECTION, compile };

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "correlation-id",
    "Gives each request a unique name in a header, unless it has one.",
    &[
        Key::new("header_name", Kind::Text(&text::HEADER_NAME), "The header.").default("Kong-Request-ID"),
        Key::new(
            "generator",
            Kind::Word(&["uuid", "uuid#counter", "tracker"]),
            "How a name is made: `uuid`, a random one (version 4) for each request; `uuid#counter`, one for each \
             shard and load, with a counter; `tracker`, \
             source address-listener port-process-source port-request on the connection-time in seconds.",
        )
        .default("uuid#counter"),
        Key::new("echo_downstream", Kind::Bool, "Whether the client is told in the same header.")
            .default("false"),
    ],
);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let generator = match fields.string("generator").as_str() {
        "uuid" => Generator::Uuid,
        "tracker" => Generator::Tracker,
        _ => Generator::Counter,
    };
    match field_name(Side::Request, Step::Rename, &fields.string("header_name")) {
        Ok(name) => Some(Arc::new(CorrelationId { name, generator, echo: fields.bool("echo_downstream") })),
        Err(fault) => {
            fields.error("header_name", fault);
            None
        }
    }
}

/// How a name is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generator {
    Uuid,
    Counter,
    Tracker,
}

/// Compiled settings.
struct CorrelationId {
    name: FieldName,
    generator: Generator,
    echo: bool,
}

impl PluginSpec for CorrelationId {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        let source = RandomState::new();
        let own = Uuid::new(&source, 0);
        Rc::new(OnShard { plugin: self, source, own, counter: Cell::new(0), text: RefCell::default() })
    }
}

/// A random UUID (RFC 9562 section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Uuid(u128);

impl Uuid {
    /// The one with this number. `source` is a keyed hash that nobody outside can compute, so each looks like chance.
    fn new(source: &RandomState, number: u64) -> Self {
        let half = |which: u8| u128::from(source.hash_one((number, which)));
        const VERSION: u128 = 0xf << 76;
        const VARIANT: u128 = 0b11 << 62;
        let random = half(0) << 64 | half(1);
        Self(random & !VERSION & !VARIANT | 4 << 76 | 0b10 << 62)
    }

    fn write(self, out: &mut String) {
        let part = |shift: u32, bits: u32| (self.0 >> shift) as u64 & ((1 << bits) - 1);
        // A String takes whatever is written.
        let _ = write!(
            out,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            part(96, 32),
            part(80, 16),
            part(64, 16),
            part(48, 16),
            part(0, 48)
        );
    }
}

struct OnShard {
    plugin: Arc<CorrelationId>,
    source: RandomState,
    /// The first half of names with a counter.
    own: Uuid,
    counter: Cell<u64>,
    /// Room for a name, kept for the next.
    text: RefCell<String>,
}

impl OnShard {
    fn make(&self, cx: &Cx<'_>, out: &mut String) {
        out.clear();
        let count = self.counter.get() + 1;
        self.counter.set(count);
        match self.plugin.generator {
            Generator::Uuid => Uuid::new(&self.source, count).write(out),
            Generator::Counter => {
                self.own.write(out);
                let _ = write!(out, "#{count}");
            }
            Generator::Tracker => {
                let (on, process) = (cx.connection, std::process::id());
                let (seconds, millis) = (cx.wall.as_secs(), cx.wall.subsec_millis());
                let _ = write!(
                    out,
                    "{}-{}-{process}-{}-{}-{seconds}.{millis:03}",
                    cx.source,
                    on.listener_port,
                    on.source_port,
                    on.exchanges + 1
                );
            }
        }
    }
}

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let plugin = &*self.plugin;
        let mut made = self.text.borrow_mut();
        let name = match request.head.get_field(&plugin.name).filter(|name| !name.is_empty()) {
            Some(brought) => brought,
            None => {
                self.make(cx, &mut made);
                request.head.remove_field(&plugin.name);
                request.head.append_field(&plugin.name, &*made);
                made.as_bytes()
            }
        };
        if plugin.echo {
            cx.response_fields.append_field(&plugin.name, name);
        }
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, request_with as request};

    /// The name that the upstream sees, and the one that the client sees.
    fn send(plugin: &dyn Plugin, bed: &Fixture, lines: &[&str], field: &str) -> (String, String) {
        let (mut cx, mut request) = (bed.cx_from("192.0.2.7"), request("/", lines));
        assert!(matches!(plugin.on_request(&mut cx, &mut request), Flow::Continue));
        let text = |head: &crate::http::Head| {
            let all: Vec<_> = head.get_all(field).map(String::from_utf8_lossy).collect();
            all.join("|")
        };
        (text(&request.head), text(&cx.response_fields))
    }

    #[track_caller]
    fn assert_uuid(text: &str) {
        let parts: Vec<_> = text.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{text}");
        assert!(text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{text}");
        assert!(parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']), "{text}");
    }

    #[test]
    fn generators() {
        let bed = Fixture::default();
        let named = |generator: &str| {
            let plugin =
                bed.accepted("correlation-id", &format!("{{generator: '{generator}', header_name: X-Id}}"));
            [(); 2].map(|()| send(&*plugin, &bed, &[], "x-id").0)
        };
        let [first, second] = named("uuid");
        assert_uuid(&first);
        assert_uuid(&second);
        assert_ne!(first, second);
        let [first, second] = named("uuid#counter");
        let (uuid, count) = first.split_once('#').expect("a counter");
        assert_uuid(uuid);
        assert_eq!((count, second), ("1", format!("{uuid}#2")));
        assert_ne!(named("uuid#counter")[0], first, "another instance counts under another name");
        let process = std::process::id();
        assert_eq!(named("tracker")[0], format!("192.0.2.7-0-{process}-0-1-1709208000.000"));
    }

    #[test]
    fn a_name_that_was_brought_is_kept() {
        let bed = Fixture::default();
        let plugin = bed.accepted("correlation-id", "{echo_downstream: true}");
        let field = "kong-request-id";
        let brought = send(&*plugin, &bed, &["Kong-Request-ID: mine"], field);
        assert_eq!(brought, ("mine".to_owned(), "mine".to_owned()));
        let (upstream, client) = send(&*plugin, &bed, &["Kong-Request-ID:"], field);
        assert!(upstream.ends_with("#1"), "an empty one is none: {upstream}");
        assert_eq!(upstream, client);
        let plugin = bed.accepted("correlation-id", "{}");
        assert_eq!(send(&*plugin, &bed, &["Kong-Request-ID: mine"], field).1, "");
    }

    #[test]
    fn a_field_of_the_framing_is_no_name() {
        let bed = Fixture::default();
        for name in ["Content-Length", "Transfer-Encoding", "Connection", "Host"] {
            let said = bed.refused("correlation-id", &format!("{{header_name: {name}}}"));
            assert!(said.contains("error: header_name"), "{name}: {said}");
        }
    }
}
