//! TLS to targets: their names, our certificate, and sessions that are resumed.

use std::path::PathBuf;

use portcullis_tests::certs::{Authority, Leaf};
use portcullis_tests::client::Request;
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::secure::{SecureOrigin, told};
use rcgen::{DnType, SanType};
use tempfile::TempDir;

struct Scene {
    dir: TempDir,
    authority: Authority,
}

impl Scene {
    fn new() -> Scene {
        let dir = TempDir::new().expect("a folder");
        Scene { authority: Authority::new(dir.path()), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A gateway before `origin`, whose service has these further keys.
    fn gateway(&self, origin: &SecureOrigin, keys: &str, sections: &str) -> Gateway {
        let keys: String = keys.lines().map(|key| format!("    {key}\n")).collect();
        let body = format!(
            "ca_certificates:\n  - {{name: ours, cert_file: {}}}\n{sections}services:\n  - name: web\n    url: \
             https://127.0.0.1:{}\n    retries: 0\n    ca_certificates: [ours]\n{keys}    routes: [{{name: all, paths: [/]}}]\n",
            self.authority.ca_file().display(),
            origin.port(),
        );
        Gateway::start(&Setup::new(body).shards(1))
    }
}

fn status(gateway: &Gateway) -> u16 {
    Request::get("/").send(gateway.addr()).status
}

#[test]
fn targets_are_asked_for_and_known_by_the_names_of_the_service() {
    let scene = Scene::new();
    let leaf = scene.authority.leaf_with("target", |params| {
        params.subject_alt_names = vec![
            SanType::DnsName("api.internal".try_into().expect("a name")),
            SanType::URI("spiffe://shop/api".try_into().expect("a URI")),
        ];
    });
    let origin = SecureOrigin::start(&leaf, None);
    for (keys, expected) in [
        ("", 502),
        ("tls_sni: api.internal", 200),
        ("tls_sni: other.internal", 502),
        ("tls_sans: {dnsnames: [other.internal, api.internal]}", 200),
        ("tls_sans: {uris: ['spiffe://shop/api']}", 200),
        ("tls_sans: {uris: ['spiffe://shop/other']}", 502),
        ("tls_sni: api.internal\ntls_sans: {dnsnames: [other.internal]}", 502),
        ("tls_sni: api.internal\ntls_verify_depth: 0", 200),
        ("tls_verify: false", 200),
    ] {
        let gateway = scene.gateway(&origin, keys, "");
        assert_eq!(status(&gateway), expected, "{keys}");
    }
    let asked: Vec<_> = origin.handshakes().iter().map(|one| one["sni"].clone()).collect();
    assert!(asked.contains(&"api.internal".into()), "{asked:?}");
}

#[test]
fn our_certificate_is_shown_and_a_new_one_is_shown_without_a_reload() {
    let scene = Scene::new();
    let target = scene.authority.leaf(&["127.0.0.1"]);
    let identity = |name: &str| {
        scene.authority.leaf_with(name, |params| params.distinguished_name.push(DnType::CommonName, name))
    };
    let origin = SecureOrigin::start(&target, Some(&scene.authority.ca_file()));
    assert_eq!(status(&scene.gateway(&origin, "", "")), 502, "no certificate");
    let (first, second) = (identity("first"), identity("second"));
    let shown = Leaf { cert: scene.path("shown.pem"), key: scene.path("shown.key") };
    let install = |leaf: &Leaf| {
        std::fs::copy(&leaf.cert, &shown.cert).expect("a copy");
        std::fs::copy(&leaf.key, &shown.key).expect("a copy");
    };
    install(&first);
    let sections = format!(
        "certificates:\n  - {{name: us, cert_file: {}, key_file: {}}}\n",
        shown.cert.display(),
        shown.key.display()
    );
    let gateway = scene.gateway(&origin, "client_certificate: us", &sections);
    let seen = || Request::get("/").send(gateway.addr()).expect(200).json()["client"].clone();
    assert_eq!(seen(), told(&first.cert));
    install(&second);
    eventually("the new certificate", || {
        let found = seen();
        holds(found == told(&second.cert), "the old one is shown")
    });
}

#[test]
fn sessions_with_targets_are_resumed() {
    let scene = Scene::new();
    let origin = SecureOrigin::start(&scene.authority.leaf(&["127.0.0.1"]), None);
    let gateway = scene.gateway(&origin, "", "");
    // Connections are kept, so each but the first is made by closing the one before: the service is asked at a time when
    // all kept ones are in use.
    let seen = |count: usize| {
        let clients: Vec<_> = (0..count)
            .map(|_| {
                let addr = gateway.addr();
                std::thread::spawn(move || Request::get("/").send(addr).expect(200))
            })
            .collect();
        clients.into_iter().for_each(|client| drop(client.join().expect("an answer")));
    };
    seen(1);
    eventually("a resumed session", || {
        seen(8);
        let handshakes = origin.handshakes();
        let resumed = handshakes.iter().filter(|one| one["resumed"] == true).count();
        holds(resumed > 0, format!("{} full ones", handshakes.len()))
    });
}
