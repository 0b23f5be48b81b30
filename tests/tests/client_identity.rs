//! Who the client is: forwarding fields, the PROXY protocol in and out, redirection to HTTPS and HSTS.

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use portcullis_tests::certs::Authority;
use portcullis_tests::client::tls::Tls;
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Echo, Origin};
use portcullis_tests::ports::Reserved;
use portcullis_tests::wire::Inbox;
use tempfile::TempDir;

const TRUSTED: &str = "trusted_proxies: [127.0.0.1, 10.0.0.0/8]";

/// The client that the origin is told of, for these fields and settings.
fn told(settings: &str, fields: &[(&str, &str)]) -> String {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").with(settings));
    let request = fields.iter().fold(Request::get("/"), |request, (name, value)| request.header(name, value));
    let client = request.send(gateway.addr()).expect(200).echoed().get("x-real-ip").map(str::to_owned);
    let client = client.expect("X-Real-IP");
    gateway.logged(|line| {
        line["client"] == *client && line["source"].as_str().is_some_and(|s| s.starts_with("127.0.0.1:"))
    });
    client
}

#[test]
fn the_client_is_named_by_the_field_that_is_configured() {
    let fields = [
        ("X-Forwarded-For", "1.1.1.1, 203.0.113.7, 10.0.0.2"),
        ("X-Real-IP", "203.0.113.8"),
        ("Forwarded", "for=1.1.1.1, for=\"[2001:db8::9]:47011\";proto=https, for=10.0.0.2;by=_edge"),
        ("CF-Connecting-IP", "203.0.113.10"),
    ];
    for (settings, expected) in [
        ("", "203.0.113.7"),
        ("real_ip_header: X-Forwarded-For\nreal_ip_recursive: false", "10.0.0.2"),
        ("real_ip_header: X-Real-IP", "203.0.113.8"),
        ("real_ip_header: Forwarded", "2001:db8::9"),
        ("real_ip_header: cf-connecting-ip", "203.0.113.10"),
        ("real_ip_header: proxy_protocol", "127.0.0.1"),
    ] {
        assert_eq!(told(&format!("{TRUSTED}\n{settings}"), &fields), expected, "{settings}");
        assert_eq!(told(settings, &fields), "127.0.0.1", "{settings}, and nobody is trusted");
    }
}

#[test]
fn nobody_behind_an_obfuscated_or_broken_element_is_believed() {
    let settings = format!("{TRUSTED}\nreal_ip_header: Forwarded");
    for (line, expected) in [
        ("for=203.0.113.7, for=_hidden, for=10.0.0.2", "10.0.0.2"),
        ("for=203.0.113.7, for=unknown", "127.0.0.1"),
        ("for=203.0.113.7, for=\"10.0.0.2", "127.0.0.1"),
        ("for=203.0.113.7;for=10.0.0.2", "127.0.0.1"),
        ("", "127.0.0.1"),
    ] {
        assert_eq!(told(&settings, &[("Forwarded", line)]), expected, "{line}");
    }
}

#[test]
fn upstreams_are_told_in_forwarded_too() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").with("forwarded_header: true"));
    let request = Request::get("/").header("Host", "shop.test:8080").header("Forwarded", "for=1.1.1.1");
    let echoed = request.send(gateway.addr()).expect(200).echoed();
    assert_eq!(echoed.all("forwarded"), ["for=127.0.0.1;host=\"shop.test\";proto=http"]);
    let gateway =
        Gateway::start(&Setup::proxy(origin.addr(), "").with(&format!("{TRUSTED}\nforwarded_header: true")));
    let echoed = request.send(gateway.addr()).expect(200).echoed();
    let joined = echoed.all("forwarded").join(", ");
    assert_eq!(joined, "for=1.1.1.1, for=127.0.0.1;host=\"shop.test\";proto=http");
}

#[test]
fn limits_count_the_client_and_not_the_balancer() {
    let origin = Origin::start(Echo::default());
    let plugin = "plugins: [{name: rate-limiting, config: {minute: 2, limit_by: ip, policy: local}}]";
    let setup =
        Setup::proxy(origin.addr(), "").with(&format!("{TRUSTED}\nreal_ip_header: Forwarded\n{plugin}"));
    let gateway = Gateway::start(&setup);
    let from = |client: &str| {
        Request::get("/").header("Forwarded", format!("for={client}")).send(gateway.addr()).status
    };
    assert_eq!([from("203.0.113.1"), from("203.0.113.1"), from("203.0.113.1")], [200, 200, 429]);
    assert_eq!(from("203.0.113.2"), 200);
}

/// An origin that reads a PROXY header, then answers requests; says what it read, one message a connection.
struct Behind {
    addr: SocketAddr,
    headers: Receiver<Vec<u8>>,
}

impl Behind {
    fn start(is_binary: bool) -> Behind {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (sender, headers) = channel();
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                thread::spawn(move || {
                    let mut inbox = Inbox::new(socket);
                    let header = if is_binary {
                        let mut header = inbox.take(16).expect("a header");
                        let len = u16::from_be_bytes([header[14], header[15]]);
                        header.extend(inbox.take(len.into()).expect("its rest"));
                        header
                    } else {
                        inbox.line().expect("a line").into_bytes()
                    };
                    let _ = sender.send(header);
                    while let Ok(Some(_)) = inbox.head() {
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        if std::io::Write::write_all(inbox.stream(), answer).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Behind { addr, headers }
    }

    fn next(&self) -> Vec<u8> {
        self.headers.recv_timeout(Duration::from_secs(10)).expect("a connection")
    }
}

fn proxying(behind: &Behind, version: &str, more: &str) -> Gateway {
    let body = format!(
        "services:\n  - name: web\n    url: http://{}\n    proxy_protocol: {version}\n    routes: [{{name: all, paths: [/]}}]\n",
        behind.addr
    );
    // One shard: its pool is the only one.
    Gateway::start(&Setup::new(body).with(more).shards(1))
}

#[test]
fn a_connection_with_a_proxy_header_serves_one_client() {
    let behind = Behind::start(false);
    let gateway = proxying(&behind, "v1", "");
    let (mut one, mut two) = (Connection::open(gateway.addr()), Connection::open(gateway.addr()));
    let request = Request::get("/").keep();
    for _ in 0..3 {
        for client in [&mut one, &mut two] {
            request.send_on(client).expect(200);
        }
    }
    let line = |client: &mut Connection| {
        let (from, to) = (client.local_addr(), gateway.addr());
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}", from.port(), to.port())
    };
    let mut seen: Vec<_> =
        (0..2).map(|_| String::from_utf8(behind.next()).expect("text").trim_end().to_owned()).collect();
    seen.sort();
    let mut expected = vec![line(&mut one), line(&mut two)];
    expected.sort();
    assert_eq!(seen, expected);
    assert!(behind.headers.try_recv().is_err(), "a third connection, where each client has one");
}

#[test]
fn a_binary_header_names_the_client_behind_a_balancer() {
    let behind = Behind::start(true);
    let gateway = proxying(&behind, "v2", TRUSTED);
    let ask = |client: &str| {
        Request::get("/").header("X-Forwarded-For", client).send(gateway.addr()).expect(200);
    };
    ask("203.0.113.7");
    let header = behind.next();
    assert_eq!(header[..12], *b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!((header[12], header[13]), (0x21, 0x11));
    assert_eq!(header[16..20], [203, 0, 113, 7]);
    assert_eq!(header[20..24], [127, 0, 0, 1]);
    ask("2001:db8::7");
    let header = behind.next();
    assert_eq!((header[12], header[13]), (0x21, 0x21));
    assert_eq!(header[16..20], [0x20, 0x01, 0x0d, 0xb8]);
}

/// A TLV of a PROXY header.
fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &(value.len() as u16).to_be_bytes()[..], value].concat()
}

/// A header of version 2 from 192.0.2.7, with `tlvs`.
fn binary_header(tlvs: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0xc7, 0x38, 0x01, 0xbb];
    let fixed = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &((12 + tlvs.len()) as u16).to_be_bytes()[..]].concat();
    [&fixed[..], &addresses, tlvs].concat()
}

#[test]
fn what_a_balancer_says_beside_addresses_is_passed_on() {
    let behind = Behind::start(true);
    let listener = Reserved::new();
    let body = format!(
        "services:\n  - name: web\n    url: http://{}\n    proxy_protocol: v2\n    routes: [{{name: all, paths: [/]}}]\n",
        behind.addr
    );
    let setup = Setup::new(body).with(TRUSTED).proxied_listener("behind", listener.addr()).shards(1);
    let addr = listener.addr();
    drop(listener);
    let _gateway = Gateway::start(&setup);
    // Flags, the result of verification, and the version.
    let ssl = [&[1, 0, 0, 0, 1][..], &tlv(0x21, b"TLSv1.3")].concat();
    let said = [
        tlv(0x01, b"h2"),
        tlv(0x05, b"connection-7"),
        tlv(0x20, &ssl),
        // The endpoint of a cloud, and more than small buffers hold.
        tlv(0xea, b"\x01vpce-08d2bf15fac5001c9"),
        tlv(0xe0, &[7; 9000]),
    ]
    .concat();
    let mut connection = Connection::open(addr);
    connection.send([&binary_header(&said)[..], &Request::get("/").bytes()].concat());
    connection.response().expect(200);
    let header = behind.next();
    assert_eq!(header[16..20], [192, 0, 2, 7]);
    assert_eq!(header[28..header.len() - 7], said, "all but the checksum at its end");
}

#[test]
fn a_balancer_that_ended_tls_says_so() {
    let origin = Origin::start(Echo::default());
    let listener = Reserved::new();
    let keys = "proxy_protocol: true\nredirect_https: {status: 307}";
    let setup = Setup::proxy(origin.addr(), "").with(TRUSTED).listener_with("behind", listener.addr(), keys);
    let addr = listener.addr();
    drop(listener);
    let _gateway = Gateway::start(&setup);
    let ask = |tlvs: &[u8]| {
        let mut connection = Connection::open(addr);
        connection.send([&binary_header(tlvs)[..], &Request::get("/").bytes()].concat()).response()
    };
    ask(&[]).expect(307);
    let response = ask(&tlv(0x20, &[1, 0, 0, 0, 1])).expect(200);
    assert_eq!(response.echoed().all("x-forwarded-proto"), ["https"]);
    // The client of the balancer spoke in the clear.
    ask(&tlv(0x20, &[0, 0, 0, 0, 0])).expect(307);
}

#[test]
fn the_rest_of_a_proxy_header_is_checked() {
    let origin = Origin::start(Echo::default());
    let behind = Reserved::new();
    let addr = behind.addr();
    let setup = Setup::proxy(origin.addr(), "").proxied_listener("behind", addr).with(TRUSTED);
    drop(behind);
    let gateway = Gateway::start(&setup);
    let header = |tlvs: &[u8], command: u8, family: u8| {
        let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0xc7, 0x38, 1, 0xbb];
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        bytes.extend([0x20 | command, family, 0, (12 + tlvs.len()) as u8]);
        bytes.extend(addresses);
        bytes.extend(tlvs);
        bytes
    };
    let told = |header: Vec<u8>| {
        let mut connection = Connection::open(addr);
        connection.send([header, Request::get("/").bytes()].concat());
        let response = connection.try_response(false).ok()?;
        response.expect(200).echoed().get("x-real-ip").map(str::to_owned)
    };
    let authority = [&[2, 0, 4][..], b"shop"].concat();
    assert_eq!(told(header(&authority, 1, 0x11)).as_deref(), Some("192.0.2.7"));
    let line = gateway.logged(|line| line["client"] == "192.0.2.7");
    assert_eq!(line["proxy_authority"], "shop", "{line}");
    assert_eq!(told(header(&authority, 0, 0x11)).as_deref(), Some("127.0.0.1"), "LOCAL");
    assert_eq!(told(header(&[2, 0, 9], 1, 0x11)), None, "a cut TLV");
    assert_eq!(told(header(&[3, 0, 4, 1, 2, 3, 4], 1, 0x11)), None, "a checksum that does not fit");
    assert_eq!(told(header(&[], 1, 0x51)), None, "a family that does not exist");
    assert_eq!(gateway.metrics().get("portcullis_refusals_total", &[("reason", "bad_proxy_header")]), 3.0);
}

struct Edges {
    gateway: Gateway,
    plain: SocketAddr,
    secure: SocketAddr,
    client: Tls,
    _origin: Origin,
    _dir: TempDir,
}

/// A listener that redirects, and one with HSTS.
fn edges(redirect: &str, hsts: &str) -> Edges {
    let dir = TempDir::new().expect("a folder");
    let authority = Authority::new(dir.path());
    let leaf = authority.leaf(&["shop.test"]);
    let origin = Origin::start(Echo::default());
    let body = format!(
        "certificates:\n  - {{name: shop, cert_file: {}, key_file: {}}}\nservices:\n  - name: web\n    url: http://{}\n    \
         routes: [{{name: all, paths: [/x]}}]\n",
        leaf.cert.display(),
        leaf.key.display(),
        origin.addr()
    );
    let (plain, secure) = (Reserved::new(), Reserved::new());
    let setup = Setup::new(body)
        .with("trusted_proxies: [127.0.0.1]")
        .listener_with("plain2", plain.addr(), &format!("redirect_https: {redirect}"))
        .listener_with("secure2", secure.addr(), &format!("tls: true\nhsts: {hsts}"));
    let (plain, secure) = (plain.addr(), secure.addr());
    let client = Tls::trusting(&authority.ca_file());
    Edges { gateway: Gateway::start(&setup), plain, secure, client, _origin: origin, _dir: dir }
}

#[test]
fn requests_in_the_clear_are_sent_to_https() {
    let edges = edges("{status: 307, port: 8443}", "true");
    let request = Request::get("/x/%7Ea/../b?q=1").header("Host", "shop.test:80");
    let response = request.send(edges.plain).expect(307);
    assert_eq!(response.header("location"), "https://shop.test:8443/x/b?q=1");
    assert!(!response.has("strict-transport-security"), "RFC 6797 section 7.2");
    let post = Request::post("/x", "body").header("Host", "[::1]").send(edges.plain).expect(307);
    assert_eq!(post.header("location"), "https://[::1]:8443/x");
    // A balancer that has ended TLS says so.
    let behind = Request::get("/x").header("Host", "shop.test").header("X-Forwarded-Proto", "https");
    behind.send(edges.plain).expect(200);
    let usual = self::edges("true", "true");
    let response = Request::get("/x").header("Host", "shop.test").send(usual.plain).expect(308);
    assert_eq!(response.header("location"), "https://shop.test/x");
    let old = Connection::open(usual.plain).send("GET /x HTTP/1.0\r\n\r\n").response();
    assert_eq!(old.status, 400);
}

#[test]
fn strict_transport_security_is_said_over_tls_only() {
    let edges = edges("true", "{max_age: 730d, include_subdomains: true, preload: true}");
    let said = |target: &str| {
        let request = Request::get(target).header("Host", "shop.test");
        let response = edges.client.exchange(edges.secure, "shop.test", &request).expect("an answer");
        (response.status, response.head.all("strict-transport-security").join(" | "))
    };
    let value = "max-age=63072000; includeSubDomains; preload".to_owned();
    assert_eq!(said("/x"), (200, value.clone()));
    assert_eq!(said("/nowhere"), (404, value));
    let plain = Request::get("/x").send(edges.gateway.addr()).expect(200);
    assert!(!plain.has("strict-transport-security"));
}
