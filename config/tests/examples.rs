//! Every example loads, and the reference mentions every key and says what the tables say.

mod catalog;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use catalog::CATALOG;
use portcullis_config::schema::reference::{annotate, unmentioned};
use portcullis_config::{
    AccessLogDestination, Config, Diagnostic, FixedEnvironment, HashKey, JwtMaterial, Loaded, Pem, Severity,
    Text, XdpMode, load_texts, parse_str,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn load_example(name: &str) -> Loaded {
    let content = std::fs::read_to_string(folder().join(name)).expect(name);
    let environment = FixedEnvironment {
        variables: [("MOBILE_JWT_SECRET".into(), "0123456789abcdef0123456789abcdef".into())].into(),
        files: [(
            "/etc/portcullis/certs/partner.pub.pem".into(),
            "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n".into(),
        )]
        .into(),
    };
    let text = Text { name: name.into(), folder: "/etc/portcullis".into(), content };
    load_texts(vec![text], &CATALOG, &environment).unwrap_or_else(|found| panic!("{}", shown(&found)))
}

fn shown(found: &[Diagnostic]) -> String {
    found.iter().map(|one| format!("{one}\n")).collect()
}

fn route_names(config: &Config) -> Vec<&str> {
    config.routes.iter().map(|route| route.name.as_str()).collect()
}

#[test]
fn minimal() {
    let Loaded { config, warnings } = load_example("minimal.yaml");
    assert!(warnings.is_empty(), "{}", shown(&warnings));
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!(route_names(&config), ["public", "private"]);
    assert_eq!(config.plugins.len(), 2);
    assert_eq!(config.consumers[0].keys[0].key.expose(), "demo-key");
    assert_eq!(config.xdp.mode, XdpMode::Auto);
    assert_eq!(config.admin.socket, Some("portcullis.sock".into()));
}

#[test]
fn production() {
    let Loaded { config, warnings } = load_example("production.yaml");
    assert!(warnings.is_empty(), "{}", shown(&warnings));
    assert_eq!(config.certificates[0].cert, Pem::File("/etc/portcullis/certs/shop.example.com.pem".into()));
    assert_eq!(config.upstreams[0].targets.len(), 3);
    assert!(config.upstreams[0].healthchecks.active.is_on());
    assert!(matches!(config.consumers[1].jwt_secrets[0].material, JwtMaterial::PublicKey(_)));
    assert_eq!(
        config.telemetry.access_log.destination,
        AccessLogDestination::File("/var/log/portcullis/access.log".into())
    );
    let text = format!("{config:?}");
    assert!(!text.contains("0123456789abcdef"), "a secret is shown");
}

#[test]
fn reference_loads_with_warnings_only_for_what_is_kept_for_later() {
    let Loaded { config, warnings } = load_example("reference.yaml");
    let mut counts: BTreeMap<(Severity, &str), usize> = BTreeMap::new();
    for one in &warnings {
        *counts.entry((one.severity, one.message.as_str())).or_default() += 1;
    }
    let unexpected: Vec<_> = counts
        .keys()
        .filter(|(_, text)| !matches!(*text, "accepted, not acted on yet" | "deprecated"))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    assert_eq!(route_names(&config), ["orders", "by-expression", "payments"]);
    assert!(!config.routes[1].enabled);
    assert_eq!(config.services[1].connect_timeout.as_millis(), 5000);
    assert_eq!(config.upstreams[1].hash_on, HashKey::Header("x-session".into()));
    assert_eq!(config.upstreams[1].targets.len(), 1);
    assert_eq!(config.consumers[0].keys.len(), 2);
    assert_eq!(config.consumers[0].groups, ["shoppers", "buyers"]);
}

/// The reference is made from its skeleton and the tables. With `PORTCULLIS_BLESS=1` the test writes it.
#[test]
fn reference_says_what_the_tables_say() {
    let skeleton = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/reference.skeleton.yaml");
    let skeleton = std::fs::read_to_string(skeleton).expect("the skeleton");
    let (tree, _) =
        parse_str("reference.skeleton.yaml", &skeleton).unwrap_or_else(|found| panic!("{}", shown(&found)));
    assert_eq!(
        unmentioned(&tree, &CATALOG),
        Vec::<String>::new(),
        "keys that the reference does not mention"
    );
    let expected = annotate(&skeleton, &tree, &CATALOG);
    let path = folder().join("reference.yaml");
    if std::env::var_os("PORTCULLIS_BLESS").is_some() {
        std::fs::write(&path, &expected).expect("writing the reference");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == expected,
        "config/examples/reference.yaml is out of date; run with PORTCULLIS_BLESS=1"
    );
}

#[test]
fn the_reference_is_found_under_its_other_name() {
    let link = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference.yaml");
    assert_eq!(std::fs::read_link(link).expect("a symbolic link"), Path::new("examples/reference.yaml"));
}
