//! Certificates of clients: who is asked, who is refused, what upstreams are told, and who they are to the gateway.

use std::net::SocketAddr;

use portcullis_tests::certs::{Authority, Leaf};
use portcullis_tests::client::programs::curl;
use portcullis_tests::client::tls::Tls;
use portcullis_tests::client::{Request, Response};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Echo, Origin};
use rcgen::{DnType, ExtendedKeyUsagePurpose, SanType, SerialNumber};
use tempfile::TempDir;

struct Scene {
    dir: TempDir,
    authority: Authority,
    origin: Origin,
}

impl Scene {
    fn new() -> Scene {
        let dir = TempDir::new().expect("a folder");
        let authority = Authority::new(dir.path());
        Scene { authority, dir, origin: Origin::start(Echo::default()) }
    }

    /// A gateway for `closed.test`, which demands what `demand` says, and `open.test`, which demands nothing.
    fn gateway(&self, demand: &str, listener: &str, more: &str) -> (Gateway, SocketAddr) {
        let leaf = |name: &str| self.authority.leaf(&[name]);
        let certificate = |name: &str, leaf: &Leaf, more: &str| {
            format!(
                "  - name: {name}\n    cert_file: {}\n    key_file: {}\n{more}",
                leaf.cert.display(),
                leaf.key.display()
            )
        };
        let body = format!(
            "ca_certificates:\n  - {{name: ours, cert_file: {}}}\ncertificates:\n{}{}services:\n  - name: web\n    \
             url: http://{}\n    routes: [{{name: all, paths: [/]}}]\n{more}",
            self.authority.ca_file().display(),
            certificate("open", &leaf("open.test"), ""),
            certificate("closed", &leaf("closed.test"), &format!("    client_auth: {demand}\n")),
            self.origin.addr(),
        );
        let reserved = portcullis_tests::ports::Reserved::new();
        let addr = reserved.addr();
        let keys = format!("tls: {{certificates: [open, closed], strict_sni: true}}\n{listener}");
        let setup = Setup::new(body).listener_with("secure", addr, &keys);
        drop(reserved);
        (Gateway::start(&setup), addr)
    }

    fn ann(&self) -> Leaf {
        self.named("ann", 1)
    }

    fn named(&self, name: &str, serial: u64) -> Leaf {
        self.authority.leaf_with(name, |params| {
            params.distinguished_name.push(DnType::OrganizationName, "Shop");
            params.distinguished_name.push(DnType::CommonName, name);
            params.subject_alt_names = vec![
                SanType::URI(format!("spiffe://shop/{name}").try_into().expect("a URI")),
                SanType::DnsName(format!("{name}.test").try_into().expect("a name")),
            ];
            params.serial_number = Some(SerialNumber::from(serial));
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    fn trusting(&self) -> Tls {
        Tls::trusting(&self.authority.ca_file())
    }

    fn showing(&self, leaf: &Leaf) -> Tls {
        Tls::showing(&self.authority.ca_file(), leaf)
    }
}

fn get(host: &str) -> Request {
    Request::get("/").header("Host", host)
}

fn ask(client: &Tls, addr: SocketAddr, name: &str) -> std::io::Result<Response> {
    client.exchange(addr, name, &get(name))
}

fn counted(gateway: &Gateway, reason: &str, count: f64) {
    eventually("the reason in the metrics", || {
        let found = gateway.metrics().get("portcullis_refusals_total", &[("reason", reason)]);
        holds(found == count, format!("{reason}: {found}"))
    });
}

#[test]
fn a_certificate_is_demanded_for_the_names_that_want_one() {
    let scene = Scene::new();
    let (gateway, addr) = scene.gateway("{mode: require, ca_certificates: [ours]}", "", "");
    let stranger_dir = TempDir::new().expect("a folder");
    let stranger = Authority::new(stranger_dir.path()).leaf_with("eve", |params| {
        params.distinguished_name.push(DnType::CommonName, "ann");
    });
    assert_eq!(ask(&scene.trusting(), addr, "open.test").expect("an answer").status, 200);
    assert_eq!(ask(&scene.showing(&scene.ann()), addr, "closed.test").expect("an answer").status, 200);
    let missing = ask(&scene.trusting(), addr, "closed.test").expect_err("no certificate");
    assert!(missing.to_string().contains("CertificateRequired"), "{missing}");
    counted(&gateway, "client_certificate_missing", 1.0);
    ask(&scene.showing(&stranger), addr, "closed.test").expect_err("another authority");
    counted(&gateway, "client_certificate_invalid", 1.0);
    let causes =
        |cause| gateway.metrics().get("portcullis_tls_handshake_failures_total", &[("cause", cause)]);
    assert_eq!((causes("certificate_missing"), causes("certificate_refused")), (1.0, 1.0));
    assert_eq!(scene.origin.requests(), 2);
}

#[test]
fn a_connection_without_certificate_does_not_speak_to_a_name_that_wants_one() {
    let scene = Scene::new();
    let (gateway, addr) = scene.gateway("{ca_certificates: [ours]}", "", "");
    let mut open = scene.trusting().connect(addr, "open.test").expect("a handshake");
    assert_eq!(open.exchange(&get("open.test").keep()).expect("an answer").status, 200);
    assert_eq!(open.exchange(&get("closed.test").keep()).expect("an answer").status, 421);
    assert_eq!(open.exchange(&get("CLOSED.test:443").keep()).expect("an answer").status, 421);
    // No certificate is for it: nothing is certain.
    assert_eq!(open.exchange(&get("elsewhere.test").keep()).expect("an answer").status, 200);
    let mut closed = scene.showing(&scene.ann()).connect(addr, "closed.test").expect("a handshake");
    assert_eq!(closed.exchange(&get("open.test").keep()).expect("an answer").status, 421);
    counted(&gateway, "misdirected_request", 3.0);
    assert_eq!(scene.origin.requests(), 2);
}

#[test]
fn a_session_without_certificate_is_not_resumed_where_one_is_demanded() {
    let scene = Scene::new();
    let (_gateway, addr) = scene.gateway("{mode: optional, ca_certificates: [ours]}", "", "");
    let client = scene.showing(&scene.ann());
    for round in 0..3 {
        let mut connection = client.connect(addr, "closed.test").expect("a handshake");
        let echoed = connection.exchange(&get("closed.test")).expect("an answer").expect(200).echoed();
        assert!(echoed.get("x-forwarded-client-cert").is_some(), "round {round}: not known any more");
        assert_eq!(connection.resumed(), round > 0, "round {round}");
    }
}

#[test]
fn revoked_certificates_are_refused() {
    let scene = Scene::new();
    let list = scene.dir.path().join("revoked.pem");
    std::fs::write(&list, scene.authority.revoking(&[66])).expect("a list");
    let demand = format!("{{ca_certificates: [ours], crl_files: [{}]}}", list.display());
    let (gateway, addr) = scene.gateway(&demand, "", "");
    assert_eq!(
        ask(&scene.showing(&scene.named("ann", 65)), addr, "closed.test").expect("an answer").status,
        200
    );
    ask(&scene.showing(&scene.named("ben", 66)), addr, "closed.test").expect_err("revoked");
    counted(&gateway, "client_certificate_invalid", 1.0);
    // The list changes while the gateway runs.
    std::fs::write(&list, scene.authority.revoking(&[65])).expect("a list");
    eventually("the new list in force", || {
        holds(
            ask(&scene.showing(&scene.named("ann", 65)).forgetful(), addr, "closed.test").is_err(),
            "still taken",
        )
    });
}

#[test]
fn upstreams_are_told_of_the_certificate_and_clients_cannot_claim_one() {
    let scene = Scene::new();
    let (_gateway, addr) = scene.gateway("{mode: optional, ca_certificates: [ours]}", "", "");
    let claim = get("closed.test").header("X-Forwarded-Client-Cert", "Hash=0;Subject=\"CN=root\"");
    let told = |client: &Tls| {
        let response = client.exchange(addr, "closed.test", &claim).expect("an answer").expect(200);
        response.echoed().all("x-forwarded-client-cert").join(" | ")
    };
    assert_eq!(told(&scene.trusting()), "");
    let text = told(&scene.showing(&scene.ann()));
    let rest = text.strip_prefix("Hash=").expect("a hash");
    let (hash, rest) = rest.split_once(';').expect("more than a hash");
    assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    assert_eq!(rest, r#"Subject="CN=ann,O=Shop";URI=spiffe://shop/ann;DNS=ann.test"#);
}

#[test]
fn what_a_trusted_balancer_says_of_a_certificate_is_passed_on_if_wanted() {
    let scene = Scene::new();
    let said = "Hash=0;Subject=\"CN=far\"";
    let told = |mode: &str, shows: bool| {
        let listener = format!("forwarded_client_cert: {mode}\n");
        let more = "trusted_proxies: [127.0.0.1]\n";
        let (_gateway, addr) = scene.gateway("{mode: optional, ca_certificates: [ours]}", &listener, more);
        let client = if shows { scene.showing(&scene.ann()) } else { scene.trusting() };
        let request = get("closed.test").header("X-Forwarded-Client-Cert", said);
        let response = client.exchange(addr, "closed.test", &request).expect("an answer").expect(200);
        let values = response.echoed().all("x-forwarded-client-cert").join(" | ");
        let hash = values.find("Subject=\"CN=ann").map_or(values.len(), |at| at.saturating_sub(70));
        (values[..hash].trim_end_matches([',', ' ']).to_owned(), values.contains("CN=ann"))
    };
    assert_eq!(told("forward_only", true), (said.into(), false));
    assert_eq!(told("forward_only", false), (String::new(), false));
    assert_eq!(told("append_forward", true), (said.into(), true));
    assert_eq!(told("always_forward_only", false), (said.into(), false));
    assert_eq!(told("sanitize", true), (String::new(), false));
}

#[test]
fn a_certificate_is_an_identity() {
    let scene = Scene::new();
    let more = "consumers: [{username: ann, acls: [{group: staff}]}, {username: ben.test}, {username: nobody}]\n\
                plugins:\n  - name: mtls-auth\n    config: {ca_certificates: [ours]}\n";
    let (gateway, addr) = scene.gateway("{mode: optional, ca_certificates: [ours]}", "", more);
    let told = |leaf: Leaf| {
        let response = ask(&scene.showing(&leaf), addr, "closed.test").expect("an answer");
        let name =
            (response.status == 200).then(|| response.echoed().get("x-consumer-username").map(str::to_owned));
        (response.status, name.flatten().unwrap_or_default())
    };
    assert_eq!(told(scene.named("ann", 1)), (200, "ann".into()));
    assert_eq!(told(scene.named("ben", 2)), (200, "ben.test".into()));
    assert_eq!(told(scene.named("eve", 3)), (401, String::new()));
    let response = ask(&scene.trusting(), addr, "closed.test").expect("an answer").expect(401);
    assert_eq!(response.json()["message"], "No required TLS certificate was sent");
    counted(&gateway, "client_certificate_missing", 1.0);
    let line = gateway.logged(|line| line["consumer"] == "ann");
    assert_eq!((&line["status"], &line["sni"]), (&200.into(), &"closed.test".into()), "{line}");
    assert_eq!(line["client_cert"], "CN=ann,O=Shop", "{line}");
}

#[test]
fn the_same_holds_over_http_2() {
    let scene = Scene::new();
    let (_gateway, addr) = scene.gateway("{ca_certificates: [ours]}", "hsts: true\n", "");
    let ann = scene.ann();
    let ask = |name: &str, host: &str, shows: bool| {
        let mut curl = curl()?;
        curl.args(["--http2", "-i", "--cacert", &scene.authority.ca_file().display().to_string()])
            .args(["--resolve", &format!("{name}:{}:127.0.0.1", addr.port())])
            .args(["-H", &format!("Host: {host}"), "-H", "X-Forwarded-Client-Cert: Hash=claimed"]);
        if shows {
            curl.arg("--cert").arg(&ann.cert).arg("--key").arg(&ann.key);
        }
        let output = curl.arg(format!("https://{name}:{}/", addr.port())).output().expect("curl starts");
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(told) = ask("closed.test", "closed.test", true) else { return };
    assert!(told.starts_with("HTTP/2 200") && told.contains("Subject=\\\"CN=ann,O=Shop"), "{told}");
    assert!(
        told.contains("strict-transport-security: max-age=31536000\r\n") && !told.contains("Hash=claimed"),
        "{told}"
    );
    let Some(told) = ask("open.test", "closed.test", true) else { return };
    assert!(told.starts_with("HTTP/2 421"), "{told}");
    let Some(told) = ask("open.test", "open.test", false) else { return };
    assert!(told.starts_with("HTTP/2 200") && !told.contains("Hash="), "{told}");
}
