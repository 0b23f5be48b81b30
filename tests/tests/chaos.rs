//! Targets that die, hang, flap, reset, answer slowly and move, under load: only the failures that the rules allow, each
//! counted by its reason.

use std::net::{Ipv4Addr, SocketAddr};

use portcullis_tests::client::Request;
use portcullis_tests::client::load::{Load, Reuse, Tally};
use portcullis_tests::dns::{NameServer, Records};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Handle, Mood, Moody, Origin};

/// A gateway before an upstream of these targets. `upstream` and `service` are keys of theirs, one a line.
fn start(targets: &[SocketAddr], upstream: &str, service: &str) -> Gateway {
    let list: Vec<String> = targets.iter().map(|target| format!("{{target: '{target}'}}")).collect();
    Gateway::start(&site(&format!("targets: [{}]\n{upstream}", list.join(", ")), service))
}

fn site(upstream: &str, service: &str) -> Setup {
    let indent = |keys: &str| keys.lines().map(|key| format!("    {key}\n")).collect::<String>();
    Setup::new(format!(
        "upstreams:\n  - name: many\n{}services:\n  - name: web\n    host: many\n{}    routes:\n      \
         - {{name: all, paths: [/], strip_path: false}}\n",
        indent(upstream),
        indent(service),
    ))
}

fn load(gateway: &Gateway) -> Load {
    Load::start(gateway.addr(), 4, Reuse::KeepAlive, &Request::get("/").keep().bytes(), "x-origin")
}

fn moody(name: &'static str) -> (Origin, Handle) {
    let (script, mood) = Moody::new(name, Mood::Well);
    (Origin::start(script), mood)
}

fn refused(gateway: &Gateway, reason: &str) -> u64 {
    gateway.metrics().sum("portcullis_refusals_total", &[("reason", reason)]) as u64
}

/// All refusals of the proxy but of clients that left.
fn refusals(gateway: &Gateway) -> u64 {
    gateway.metrics().sum("portcullis_refusals_total", &[]) as u64 - refused(gateway, "client_aborted")
}

fn with(tally: &Tally, status: u16) -> u64 {
    tally.by_status.get(&status).copied().unwrap_or(0)
}

/// Asserts that nothing but these statuses was answered, every answer whole.
#[track_caller]
fn expect_only(tally: &Tally, statuses: &[u16]) {
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    assert_eq!(tally.refused, 0);
    assert!(tally.by_status.keys().all(|status| statuses.contains(status)), "{:?}", tally.by_status);
}

const QUICK: &str = "healthchecks: {passive: {eject_for: 1s}}";
const NO_HEALTH: &str =
    "healthchecks: {passive: {unhealthy: {http_failures: 0, tcp_failures: 0, timeouts: 0}}}";

#[test]
fn a_target_that_dies_and_returns_fails_no_request() {
    let (a, _a) = moody("a");
    let (b, _b) = moody("b");
    let (c, _c) = moody("c");
    let gateway = start(&[a.addr(), b.addr(), c.addr()], QUICK, "retries: 2");
    let load = load(&gateway);
    load.wait_for(300);
    let addr = c.addr();
    drop(c);
    load.wait_for(300);
    let (script, _mood) = Moody::new("c", Mood::Well);
    let back = Origin::start_at(addr, script);
    eventually("its return", || holds(back.requests() > 20, format!("{} requests", back.requests())));
    load.stop().expect_no_failure();
    assert_eq!(refusals(&gateway), 0);
    assert!(gateway.metrics().sum("portcullis_upstream_errors_total", &[]) >= 1.0);
}

#[test]
fn a_target_that_flaps_fails_no_request() {
    let (a, _a) = moody("a");
    let (b, _b) = moody("b");
    let (c, mood) = moody("c");
    let service =
        "retries: 2\nretry_policy: {retry_on: [connect-failure, refused-stream, reset, gateway-error]}";
    let gateway = start(&[a.addr(), b.addr(), c.addr()], QUICK, service);
    let load = load(&gateway);
    load.wait_for(300);
    for turn in [Mood::Ill, Mood::Well, Mood::Resets, Mood::Well, Mood::Ill, Mood::Resets, Mood::Well] {
        mood.set(turn);
        load.wait_for(100);
    }
    let before = c.requests();
    eventually("its return", || holds(c.requests() > before + 20, format!("{} requests", c.requests())));
    load.stop().expect_no_failure();
    assert_eq!(refusals(&gateway), 0);
}

#[test]
fn a_target_that_hangs_is_left() {
    let (a, _a) = moody("a");
    let (b, mood) = moody("b");
    let service =
        "retries: 1\nretry_policy: {retry_on: [connect-failure, reset, timeout], per_try_timeout: 2s}";
    let gateway = start(&[a.addr(), b.addr()], "healthchecks: {passive: {eject_for: 1h}}", service);
    let load = load(&gateway);
    load.wait_for(300);
    mood.set(Mood::Silent);
    let log = || gateway.stderr().matches("target ejected").count();
    eventually("its ejection", || holds(log() == 1, "not yet"));
    let hung = b.requests();
    load.wait_for(300);
    assert_eq!(b.requests(), hung, "nobody asks it any more");
    load.stop().expect_no_failure();
    assert_eq!(refusals(&gateway), 0);
}

#[test]
fn every_failure_of_a_lone_target_is_counted_by_its_reason() {
    let (only, mood) = moody("only");
    let gateway = start(&[only.addr()], NO_HEALTH, "retries: 0\nread_timeout: 300");
    let load = load(&gateway);
    load.wait_for(100);
    for (turn, more) in [
        (Mood::Resets, 60),
        (Mood::Well, 60),
        (Mood::Silent, 8),
        (Mood::Ill, 60),
        (Mood::Slow, 4),
        (Mood::Well, 60),
    ] {
        mood.set(turn);
        load.wait_for(more);
    }
    let tally = load.stop();
    expect_only(&tally, &[200, 502, 503, 504]);
    let (reset, timeout) = (refused(&gateway, "upstream_reset"), refused(&gateway, "upstream_timeout"));
    assert_eq!(with(&tally, 502), reset);
    assert_eq!(with(&tally, 504), timeout);
    // The target's own 503 is no refusal of ours.
    assert_eq!(refusals(&gateway), reset + timeout, "{:?}", tally.by_status);
    assert!(reset >= 20 && timeout >= 4 && with(&tally, 503) >= 20, "{:?}", tally.by_status);
}

#[test]
fn a_breaker_spares_a_target_that_is_ill() {
    let (only, mood) = moody("only");
    let breaker =
        "circuit_breaker: {window: 10s, min_requests: 20, failure_percent: 50, open_for: 1s, trials: 2}";
    let gateway = start(&[only.addr()], &format!("{NO_HEALTH}\n{breaker}"), "retries: 0");
    let load = load(&gateway);
    load.wait_for(40);
    mood.set(Mood::Ill);
    eventually("the breaker to open", || holds(refused(&gateway, "breaker_open") > 50, "not yet"));
    mood.set(Mood::Well);
    let before = only.requests();
    eventually("the breaker to close", || holds(only.requests() > before + 100, "not yet"));
    let tally = load.stop();
    expect_only(&tally, &[200, 503]);
    let own = tally.by_label.get("").copied().unwrap_or(0);
    assert_eq!(own, refused(&gateway, "breaker_open"), "answers without the origin's name are ours");
    assert_eq!(tally.answered() - own, only.requests() as u64);
    assert_eq!(refusals(&gateway), own);
}

#[test]
fn a_slow_target_gets_less_where_latency_decides() {
    let (fast, _mood) = moody("fast");
    let (slow, mood) = moody("slow");
    mood.set(Mood::Slow);
    let gateway = start(&[fast.addr(), slow.addr()], "algorithm: latency", "retries: 0");
    let load = load(&gateway);
    load.wait_for(400);
    let tally = load.stop();
    tally.expect_no_failure();
    let of = |name: &str| tally.by_label.get(name).copied().unwrap_or(0);
    assert!(of("slow") * 4 < of("fast"), "{:?}", tally.by_label);
}

#[test]
fn names_that_change_fail_no_request() {
    let server = NameServer::start();
    let [a, b] = [Ipv4Addr::new(127, 0, 0, 21), Ipv4Addr::new(127, 0, 0, 22)];
    let (script, _mood) = Moody::new("a", Mood::Well);
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port").port();
    let at = |ip: Ipv4Addr| SocketAddr::from((ip, port));
    let first = Origin::start_at(at(a), script);
    server.set("app.test", Records::A(vec![a]));
    let setup = site(&format!("targets: [{{target: 'app.test:{port}'}}]\n{QUICK}"), "retries: 1")
        .with(&format!("dns: {{nameservers: ['{}'], timeout: 1s}}", server.addr()));
    let gateway = Gateway::start(&setup);
    let load = load(&gateway);
    load.wait_for(100);
    let (script, _mood) = Moody::new("b", Mood::Well);
    let second = Origin::start_at(at(b), script);
    server.set("app.test", Records::A(vec![a, b]));
    eventually("the second address", || holds(second.requests() > 50, "not asked"));
    server.set("app.test", Records::A(vec![b]));
    eventually("the end of the first", || {
        let before = first.requests();
        load.wait_for(50);
        holds(first.requests() == before, "asked still")
    });
    drop(first);
    load.wait_for(100);
    // The name servers are gone: what is known stays.
    server.be_silent(true);
    load.wait_for(200);
    load.stop().expect_no_failure();
    assert_eq!(refusals(&gateway), 0);
}

#[test]
fn a_target_that_dies_takes_only_what_it_was_sent() {
    let (a, _a) = moody("a");
    let (b, mood) = moody("b");
    let gateway = start(&[a.addr(), b.addr()], "healthchecks: {passive: {eject_for: 1h}}", "retries: 2");
    let request = Request::post("/", "pay").keep().bytes();
    let load = Load::start(gateway.addr(), 4, Reuse::KeepAlive, &request, "x-origin");
    load.wait_for(200);
    mood.set(Mood::Resets);
    eventually("its ejection", || holds(gateway.stderr().contains("target ejected"), "not yet"));
    load.wait_for(200);
    let tally = load.stop();
    // What is not idempotent was sent once, whatever became of it.
    expect_only(&tally, &[200, 502]);
    let lost = with(&tally, 502);
    assert!(lost >= 5, "{lost}");
    assert_eq!(lost, refused(&gateway, "upstream_reset"));
    assert_eq!(tally.answered(), (a.requests() + b.requests()) as u64);
}
