//! Every example works in this gateway: it loads with the real plugins and compiles to a snapshot. The reference
//! mentions every key and says what the tables say.
//!
//! Certificates and names of the examples stand for the operator's own, so files are made for them in a temporary
//! folder and no test asks a name server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis::id::Generation;
use portcullis::metrics::Registry;
use portcullis::snapshot::{CompileContext, GatewayCatalog, Names, Snapshot, compile};
use portcullis::tls::Ticketer;
use portcullis_config::schema::reference::{annotate, unmentioned};
use portcullis_config::{
    AccessLogDestination, Config, Diagnostic, FixedEnvironment, HashKey, JwtMaterial, Loaded, Pem, Severity,
    Text, XdpMode, load_texts, parse_str,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
    KeyPair, SerialNumber,
};
use tempfile::TempDir;

/// An RSA key whose other half nobody has.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAz1i9o+pan5aMR9IvLK15
EL9IMh6bZTuApyJMml5YWIaf9bP9tPOQEElw7eMN46Ww90WzAdo9RtelRocyrMDG
R1Slat67zBcbf1Mm8X2L3bg4kaKRONe3gXD8NLDiBj1TzckMXgYuCVIwT3/W1dYM
ZBqiJNwkO+jTbyP1I2o9I+/gC3KGxU476PZqcvMQdXrnLf2V2jAvrT/GxNaOInvg
zzOESdaxYK8+NnBkkWpM5VaVhmckKUoqrsC3DSFSaAYiGnKB9QfAfX53DED1Z0c/
j55LgSyXKwz/y/l84I4u6k1wZqzUdwonv3TPXS+NYhtXCP81Ccry3nvkVyEUNifZ
rwIDAQAB
-----END PUBLIC KEY-----
";

/// The checkout's folder `config`.
fn config_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("config")
}

/// A list of revoked certificates, with nothing on it.
fn revoked(authority: &CertifiedIssuer<'static, KeyPair>) -> String {
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(2124, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(authority).and_then(|list| list.pem()).expect("a list")
}

/// What an operator brings along: a folder with certificates, and the same in PEM for those written in place.
struct Site {
    folder: TempDir,
    certificate: String,
    key: String,
}

impl Site {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["shop.example.com".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &authority).expect("a certificate").pem();
        let site = Self { folder: TempDir::new().expect("a folder"), certificate, key: key.serialize_pem() };
        std::fs::create_dir(site.path("certs")).expect("a folder");
        let files = [
            ("shop.pem", &site.certificate),
            ("shop.key", &site.key),
            ("shop.example.com.pem", &site.certificate),
            ("shop.example.com.key", &site.key),
            ("internal-ca.pem", &authority.pem()),
            ("internal.crl", &revoked(&authority)),
            ("tickets.keys", &"5a".repeat(80)),
        ];
        for (name, content) in files {
            std::fs::write(site.path("certs").join(name), content).expect(name);
        }
        std::fs::create_dir(site.path("lists")).expect("a folder");
        std::fs::write(site.path("lists/users.txt"), "dave:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/\n")
            .expect("users");
        std::fs::write(site.path("lists/partners.txt"), "203.0.113.0/28 # an example\n").expect("a list");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Loads an example as if it stood in this folder.
    fn load(&self, name: &str) -> Loaded {
        let mut content = std::fs::read_to_string(config_folder().join("examples").join(name)).expect(name);
        for (label, pem) in [
            ("CERTIFICATE", &self.certificate),
            ("PRIVATE KEY", &self.key),
            ("PUBLIC KEY", &PUBLIC_KEY.into()),
        ] {
            content = with_pem(&content, label, pem);
        }
        for name in ["orders-2.example.com:", "payments.example.com/"] {
            content = content.replace(name, &format!("127.0.0.1{}", &name[name.len() - 1..]));
        }
        let public_key = self.path("certs/partner.pub.pem").display().to_string();
        let environment = FixedEnvironment {
            variables: [("MOBILE_JWT_SECRET".into(), "0123456789abcdef0123456789abcdef".into())].into(),
            files: [(public_key, PUBLIC_KEY.into())].into(),
        };
        let text = Text { name: name.into(), folder: self.folder.path().into(), content };
        load_texts(vec![text], &GatewayCatalog, &environment)
            .unwrap_or_else(|found| panic!("{}", shown(&found)))
    }
}

/// `text` with `pem` in every place where something of this label is written out, in one line to keep the indentation.
fn with_pem(text: &str, label: &str, pem: &str) -> String {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let begin = format!("-----BEGIN {label}-----");
    let mut lines: Vec<&str> = text.lines().collect();
    let inside: Vec<usize> =
        (1..lines.len()).filter(|index| lines[index - 1].trim_start() == begin).collect();
    let swapped: Vec<String> = inside
        .iter()
        .map(|&index| format!("{:1$}{body}", "", lines[index].len() - lines[index].trim_start().len()))
        .collect();
    for (index, line) in inside.into_iter().zip(&swapped) {
        lines[index] = line;
    }
    lines.join("\n") + "\n"
}

fn snapshot(config: Config) -> (Snapshot, Vec<Diagnostic>) {
    let registry = Registry::new(1, 16);
    let ticketer = Ticketer::off();
    let names = Names::default();
    let cx = CompileContext {
        names: &names,
        generation: Generation(1),
        previous: None,
        registry: &registry,
        ticketer: &ticketer,
    };
    compile(Arc::new(config), &cx).unwrap_or_else(|found| panic!("{}", shown(&found)))
}

fn shown(found: &[Diagnostic]) -> String {
    found.iter().map(|one| format!("{one}\n")).collect()
}

fn route_names(config: &Config) -> Vec<&str> {
    config.routes.iter().map(|route| route.name.as_str()).collect()
}

#[test]
fn minimal() {
    let Loaded { config, warnings } = Site::new().load("minimal.yaml");
    assert!(warnings.is_empty(), "{}", shown(&warnings));
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!(route_names(&config), ["public", "private"]);
    assert_eq!(config.consumers[0].keys[0].hash, portcullis_config::KeyHash::of(b"demo-key"));
    assert_eq!(config.xdp.mode, XdpMode::Auto);
    assert_eq!(config.admin.socket, Some("portcullis.sock".into()));
    let (snapshot, warnings) = snapshot(config);
    assert!(warnings.is_empty(), "{}", shown(&warnings));
    assert_eq!(snapshot.plugins.len(), 2);
}

#[test]
fn production() {
    let site = Site::new();
    let Loaded { config, warnings } = site.load("production.yaml");
    assert!(warnings.is_empty(), "{}", shown(&warnings));
    assert_eq!(config.certificates[0].cert, Pem::File(site.path("certs/shop.example.com.pem")));
    assert_eq!(config.upstreams[0].targets.len(), 3);
    assert_eq!(config.upstreams[0].healthchecks.passive.unhealthy.http_failures, 5);
    assert!(matches!(config.consumers[1].jwt_secrets[0].material, JwtMaterial::PublicKey(_)));
    assert_eq!(
        config.telemetry.access_log.destination,
        AccessLogDestination::File("/var/log/portcullis/access.log".into())
    );
    assert!(!format!("{config:?}").contains("0123456789abcdef"), "a secret is shown");
    let (snapshot, warnings) = snapshot(config);
    assert!(warnings.is_empty(), "{}", shown(&warnings));
    assert_eq!(snapshot.plugins.len(), 4);
    assert!(snapshot.listeners[0].tls.is_some() && snapshot.services[0].tls.is_some());
}

#[test]
fn reference_works_with_warnings_only_for_what_is_kept_for_later() {
    let site = Site::new();
    let Loaded { config, warnings } = site.load("reference.yaml");
    assert_eq!(route_names(&config), ["orders", "by-expression", "by-rule", "payments"]);
    assert!(!config.routes[1].enabled);
    assert_eq!(config.services[1].connect_timeout.as_millis(), 5000);
    assert_eq!(config.upstreams[1].hash_on, HashKey::Header("x-session".into()));
    assert_eq!(config.upstreams[1].targets.len(), 1);
    assert_eq!(config.consumers[0].keys.len(), 2);
    assert_eq!(config.consumers[0].groups, ["shoppers", "buyers"]);
    let count = config.plugins.iter().filter(|plugin| plugin.enabled).count();
    let (snapshot, more) = snapshot(config);
    assert_eq!(snapshot.plugins.len(), count);
    let used: BTreeSet<_> = snapshot.plugins.iter().map(|plugin| plugin.name).collect();
    assert_eq!(used, portcullis_config::PluginCatalog::names(&GatewayCatalog).into_iter().collect());
    let unexpected: Vec<_> = warnings
        .iter()
        .chain(&more)
        .filter(|one| {
            one.severity != Severity::Warning || !LATER.iter().any(|words| one.message.contains(words))
        })
        .map(ToString::to_string)
        .collect();
    assert!(unexpected.is_empty(), "{}", unexpected.concat());
}

/// What is said of keys that do nothing, or no longer are what to write, of what takes memory, and of a response that only
/// a responder can make.
const LATER: &[&str] = &[
    "accepted, not acted on yet",
    "accepted, but",
    "deprecated",
    "are held in memory whole",
    "counted by its client address",
    "no OCSP response is stapled: cannot read",
];

/// The reference is made from its skeleton and the tables. With `PORTCULLIS_BLESS=1` the test writes it.
#[test]
fn reference_says_what_the_tables_say() {
    let skeleton = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/reference.skeleton.yaml");
    let skeleton = std::fs::read_to_string(skeleton).expect("the skeleton");
    let (tree, _) =
        parse_str("reference.skeleton.yaml", &skeleton).unwrap_or_else(|found| panic!("{}", shown(&found)));
    assert_eq!(
        unmentioned(&tree, &GatewayCatalog),
        Vec::<String>::new(),
        "keys that the reference does not mention"
    );
    let expected = annotate(&skeleton, &tree, &GatewayCatalog);
    let path = config_folder().join("examples/reference.yaml");
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
    let link = config_folder().join("reference.yaml");
    assert_eq!(std::fs::read_link(link).expect("a symbolic link"), Path::new("examples/reference.yaml"));
}

/// The samples of Kong's format have keys that the tests of the configuration know only by name.
#[test]
fn samples_of_kong_load_with_the_plugins_of_this_gateway() {
    let folder = config_folder().join("tests/data/kong");
    let variables =
        [("DECK_USER", "json-user"), ("API_KEY", "json-key")].map(|(k, v)| (k.into(), v.into())).into();
    let environment = FixedEnvironment { variables, ..FixedEnvironment::default() };
    for entry in std::fs::read_dir(folder).expect("a folder of samples") {
        let path = entry.expect("an entry").path();
        let content = std::fs::read_to_string(&path).expect("a sample");
        let text = Text { name: path.display().to_string(), folder: "/etc/kong".into(), content };
        let loaded = load_texts(vec![text], &GatewayCatalog, &environment);
        assert!(loaded.is_ok(), "{}", shown(&loaded.err().unwrap_or_default()));
    }
}
