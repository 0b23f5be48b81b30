//! What scanners and attackers try on a TLS port: versions, suites, renegotiation, downgrades, byte soup.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use portcullis_tests::certs::{Authority, Leaf};
use portcullis_tests::client::programs::{feed, openssl, python_with, run_json};
use portcullis_tests::client::tls::Tls;
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Echo, Origin};
use rcgen::{DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};
use rustls::NamedGroup;
use serde_json::Value;
use tempfile::TempDir;

struct Scene {
    authority: Authority,
    gateway: Gateway,
    _origin: Origin,
    _dir: TempDir,
}

fn scene(tls: &str, timeouts: &str) -> Scene {
    let dir = TempDir::new().expect("a folder");
    let authority = Authority::new(dir.path());
    // As an authority would issue it: a year at most, for servers, with one name.
    let leaf = |params: &mut rcgen::CertificateParams| {
        let now = std::time::SystemTime::now();
        params.not_before = (now - Duration::from_secs(86_400)).into();
        params.not_after = (now + Duration::from_secs(80 * 86_400)).into();
        params.distinguished_name.push(DnType::CommonName, "scan.test");
        params.subject_alt_names = vec![SanType::DnsName("scan.test".try_into().expect("a name"))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
    };
    let ecdsa = authority.leaf_with("ecdsa", leaf);
    let origin = Origin::start(Echo::default());
    let certificate = |name: &str, leaf: &Leaf| {
        format!(
            "  - {{name: {name}, cert_file: {}, key_file: {}}}\n",
            leaf.cert.display(),
            leaf.key.display()
        )
    };
    let body = format!(
        "certificates:\n{}services:\n  - name: web\n    url: http://{}\n    routes: [{{name: all, paths: [/]}}]\n",
        certificate("scan", &ecdsa),
        origin.addr()
    );
    let setup = Setup::new(body).tls(tls).timeouts(timeouts);
    Scene { gateway: Gateway::start(&setup), authority, _origin: origin, _dir: dir }
}

const USUAL: &str = "drain_delay: 0s";

fn causes(gateway: &Gateway) -> f64 {
    let metrics = gateway.metrics();
    metrics.get("portcullis_tls_handshakes_total", &[("result", "failed")])
}

fn scan(scene: &Scene, profile: &str) -> Option<Value> {
    let addr = scene.gateway.tls_addr();
    let mut command = python_with("sslyze", "tls_scan.py")?;
    let command = command.arg(addr.ip().to_string()).arg(addr.port().to_string()).arg("scan.test");
    Some(run_json(command.arg(scene.authority.ca_file()).arg(profile)))
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn sslyze_has_nothing_against_the_intermediate_policy() {
    let scene = scene("{policy: intermediate}", USUAL);
    let Some(told) = scan(&scene, "intermediate") else { return };
    assert_eq!(
        (&told["errors"], &told["issues"]),
        (&serde_json::json!([]), &serde_json::json!({})),
        "{told}"
    );
    assert_eq!(texts(&told["versions"]), ["TLS 1.2", "TLS 1.3"]);
    assert!(
        texts(&told["suites"]).iter().all(|suite| suite.contains("GCM") || suite.contains("POLY1305")),
        "{told}"
    );
    assert_eq!((&told["early_data"], &told["renegotiation"]), (&false.into(), &false.into()), "{told}");
}

#[test]
fn sslyze_has_nothing_against_the_modern_policy() {
    let scene = scene("{policy: modern}", USUAL);
    let Some(told) = scan(&scene, "modern") else { return };
    assert_eq!(
        (&told["errors"], &told["issues"]),
        (&serde_json::json!([]), &serde_json::json!({})),
        "{told}"
    );
    assert_eq!(texts(&told["versions"]), ["TLS 1.3"]);
    assert_eq!(told["early_data"], false);
}

#[test]
fn suites_and_groups_are_those_of_the_configuration() {
    let scene = scene(
        "{ciphers: [TLS_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256], curves: [X25519MLKEM768, P-384]}",
        USUAL,
    );
    let addr = scene.gateway.tls_addr();
    let ca = scene.authority.ca_file();
    let suite = |version: &str| {
        let mut connection =
            Tls::speaking(&ca, None, version).connect(addr, "scan.test").expect("a handshake");
        connection.session().negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()))
    };
    assert_eq!(suite("1.3").as_deref(), Some("TLS13_AES_256_GCM_SHA384"));
    assert_eq!(suite("1.2").as_deref(), Some("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"));
    let mut hybrid = Tls::hybrid(&ca).connect(addr, "scan.test").expect("a handshake");
    let group = hybrid.session().negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    let usual = self::scene("{policy: intermediate}", USUAL);
    let mut hybrid = Tls::hybrid(&usual.authority.ca_file())
        .connect(usual.gateway.tls_addr(), "scan.test")
        .expect("a handshake");
    let group = hybrid.session().negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768), "not offered by default");
}

#[test]
fn early_data_is_never_accepted() {
    let scene = scene("true", USUAL);
    let addr = scene.gateway.tls_addr();
    let client = Tls::trusting(&scene.authority.ca_file()).with(|config| config.enable_early_data = true);
    let request = Request::get("/").header("Host", "scan.test");
    for round in 0..3 {
        let mut connection = client.connect(addr, "scan.test").expect("a handshake");
        assert_eq!(connection.exchange(&request).expect("an answer").status, 200);
        assert_eq!(connection.resumed(), round > 0);
        assert!(!connection.session().is_early_data_accepted());
    }
}

/// What openssl s_client says, run with these arguments and this input.
fn s_client(scene: &Scene, args: &[&str], input: &[u8]) -> Option<String> {
    let address = scene.gateway.tls_addr().to_string();
    let mut openssl = openssl()?;
    let output =
        feed(openssl.args(["s_client", "-connect", &address, "-servername", "scan.test"]).args(args), input);
    Some(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn what_testssl_would_try() {
    let scene = scene("true", USUAL);
    let try_ = |args: &[&str], input: &[u8]| s_client(&scene, args, input);
    // Old versions and weak suites find nothing.
    for args in [
        &["-tls1", "-cipher", "ALL:@SECLEVEL=0"][..],
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "NULL:aNULL:RC4:3DES:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "kRSA:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "SHA1:SHA256:!AESGCM:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "DHE:!ECDHE:@SECLEVEL=0"],
    ] {
        let Some(told) = try_(args, b"") else { return };
        assert!(told.contains("Cipher is (NONE)") || told.contains("no cipher match"), "{args:?}: {told}");
    }
    // A fallback that was not needed is refused (RFC 7507).
    let Some(told) = try_(&["-tls1_2", "-fallback_scsv"], b"") else { return };
    assert!(told.contains("inappropriate fallback"), "{told}");
    // No compression, secure renegotiation that nobody may start, extended master secret.
    let Some(told) = try_(&["-tls1_2"], b"R\n") else { return };
    assert!(
        told.contains("Secure Renegotiation IS supported") && told.contains("Compression: NONE"),
        "{told}"
    );
    assert!(told.contains("Extended master secret: yes"), "{told}");
    assert!(told.contains("no renegotiation") || told.contains("unexpected message"), "{told}");
    // A protocol that nobody speaks (RFC 7301 section 3.2).
    let Some(told) = try_(&["-alpn", "h9"], b"") else { return };
    assert!(told.contains("no application protocol"), "{told}");
    // Tickets are reused by openssl too.
    let Some(told) = try_(&["-tls1_2", "-reconnect"], b"") else { return };
    assert!(told.matches("Reused, TLSv1.2").count() >= 4, "{told}");
}

/// What comes back for these bytes, to the end of the connection.
fn answer_to(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(addr).expect("the gateway");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    // It may be closed before all is sent.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut back = Vec::new();
    let _ = socket.read_to_end(&mut back);
    back
}

/// A ClientHello as rustls makes it.
fn hello(scene: &Scene) -> Vec<u8> {
    let relay = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = relay.local_addr().expect("an address");
    let client = Tls::trusting(&scene.authority.ca_file());
    let taker = std::thread::spawn(move || {
        let (mut socket, _) = relay.accept().expect("a client");
        let mut head = [0; 5];
        socket.read_exact(&mut head).expect("a record");
        let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        socket.read_exact(&mut body).expect("its content");
        [&head[..], &body].concat()
    });
    drop(client.connect(addr, "scan.test"));
    taker.join().expect("a hello")
}

#[test]
fn byte_soup_ends_with_an_alert_and_is_counted() {
    let scene = scene("true", USUAL);
    let addr = scene.gateway.tls_addr();
    let hello = hello(&scene);
    let with = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = hello.clone();
        edit(&mut bytes);
        bytes
    };
    let before = causes(&scene.gateway);
    let soup = [
        ("an oversized record", [&[22, 3, 1, 0xff, 0xff][..], &[0; 1000]].concat()),
        ("an empty handshake record", vec![22, 3, 1, 0, 0]),
        ("application data first", vec![23, 3, 3, 0, 1, 0]),
        ("an alert first", vec![21, 3, 3, 0, 2, 2, 40]),
        ("a heartbeat", vec![24, 3, 3, 0, 3, 1, 0x40, 0]),
        ("no record type", vec![99, 3, 3, 0, 1, 0]),
        ("SSL 2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("a hello of a wrong length", with(&|bytes| bytes[8] ^= 1)),
        ("a server's hello", with(&|bytes| bytes[5] = 2)),
        ("zeros", vec![0; 300]),
    ];
    for (what, bytes) in &soup {
        let back = answer_to(addr, bytes);
        assert!(back.is_empty() || back[0] == 21, "{what}: {back:?}");
    }
    // Which of them a client hears of depends on what it broke; most it does.
    let told = soup.iter().filter(|(_, bytes)| answer_to(addr, bytes).first() == Some(&21)).count();
    assert!(told >= 6, "{told} alerts of {}", soup.len());
    // Cut anywhere: abandoned.
    for end in [1, 4, 5, 6, 40, hello.len() - 1] {
        answer_to(addr, &hello[..end]);
    }
    let expected = before + 2.0 * soup.len() as f64 + 6.0;
    eventually("every one of them in the metrics", || {
        let found = causes(&scene.gateway);
        holds(found == expected, format!("{found}, not {expected}"))
    });
    let metrics = scene.gateway.metrics();
    let cause = |cause: &str| metrics.get("portcullis_tls_handshake_failures_total", &[("cause", cause)]);
    assert!(
        cause("abandoned") >= 6.0 && cause("internal") == 0.0,
        "{} {}",
        cause("abandoned"),
        cause("internal")
    );
    // And an honest client is served.
    let request = Request::get("/").header("Host", "scan.test");
    let client = Tls::trusting(&scene.authority.ca_file());
    assert_eq!(client.exchange(addr, "scan.test", &request).expect("an answer").status, 200);
}

#[test]
fn random_changes_of_a_hello_never_hurt() {
    let scene = scene("true", USUAL);
    let addr = scene.gateway.tls_addr();
    let hello = hello(&scene);
    let mut state = 11_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for round in 0..400 {
        let mut bytes = hello.clone();
        for _ in 0..1 + random(6) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, random(256) as u8),
            }
        }
        let back = answer_to(addr, &bytes);
        // One may begin like a word, and is told that this is no place for HTTP.
        let fits = |kind: &u8| [20, 21, 22, b'H'].contains(kind);
        assert!(back.first().is_none_or(fits), "round {round}: {back:?}");
    }
    let metrics = scene.gateway.metrics();
    assert_eq!(metrics.get("portcullis_refusals_total", &[("reason", "internal_error")]), 0.0);
    let client = Tls::trusting(&scene.authority.ca_file());
    let request = Request::get("/").header("Host", "scan.test");
    assert_eq!(client.exchange(addr, "scan.test", &request).expect("an answer").status, 200);
}

#[test]
fn a_handshake_has_its_time() {
    let scene = scene("true", "drain_delay: 0s, tls_handshake: 1s");
    let hello = hello(&scene);
    let mut half = Connection::open(scene.gateway.tls_addr());
    half.send(&hello[..100]);
    half.expect_closed();
    // A client that answers nothing: the ServerHello came, and then the end.
    let mut mute = Connection::open(scene.gateway.tls_addr());
    mute.send(&hello);
    let mut back = Vec::new();
    let _ = mute.stream().read_to_end(&mut back);
    assert_eq!(back.first(), Some(&22), "{back:?}");
    // Nothing at all is no handshake, and ends too.
    Connection::open(scene.gateway.tls_addr()).expect_closed();
    eventually("the cause in the metrics", || {
        let metrics = scene.gateway.metrics();
        let timed_out = metrics.get("portcullis_tls_handshake_failures_total", &[("cause", "timed_out")]);
        let reason = metrics.get("portcullis_refusals_total", &[("reason", "tls_handshake_timeout")]);
        holds(timed_out == 3.0 && reason == 3.0, format!("{timed_out} {reason}"))
    });
}

#[test]
fn http_in_the_clear_is_told_where_it_is() {
    let scene = scene("true", USUAL);
    for request in [
        &b"GET / HTTP/1.1\r\nHost: scan.test\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: scan.test\r\n\r\n",
    ] {
        let mut connection = Connection::open(scene.gateway.tls_addr());
        let response = connection.send(request).response().expect(400);
        assert!(response.text().contains("https"), "{}", response.text());
        connection.expect_closed();
    }
    eventually("the cause in the metrics", || {
        let metrics = scene.gateway.metrics();
        let count = metrics.get("portcullis_tls_handshake_failures_total", &[("cause", "plain_http")]);
        holds(count == 3.0, format!("{count}"))
    });
}

#[test]
fn unknown_names_are_refused_by_name_where_that_is_wanted() {
    let scene = scene("{strict_sni: true, default_certificate: scan}", USUAL);
    let client = Tls::trusting(&scene.authority.ca_file());
    client.connect(scene.gateway.tls_addr(), "SCAN.test").expect("a known name");
    let refused = client.connect(scene.gateway.tls_addr(), "other.test").expect_err("an unknown name");
    assert!(refused.to_string().contains("UnrecognisedName"), "{refused}");
    let refused = client.connect(scene.gateway.tls_addr(), "127.0.0.1").expect_err("no name");
    assert!(refused.to_string().contains("UnrecognisedName"), "{refused}");
    eventually("the reason in the metrics", || {
        let metrics = scene.gateway.metrics();
        let count = metrics.get("portcullis_refusals_total", &[("reason", "unknown_sni")]);
        holds(count == 2.0, format!("{count}"))
    });
}
