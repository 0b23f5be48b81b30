//! Files in Kong's own format: they load, mean what they mean in Kong, and the differences are said.

mod catalog;

use std::path::Path;
use std::time::Duration;

use catalog::CATALOG;
use portcullis_config::{
    Address, Algorithm, Defaults, Destination, Diagnostic, FixedEnvironment, HeaderValue, Loaded,
    PathHandling, PathPattern, Scope, Severity, Text, load_texts,
};

fn load(name: &str) -> Loaded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kong").join(name);
    let content = std::fs::read_to_string(path).expect(name);
    load_text(name, content)
}

fn load_text(name: &str, content: String) -> Loaded {
    let variables =
        [("DECK_USER", "json-user"), ("API_KEY", "json-key")].map(|(k, v)| (k.into(), v.into())).into();
    let environment = FixedEnvironment { variables, ..FixedEnvironment::default() };
    let text = Text { name: name.into(), folder: "/etc/kong".into(), content };
    load_texts(vec![text], &CATALOG, &environment).unwrap_or_else(|found| panic!("{}", shown(&found)))
}

fn shown(found: &[Diagnostic]) -> String {
    found.iter().map(|one| format!("{one}\n")).collect()
}

#[test]
fn a_shop() {
    let Loaded { config, warnings } = load("shop.yaml");
    let orders = &config.services[0];
    assert_eq!(
        orders.destination,
        Destination::Target(Address::Name { host: "orders.internal".into(), port: 8080 })
    );
    assert_eq!(orders.path.as_deref(), Some("/api"));
    assert_eq!(
        (orders.connect_timeout, orders.first_byte_timeout),
        (Duration::from_secs(5), Duration::from_secs(30))
    );
    assert_eq!(orders.body_idle_timeout, Duration::from_secs(30));
    assert_eq!(orders.retries, 3);
    let route = &config.routes[0];
    assert_eq!(route.paths[0], PathPattern::Prefix("/api/v1/orders".into()));
    assert!(
        matches!(&route.paths[1], PathPattern::Regex(pattern) if pattern.as_str().starts_with("/api/v(?<"))
    );
    assert_eq!((route.strip_path, route.preserve_host, route.regex_priority), (false, false, 10));
    let Destination::Upstream(upstream) = config.services[1].destination else { panic!("not an upstream") };
    assert_eq!(config[upstream].targets[1].weight, 50);
    assert_eq!(config[upstream].healthchecks.active.timeout, Duration::from_secs(1));
    assert_eq!(config[upstream].healthchecks.active.healthy_interval, Duration::from_secs(5));
    let catalogue = &config.routes[1];
    assert_eq!(catalogue.headers[0].name, "x-version");
    assert_eq!(catalogue.headers[0].value, HeaderValue::AnyOf(vec!["v1".into(), "v2".into()]));
    assert!(
        matches!(&catalogue.headers[1].value, HeaderValue::Regex(pattern) if pattern.as_str() == "mobile.*")
    );
    assert_eq!(config.consumers[0].groups, ["orders-read", "orders-write"]);
    let scopes: Vec<_> = config.plugins.iter().map(|plugin| (plugin.name.as_str(), plugin.scope)).collect();
    let service = Scope { service: Some(portcullis_config::ServiceRef(0)), ..Scope::default() };
    assert_eq!(
        scopes,
        [("jwt", service), ("rate-limiting", service), ("response-transformer", Scope::default())]
    );
    insta::assert_snapshot!("shop", shown(&warnings));
}

#[test]
fn a_dump_with_nulls_and_ids() {
    let Loaded { config, warnings } = load("dump.yaml");
    assert!(warnings.iter().all(|one| one.severity != Severity::Error));
    let route = &config.routes[0];
    assert_eq!(route.service.map(|one| config[one].name.as_str()), Some("httpbin"));
    assert_eq!(route.path_handling, PathHandling::V1);
    assert!(route.hosts.is_empty() && route.headers.is_empty());
    assert_eq!(config.plugins[0].scope.route.map(|one| config[one].name.as_str()), Some("httpbin"));
    let limit = config.plugins[1].scope;
    assert_eq!(limit.consumer.map(|one| config[one].name()), Some("partner"));
    assert_eq!(limit.service.map(|one| config[one].name.as_str()), Some("httpbin"));
    let partner = &config.consumers[0];
    assert_eq!(
        (partner.groups.as_slice(), partner.consumer_groups.as_slice()),
        (&["partners".into()][..], &["gold".into()][..])
    );
    assert_eq!(config.upstreams[0].algorithm, Algorithm::ConsistentHashing);
    assert_eq!(config.upstreams[0].targets.len(), 1);
    let listeners: Vec<_> =
        config.listeners.iter().map(|one| (one.name.as_str(), one.tls.is_some())).collect();
    assert_eq!(listeners, [("0.0.0.0:8000", false), ("0.0.0.0:8443", true)]);
    assert!(!format!("{config:?}").contains("partner-api-key"));
}

#[test]
fn before_format_3_expressions_have_no_tilde_and_kong_defaults_can_be_had() {
    let Loaded { config, warnings } = load("old-format.yaml");
    let said: Vec<_> = warnings.iter().map(|one| (one.severity, one.path.as_str())).collect();
    assert_eq!(said, [(Severity::Note, "defaults")], "{}", shown(&warnings));
    let kinds: Vec<_> =
        config.routes[0].paths.iter().map(|path| matches!(path, PathPattern::Regex(_))).collect();
    assert_eq!(kinds, [true, false, true]);
    assert_eq!(config.defaults, Defaults::Kong);
    let service = &config.services[0];
    assert_eq!(
        service.destination,
        Destination::Target(Address::Name { host: "legacy.example.com".into(), port: 80 })
    );
    assert_eq!((service.connect_timeout, service.retries), (Duration::from_secs(60), 5));
    assert!(!service.tls.verify);
    assert_eq!((config.limits.body, config.timeouts.request_head), (u64::MAX, Duration::from_secs(60)));
    assert!(config.routes[0].request_buffering);
}

#[test]
fn json_with_references_of_deck_and_of_kong_vaults() {
    let Loaded { config, .. } = load("deck.json");
    assert_eq!(config.consumers[0].username.as_deref(), Some("json-user"));
    assert_eq!(config.consumers[0].keys[0].hash, portcullis_config::KeyHash::of(b"json-key"));
}

#[test]
fn ours_are_the_defaults_without_a_choice() {
    let Loaded { config, .. } = load_text("a.yaml", "services: [{name: a, url: 'https://a'}]".into());
    let service = &config.services[0];
    assert_eq!((service.connect_timeout, service.retries), (Duration::from_secs(3), 1));
    assert_eq!(
        (service.first_byte_timeout, service.body_idle_timeout),
        (Duration::from_secs(15), Duration::from_secs(30))
    );
    assert!(service.tls.verify);
    assert_eq!((config.limits.body, config.timeouts.drain), (10 << 20, Duration::from_secs(30)));
}

#[test]
fn timeouts_of_services_follow_the_section() {
    let text = "timeouts: {connect: 7s, first_byte: 8s}\nservices: [{name: a, url: 'http://a', read_timeout: 9s}, {name: b, url: 'http://b'}]";
    let Loaded { config, .. } = load_text("a.yaml", text.into());
    let seconds = |of: &portcullis_config::Service| {
        [of.connect_timeout, of.first_byte_timeout, of.body_idle_timeout].map(|time| time.as_secs())
    };
    assert_eq!(seconds(&config.services[0]), [7, 9, 9]);
    assert_eq!(seconds(&config.services[1]), [7, 8, 30]);
}

/// The differences are said for Kong's files, and only where nobody has chosen.
#[test]
fn notes_appear_without_a_choice_only() {
    let base = "services: [{name: a, url: 'http://a'}]\nplugins: [{name: jwt}]\n\
                consumers: [{username: c, jwt_secrets: [{key: k, secret: 0123456789abcdef0123456789abcdef}]}]\n";
    let notes = |head: &str| {
        let all = load_text("a.yaml", format!("{head}{base}")).warnings;
        all.iter().filter(|one| one.message.contains("is left out")).count()
    };
    assert_eq!(notes(""), 0);
    assert_eq!(notes("_format_version: '3.0'\ndefaults: portcullis\n"), 0);
    assert_eq!(notes("_format_version: '3.0'\ndefaults: kong\n"), 0);
    let found = load_text("a.yaml", format!("_format_version: '3.0'\n{base}")).warnings;
    assert!(found.iter().all(|one| one.severity == Severity::Note));
    let claims = found.iter().find(|one| one.path.ends_with("config")).expect("a note on jwt");
    assert!(claims.message.starts_with("`claims_to_verify` is left out"), "{claims}");
    assert!(found.iter().any(|one| one.message.contains("`retries`")), "{}", shown(&found));
}
