//! `fault-injection`: delays and refuses requests on purpose, to see what others make of it (Envoy's `fault` filter).
//!
//! Owns who is hit. The two parts are drawn by themselves, a delay before an abort, as in Envoy.
//!
//! **Invariant.** Never more than `max_active_faults` requests of a shard are delayed at once: a fault must not become
//! a flood of waiting requests.

use std::any::Any;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_abi::Reason;
use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section, schema::text};

use super::share::{Share, Turns, headers};
use super::{CompileCx, Content, Cx, Flow, Plugin, PluginSpec, Registration, Response, Resume};
use crate::http::{FieldName, RequestHead};
use crate::net;

/// The plugin's line of the registry: before authentication, as a fault is one of the gateway's edge.
pub static REGISTRATION: Registration =
    Registration { name: "fault-injection", priority: 11_000, section: &SECTION, compile };

static SECTION: Section = Section::new(
    "fault-injection",
    "Delays and refuses a part of the requests on purpose.",
    &[
        Key::new("abort", Kind::Section(&ABORT), "Answers in place of the upstream."),
        Key::new("delay", Kind::Section(&DELAY), "Waits before going on."),
        Key::new(
            "headers",
            Kind::Map { keys: &text::NAME, of: &Kind::STRING },
            "Only requests that have all of these, with these values.",
        )
        .default("{}"),
        Key::new(
            "max_active_faults",
            Kind::integer(0, 1_000_000),
            "Delayed requests of one shard at once; more pass without.",
        )
        .default("1000"),
    ],
);

const PERCENTAGE: Key =
    Key::new("percentage", Kind::Number { min: 0.0, max: 100.0 }, "Of how many requests, in percent.")
        .default("100");

static ABORT: Section = Section::new(
    "fault-injection.abort",
    "The answer.",
    &[
        Key::new("http_status", Kind::integer(200, 599), "Its status."),
        Key::new(
            "grpc_status",
            Kind::integer(0, 16),
            "The status that a gRPC call ends with, in place of the status of HTTP.",
        ),
        Key::new("body", Kind::STRING, "Its body, as text; left out: a JSON message."),
        PERCENTAGE,
    ],
);

static DELAY: Section = Section::new(
    "fault-injection.delay",
    "The wait.",
    &[
        Key::new("fixed_delay", Kind::duration(0, 3600), "How long; bare: milliseconds.").required(),
        PERCENTAGE,
    ],
);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let headers = headers(&fields);
    let share = |fields: &Fields<'_>| Share::percent(fields.number("percentage"));
    let delay =
        fields.optional_section("delay").map(|fields| (fields.duration("fixed_delay"), share(&fields)));
    let abort = fields.optional_section("abort").map(|fields| abort(&fields, share(&fields)));
    if delay.is_none() && abort.is_none() {
        let origin = fields.origin();
        let fault = Fault::new("neither `abort` nor `delay` is given, so nothing happens");
        found.warning(origin.span, &origin.path, fault);
    }
    Some(Arc::new(FaultInjection {
        headers: headers?,
        delay,
        abort,
        active_max: fields.integer("max_active_faults"),
    }))
}

fn abort(fields: &Fields<'_>, share: Share) -> Abort {
    let status = fields.optional_integer("http_status");
    let grpc_status = fields.optional_integer("grpc_status");
    if status.is_none() && grpc_status.is_none() {
        let origin = fields.origin();
        let fault = Fault::new("an answer has a status");
        fields.diagnostics().error(
            origin.span,
            &origin.path,
            fault.hint("set `http_status` or `grpc_status`"),
        );
    }
    Abort { status: status.unwrap_or(200), grpc_status, body: fields.optional_string("body"), share }
}

struct FaultInjection {
    headers: Vec<(FieldName, String)>,
    delay: Option<(Duration, Share)>,
    abort: Option<Abort>,
    active_max: u32,
}

struct Abort {
    status: u16,
    grpc_status: Option<u8>,
    body: Option<String>,
    share: Share,
}

impl FaultInjection {
    fn is_about(&self, request: &RequestHead) -> bool {
        let has = |(name, value): &(FieldName, String)| {
            request.head.get_field(name).is_some_and(|own| own == value.as_bytes())
        };
        self.headers.iter().all(has)
    }
}

impl Abort {
    fn answer(&self) -> Box<Response> {
        let mut answer = Response::new(self.status, Reason::FaultInjected, "Fault injected");
        if let Some(text) = &self.body {
            let media_type = "text/plain; charset=utf-8".into();
            answer.content = Some(Content { media_type, bytes: text.as_bytes().into() });
        }
        match self.grpc_status {
            Some(status) => answer.with_grpc_status(status),
            None => answer,
        }
    }
}

impl PluginSpec for FaultInjection {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard {
            spec: self,
            delays: Turns::default(),
            aborts: Turns::default(),
            active: Rc::new(Cell::new(0)),
        })
    }
}

struct OnShard {
    spec: Arc<FaultInjection>,
    /// Drawn by themselves: a part of the delayed ones is refused, not the same ones always.
    delays: Turns,
    aborts: Turns,
    active: Rc<Cell<u32>>,
}

/// A delayed request, counted as long as it waits.
struct Active(Rc<Cell<u32>>);

impl Active {
    fn begin(count: &Rc<Cell<u32>>, most: u32) -> Option<Self> {
        (count.get() < most).then(|| {
            count.set(count.get() + 1);
            Self(count.clone())
        })
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl OnShard {
    fn aborted(&self) -> Option<Box<Response>> {
        let abort = self.spec.abort.as_ref()?;
        abort.share.holds(self.aborts.next()).then(|| abort.answer())
    }
}

impl Plugin for OnShard {
    fn on_request(&self, _: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let spec = &*self.spec;
        if !spec.is_about(request) {
            return Flow::Continue;
        }
        let aborted = self.aborted();
        let end = |aborted: Option<Box<Response>>| aborted.map_or(Flow::Continue, Flow::Respond);
        let Some((time, share)) = spec.delay else { return end(aborted) };
        if !share.holds(self.delays.next()) {
            return end(aborted);
        }
        let Some(active) = Active::begin(&self.active, spec.active_max) else { return end(aborted) };
        Flow::Wait(Box::pin(async move {
            net::sleep(time).await;
            drop(active);
            let resume: Resume = Box::new(move |_, _| end(aborted));
            resume
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, answer, request_with};

    fn hit(settings: &str, lines: &[&str]) -> usize {
        let fixture = Fixture::default();
        let plugin = fixture.accepted("fault-injection", settings);
        let aborted = |_: &u32| {
            answer(plugin.on_request(&mut fixture.cx(), &mut request_with("/", lines)))
                .is_some_and(|answer| answer.status == 503 && answer.reason == Some(Reason::FaultInjected))
        };
        (0..1000).filter(aborted).count()
    }

    #[test]
    fn a_part_of_the_requests_is_refused() {
        assert_eq!(hit("{abort: {http_status: 503}}", &[]), 1000);
        let tenth = hit("{abort: {http_status: 503, percentage: 10}}", &[]);
        assert!((97..=103).contains(&tenth), "{tenth}");
        assert_eq!(hit("{abort: {http_status: 503, percentage: 0}}", &[]), 0);
    }

    #[test]
    fn only_requests_with_the_headers_are_hit() {
        let settings = "{abort: {http_status: 503}, headers: {X-Fault: 'yes'}}";
        assert_eq!(
            (hit(settings, &["X-Fault: yes"]), hit(settings, &["X-Fault: no"]), hit(settings, &[])),
            (1000, 0, 0)
        );
    }

    #[test]
    fn not_more_than_so_many_wait_at_once() {
        let fixture = Fixture::default();
        let plugin = fixture.accepted("fault-injection", "{delay: {fixed_delay: 1s}, max_active_faults: 2}");
        let send = || plugin.on_request(&mut fixture.cx(), &mut request_with("/", &[]));
        let (first, second) = (send(), send());
        assert!(matches!((&first, &second), (Flow::Wait(_), Flow::Wait(_))));
        assert!(matches!(send(), Flow::Continue));
        drop(first);
        assert!(matches!(send(), Flow::Wait(_)));
    }

    #[test]
    fn what_is_missing_is_said() {
        let fixture = Fixture::default();
        assert!(
            fixture.refused("fault-injection", "{abort: {percentage: 5}}").contains("an answer has a status")
        );
        let (_, said) = fixture.compile("fault-injection", 1, "{}").expect("accepted");
        assert!(said.contains("nothing happens"), "{said}");
    }
}
