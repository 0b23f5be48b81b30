//! TLS streams that are passed on unopened, by server name.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use portcullis_tests::certs::{Authority, Leaf};
use portcullis_tests::client::tls::Tls;
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Echo, Origin};
use portcullis_tests::ports::Reserved;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

/// A TLS server behind the gateway: says what came before the handshake, then echoes lines.
struct Behind {
    addr: SocketAddr,
    /// What stood before each ClientHello.
    preambles: Receiver<Vec<u8>>,
}

impl Behind {
    fn start(leaf: &Leaf, preamble_end: Option<&'static [u8]>) -> Behind {
        let chain =
            CertificateDer::pem_file_iter(&leaf.cert).expect("a chain").map(|c| c.expect("a certificate"));
        let key = PrivateKeyDer::from_pem_file(&leaf.key).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.collect(), key)
            .expect("a pair");
        let mut config = config;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (sender, preambles) = channel();
        thread::spawn(move || {
            for mut socket in listener.incoming().map_while(Result::ok) {
                let mut before = Vec::new();
                while let Some(end) = preamble_end
                    && !before.ends_with(end)
                {
                    let mut byte = [0];
                    if socket.read(&mut byte).unwrap_or(0) == 0 {
                        break;
                    }
                    before.push(byte[0]);
                }
                let _ = sender.send(before);
                let connection = ServerConnection::new(config.clone()).expect("a session");
                thread::spawn(move || {
                    let mut stream = StreamOwned::new(connection, socket);
                    let mut buffer = [0; 65536];
                    while let Ok(n @ 1..) = stream.read(&mut buffer) {
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n");
                        let echoed = [head.as_bytes(), &buffer[..n]];
                        if stream.write_all(&echoed.concat()).and_then(|()| stream.flush()).is_err() {
                            break;
                        }
                    }
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                });
            }
        });
        Behind { addr, preambles }
    }
}

struct Scene {
    authority: Authority,
    _dir: TempDir,
    origin: Origin,
    behind: Behind,
    gateway: Gateway,
    addr: SocketAddr,
}

fn scene(mode: &str, service: &str, preamble_end: Option<&'static [u8]>, timeouts: &str) -> Scene {
    scene_with("", mode, service, preamble_end, timeouts)
}

/// [`scene`] with further keys of the route.
fn scene_with(
    route: &str,
    mode: &str,
    service: &str,
    preamble_end: Option<&'static [u8]>,
    timeouts: &str,
) -> Scene {
    let dir = TempDir::new().expect("a folder");
    let authority = Authority::new(dir.path());
    let behind = Behind::start(&authority.leaf(&["*.passed.test", "passed.test"]), preamble_end);
    let origin = Origin::start(Echo::default());
    let own = authority.leaf(&["here.test"]);
    let body = format!(
        "certificates:\n  - {{name: own, cert_file: {}, key_file: {}}}\nservices:\n  - name: web\n    url: http://{}\n    \
         routes: [{{name: all, paths: [/]}}]\n  - name: passed\n    protocol: tls_passthrough\n    host: 127.0.0.1\n    \
         port: {}\n{service}    routes:\n      - {{name: passed, protocols: [tls_passthrough], snis: ['*.passed.test', passed.test]{route}}}\n",
        own.cert.display(),
        own.key.display(),
        origin.addr(),
        behind.addr.port(),
    );
    let reserved = Reserved::new();
    let addr = reserved.addr();
    let setup = Setup::new(body).timeouts(timeouts).listener_with(
        "streams",
        addr,
        &format!("tls: {{passthrough: {mode}, strict_sni: true}}"),
    );
    drop(reserved);
    Scene { gateway: Gateway::start(&setup), authority, _dir: dir, origin, behind, addr }
}

const USUAL: &str = "drain_delay: 0s";

fn client(scene: &Scene) -> Tls {
    Tls::trusting(&scene.authority.ca_file())
}

#[test]
fn streams_are_passed_on_unopened_and_others_end_here() {
    let scene = scene("mixed", "", None, USUAL);
    for name in ["passed.test", "a.passed.test", "A.B.passed.test"] {
        let name_of_certificate = if name.contains("B.") { continue } else { name };
        let mut connection =
            client(&scene).connect(scene.addr, name_of_certificate).expect("a handshake behind");
        let request = Request::get("/through").header("Host", name).keep();
        for _ in 0..3 {
            let response = connection.exchange(&request).expect("an echo").expect(200);
            assert_eq!(response.text().as_bytes(), request.bytes());
        }
    }
    assert_eq!(scene.origin.requests(), 0, "the gateway has looked inside");
    let here = Request::get("/").header("Host", "here.test");
    assert_eq!(client(&scene).exchange(scene.addr, "here.test", &here).expect("an answer").status, 200);
    assert_eq!(scene.origin.requests(), 1);
    let refused = client(&scene).connect(scene.addr, "unknown.test").expect_err("nobody has that name");
    assert!(refused.to_string().contains("UnrecognisedName"), "{refused}");
    eventually("the streams in the metrics", || {
        let metrics = scene.gateway.metrics();
        let tunnels = metrics.get("portcullis_tunnels_total", &[]);
        let unknown = metrics.get("portcullis_refusals_total", &[("reason", "unknown_sni")]);
        holds(tunnels == 2.0 && unknown == 1.0, format!("{tunnels} {unknown}"))
    });
    let line = scene.gateway.logged(|line| line["route"] == "passed");
    assert_eq!((&line["tls"], &line["service"]), (&"passthrough".into(), &"passed".into()), "{line}");
    assert!(line["response_bytes"].as_u64().is_some_and(|n| n > 500), "{line}");
}

#[test]
fn a_listener_for_nothing_else_refuses_what_no_route_takes() {
    let scene = scene("only", "", None, USUAL);
    client(&scene).connect(scene.addr, "passed.test").expect("a handshake behind");
    for name in ["here.test", "unknown.test"] {
        let refused = client(&scene).connect(scene.addr, name).expect_err("no route");
        assert!(refused.to_string().contains("UnrecognisedName"), "{refused}");
    }
    let mut plain = Connection::open(scene.addr);
    plain.send("GET / HTTP/1.1\r\nHost: passed.test\r\n\r\n").response().expect(400);
    let mut garbage = Connection::open(scene.addr);
    garbage.send([22, 3, 1, 0, 4, 9, 9, 9, 9]);
    assert_eq!(garbage.take(1), [21], "no alert");
    eventually("the reasons in the metrics", || {
        let metrics = scene.gateway.metrics();
        let count = |reason: &str| metrics.get("portcullis_refusals_total", &[("reason", reason)]);
        let seen = [count("no_passthrough_route"), count("plain_http_on_tls"), count("tls_handshake_failed")];
        holds(seen == [2.0, 1.0, 1.0], format!("{seen:?}"))
    });
}

#[test]
fn the_target_is_told_of_the_client() {
    let scene = scene("mixed", "    proxy_protocol: v1\n", Some(b"\r\n"), USUAL);
    let mut connection = client(&scene).connect(scene.addr, "passed.test").expect("a handshake behind");
    connection.exchange(&Request::get("/").header("Host", "x").keep()).expect("an echo");
    let line = scene.behind.preambles.recv_timeout(Duration::from_secs(10)).expect("a connection");
    let line = String::from_utf8(line).expect("text");
    let words: Vec<_> = line.trim_end().split(' ').collect();
    assert_eq!(words[..4], ["PROXY", "TCP4", "127.0.0.1", "127.0.0.1"], "{line}");
    assert_eq!(words[5], scene.addr.port().to_string(), "{line}");
}

#[test]
fn a_hello_in_pieces_is_put_together_and_one_that_never_ends_is_not_awaited() {
    let scene = scene("only", "", None, "drain_delay: 0s, tls_handshake: 2s");
    // A client of rustls, its first flight taken apart.
    let config = client(&scene);
    let relay = TcpListener::bind("127.0.0.1:0").expect("a port");
    let relay_addr = relay.local_addr().expect("an address");
    let target = scene.addr;
    let slow = thread::spawn(move || {
        let (mut near, _) = relay.accept().expect("a client");
        let mut far = TcpStream::connect(target).expect("the gateway");
        far.set_nodelay(true).expect("an option");
        let mut hello = [0; 16384];
        let n = near.read(&mut hello).expect("a hello");
        for byte in &hello[..n] {
            far.write_all(&[*byte]).expect("a byte");
        }
        let (mut back, mut forth) = (far.try_clone().expect("a handle"), near.try_clone().expect("a handle"));
        let other = thread::spawn(move || std::io::copy(&mut back, &mut forth));
        let _ = std::io::copy(&mut near, &mut far);
        far.shutdown(std::net::Shutdown::Write).expect("an end");
        let _ = other.join();
    });
    drop(config.connect(relay_addr, "passed.test").expect("a handshake behind"));
    slow.join().expect("the relay");

    let mut stuck = Connection::open(scene.addr);
    stuck.send([22, 3, 1, 1, 0, 1, 0, 0, 252]);
    stuck.expect_closed();
    let mut endless = Connection::open(scene.addr);
    // A handshake message that claims more than any may have, in records without end.
    let mut record = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    record.resize(5 + 0x4000, 0);
    for _ in 0..8 {
        if endless.try_send(&record).is_err() {
            break;
        }
    }
    let mut rest = Vec::new();
    let _ = endless.stream().read_to_end(&mut rest);
    assert!(rest.is_empty() || rest[0] == 21, "{rest:?}");
    eventually("the causes in the metrics", || {
        let metrics = scene.gateway.metrics();
        let cause = |cause: &str| metrics.get("portcullis_tls_handshake_failures_total", &[("cause", cause)]);
        holds(
            cause("timed_out") == 1.0 && cause("not_tls") == 1.0,
            format!("{} {}", cause("timed_out"), cause("not_tls")),
        )
    });
}

#[test]
fn silent_streams_end() {
    silent_stream_ends(&scene("only", "", None, "drain_delay: 0s, tunnel_idle: 1s"));
}

#[test]
fn silent_streams_end_by_the_time_of_their_route() {
    silent_stream_ends(&scene_with(", timeouts: {tunnel_idle: 1s}", "only", "", None, USUAL));
}

fn silent_stream_ends(scene: &Scene) {
    let mut connection = client(scene).connect(scene.addr, "passed.test").expect("a handshake behind");
    let request = Request::get("/").header("Host", "x").keep();
    connection.exchange(&request).expect("an echo");
    eventually("the end of the stream", || {
        let metrics = scene.gateway.metrics();
        let idle = metrics.get("portcullis_refusals_total", &[("reason", "tunnel_idle")]);
        let open = metrics.get("portcullis_tunnels_active", &[]);
        holds(idle == 1.0 && open == 0.0, format!("{idle} {open}"))
    });
    assert!(connection.exchange(&request).is_err());
}

#[test]
fn a_drain_waits_for_streams_that_speak() {
    let scene = scene("only", "", None, "drain_delay: 0s, drain: 20s");
    let mut connection = client(&scene).connect(scene.addr, "passed.test").expect("a handshake behind");
    let request = Request::get("/").header("Host", "x").keep();
    connection.exchange(&request).expect("an echo");
    scene.gateway.signal("TERM");
    eventually("the drain", || {
        connection.exchange(&request).expect("an echo in the drain");
        holds(TcpStream::connect(scene.addr).is_err(), "still listening")
    });
    for _ in 0..5 {
        connection.exchange(&request).expect("an echo in the drain");
    }
    // Silent now: it ends, and the gateway with it.
    let mut gateway = scene.gateway;
    assert!(gateway.wait_end().success(), "{}", gateway.stderr());
}

#[test]
fn a_dead_target_ends_the_stream() {
    let scene = scene("only", "    retries: 1\n", None, USUAL);
    let dead = Reserved::new();
    let body = format!(
        "services:\n  - {{name: dead, protocol: tcp, host: 127.0.0.1, port: {}, routes: [{{name: dead, protocols: \
         [tls_passthrough], snis: [dead.test]}}]}}\n",
        dead.addr().port()
    );
    let reserved = Reserved::new();
    let addr = reserved.addr();
    let setup = Setup::new(body).listener_with("streams", addr, "tls: {passthrough: only}");
    drop(reserved);
    let gateway = Gateway::start(&setup);
    client(&scene).connect(addr, "dead.test").expect_err("nobody there");
    let line = gateway.logged(|line| line["route"] == "dead");
    assert_eq!((&line["reason"], &line["attempts"]), (&"connect_failed".into(), &1.into()), "{line}");
}
