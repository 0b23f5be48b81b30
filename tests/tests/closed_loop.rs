//! The closed loop: what the proxy sees of a source decides what the kernel lets it do next.
//!
//! The whole gateway runs in one namespace and its clients in another, so real SYNs meet the real
//! program. Two client addresses share the link: one misbehaves, and the other must never notice.

use std::io;

use portcullis_tests::client::Request;
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::privileged;
use portcullis_tests::site::{BAD, GOOD, Site, packets};

#[test]
fn malformed_requests_close_the_door_in_the_kernel_until_time_has_paid() {
    privileged!();
    let site = Site::new();
    let gateway = Gateway::start(&site.setup("enforcement: enforce, costs: {malformed: 10}"));
    let mut early = site.connect(BAD).expect("a connection before any debt");
    site.misbehave();
    assert!(packets(&gateway, "drop_connection_rate") >= 1.0);
    // An open connection is not cut, and while requests cost nothing it is served.
    Request::get("/").keep().send_on(&mut early).expect(200);
    gateway.reload(&site.setup("enforcement: enforce, costs: {malformed: 10, request: 1}"));
    // Where they cost, the proxy reads the same word, and says how long to wait.
    let told = Request::get("/").keep().send_on(&mut early).expect(429);
    assert!(
        told.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1),
        "{:?}",
        told.head.fields
    );
    for _ in 0..3 {
        assert!(site.admitted(GOOD), "the good source shares the link, not the debt");
    }
    eventually("the end of the debt", || holds(site.admitted(BAD), "still in debt"));
    gateway.reload(&site.setup("enforcement: enforce, costs: {malformed: 10}"));
    Request::get("/").keep().send_on(&mut early).expect(200);
    assert!(site.admitted(GOOD));
}

#[test]
fn wrong_keys_cost_nothing_until_that_is_switched_on() {
    privileged!();
    let site = Site::new();
    let gateway = Gateway::start(&site.setup("enforcement: enforce"));
    let guess = || {
        let mut connection = site.connect(BAD).expect("a connection");
        for number in 0..8 {
            let request = Request::get("/private").header("apikey", format!("guess-{number}"));
            let status = request.keep().send_on(&mut connection).status;
            assert!(matches!(status, 401 | 429), "{status}");
        }
    };
    guess();
    assert!(site.admitted(BAD), "by default a wrong key is no offence");
    gateway.reload(&site.setup("enforcement: enforce, costs: {unauthorized: 3}"));
    guess();
    assert!(!site.admitted(BAD), "eight wrong keys at three tokens each");
    assert!(site.admitted(GOOD));
}

#[test]
fn shadow_mode_counts_and_drops_nothing() {
    privileged!();
    let site = Site::new();
    let gateway = Gateway::start(&site.setup("enforcement: shadow, costs: {malformed: 10}"));
    for _ in 0..20 {
        let mut connection = site.connect(BAD).expect("no connection is dropped");
        connection.send("NO HTTP\r\n\r\n").response().expect(400);
    }
    assert!(site.admitted(BAD));
    assert_eq!(packets(&gateway, "drop_connection_rate"), 0.0);
    assert!(packets(&gateway, "shadow_connection_rate") >= 5.0);
}

#[test]
fn lists_change_with_a_reload() {
    privileged!();
    let site = Site::new();
    let gateway = Gateway::start(&site.setup("enforcement: enforce"));
    assert!(site.admitted(BAD) && site.admitted(GOOD));
    gateway.reload(&site.setup(&format!("enforcement: enforce, deny: [{BAD}/32]")));
    assert!(!site.admitted(BAD) && site.admitted(GOOD));
    assert!(packets(&gateway, "drop_denied") >= 1.0);
    gateway.reload(&site.setup("enforcement: enforce, deny: [10.77.0.0/16], allow: [10.77.0.1/32]"));
    assert!(site.admitted(BAD) && !site.admitted(GOOD), "allow comes before deny");
    gateway.reload(&site.setup("enforcement: enforce"));
    assert!(site.admitted(BAD) && site.admitted(GOOD));
}

#[test]
fn a_trusted_source_is_never_dropped() {
    privileged!();
    let site = Site::new();
    let setup =
        site.setup("enforcement: enforce, costs: {malformed: 10}").with("trusted_proxies: [10.77.0.1/32]");
    let gateway = Gateway::start(&setup);
    for _ in 0..20 {
        let mut connection = site.connect(BAD).expect("a trusted source");
        connection.send("NO HTTP\r\n\r\n").response().expect(400);
    }
    assert_eq!(packets(&gateway, "drop_connection_rate"), 0.0);
}

#[test]
fn the_debt_outlives_the_gateway() {
    privileged!();
    let site = Site::new();
    let mut gateway =
        Gateway::start(&site.setup("enforcement: enforce, costs: {malformed: 10}, dead_after: 60s"));
    site.misbehave();
    gateway.kill();
    let refused = site.connect(BAD).expect_err("nobody listens, and the program still drops");
    assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    let refused = site.connect(GOOD).expect_err("nobody listens");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    gateway.restart();
    assert!(site.admitted(GOOD));
    eventually("the end of the debt", || holds(site.admitted(BAD), "still in debt"));
}

#[test]
fn a_dead_gateways_program_passes_everything() {
    privileged!();
    let site = Site::new();
    let mut gateway =
        Gateway::start(&site.setup("enforcement: enforce, costs: {malformed: 10}, dead_after: 1s"));
    site.misbehave();
    gateway.kill();
    eventually("the program standing aside", || {
        let error = site.connect(BAD).err().map(|error| error.kind());
        // The debt is capped at 5 s, so that may end too; either way the SYN is answered in the end.
        holds(error == Some(io::ErrorKind::ConnectionRefused), format!("{error:?}"))
    });
}

#[test]
fn the_mode_and_every_reason_are_shown() {
    privileged!();
    let site = Site::new();
    let gateway = Gateway::start(&site.setup("enforcement: enforce"));
    assert!(site.admitted(GOOD));
    let metrics = gateway.metrics();
    let modes: Vec<_> =
        metrics.series().filter(|(series, _)| series.starts_with("portcullis_xdp_mode_info{")).collect();
    assert_eq!(modes.len(), 1, "{modes:?}");
    assert!(modes[0].0.contains("interface=\"veth0\""), "{modes:?}");
    for reason in
        ["pass_not_ours", "pass", "drop_denied", "drop_connection_rate", "malformed_tcp", "shadow_denied"]
    {
        let wanted = format!("portcullis_xdp_packets_total{{reason={reason:?}}}");
        assert!(metrics.series().any(|(series, _)| series == wanted), "{wanted}");
    }
    let status = gateway.status();
    assert_eq!(status["kernel"]["enforcement"], "enforce", "{status}");
    assert!(
        status["kernel"]["mode"].as_str().is_some_and(|mode| mode == "native" || mode == "generic"),
        "{status}"
    );
}
