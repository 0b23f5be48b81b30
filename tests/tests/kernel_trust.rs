//! Who is never dropped nor banned, however he is written: prefixes of v4-mapped addresses, lists that allow, routers that
//! change while the gateway runs, and an IPv6 address beside a banned neighbour.

use std::io;
use std::net::{SocketAddr, TcpStream};

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::netns::VETH;
use portcullis_tests::privileged;
use portcullis_tests::site::{BAD, GOOD, PATIENCE, Site, packets};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// The gateway's IPv6 listener.
const GATE_V6: &str = "[fd77::2]:8080";
/// Two clients of one /64.
const KIND_V6: &str = "fd77::1";
const RUDE_V6: &str = "fd77::666";

/// A gateway whose limits nobody here meets.
fn setup(site: &Site, more: &str) -> Setup {
    site.setup_with("auto", "100000/s", &format!("enforcement: enforce, {more}"))
}

fn json(gateway: &Gateway, order: &[&str]) -> Value {
    let (text, ok) = gateway.order(order);
    assert!(ok, "{order:?}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{order:?}: {error}: {text}"))
}

#[track_caller]
fn refused(gateway: &Gateway, order: &[&str], because: &str) {
    let (text, ok) = gateway.order(order);
    assert!(!ok && text.contains(because), "{order:?}: {text}");
}

#[test]
fn a_v4_mapped_prefix_is_the_ipv4_one_on_every_list() {
    privileged!();
    let site = Site::new();
    let gateway =
        Gateway::start(&setup(&site, &format!("trusted: ['::ffff:{BAD}'], deny: ['::ffff:10.77.0.0/112']")));
    assert!(site.admitted(BAD), "trusted");
    assert!(!site.admitted(GOOD), "denied");
    refused(&gateway, &["ban", BAD], "xdp.trusted");
    refused(&gateway, &["ban", &format!("::ffff:{BAD}")], "xdp.trusted");
    let why = json(&gateway, &["why", &format!("::ffff:{GOOD}"), "--json"]);
    assert_eq!((&why["address"], &why["source"]), (&GOOD.into(), &GOOD.into()), "{why}");
    assert!(why["verdict"].as_str().is_some_and(|said| said.contains("dropped in the kernel")), "{why}");
}

#[test]
fn a_list_that_allows_exempts_from_the_proxys_limits_and_bans_too() {
    privileged!();
    let site = Site::new();
    let more = "costs: {request: 1, malformed: 10}, bans: {triggers: {malformed: 3/m}, steps: [10m]}";
    let limited = |lists: &str| {
        let more = format!("enforcement: enforce, {more}, {lists}");
        site.setup_with("auto", "{rate: 5/s, burst: 10}", &more)
    };
    let gateway =
        Gateway::start(&limited(&format!("lists: [{{name: friends, action: allow, sources: [{BAD}]}}]")));
    let mut kept = site.connect(BAD).expect("a connection");
    for _ in 0..40 {
        Request::get("/").keep().send_on(&mut kept).expect(200);
    }
    for _ in 0..20 {
        site.connect(BAD).expect("never dropped").send("NO HTTP\r\n\r\n").response().expect(400);
    }
    assert_eq!(json(&gateway, &["bans", "--json"])["bans"], serde_json::json!([]));
    refused(&gateway, &["ban", BAD], "the list friends");
    refused(&gateway, &["ban", "10.77.0.0/24"], "the list friends");
    let why = json(&gateway, &["why", BAD, "--json"]);
    assert!(why["verdict"].as_str().is_some_and(|said| said.contains("the list friends")), "{why}");

    // A longer prefix that is denied goes before it, and nothing says otherwise.
    gateway.reload(&limited(&format!("allow: [10.77.0.0/24], deny: [{BAD}]")));
    assert!(!site.admitted(BAD) && site.admitted(GOOD));
    let why = json(&gateway, &["why", BAD, "--json"]);
    assert!(why["verdict"].as_str().is_some_and(|said| said.contains("dropped in the kernel")), "{why}");
    assert_eq!(why["trusted"], Value::Null, "{why}");
}

/// A default route that comes while the gateway runs: its router was denied and banned in a prefix, and is let in. What was
/// switched off to spare the innocent is not armed by that: no operator asked for it.
#[test]
fn a_new_router_is_trusted_and_arms_nothing() {
    privileged!();
    let site = Site::new();
    let lists = format!("lists: [{{name: wrong, sources: [{GOOD}]}}, {{name: right, sources: [{BAD}]}}]");
    let more = format!("blast_radius: {{percent: 5, sources: 1}}, {lists}");
    let gateway = Gateway::start(&setup(&site, "blast_radius: {percent: 5, sources: 1}"));
    let mut known = site.connect(GOOD).expect("a connection");
    Request::get("/private").header("apikey", "open-sesame").send_on(&mut known).expect(200);
    gateway.reload(&setup(&site, &more));
    eventually("the innocent let in again", || holds(site.admitted(GOOD), "still dropped"));
    assert!(!site.admitted(BAD));
    let tripped = || gateway.status()["kernel"]["tripped"].clone();
    assert_eq!(tripped(), serde_json::json!(["list wrong"]));

    let before = gateway.generation();
    site.lab.server_ip(&["route", "add", "default", "via", BAD, "dev", VETH]).expect("a route");
    eventually("the router trusted", || holds(site.admitted(BAD), "still dropped"));
    assert!(gateway.generation() > before, "a generation nobody has asked for");
    assert_eq!(tripped(), serde_json::json!(["list wrong"]), "it is switched off as before");
    assert!(site.admitted(GOOD));
    refused(&gateway, &["ban", BAD], "a gateway of this machine");

    site.lab.server_ip(&["route", "del", "default"]).expect("a route");
    eventually("the former router denied", || holds(!site.admitted(BAD), "still let in"));
}

fn connect_v6(site: &Site, from: &str) -> io::Result<Connection> {
    let stream = site.lab.in_client(|| {
        let source: SocketAddr = format!("[{from}]:0").parse().expect("an address");
        let target: SocketAddr = GATE_V6.parse().expect("an address");
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        socket.bind(&source.into())?;
        socket.connect_timeout(&target.into(), PATIENCE)?;
        Ok::<_, io::Error>(TcpStream::from(socket))
    })?;
    Connection::over(stream)
}

/// An IPv6 source is its /64, in what is banned and in what is told; a trusted address in it keeps what it has.
#[test]
fn a_banned_network_of_ipv6_spares_a_trusted_address_in_it() {
    privileged!();
    let site = Site::new();
    let add = |address: &str| {
        site.lab
            .client_ip(&["addr", "add", &format!("{address}/64"), "dev", VETH, "nodad"])
            .expect("an address");
    };
    add(RUDE_V6);
    let setup = |trusted: &str| {
        let more = format!("bans: {{triggers: {{malformed: 3/m}}, steps: [10m]}}, trusted: [{trusted}]");
        setup(&site, &more).listener("six", GATE_V6.parse().expect("an address"))
    };
    let gateway = Gateway::start(&setup(&format!("'{KIND_V6}'")));
    // A link that has just come up takes its time until the neighbours know each other.
    for address in [KIND_V6, RUDE_V6] {
        eventually("a way to the gateway", || holds(connect_v6(&site, address).is_ok(), "no answer"));
    }
    let mut kind = connect_v6(&site, KIND_V6).expect("a connection");
    Request::get("/").keep().send_on(&mut kind).expect(200);
    let mut rude = connect_v6(&site, RUDE_V6).expect("a connection");
    Request::get("/").keep().send_on(&mut rude).expect(200);
    for _ in 0..20 {
        let Ok(mut connection) = connect_v6(&site, RUDE_V6) else { break };
        if connection.try_send(b"NO HTTP\r\n\r\n").is_err() || connection.try_response(false).is_err() {
            break;
        }
    }
    eventually("the ban", || {
        let bans = json(&gateway, &["bans", "--json"]);
        holds(bans["bans"][0]["source"] == "fd77::/64", format!("{bans}"))
    });
    rude.expect_closed();
    let refusal = connect_v6(&site, RUDE_V6).map(drop).expect_err("banned");
    assert_eq!(refusal.kind(), io::ErrorKind::TimedOut, "dropped, not refused");
    Request::get("/").keep().send_on(&mut kind).expect(200);
    connect_v6(&site, KIND_V6).expect("a trusted address is never dropped");
    assert!(packets(&gateway, "drop_banned") >= 1.0);

    let why = json(&gateway, &["why", RUDE_V6, "--json"]);
    assert_eq!((&why["source"], &why["ban"]["source"]), (&"fd77::/64".into(), &"fd77::/64".into()), "{why}");
    assert_eq!(why["ban"]["by"], "behaviour", "{why}");
    assert_eq!(why["buckets"][0]["scope"], "fd77::/64", "{why}");
    assert!(why["dropped"][0]["from"].as_str().is_some_and(|from| from.contains(RUDE_V6)), "{why}");
    let text = gateway.order(&["why", KIND_V6]).0;
    assert!(text.contains("never dropped") && text.contains("xdp.trusted"), "{text}");
    refused(&gateway, &["ban", RUDE_V6], "xdp.trusted");

    let (text, ok) = gateway.order(&["unban", RUDE_V6]);
    assert!(ok, "{text}");
    Request::get("/").send_on(&mut connect_v6(&site, RUDE_V6).expect("let in again")).expect(200);
    gateway.reload(&setup(""));
    let (text, ok) = gateway.order(&["ban", RUDE_V6]);
    assert!(ok && text.contains("fd77::/64") && text.contains("kernel and proxy"), "{text}");
    for address in [KIND_V6, RUDE_V6] {
        connect_v6(&site, address).map(drop).expect_err("both are one source");
    }
}
