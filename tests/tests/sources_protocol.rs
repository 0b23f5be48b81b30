//! What a breach of HTTP/2 or a handshake that fails costs the source at the network card, with a neighbour beside it.

use std::io::{Read, Write};
use std::time::Duration;

use portcullis_tests::certs::Authority;
use portcullis_tests::client::Request;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::h2::{H2, PREFACE, code, frame, get, kind, reset, settings};
use portcullis_tests::privileged;
use portcullis_tests::site::{BAD, GATE, GOOD, Site, packets};

/// More than the connections of a test take by themselves: they are made at half of that rate at most.
const CONNECTIONS: &str = "{rate: 100/s, burst: 1000}";
/// Connections that are made at most: without a charge, all of them are let in.
const TRIES: usize = 400;

/// Has the bad source do something on a new connection, until its SYNs are dropped; says how often it could. What it is
/// charged reaches the network card a little later.
fn until_closed(site: &Site, mut once: impl FnMut() -> std::io::Result<()>) -> usize {
    let mut paced = || {
        std::thread::sleep(Duration::from_millis(20));
        once().is_ok()
    };
    let times = (0..TRIES).take_while(|_| paced()).count();
    // The neighbour does as much in good order.
    for _ in 0..20 {
        let mut connection = site.connect(GOOD).expect("the neighbour's connection");
        Request::get("/").send_on(&mut connection).expect(200);
    }
    times
}

#[test]
fn a_breach_of_http2_is_charged_to_its_source() {
    privileged!();
    let site = Site::new();
    let costs = "enforcement: enforce, costs_per_second: 1000000, costs: {malformed_http2: 500}";
    let gateway = Gateway::start(&site.setup_with("auto", CONNECTIONS, costs).h2c());
    let times = until_closed(&site, || {
        let mut h2 = H2::over(site.stream(BAD, GATE)?);
        // A frame of the wrong length.
        h2.send(&[PREFACE, &settings(&[]), &frame(kind::PING, 0, 0, &[0; 7])].concat());
        assert_eq!(h2.end(), Some(code::FRAME_SIZE_ERROR));
        Ok(())
    });
    assert!((1..TRIES).contains(&times), "{times} breaches");
    assert!(packets(&gateway, "drop_connection_rate") >= 1.0);
    let counted = gateway.metrics().get("portcullis_refusals_total", &[("reason", "h2_protocol_error")]);
    assert!(counted >= 1.0);
}

/// A connection of the bad source that is flooded with resets until the gateway ends it.
fn flood(site: &Site) -> std::io::Result<()> {
    let resets = |from: u32| -> Vec<u8> {
        (from..from + 100)
            .flat_map(|n| [get(2 * n + 1, "/"), reset(2 * n + 1, code::CANCEL)].concat())
            .collect()
    };
    let mut h2 = H2::over(site.stream(BAD, GATE)?);
    h2.send(&[PREFACE, &settings(&[])].concat());
    let _ = (0..20).map(|n| h2.try_send(&resets(n * 100))).take_while(Result::is_ok).count();
    h2.end();
    Ok(())
}

#[test]
fn a_flood_of_http2_is_charged_to_its_source() {
    privileged!();
    let site = Site::new();
    let costs =
        "enforcement: enforce, costs_per_second: 1000000, costs: {http2_flood: 500, malformed_http2: 0}";
    let gateway = Gateway::start(&site.setup_with("auto", CONNECTIONS, costs).h2c());
    let times = until_closed(&site, || flood(&site));
    assert!((1..TRIES).contains(&times), "{times} floods");
    assert!(packets(&gateway, "drop_connection_rate") >= 1.0);
}

#[test]
fn a_flood_of_http2_bans_its_source() {
    privileged!();
    let site = Site::new();
    let bans = "enforcement: enforce, costs: {http2_flood: 0}, bans: {triggers: {http2_flood: 2/m}}";
    let gateway = Gateway::start(&site.setup_with("auto", CONNECTIONS, bans).h2c());
    assert_eq!(until_closed(&site, || flood(&site)), 3, "two are borne, and the third bans");
    assert!(packets(&gateway, "drop_banned") >= 1.0);
    let bans = gateway.admin("GET", "/bans").expect(200).text();
    assert!(bans.contains("h2_rapid_reset"), "{bans}");
}

#[test]
fn a_request_that_goes_nowhere_is_charged_as_any() {
    privileged!();
    let site = Site::new();
    let costs = "enforcement: enforce, costs: {request: 1, too_many_requests: 0}";
    let gateway = Gateway::start(&site.setup_with("auto", "{rate: 1/s, burst: 40}", costs).h2c());
    for head in ["OPTIONS * HTTP/1.1", "GET /nowhere HTTP/1.1\r\nMax-Forwards: 0", "TRACE / HTTP/1.1"] {
        let mut connection = site.connect(GOOD).expect("a connection");
        connection.send(format!("{head}\r\nHost: nowhere.test\r\n\r\n"));
        assert_ne!(connection.response().status, 429, "{head}");
    }
    let mut connection = site.connect(BAD).expect("a connection");
    let statuses: Vec<u16> = (0..60)
        .map(|_| {
            connection.send("OPTIONS * HTTP/1.1\r\nHost: site.test\r\n\r\n");
            connection.response().status
        })
        .collect();
    let free = statuses.iter().take_while(|status| **status == 200).count();
    // The connection itself has cost a token; one may come back meanwhile.
    assert!((38..=42).contains(&free), "{statuses:?}");
    assert!(
        statuses[free..].iter().filter(|status| **status == 429).count() >= 60 - free - 3,
        "{statuses:?}"
    );
    let refused = gateway.metrics().sum("portcullis_refusals_total", &[("reason", "source_limited")]);
    assert!(refused >= 10.0, "{refused}");
}

#[test]
fn a_handshake_that_fails_is_charged_to_its_source() {
    privileged!();
    const SECURE: &str = "10.77.0.2:8443";
    let site = Site::new();
    let dir = tempfile::tempdir().expect("a folder");
    let leaf = Authority::new(dir.path()).leaf(&["site.test"]);
    let certificate = format!(
        "certificates:\n  - {{name: one, cert_file: '{}', key_file: '{}'}}\n",
        leaf.cert.display(),
        leaf.key.display()
    );
    let costs = "enforcement: enforce, costs_per_second: 1000000, costs: {tls_handshake_failed: 500}";
    let setup = site.setup_with("auto", CONNECTIONS, costs).with(&certificate);
    let secure = SECURE.parse().expect("an address");
    let gateway = Gateway::start(&setup.listener_with("secure2", secure, "tls: true"));
    let times = until_closed(&site, || {
        let mut stream = site.stream(BAD, SECURE)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(b"\x16\x03\x01\x00\x05hello")?;
        // An alert, then the end.
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    assert!((1..TRIES).contains(&times), "{times} handshakes");
    assert!(packets(&gateway, "drop_connection_rate") >= 1.0);
}
