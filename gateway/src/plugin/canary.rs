//! `canary`: part of a service's traffic goes to another place (Kong's plugin of the same name).
//!
//! Owns the choice, and the services that `upstream_host` and `upstream_port` make of the ones they are put on; see
//! [`derived`]. What a request falls by is `share`'s.
//!
//! | given | who goes to the canary |
//! |---|---|
//! | `canary_by_header_name`, `canary_by_cookie_name` | who says `always`; who says `never` does not, whatever else holds |
//! | `hash: allow`, `hash: deny` with `groups` | consumers in one of the groups; consumers in none |
//! | `percentage` | that part |
//! | `start`, `duration`, `steps` | a part that grows from nothing to all |
//!
//! **Invariant.** While a release grows, nobody who was sent to the canary is sent back.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_config::{self as config, Config, Diagnostics, Fault, Fields, Key, Kind, Node, Section};

use super::share::{By, Share, Turns, cookie};
use super::{CompileCx, Cx, Destination, Flow, Plugin, PluginSpec, Registration};
use crate::http::path::{PathPolicy, normalise};
use crate::http::{FieldName, RequestHead};
use crate::id::ServiceId;

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "canary", priority: 13, section: &SECTION, compile };

static SECTION: Section = Section::new(
    "canary",
    "Sends a part of the requests to another place, by `percentage` or growing from `start` on.",
    &[
        Key::new("percentage", Kind::Number { min: 0.0, max: 100.0 }, "The part, in percent."),
        Key::new(
            "start",
            Kind::integer(0, i64::MAX),
            "When the release begins to grow, in seconds since 1970. Ignored with `percentage`. Left out: when the \
             configuration was loaded first.",
        ),
        Key::new("duration", Kind::seconds(1, 315_360_000), "How long it grows; bare: seconds.").default("3600"),
        Key::new("steps", Kind::integer(1, 1_000_000), "In how many steps it grows.").default("1000"),
        Key::new(
            "hash",
            Kind::Word(&["consumer", "ip", "header", "allow", "deny", "none", "cookie", "query", "path"]),
            "What decides who belongs to the part; `allow` and `deny` go by `groups`. Without a consumer the client's \
             address decides; without the header, turns do.",
        )
        .default("consumer"),
        Key::new("hash_header", Kind::NAME, "The header for `hash: header`."),
        super::share::HASH_NAME,
        Key::new("groups", Kind::STRINGS, "Groups of consumers for `hash: allow` and `deny`.").default("[]"),
        Key::new(
            "canary_by_header_name",
            Kind::Text(&config::schema::text::HEADER_NAME),
            "A header by which a client chooses: `always` or `never`.",
        ),
        Key::new(
            "canary_by_cookie_name",
            Kind::NAME,
            "A cookie by which a client chooses: `always` or `never`. Not Kong's.",
        ),
        Key::new("service", Kind::NAME, "The service that the part goes to. Not Kong's."),
        Key::new("upstream_host", Kind::NAME, "Host, or name of an upstream, that the part goes to."),
        Key::new("upstream_port", Kind::PORT, "Its port; left out: the service's."),
        Key::new("upstream_uri", Kind::NAME, "Path that the part is sent with."),
        Key::new(
            "upstream_fallback",
            Kind::Bool,
            "Whether the part goes to the service while no target of the other place may be tried.",
        )
        .default("false"),
    ],
);

/// The services that plugins of this kind make of those they are put on, which are not in the file.
pub fn derived(config: &Config) -> Vec<config::Service> {
    let canaries = config.plugins.iter().filter(|plugin| plugin.enabled && plugin.name == "canary");
    let mut all: Vec<config::Service> = Vec::new();
    for plugin in canaries {
        for base in bases(config, plugin) {
            let Some(service) = derive(config, &config.services[base.index()], plugin) else { continue };
            if !all.iter().any(|known| known.name == service.name) {
                all.push(service);
            }
        }
    }
    all
}

/// The services whose requests the plugin may see.
fn bases(config: &Config, plugin: &config::Plugin) -> Vec<config::ServiceRef> {
    let of_route = plugin.scope.route.map(|route| config[route].service);
    match (plugin.scope.service, of_route) {
        (Some(service), _) => vec![service],
        (None, Some(service)) => service.into_iter().collect(),
        (None, None) => {
            let mut all: Vec<_> = config.routes.iter().filter_map(|route| route.service).collect();
            all.sort_unstable();
            all.dedup();
            all
        }
    }
}

/// The service with the plugin's host and port in place of its own.
fn derive(config: &Config, base: &config::Service, plugin: &config::Plugin) -> Option<config::Service> {
    let setting = |key: &str| plugin.config.get(key).and_then(Node::text);
    let (host, port) = (setting("upstream_host"), setting("upstream_port"));
    if host.is_none() && port.is_none() {
        return None;
    }
    let own = match &base.destination {
        config::Destination::Target(config::Address::Socket(address)) => {
            Some((address.ip().to_string(), address.port()))
        }
        config::Destination::Target(config::Address::Name { host, port }) => Some((host.clone(), *port)),
        config::Destination::Upstream(_) => None,
    };
    let port = port.and_then(|port| port.parse().ok()).or(own.as_ref().map(|(_, port)| *port));
    let port: u16 = port.unwrap_or(base.protocol.default_port());
    let host = host.map(str::to_owned).or(own.map(|(host, _)| host))?;
    let named = config.upstreams.iter().position(|upstream| upstream.name == host);
    let destination = match (named, host.parse()) {
        (Some(index), _) => config::Destination::Upstream(config::UpstreamRef(index as u32)),
        (None, Ok(ip)) => {
            config::Destination::Target(config::Address::Socket(std::net::SocketAddr::new(ip, port)))
        }
        (None, Err(_)) => config::Destination::Target(config::Address::Name { host: host.clone(), port }),
    };
    let name = format!("{} canary {host}:{port}", base.name);
    Some(config::Service { name, id: None, destination, ..base.clone() })
}

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let hash = fields.word("hash");
    let groups = fields.strings("groups");
    let by_group = matches!(hash, "allow" | "deny");
    if by_group && groups.is_empty() {
        fields.error("groups", format!("`hash: {hash}` needs `groups`"));
    }
    let part = match fields.optional_number("percentage") {
        _ if by_group => Part::Groups { groups, are_in: hash == "allow" },
        Some(percent) => Part::Fixed(Share::percent(percent)),
        None => Part::Growing {
            start: fields.optional_integer("start").unwrap_or(crate::net::clock::wall().as_secs()),
            duration: fields.duration("duration").as_secs().max(1),
            steps: fields.integer("steps"),
        },
    };
    let places = places(&fields, plugin, cx)?;
    if places.is_empty() && !fields.is_set("upstream_uri") {
        let origin = fields.origin();
        let fault = Fault::new("nothing says where the part goes");
        found.error(
            origin.span,
            &origin.path,
            fault.hint("set `service`, `upstream_host` or `upstream_uri`"),
        );
    }
    Some(Arc::new(Canary {
        part,
        by: by(&fields)?,
        header: fields.optional_string("canary_by_header_name").and_then(FieldName::new),
        cookie: fields.optional_string("canary_by_cookie_name"),
        places,
        falls_back: fields.bool("upstream_fallback"),
        path: path(&fields)?,
    }))
}

fn by(fields: &Fields<'_>) -> Option<By> {
    match (fields.word("hash"), fields.optional_string("hash_header")) {
        ("header", Some(name)) => match FieldName::new(&name) {
            Some(name) => Some(By::Header(name)),
            None => {
                fields.error("hash_header", format!("'{name}' is not a valid header"));
                None
            }
        },
        ("allow" | "deny", _) => Some(By::Turn),
        _ => By::read(fields),
    }
}

/// From each service to what its part goes to; one that stands for all has no first.
fn places(
    fields: &Fields<'_>,
    plugin: &config::Plugin,
    cx: &CompileCx<'_>,
) -> Option<Vec<(Option<ServiceId>, ServiceId)>> {
    if let Some(name) = fields.optional_string("service") {
        return Some(vec![(None, service_named(fields, "service", &name, cx.config)?)]);
    }
    let id = |name: &str| {
        cx.config
            .services
            .iter()
            .position(|service| service.name == name)
            .map(|index| ServiceId(index as u32))
    };
    let of_base = |base: config::ServiceRef| {
        let derived = derive(cx.config, &cx.config[base], plugin)?;
        Some((Some(ServiceId(base.0)), id(&derived.name)?))
    };
    Some(bases(cx.config, plugin).into_iter().filter_map(of_base).collect())
}

/// The service of that name. Reports where there is none.
pub fn service_named(fields: &Fields<'_>, key: &str, name: &str, config: &Config) -> Option<ServiceId> {
    let found = config.services.iter().position(|service| service.name == name);
    if found.is_none() {
        fields.error(key, format!("no service is called {name:?}"));
    }
    found.map(|index| ServiceId(index as u32))
}

/// `upstream_uri`, normalised.
fn path(fields: &Fields<'_>) -> Option<Option<Box<[u8]>>> {
    let Some(text) = fields.optional_string("upstream_uri") else { return Some(None) };
    let mut path = Vec::new();
    match normalise(text.as_bytes(), &PathPolicy::default(), &mut path) {
        Ok(_) => Some(Some(path.into())),
        Err(_) => {
            fields.error("upstream_uri", format!("{text:?} is not a path"));
            None
        }
    }
}

/// Who belongs to the canary.
enum Part {
    Fixed(Share),
    Growing {
        /// Seconds since 1970.
        start: u64,
        duration: u64,
        steps: u64,
    },
    Groups {
        groups: Vec<String>,
        are_in: bool,
    },
}

struct Canary {
    part: Part,
    by: By,
    header: Option<FieldName>,
    cookie: Option<String>,
    places: Vec<(Option<ServiceId>, ServiceId)>,
    falls_back: bool,
    path: Option<Box<[u8]>>,
}

impl Canary {
    /// What the client itself says.
    fn wish(&self, request: &RequestHead) -> Option<bool> {
        let header = self.header.as_ref().and_then(|name| request.head.get_field(name));
        let cookie = self.cookie.as_ref().and_then(|name| cookie(request, name));
        [header, cookie].into_iter().flatten().find_map(|word| match word {
            b"always" => Some(true),
            b"never" => Some(false),
            _ => None,
        })
    }

    fn takes(&self, cx: &Cx<'_>, request: &RequestHead, turns: &Turns) -> bool {
        if let Some(wish) = self.wish(request) {
            return wish;
        }
        match &self.part {
            Part::Groups { groups, are_in } => {
                let Some(id) = cx.identity.consumer else { return false };
                cx.consumers.consumer(id).groups.iter().any(|group| groups.contains(group)) == *are_in
            }
            Part::Fixed(share) => share.holds(self.by.point(cx, request, turns)),
            Part::Growing { start, duration, steps } => {
                let elapsed = cx.wall.as_secs().saturating_sub(*start).min(*duration);
                let step = u128::from(elapsed) * u128::from(*steps) / u128::from(*duration);
                Share::of(step as u64, *steps).holds(self.by.point(cx, request, turns))
            }
        }
    }
}

impl PluginSpec for Canary {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard { spec: self, turns: Turns::default() })
    }
}

struct OnShard {
    spec: Arc<Canary>,
    turns: Turns,
}

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let spec = &*self.spec;
        if !spec.takes(cx, request, &self.turns) {
            return Flow::Continue;
        }
        let place = spec.places.iter().find(|(base, _)| base.is_none() || *base == cx.service);
        if let Some((_, service)) = place {
            cx.destination = Some(Destination { service: *service, falls_back: spec.falls_back });
        }
        if let Some(path) = &spec.path {
            request.set_path(path);
            cx.rewritten.path = true;
        }
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, NOW, request_with};

    const SERVICES: &str = "services: [{name: new, url: 'http://127.0.0.1:1'}]\n\
                            consumers: [{username: ann, acls: [{group: early}]}, {username: ben}]\n\
                            plugins: [{name: canary, config: {SETTINGS}}]\n";

    fn fixture(settings: &str) -> Fixture {
        Fixture::new(&SERVICES.replace("SETTINGS", &format!("service: new, {settings}")))
    }

    /// How many of a thousand requests go to the canary, each made and identified by `make`.
    fn taken(fixture: &Fixture, make: impl Fn(&mut Cx<'_>, u32) -> RequestHead) -> usize {
        let plugin = fixture.plugin(0, None).expect("a plugin").0;
        let goes = |number: &u32| {
            let mut cx = fixture.cx_from("203.0.113.1");
            let mut head = make(&mut cx, *number);
            assert!(matches!(plugin.on_request(&mut cx, &mut head), Flow::Continue));
            cx.destination.is_some()
        };
        (0..1000).filter(goes).count()
    }

    #[test]
    fn percentage_by_turns_and_by_header() {
        let by_turns = taken(&fixture("percentage: 10, hash: none"), |_, _| request_with("/", &[]));
        assert!((97..=103).contains(&by_turns), "{by_turns}");
        let settings = fixture("percentage: 30, hash: header, hash_header: X-User");
        let user = |number: u32| request_with("/", &[&format!("X-User: u{number}")]);
        let by_header = taken(&settings, |_, number| user(number));
        assert!((230..=370).contains(&by_header), "{by_header}");
        let one = taken(&settings, |_, _| user(7));
        assert!(one == 0 || one == 1000, "one user is sent to one place");
    }

    #[test]
    fn groups_decide_for_allow_and_deny() {
        let as_consumer = |fixture: &Fixture, name: &'static str| {
            taken(fixture, |cx, _| {
                cx.identity.consumer = cx.consumers.by_name(name);
                request_with("/", &[])
            })
        };
        let (allow, deny) = (fixture("hash: allow, groups: [early]"), fixture("hash: deny, groups: [early]"));
        assert_eq!(
            (as_consumer(&allow, "ann"), as_consumer(&allow, "ben"), as_consumer(&allow, "")),
            (1000, 0, 0)
        );
        assert_eq!((as_consumer(&deny, "ann"), as_consumer(&deny, "ben")), (0, 1000));
    }

    #[test]
    fn a_release_grows_and_nobody_is_sent_back() {
        let settings = format!("start: {NOW}, duration: 100, steps: 10, hash: header, hash_header: X-User");
        let user = |_: &mut Cx<'_>, number| request_with("/", &[&format!("X-User: u{number}")]);
        let mut before = 0;
        for (elapsed, expected) in
            [(0, 0..=0), (9, 0..=0), (10, 60..=140), (55, 430..=570), (100, 1000..=1000)]
        {
            let now = taken(&fixture(&settings).at(NOW + elapsed), user);
            assert!(expected.contains(&now), "{now} after {elapsed} s");
            assert!(now >= before);
            before = now;
        }
    }

    #[test]
    fn a_client_may_choose() {
        let settings =
            "percentage: 50, hash: none, canary_by_header_name: X-Canary, canary_by_cookie_name: canary";
        let with = |line: &'static str| taken(&fixture(settings), move |_, _| request_with("/", &[line]));
        assert_eq!(with("X-Canary: always"), 1000);
        assert_eq!(with("X-Canary: never"), 0);
        assert_eq!(with("Cookie: canary=always"), 1000);
        assert!((490..=510).contains(&with("X-Canary: perhaps")));
    }

    #[test]
    fn what_is_missing_is_said() {
        let fixture = Fixture::default();
        for (settings, said) in [
            ("{percentage: 10}", "nothing says where the part goes"),
            ("{service: none}", "error: service: no service is called \"none\""),
            ("{upstream_uri: /x, hash: allow}", "error: groups: `hash: allow` needs `groups`"),
            ("{upstream_uri: /x, hash: cookie}", "error: hash: `hash: cookie` needs `hash_name`"),
            ("{upstream_uri: x}", "error: upstream_uri: \"x\" is not a path"),
        ] {
            let found = fixture.refused("canary", settings);
            assert!(found.contains(said), "{settings}: {found}");
        }
    }
}
