//! `mirror`: sends copies of requests to another place and throws the answers away (Traefik's `mirroring`, Envoy's
//! `request_mirror_policies`).
//!
//! Owns which requests are copied, and the sending of a copy. The exchange makes the copy from what it sends upstream,
//! once the plugins are done.
//!
//! **Invariant.** A copy never changes the answer: it is sent by a task of its own, of which there are at most
//! `max_pending` on a shard; what finds no room is dropped and counted. A body is copied only when it is known
//! beforehand to fit.

use std::any::Any;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{
    self as config, Config, Diagnostics, Fault, Fields, Key, Kind, Section, schema::text,
};

use super::call::{Caller, Service};
use super::service_tls;
use super::share::{Share, Turns};
use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration};
use crate::http::h1::BodyFraming;
use crate::http::{Method, RequestHead};
use crate::tls::Alpn;

/// The plugin's line of the registry: after those that choose where the request itself goes.
pub static REGISTRATION: Registration =
    Registration { name: "mirror", priority: 11, section: &SECTION, compile };

static SECTION: Section = Section::new(
    "mirror",
    "Sends copies of requests elsewhere. The client's answer does not depend on them.",
    &[
        Key::new(
            "targets",
            Kind::list(&const { Kind::Section(&TARGET) }),
            "Where copies go; each is drawn by itself.",
        )
        .required(),
        Key::new(
            "mirror_body",
            Kind::Bool,
            "Whether the body is copied too; requests with one are left out otherwise.",
        )
        .default("true"),
        Key::new(
            "max_body_size",
            Kind::Size { min: 0, max: 1 << 40 },
            "Requests with longer bodies are not copied, nor those that do not tell a length. At most \
             `limits.buffered_body`, or the least `buffered_body` of a route.",
        )
        .default("1MiB"),
        Key::new(
            "max_pending",
            Kind::integer(1, 65_535),
            "Copies under way at once on one shard; more are dropped.",
        )
        .default("256"),
        Key::new("timeout", Kind::duration(0, 3600), "Time limit of a copy; bare: milliseconds.")
            .default("10s"),
        Key::new(
            "preserve_host",
            Kind::Bool,
            "Whether copies bear the request's host, in place of their target's.",
        )
        .default("true"),
    ],
);

static TARGET: Section = Section::new(
    "mirror.targets",
    "One place; `url` or `service` is given.",
    &[
        Key::new("url", Kind::Text(&text::URL), "Where it is; its path is put before the request's."),
        Key::new("service", Kind::NAME, "The service whose targets get copies in turn."),
        Key::new("percentage", Kind::Number { min: 0.0, max: 100.0 }, "Of how many requests, in percent.")
            .default("100"),
    ],
);

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let targets: Option<Vec<_>> =
        fields.sections("targets").iter().map(|one| target(one, cx.config)).collect();
    let asked = fields.size("max_body_size");
    Some(Arc::new(Mirror {
        targets: targets?,
        body_max: fields.bool("mirror_body").then(|| asked.min(cx.config.buffered_body_range().0)),
        pending_max: fields.integer("max_pending"),
        timeout: fields.duration("timeout"),
        preserve_host: fields.bool("preserve_host"),
    }))
}

fn target(fields: &Fields<'_>, config: &Config) -> Option<Target> {
    let share = Share::percent(fields.number("percentage"));
    let places = match (fields.is_set("url"), fields.optional_string("service")) {
        (true, None) => vec![Service::read(fields, "url", true)?],
        (false, Some(name)) => of_service(fields, &name, config)?,
        _ => {
            let origin = fields.origin();
            let fault = Fault::new("exactly one of `url` and `service` says where copies go");
            fields.diagnostics().error(origin.span, &origin.path, fault);
            return None;
        }
    };
    Some(Target { places, share })
}

/// The targets of a service, as places to call.
pub fn of_service(fields: &Fields<'_>, name: &str, config: &Config) -> Option<Vec<Arc<Service>>> {
    let id = super::canary::service_named(fields, "service", name, config)?;
    let service = &config.services[id.index()];
    let scheme = if service.protocol.is_tls() { "https" } else { "http" };
    let path = service.path.as_deref().unwrap_or_default();
    let addresses = match &service.destination {
        config::Destination::Target(address) => vec![address],
        config::Destination::Upstream(upstream) => {
            let used = config[*upstream].targets.iter().filter(|target| target.weight > 0);
            used.map(|target| &target.address).collect()
        }
    };
    if addresses.is_empty() {
        fields.error("service", format!("{name:?} has no target"));
        return None;
    }
    if service.http_version == config::HttpVersion::Two {
        let fault = Fault::new(format!("the targets of {name:?} are said to speak HTTP/2 alone"));
        fields.warning(
            "service",
            fault.hint("they are called in HTTP/1.1 here; give their other port as a `url`"),
        );
    }
    let place = |address: &config::Address| {
        let text = format!("{scheme}://{address}{path}");
        let settings = service_tls::settings(config, service);
        let client = || service_tls::client(config, &settings, vec![Alpn::Http11]);
        Service::with_tls(fields, "service", &text, client, settings.sni.clone())
    };
    addresses.into_iter().map(place).collect()
}

struct Mirror {
    targets: Vec<Target>,
    /// `None`: bodies are not copied.
    body_max: Option<u64>,
    pending_max: u32,
    timeout: Duration,
    preserve_host: bool,
}

struct Target {
    places: Vec<Arc<Service>>,
    share: Share,
}

impl PluginSpec for Mirror {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        let target = |target: &Target| {
            let callers = target.places.iter().map(|place| Rc::new(Caller::new(place.clone()))).collect();
            OfTarget { callers, share: target.share, turns: Turns::default(), next: Cell::new(0) }
        };
        let targets = self.targets.iter().map(target).collect();
        Rc::new(OnShard { targets, pending: Rc::new(Cell::new(0)), spec: self })
    }
}

struct OnShard {
    spec: Arc<Mirror>,
    targets: Vec<OfTarget>,
    /// Copies under way.
    pending: Rc<Cell<u32>>,
}

struct OfTarget {
    callers: Vec<Rc<Caller>>,
    share: Share,
    turns: Turns,
    next: Cell<usize>,
}

impl OfTarget {
    fn caller(&self) -> Rc<Caller> {
        let at = self.next.get();
        self.next.set((at + 1) % self.callers.len());
        self.callers[at].clone()
    }
}

/// A copy that is to be made.
pub struct Copy {
    caller: Rc<Caller>,
    pending: Rc<Cell<u32>>,
    pending_max: u32,
    timeout: Duration,
    preserve_host: bool,
    /// The body does not fit, or its length is not known.
    pub unfit: bool,
}

/// A copy under way, counted as long as it is.
pub struct Place(Rc<Cell<u32>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Copy {
    /// Room for it; `None` when too many are under way.
    pub fn place(&self) -> Option<Place> {
        (self.pending.get() < self.pending_max).then(|| {
            self.pending.set(self.pending.get() + 1);
            Place(self.pending.clone())
        })
    }

    /// Its host, unless it is the request's.
    pub fn host(&self) -> Option<&[u8]> {
        (!self.preserve_host).then(|| self.caller.service().url.authority.as_bytes())
    }

    /// What is put before its path.
    pub fn prefix(&self) -> &[u8] {
        let path = self.caller.service().url.target.as_bytes();
        path.strip_suffix(b"/").unwrap_or(path)
    }

    /// Sends it, and reads the answer to its end. Whether there was one.
    pub async fn send(self, message: Vec<u8>, method: Method, place: Place) -> bool {
        let answered = self.caller.tell(&message, method, self.timeout).await.is_ok();
        drop(place);
        answered
    }
}

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, _: &mut RequestHead) -> Flow {
        let spec = &*self.spec;
        let unfit = match (cx.body, spec.body_max) {
            (BodyFraming::None, _) => false,
            (BodyFraming::Length(length), Some(most)) => length > most,
            _ => true,
        };
        for target in self.targets.iter().filter(|target| target.share.holds(target.turns.next())) {
            cx.copies.push(Copy {
                caller: target.caller(),
                pending: self.pending.clone(),
                pending_max: spec.pending_max,
                timeout: spec.timeout,
                preserve_host: spec.preserve_host,
                unfit,
            });
        }
        Flow::Continue
    }

    fn wants_request_body(&self, cx: &Cx<'_>, _: &RequestHead) -> bool {
        matches!(cx.body, BodyFraming::Length(_)) && cx.copies.iter().any(|copy| !copy.unfit)
    }
}
