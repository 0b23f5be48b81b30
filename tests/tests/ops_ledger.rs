//! What an operator orders and asks: bans, why, top, over the command line, without the kernel part.
//!
//! The gateway and its clients are in namespaces of their own, because loopback is trusted and never banned.

use portcullis_tests::client::Request;
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Counting, Gate, Held, Origin};
use portcullis_tests::privileged;
use portcullis_tests::site::{BAD, GOOD, Site};
use serde_json::Value;

fn json(gateway: &Gateway, order: &[&str]) -> Value {
    let (text, ok) = gateway.order(order);
    assert!(ok, "{order:?}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{order:?}: {error}: {text}"))
}

fn ordered(gateway: &Gateway, order: &[&str]) -> String {
    let (text, ok) = gateway.order(order);
    assert!(ok, "{order:?}: {text}");
    text
}

fn refused(gateway: &Gateway, order: &[&str]) -> String {
    let (text, ok) = gateway.order(order);
    assert!(!ok, "{order:?} went through: {text}");
    text
}

#[test]
fn a_ban_refuses_ends_open_connections_and_is_listed() {
    privileged!();
    let site = Site::new();
    let gateway = Gateway::start(&site.bare_setup(""));
    let mut open = site.connect(BAD).expect("a connection");
    assert_eq!(Request::get("/").keep().send_on(&mut open).status, 200);
    assert_eq!(ordered(&gateway, &["bans"]), "nobody is banned\n");

    let said = ordered(&gateway, &["ban", BAD, "--for", "10m", "--reason", "password guessing"]);
    assert!(said.contains("refused by proxy (kernel part off)"), "{said}");
    open.expect_closed();
    assert_eq!(site.status(BAD, "/"), None);
    assert_eq!(site.status(GOOD, "/"), Some(200));
    let bans = json(&gateway, &["bans", "--json"]);
    let ban = &bans["bans"][0];
    assert_eq!(
        (&ban["source"], &ban["by"], &ban["reason"]),
        (&BAD.into(), &"operator".into(), &"password guessing".into())
    );
    assert!(ban["seconds_left"].as_u64().is_some_and(|left| (590..=600).contains(&left)), "{ban}");
    let why = ordered(&gateway, &["why", BAD]);
    assert!(why.contains("banned by operator") && why.contains("password guessing"), "{why}");
    assert!(why.contains("source_banned"), "the refusal at the door is remembered: {why}");
    assert!(gateway.metrics().get("portcullis_refusals_total", &[("reason", "source_banned")]) >= 1.0);

    assert!(refused(&gateway, &["unban", GOOD]).contains("is not banned"));
    ordered(&gateway, &["unban", BAD]);
    assert_eq!(site.status(BAD, "/"), Some(200));
    assert!(refused(&gateway, &["unban", BAD]).contains("is not banned"));
}

#[test]
fn a_ban_ends_by_itself_and_a_prefix_can_be_banned() {
    privileged!();
    let site = Site::new();
    let gateway = Gateway::start(&site.bare_setup(""));
    ordered(&gateway, &["ban", BAD, "--for", "1s"]);
    assert_eq!(site.status(BAD, "/"), None);
    eventually("the end of the ban", || holds(site.status(BAD, "/") == Some(200), "still banned"));

    let wide = "10.77.0.0/29";
    ordered(&gateway, &["ban", wide, "--for", "1h", "--reason", "a botnet"]);
    eventually("the prefix on every shard", || holds(site.status(BAD, "/").is_none(), "served"));
    assert_eq!(site.status(GOOD, "/"), Some(200), "outside of it");
    assert!(refused(&gateway, &["unban", BAD]).contains(wide), "it names what the address is banned by");
    let why = json(&gateway, &["why", BAD, "--json"]);
    assert_eq!(why["ban"]["source"], wide);
    // A prefix is remembered by the process and goes to its successor; so does the ban of a source.
    ordered(&gateway, &["unban", wide]);
    eventually("the end of it", || holds(site.status(BAD, "/") == Some(200), "still banned"));
}

#[test]
fn bans_go_over_to_a_successor() {
    privileged!();
    let site = Site::new();
    let mut gateway = Gateway::start(&site.bare_setup(""));
    ordered(&gateway, &["ban", BAD, "--for", "1h", "--reason", "one"]);
    ordered(&gateway, &["ban", "192.0.2.0/24", "--for", "1h", "--reason", "many"]);
    gateway.upgrade();
    assert_eq!(site.status(BAD, "/"), None);
    assert_eq!(site.status(GOOD, "/"), Some(200));
    let reasons = |bans: &Value| {
        let bans = bans["bans"].as_array().expect("a list");
        let mut reasons: Vec<_> =
            bans.iter().map(|ban| ban["reason"].as_str().unwrap_or("?").to_owned()).collect();
        reasons.sort();
        reasons
    };
    assert_eq!(reasons(&json(&gateway, &["bans", "--json"])), ["many", "one"]);
}

#[test]
fn trusted_sources_are_not_banned_and_the_reason_is_said() {
    privileged!();
    let site = Site::new();
    let more = format!("trusted_proxies: [{GOOD}]\nxdp: {{enabled: false, trusted: [10.77.5.0/24]}}\n");
    let gateway = Gateway::start(&site.bare_setup(&more));
    for (source, because) in [
        ("127.0.0.1", "loopback"),
        (GOOD, "trusted_proxies"),
        ("10.77.5.9", "xdp.trusted"),
        ("10.77.0.0/16", "xdp.trusted"),
        ("0.0.0.0/0", "loopback"),
    ] {
        let said = refused(&gateway, &["ban", source]);
        assert!(said.contains(because), "{source}: {said}");
    }
    assert!(refused(&gateway, &["ban", "nonsense"]).contains("neither an address nor a CIDR"));
    assert!(refused(&gateway, &["ban", BAD, "--for", "400d"]).contains("30 days"));
    assert_eq!(ordered(&gateway, &["bans"]), "nobody is banned\n");
    let why = ordered(&gateway, &["why", GOOD]);
    assert!(why.contains("never dropped") && why.contains("rule: trusted"), "{why}");
}

#[test]
fn why_tells_buckets_and_the_last_refusals() {
    privileged!();
    let site = Site::new();
    let xdp = "xdp: {enabled: false, limits: {connections: {rate: 1/s, burst: 100}}, costs: {request: 1, unauthorized: 20}}\n";
    let gateway = Gateway::start(&site.bare_setup(xdp));
    assert_eq!(site.status(BAD, "/private"), Some(401));
    let why = json(&gateway, &["why", BAD, "--json"]);
    let bucket = &why["buckets"][0];
    assert_eq!(bucket["tokens_max"], 100);
    // One for the request and 20 for the answer; a second gives one back.
    assert!(bucket["tokens_left"].as_u64().is_some_and(|left| (79..=90).contains(&left)), "{bucket}");
    let refusal = &why["refusals"][0];
    assert_eq!(refusal["reason"], "unauthorized_missing");
    assert_eq!((&refusal["status"], &refusal["route"]), (&401.into(), &"private".into()));
    assert_eq!(why["trusted"], Value::Null);
    assert_eq!(site.status(GOOD, "/"), Some(200));
    let why = ordered(&gateway, &["why", GOOD]);
    assert!(why.contains("mark: established until") && !why.contains("refused"), "{why}");
    assert!(refused(&gateway, &["why", "nonsense"]).contains("nonsense"));
}

#[test]
fn top_once_tells_rates_for_scripts() {
    privileged!();
    let gate = Gate::shut();
    let site = Site::with({
        let gate = gate.clone();
        move || Origin::start(Held { gate, midway: false })
    });
    gate.open();
    let gateway = Gateway::start(&site.bare_setup(""));
    for _ in 0..30 {
        assert_eq!(site.status(BAD, "/"), Some(200));
    }
    assert_eq!(site.status(GOOD, "/private"), Some(401));
    let text = ordered(&gateway, &["top", "--once", "--interval", "200ms"]);
    for part in ["requests/s", "kernel part: off", "SHARD", "ROUTE", "unauthorized_missing", BAD, "healthy"] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let top = json(&gateway, &["top", "--once", "--json"]);
    assert_eq!(top["answers"][1], 30);
    assert_eq!(top["reasons"]["unauthorized_missing"], 1);
    assert_eq!(top["sources"][0]["source"], BAD, "the busiest first");
    assert_eq!(top["sources"].as_array().map(Vec::len), Some(2));
    let routes = top["routes"].as_array().expect("routes");
    assert!(routes.iter().any(|route| route["route"] == "all" && route["requests"] == 30), "{routes:?}");
    assert!(top["shards"].as_array().is_some_and(|shards| shards.len() == 2));
}

#[test]
fn drops_say_that_there_are_none_without_the_kernel_part() {
    privileged!();
    let site = Site::new();
    let gateway = Gateway::start(&site.bare_setup(""));
    assert!(refused(&gateway, &["drops"]).contains("the kernel part is off"));
}

#[test]
fn the_ledger_is_for_the_socket_alone() {
    let origin = Origin::start(Counting::named("origin"));
    let port = portcullis_tests::ports::Reserved::new().addr();
    let _gateway = Gateway::start(&Setup::proxy(origin.addr(), "").admin_address(port));
    for path in ["/bans", "/why?address=192.0.2.1", "/top", "/drops"] {
        let answer = Request::get(path).header("Host", "localhost").send(port);
        assert_eq!(answer.status, 403, "{path}");
    }
}
