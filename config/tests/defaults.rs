//! The defaults that a safe gateway ships, one by one: what a configuration without the key means.

use std::time::Duration;

use portcullis_config::{
    Alpn, Config, Defaults, Doubtful, EmptyCatalog, HalfClosed, ServerHeader, Underscores, load_str,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn smallest(defaults: &str) -> Config {
    let text = format!(
        "defaults: {defaults}\nservices:\n  - name: s\n    url: http://127.0.0.1:9000\n    routes:\n      \
         - {{name: r, paths: [/]}}\n"
    );
    load_str("smallest.yaml", &text, &EmptyCatalog).expect("a configuration").config
}

#[test]
fn limits_on_time() {
    let config = smallest("portcullis");
    let (times, service) = (&config.timeouts, &config.services[0]);
    for (what, value, want) in [
        ("request head", times.request_head, 10 * SECOND),
        ("request body idle", times.request_body_idle, 30 * SECOND),
        ("keep-alive", times.keep_alive, 60 * SECOND),
        ("TLS handshake", times.tls_handshake, 10 * SECOND),
        ("connect", service.connect_timeout, 3 * SECOND),
        ("first byte", service.first_byte_timeout, 15 * SECOND),
        ("upstream body idle", service.body_idle_timeout, 30 * SECOND),
        ("upstream write", service.write_timeout, 30 * SECOND),
        ("upstream keep-alive", times.upstream_keep_alive, 55 * SECOND),
        ("response write", times.response_write, 30 * SECOND),
        ("tunnel idle", times.tunnel_idle, 5 * MINUTE),
        ("drain delay", times.drain_delay, 5 * SECOND),
        ("drain", times.drain, 30 * SECOND),
        ("grace of the least rate", config.limits.min_rate_after, 10 * SECOND),
    ] {
        assert_eq!(value, want, "{what}");
    }
    assert_eq!(times.total, None, "streams may last");
    assert_eq!(config.routes[0].timeouts, Default::default(), "none of the route's own");
}

#[test]
fn limits_on_size_and_number() {
    let config = smallest("portcullis");
    let limits = &config.limits;
    for (what, value, want) in [
        ("head", limits.head.into(), 32 * KIB),
        ("request line", limits.request_line.into(), 8 * KIB),
        ("header count", limits.header_count.into(), 100),
        ("body", limits.body, 10 * MIB),
        ("buffered body", limits.buffered_body, MIB),
        ("least rate", limits.min_rate.into(), KIB),
        ("requests per connection", limits.requests_per_connection.into(), 10_000),
        ("retries", config.services[0].retries.into(), 1),
        ("retry budget", limits.retry_budget_percent.into(), 20),
    ] {
        assert_eq!(value, want, "{what}");
    }
    let route = &config.routes[0];
    assert_eq!((route.body_limit, route.buffered_body), (None, None));
    assert_eq!((route.min_rate, route.min_rate_after), (None, None));
}

#[test]
fn what_is_believed_and_what_is_refused() {
    let config = smallest("portcullis");
    let http = &config.http;
    assert_eq!((http.encoded_slash, http.backslash), (Doubtful::Reject, Doubtful::Reject));
    assert!(!http.merge_slashes);
    assert_eq!((http.underscores, smallest("kong").http.underscores), (Underscores::Drop, Underscores::Keep));
    assert_eq!(
        (http.server_header, http.half_closed, http.via_limit),
        (ServerHeader::Pass, HalfClosed::Cancel, 0)
    );
    assert!(config.trusted_proxies.is_empty(), "nobody's X-Forwarded-For is believed");
    assert!(config.services[0].tls.verify, "certificates of targets are verified");
    assert!(!config.services[0].request_trailers);
    assert!(config.listeners.iter().all(|listener| !listener.proxy_protocol && !listener.h2c));
    assert!(config.admin.address.is_none());
}

#[test]
fn kongs_where_they_are_asked_for() {
    let config = smallest("kong");
    assert_eq!(config.defaults, Defaults::Kong);
    assert_eq!(config.timeouts.request_head, MINUTE);
    assert_eq!(config.services[0].retries, 5);
    assert_eq!((config.limits.body, config.limits.min_rate), (u64::MAX, 0));
    assert_eq!(config.http.encoded_slash, Doubtful::Keep);
    assert!(!config.services[0].tls.verify);
}

#[test]
fn tls_offers_what_is_spoken() {
    // A listener with TLS needs a certificate; the text need not be one for the model.
    let text = "listeners: [{address: '127.0.0.1:8443', tls: true}]\n\
                certificates: [{name: c, cert_file: c.pem, key_file: c.key}]\n";
    let config = load_str("tls.yaml", text, &EmptyCatalog).expect("a configuration").config;
    let tls = config.listeners[0].tls.as_ref().expect("TLS");
    assert!(tls.session_tickets);
    assert!(tls.alpn.contains(&Alpn::Http11));
}
