//! Certificates, staples and ticket keys that change while the gateway runs; sessions across nodes.

use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_tests::certs::{Authority, Leaf};
use portcullis_tests::client::Request;
use portcullis_tests::client::programs::openssl;
use portcullis_tests::client::tls::Tls;
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Echo, Origin};
use tempfile::TempDir;

struct Scene {
    dir: TempDir,
    authority: Authority,
    origin: Origin,
    /// The files that the gateway is told of.
    served: Leaf,
}

impl Scene {
    fn new() -> Scene {
        let dir = TempDir::new().expect("a folder");
        let authority = Authority::new(dir.path());
        let served = Leaf { cert: dir.path().join("served.pem"), key: dir.path().join("served.key") };
        let scene = Scene { authority, dir, origin: Origin::start(Echo::default()), served };
        scene.install(&scene.authority.leaf(&["a.test", "before.test"]));
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts other files where the gateway looks, as a renewal does: each replaced in one step.
    fn install(&self, leaf: &Leaf) {
        for (from, to) in [(&leaf.cert, &self.served.cert), (&leaf.key, &self.served.key)] {
            let step = to.with_extension("new");
            std::fs::copy(from, &step).expect("a copy");
            std::fs::rename(&step, to).expect("a new file");
        }
    }

    fn setup(&self, certificate: &str, more: &str) -> Setup {
        let (cert, key) = (self.served.cert.display(), self.served.key.display());
        Setup::new(format!(
            "certificates:\n  - {{name: served, cert_file: {cert}, key_file: {key}{certificate}}}\nservices:\n  \
             - name: web\n    url: http://{}\n    routes: [{{name: all, paths: [/]}}]\n{more}",
            self.origin.addr()
        ))
        .tls("{certificates: [served], default_certificate: served}")
    }

    fn client(&self) -> Tls {
        Tls::trusting(&self.authority.ca_file())
    }
}

/// Whether the certificate at `addr` is for that name.
fn serves(gateway: &Gateway, scene: &Scene, name: &str) -> bool {
    scene.client().connect(gateway.tls_addr(), name).is_ok()
}

#[test]
fn a_renewed_certificate_is_served_and_no_connection_is_dropped() {
    let scene = Scene::new();
    let gateway = Gateway::start(&scene.setup("", ""));
    let request = Request::get("/").header("Host", "a.test").keep();
    let mut old = scene.client().connect(gateway.tls_addr(), "before.test").expect("a handshake");
    assert_eq!(old.exchange(&request).expect("an answer").status, 200);
    let before = gateway.metrics();
    let expiry = |metrics: &portcullis_tests::admin::Metrics| {
        metrics.get("portcullis_certificate_not_after_seconds", &[("certificate", "served")])
    };
    assert!(expiry(&before) > 1e9, "{}", expiry(&before));
    assert_eq!(before.get("portcullis_certificate_last_reload_success", &[]), 1.0);

    // Broken first: the old one stays, and somebody is told.
    std::fs::write(&scene.served.cert, "no certificate").expect("a file");
    eventually("the failure in the metrics", || {
        let metrics = gateway.metrics();
        let failed = metrics.get("portcullis_certificate_reloads_total", &[("result", "failed")]);
        let good = metrics.get("portcullis_certificate_last_reload_success", &[]);
        holds(failed == 1.0 && good == 0.0, format!("{failed} {good}"))
    });
    assert!(gateway.stderr().contains("cannot be used: those before stay in force"), "{}", gateway.stderr());
    assert!(serves(&gateway, &scene, "before.test"));

    let next = scene.authority.leaf_with("next", |params| {
        params.not_after = rcgen::date_time_ymd(2090, 1, 2);
        params.subject_alt_names = vec![rcgen::SanType::DnsName("after.test".try_into().expect("a name"))];
    });
    scene.install(&next);
    eventually("the new certificate", || {
        holds(serves(&gateway, &scene, "after.test"), format!("not served: {}", gateway.stderr()))
    });
    let after = gateway.metrics();
    assert_eq!(expiry(&after), 3_786_998_400.0);
    assert_eq!(after.get("portcullis_certificate_reloads_total", &[("result", "ok")]), 1.0);
    assert_eq!(after.get("portcullis_certificate_last_reload_success", &[]), 1.0);
    assert_eq!(old.exchange(&request).expect("an answer on the old connection").status, 200);
    // Asked for, the files are read at once.
    scene.install(&scene.authority.leaf(&["third.test"]));
    gateway.reload(&scene.setup("", ""));
    assert!(serves(&gateway, &scene, "third.test"));
}

fn write_keys(path: &Path, keys: &[u8]) {
    let lines: String = keys.iter().map(|byte| format!("{}\n", format!("{byte:02x}").repeat(80))).collect();
    std::fs::write(path, lines).expect("a file of keys");
}

#[test]
fn sessions_outlive_an_upgrade() {
    let scene = Scene::new();
    let mut gateway = Gateway::start(&scene.setup("", ""));
    let client = Tls::trusting(&scene.authority.ca_file());
    let request = Request::get("/").header("Host", "a.test");
    for round in 0..3 {
        let mut connection = client.connect(gateway.tls_addr(), "a.test").expect("a handshake");
        assert_eq!(connection.exchange(&request).expect("an answer").status, 200);
        assert_eq!(connection.resumed(), round > 0, "round {round}");
        gateway.upgrade();
    }
}

#[test]
fn nodes_with_the_same_ticket_keys_resume_each_others_sessions() {
    let scene = Scene::new();
    let file = scene.path("tickets");
    write_keys(&file, &[1]);
    let more = format!("tickets: {{key_file: {}}}\n", file.display());
    let (one, two) = (Gateway::start(&scene.setup("", &more)), Gateway::start(&scene.setup("", &more)));
    let stranger = Gateway::start(&scene.setup("", ""));
    let request = Request::get("/").header("Host", "a.test");
    for version in ["1.2", "1.3"] {
        let client = || Tls::speaking(&scene.authority.ca_file(), None, version);
        let resumes = |client: &Tls, gateway: &Gateway| {
            let mut connection = client.connect(gateway.tls_addr(), "a.test").expect("a handshake");
            assert_eq!(connection.exchange(&request).expect("an answer").status, 200);
            assert_eq!(connection.version(), version);
            connection.resumed()
        };
        let known = client();
        assert!(!resumes(&known, &one));
        assert!(resumes(&known, &two), "TLS {version} on the other node");
        assert!(!resumes(&known, &stranger), "TLS {version} under other keys");

        // A new first key; sessions under the old one still open. Then the old one goes.
        let known = client();
        assert!(!resumes(&known, &one));
        let generation = one.generation();
        write_keys(&file, &[2, 1]);
        eventually("the new keys", || holds(one.generation() > generation, "not read"));
        assert!(resumes(&known, &one), "TLS {version} under the second key");
        let known = client();
        assert!(!resumes(&known, &one));
        let generation = one.generation();
        write_keys(&file, &[3]);
        eventually("the new keys", || holds(one.generation() > generation, "not read"));
        assert!(!resumes(&known, &one), "TLS {version} under a key that is gone");
        let both = [one.generation(), two.generation()];
        write_keys(&file, &[1]);
        eventually("the first keys again", || {
            holds(one.generation() > both[0] && two.generation() > both[1], "not read")
        });
    }
}

#[test]
fn bad_ticket_keys_are_named_at_the_start() {
    let scene = Scene::new();
    let file = scene.path("tickets");
    std::fs::write(&file, "abc\n").expect("a file");
    let more = format!("tickets: {{key_file: {}}}\n", file.display());
    let mut gateway = Gateway::spawn(&scene.setup("", &more));
    assert!(!gateway.wait_end().success());
    let stderr = gateway.stderr();
    assert!(stderr.contains("line 1 is not 80 bytes in hex or base64"), "{stderr}");
}

/// An OCSP response of openssl for the leaf, by the authority whose key lies beside.
fn respond(scene: &Scene, dir: &Path, leaf: &Path, out: &Path, days: &str) -> Option<()> {
    let serial = run(openssl()?.args(["x509", "-noout", "-serial", "-in"]).arg(leaf));
    let serial = serial.trim().strip_prefix("serial=").expect("a serial number").to_owned();
    let subject = "/CN=x";
    let index = dir.join("index.txt");
    std::fs::write(&index, format!("V\t491231235959Z\t\t{serial}\tunknown\t{subject}\n")).expect("an index");
    let (ca, key) = (scene.path("root.pem"), scene.path("root.key"));
    run(openssl()?
        .args(["ocsp", "-index"])
        .arg(&index)
        .arg("-CA")
        .arg(&ca)
        .arg("-rsigner")
        .arg(&ca)
        .arg("-rkey")
        .arg(&key)
        .arg("-issuer")
        .arg(&ca)
        .arg("-cert")
        .arg(leaf)
        .args(["-ndays", days, "-respout"])
        .arg(out));
    Some(())
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("openssl starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether openssl sees a good response stapled.
fn is_stapled(gateway: &Gateway) -> bool {
    let Some(mut openssl) = openssl() else { return false };
    let address = gateway.tls_addr().to_string();
    let output = portcullis_tests::client::programs::feed(
        openssl.args(["s_client", "-connect", &address, "-servername", "a.test", "-status"]),
        b"Q\n",
    );
    String::from_utf8_lossy(&output.stdout).contains("Cert Status: good")
}

#[test]
fn an_ocsp_response_is_stapled_while_it_is_good() {
    if openssl().is_none() {
        return;
    }
    let scene = Scene::new();
    // openssl signs responses, so it needs an authority whose key it has.
    let (ca, key) = (scene.path("root.pem"), scene.path("root.key"));
    let made = |args: &[&str]| run(openssl().expect("found before").args(args));
    let (ca, key) = (ca.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"));
    made(&[
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", ca, "-subj", "/CN=root",
        "-days", "30",
    ]);
    let (csr, leaf, leaf_key) = (scene.path("leaf.csr"), scene.path("leaf.pem"), scene.path("leaf.key"));
    let (csr, leaf_text) = (csr.to_str().expect("UTF-8"), leaf.to_str().expect("UTF-8"));
    let leaf_key = leaf_key.to_str().expect("UTF-8");
    made(&[
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        leaf_key,
        "-out",
        csr,
        "-subj",
        "/CN=x",
        "-addext",
        "subjectAltName=DNS:a.test",
    ]);
    made(&[
        "x509",
        "-req",
        "-in",
        csr,
        "-CA",
        ca,
        "-CAkey",
        key,
        "-CAcreateserial",
        "-out",
        leaf_text,
        "-days",
        "20",
        "-copy_extensions",
        "copy",
    ]);
    scene.install(&Leaf { cert: leaf.clone(), key: leaf_key.into() });
    let staple = scene.path("staple.der");
    respond(&scene, scene.dir.path(), &leaf, &staple, "7").expect("found before");
    let gateway = Gateway::start(&scene.setup(&format!(", ocsp_file: {}", staple.display()), ""));
    assert!(is_stapled(&gateway), "{}", gateway.stderr());

    // Another certificate's response is left out, with a warning, and the next good one is taken.
    std::fs::write(&staple, "nonsense").expect("a file");
    eventually("no staple", || holds(!is_stapled(&gateway), "still stapled"));
    respond(&scene, scene.dir.path(), &leaf, &staple, "7").expect("found before");
    eventually("a staple again", || holds(is_stapled(&gateway), gateway.stderr()));
}
