//! TLS at the listener and towards targets, with clients and origins that are not rustls.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;

use portcullis_tests::certs::{Authority, Leaf};
use portcullis_tests::client::programs::{curl, feed, openssl, python, run, run_json};
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::origin::{Bulk, Echo, Origin};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Suite {
    gateway: Gateway,
    authority: Authority,
    _origins: [Origin; 2],
    _dir: TempDir,
}

fn certificate(name: &str, leaf: &Leaf) -> String {
    let (cert, key) = (leaf.cert.display(), leaf.key.display());
    format!("  - name: {name}\n    cert_file: {cert}\n    key_file: {key}\n")
}

fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let dir = TempDir::new().expect("a folder");
        let authority = Authority::new(dir.path());
        let echo = Origin::start(Echo::default());
        let bulk = Origin::start(Bulk { len: 5 << 20, chunked: false });
        let body = format!(
            "certificates:\n{}{}{}services:\n  - name: echo\n    url: http://{}\n    routes:\n      \
             - {{name: echo, paths: [/]}}\n  - name: bulk\n    url: http://{}\n    routes:\n      \
             - {{name: bulk, paths: [/bulk]}}\n",
            certificate("one", &authority.leaf(&["one.test", "also-one.test"])),
            certificate("two", &authority.leaf(&["two.test"])),
            certificate("wild", &authority.leaf(&["*.wild.test"])),
            echo.addr(),
            bulk.addr(),
        );
        let setup = Setup::new(body).tls("{certificates: [one, two, wild], default_certificate: one}");
        Suite { gateway: Gateway::start(&setup), authority, _origins: [echo, bulk], _dir: dir }
    })
}

/// Connects with the Python client; `None` when there is no Python.
fn connect(suite: &Suite, order: Value) -> Option<Vec<Value>> {
    let mut order = order;
    order["address"] = suite.gateway.tls_addr().to_string().into();
    order["ca"] = suite.authority.ca_file().display().to_string().into();
    let told = run_json(python("tls_client.py")?.arg(order.to_string()));
    Some(told.as_array().cloned().expect("a list"))
}

#[test]
fn the_certificate_is_chosen_by_server_name() {
    let suite = suite();
    for (sni, name) in [
        ("one.test", "one.test"),
        ("also-one.test", "one.test"),
        ("TWO.test", "two.test"),
        ("a.wild.test", "*.wild.test"),
        ("unknown.test", "one.test"),
    ] {
        let Some(told) = connect(&suite, json!({ "sni": sni })) else { return };
        assert_eq!(
            (&told[0]["names"][0], &told[0]["status"]),
            (&name.into(), &200.into()),
            "{sni}: {told:?}"
        );
    }
}

#[test]
fn a_client_without_server_name_gets_the_default() {
    let suite = suite();
    let Some(told) = connect(&suite, json!({})) else { return };
    assert_eq!((&told[0]["names"][0], &told[0]["status"]), (&"one.test".into(), &200.into()), "{told:?}");
}

#[test]
fn both_versions_and_no_older_one() {
    let suite = suite();
    for (version, name) in [("1.2", "TLSv1.2"), ("1.3", "TLSv1.3")] {
        let Some(told) = connect(&suite, json!({"sni": "one.test", "min": version, "max": version})) else {
            return;
        };
        assert_eq!((&told[0]["version"], &told[0]["status"]), (&name.into(), &200.into()), "{told:?}");
    }
    let Some(told) = connect(&suite, json!({"sni": "one.test", "min": "1.1", "max": "1.1", "legacy": true}))
    else {
        return;
    };
    assert!(told[0]["error"].is_string(), "{told:?}");
}

#[test]
fn sessions_resume_on_every_shard() {
    let suite = suite();
    for version in ["1.2", "1.3"] {
        let order = json!({"sni": "one.test", "min": version, "max": version, "times": 16});
        let Some(told) = connect(&suite, order) else { return };
        assert_eq!(told[0]["reused"], false);
        // 15 connections spread over two shards by the kernel's hash of their ports.
        let reused = told[1..].iter().filter(|one| one["reused"] == true).count();
        assert_eq!(reused, 15, "TLS {version}: {told:?}");
    }
    let metrics = suite.gateway.metrics();
    assert!(metrics.get("portcullis_tls_handshakes_total", &[("result", "resumed")]) >= 30.0);
}

#[test]
fn alpn_agrees_on_http_1_1() {
    let suite = suite();
    let Some(told) = connect(&suite, json!({"sni": "one.test", "alpn": ["h9", "http/1.1"]})) else { return };
    assert_eq!((&told[0]["alpn"], &told[0]["status"]), (&"http/1.1".into(), &200.into()), "{told:?}");
    let Some(told) = connect(&suite, json!({"sni": "one.test"})) else { return };
    assert_eq!(told[0]["alpn"], Value::Null);
}

#[test]
fn the_origin_learns_of_tls() {
    let suite = suite();
    let Some(told) = connect(&suite, json!({"sni": "one.test"})) else { return };
    let echoed: Value = serde_json::from_str(told[0]["body"].as_str().expect("a body")).expect("an echo");
    let field = |name: &str| {
        let fields = echoed["headers"].as_array().expect("headers").iter();
        fields
            .filter(|pair| pair[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)))
            .map(|p| p[1].clone())
            .next()
    };
    assert_eq!(field("x-forwarded-proto"), Some("https".into()));
    assert_eq!(field("x-forwarded-port"), Some(suite.gateway.tls_addr().port().to_string().into()));
}

#[test]
fn curl_trusts_it_and_streams() {
    let suite = suite();
    let addr = suite.gateway.tls_addr();
    // Left to itself it takes what ALPN offers first.
    for (asked, version) in [(&[][..], "2"), (&["--http1.1"], "1.1")] {
        let Some(mut curl) = curl() else { return };
        let output = run(curl
            .args(asked)
            .args(["--cacert", &suite.authority.ca_file().display().to_string()])
            .args(["--resolve", &format!("two.test:{}:127.0.0.1", addr.port())])
            .args(["-o", "/dev/null", "-w", "%{size_download} %{ssl_verify_result} %{http_version}"])
            .arg(format!("https://two.test:{}/bulk", addr.port())));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{} 0 {version}", 5 << 20));
    }
}

#[test]
fn openssl_sends_two_requests_on_one_connection() {
    let suite = suite();
    let Some(mut openssl) = openssl() else { return };
    let address = suite.gateway.tls_addr().to_string();
    let requests = "GET /first HTTP/1.1\r\nHost: one.test\r\n\r\nGET /second HTTP/1.1\r\nHost: one.test\r\n\
                    Connection: close\r\n\r\n";
    let output = feed(
        openssl.args(["s_client", "-quiet", "-connect", &address, "-servername", "one.test"]),
        requests.as_bytes(),
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (first, second) = (text.find("\"target\":\"/first\""), text.find("\"target\":\"/second\""));
    assert!(first.is_some() && first < second, "{text}");
}

#[test]
fn plain_http_on_the_tls_port_is_told_so() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.tls_addr());
    let response = connection.send("GET / HTTP/1.1\r\nHost: one.test\r\n\r\n").response().expect(400);
    assert!(response.head.has_token("connection", "close"), "{:?}", response.head.fields);
    connection.expect_closed();
    eventually("the reason in the metrics", || {
        let count =
            suite.gateway.metrics().get("portcullis_refusals_total", &[("reason", "plain_http_on_tls")]);
        holds(count >= 1.0, "not counted")
    });
}

#[test]
fn plain_http_with_a_body_gets_its_answer_whole() {
    let suite = suite();
    for _ in 0..5 {
        let mut connection = Connection::open(suite.gateway.tls_addr());
        connection.send("POST / HTTP/1.1\r\nHost: one.test\r\nContent-Length: 300000\r\n\r\n");
        connection.send(vec![b'x'; 300_000]).finish_sending();
        connection.response().expect(400);
        // Bytes that nobody read would have made a reset of the end.
        connection.expect_closed();
    }
}

#[test]
fn garbage_instead_of_a_handshake_ends_the_connection() {
    let suite = suite();
    for bytes in [&b"\x16\x03\x01\x00\x05hello"[..], b"\x00\x00\x00\x00", b"\x80\x2e\x01\x00\x02"] {
        let mut connection = Connection::open(suite.gateway.tls_addr());
        connection.send(bytes);
        connection.finish_sending();
        let mut rest = Vec::new();
        // An alert may come first; what matters is the end.
        drop(std::io::Read::read_to_end(connection.stream(), &mut rest));
        assert!(rest.is_empty() || rest[0] == 21, "{rest:?}");
    }
    eventually("failed handshakes in the metrics", || {
        let failed = suite.gateway.metrics().get("portcullis_tls_handshakes_total", &[("result", "failed")]);
        holds(failed >= 3.0, format!("{failed}"))
    });
}

#[test]
fn a_reload_changes_certificates_of_new_connections_only() {
    let suite = suite();
    let dir = TempDir::new().expect("a folder");
    let origin = Origin::start(Echo::default());
    let setup = |leaf: &Leaf| {
        let service = format!(
            "services:\n  - name: web\n    url: http://{}\n    routes: [{{name: all, paths: [/]}}]\n",
            origin.addr()
        );
        let body = format!("certificates:\n{}{service}", certificate("one", leaf));
        Setup::new(body).tls("{certificates: [one], default_certificate: one}")
    };
    let authority = Authority::new(dir.path());
    let gateway = Gateway::start(&setup(&authority.leaf(&["before.test"])));
    let names = |gateway: &Gateway| {
        let order = json!({"address": gateway.tls_addr().to_string(), "ca": authority.ca_file().display().to_string()});
        Some(run_json(python("tls_client.py")?.arg(order.to_string()))[0]["names"][0].clone())
    };
    let Some(before) = names(&gateway) else { return };
    assert_eq!(before, "before.test");
    gateway.reload(&setup(&authority.leaf(&["after.test"])));
    assert_eq!(names(&gateway), Some("after.test".into()));
    drop(suite);
}

/// A Python HTTPS origin that ends with its guard.
struct SecureOrigin {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    port: u16,
}

impl SecureOrigin {
    fn start(leaf: &Leaf) -> Option<SecureOrigin> {
        let mut command = python("tls_origin.py")?;
        let command = command.arg(&leaf.cert).arg(&leaf.key).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("Python starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("a line");
        let port = line.trim().strip_prefix("port ").and_then(|port| port.parse().ok());
        Some(SecureOrigin { child, lines, port: port.unwrap_or_else(|| panic!("no port in {line:?}")) })
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }
}

impl Drop for SecureOrigin {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn https_service(port: u16, ca: Option<&Path>) -> Setup {
    let (authorities, pin) = match ca {
        Some(ca) => (
            format!("ca_certificates:\n  - name: ours\n    cert: ${{file:{}}}\n", ca.display()),
            "    ca_certificates: [ours]\n",
        ),
        None => (String::new(), ""),
    };
    Setup::new(format!(
        "{authorities}services:\n  - name: web\n    url: https://localhost:{port}\n    retries: 0\n{pin}    routes:\n      \
         - {{name: all, paths: [/]}}\n"
    ))
}

#[test]
fn targets_are_verified_and_told_their_name() {
    let dir = TempDir::new().expect("a folder");
    let authority = Authority::new(dir.path());
    let Some(mut origin) = SecureOrigin::start(&authority.leaf(&["localhost"])) else { return };
    let gateway = Gateway::start(&https_service(origin.port, Some(&authority.ca_file())));
    let response = Request::get("/over-tls").send(gateway.addr()).expect(200);
    assert_eq!(response.text(), "secret /over-tls");
    assert_eq!(origin.line(), "sni localhost");

    let strict = Gateway::start(&https_service(origin.port, None));
    Request::get("/").send(strict.addr()).expect(502);
}

#[test]
fn a_target_with_another_name_is_refused() {
    let dir = TempDir::new().expect("a folder");
    let authority = Authority::new(dir.path());
    let Some(origin) = SecureOrigin::start(&authority.leaf(&["elsewhere.test"])) else { return };
    let gateway = Gateway::start(&https_service(origin.port, Some(&authority.ca_file())));
    Request::get("/").send(gateway.addr()).expect(502);
}

#[test]
fn a_reload_changes_whom_targets_are_verified_against() {
    let (dir, other) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let (authority, stranger) = (Authority::new(dir.path()), Authority::new(other.path()));
    let Some(origin) = SecureOrigin::start(&authority.leaf(&["localhost"])) else { return };
    let setup = https_service(origin.port, Some(&authority.ca_file()));
    let gateway = Gateway::start(&setup);
    Request::get("/").send(gateway.addr()).expect(200);
    // The same name and the same file, with another authority in it.
    std::fs::copy(stranger.ca_file(), authority.ca_file()).expect("another authority");
    gateway.reload(&setup);
    Request::get("/").send(gateway.addr()).expect(502);
}
