//! What kernel part and gateway promise together: what a killed gateway leaves, what broken HTTP/2 and plugins cost at the
//! network card, and that what hits the innocent is switched off by itself.

use std::io;
use std::time::Instant;

use portcullis_tests::client::Request;
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::privileged;
use portcullis_tests::site::{BAD, GOOD, Site, packets};
use serde_json::Value;

fn ordered(gateway: &Gateway, order: &[&str]) -> String {
    let (text, ok) = gateway.order(order);
    assert!(ok, "{order:?}: {text}");
    text
}

fn bans(gateway: &Gateway) -> Vec<(String, String)> {
    let text = ordered(gateway, &["bans", "--json"]);
    let told: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let bans = told["bans"].as_array().cloned().unwrap_or_default();
    let mut bans: Vec<_> = bans.iter().map(|ban| (word(&ban["source"]), word(&ban["reason"]))).collect();
    bans.sort();
    bans
}

/// Bans of one source and of a prefix, with their words, outlive the process, however it ends; those that were taken back
/// do not come again.
#[test]
fn a_killed_gateway_leaves_its_bans_with_their_reasons() {
    privileged!();
    let site = Site::new();
    let setup = site.setup_with("auto", "100000/s", "enforcement: enforce, dead_after: 60s");
    let mut gateway = Gateway::start(&setup);
    ordered(&gateway, &["ban", BAD, "--for", "20m", "--reason", "scraping"]);
    ordered(&gateway, &["ban", "192.0.2.0/24", "--for", "20m", "--reason", "a net of \"bots\""]);
    ordered(&gateway, &["ban", "198.51.100.7", "--for", "20m", "--reason", "a mistake"]);
    ordered(&gateway, &["unban", "198.51.100.7"]);
    let expected =
        [(BAD, "scraping"), ("192.0.2.0/24", "a net of \"bots\"")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(bans(&gateway), expected);
    for _ in 0..2 {
        gateway.kill();
        let refused = site.connect(BAD).map(drop).expect_err("nobody listens, and the program still drops");
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        gateway.restart();
        assert_eq!(bans(&gateway), expected);
        assert!(!site.admitted(BAD));
        eventually("the neighbour let in", || holds(site.admitted(GOOD), "no answer in time"));
        let why = ordered(&gateway, &["why", "192.0.2.9"]);
        assert!(why.contains("a net of \"bots\""), "{why}");
    }
    ordered(&gateway, &["unban", "192.0.2.0/24"]);
    ordered(&gateway, &["unban", BAD]);
    gateway.restart();
    assert_eq!(bans(&gateway), []);
    // The first answer of a gateway that has just begun may take its time on a busy machine; a ban would last.
    eventually("whose ban was taken back let in", || holds(site.admitted(BAD), "no answer in time"));
}

/// Whoever breaks the rules of HTTP/2 pays for it like whoever breaks those of HTTP/1.
#[test]
fn broken_http2_closes_the_door_in_the_kernel() {
    privileged!();
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    // A frame of each kind that ends a connection: DATA on an idle stream, SETTINGS of a stream, a header block that no
    // decoder takes, a frame that is too long, and no preface at all.
    let broken: [(&str, Vec<u8>); 5] = [
        ("data", [PREFACE, SETTINGS, &[0, 0, 1, 0, 0, 0, 0, 0, 1, b'x']].concat()),
        ("settings", [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 1]].concat()),
        ("headers", [PREFACE, SETTINGS, &[0, 0, 2, 1, 5, 0, 0, 0, 1, 0xff, 0xff]].concat()),
        ("long", [PREFACE, SETTINGS, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat()),
        ("preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX".to_vec()),
    ];
    for (name, bytes) in broken {
        let site = Site::new();
        let more = "enforcement: enforce, costs: {malformed: 10, malformed_http2: 10}";
        let gateway = Gateway::start(&site.setup(more).h2c());
        let mut cut = false;
        for _ in 0..20 {
            let Ok(mut connection) = site.connect(BAD) else {
                cut = true;
                break;
            };
            let _ = connection.try_send(&bytes);
            connection.read_to_end();
        }
        assert!(cut, "{name}: 20 connections were let in");
        assert!(packets(&gateway, "drop_connection_rate") >= 1.0, "{name}");
        assert!(site.admitted(GOOD), "{name}");
    }
}

/// A plugin's points are the source's tokens at the network card, and may ban it.
#[test]
fn a_plugin_takes_points_that_close_the_door() {
    privileged!();
    let site = Site::new();
    let bot = |site: &Site| {
        let mut connection = site.connect(BAD).ok()?;
        let _ = connection.try_send(&Request::get("/").header("user-agent", "sqlmap/1.9").bytes());
        connection.try_response(false).ok().map(|response| response.status)
    };
    let setup = |points: u32, rate: &str, more: &str| {
        let plugin = format!("plugins:\n  - {{name: bot-detection, config: {{points: {points}}}}}\n");
        site.setup_with("auto", rate, &format!("enforcement: enforce, {more}")).with(&plugin)
    };
    let (narrow, wide) = ("{rate: 5/s, burst: 20}", "100000/s");
    let gateway = Gateway::start(&setup(0, narrow, "costs: {plugin: 1}"));
    for _ in 0..8 {
        assert_eq!(bot(&site), Some(403), "no points, no price beyond the connection's");
    }
    gateway.reload(&setup(30, narrow, "costs: {plugin: 1}"));
    let got_in = (0..20).take_while(|_| bot(&site).is_some()).count();
    assert!(got_in < 20 && packets(&gateway, "drop_connection_rate") >= 1.0, "{got_in}");
    assert!(site.admitted(GOOD));
    let bans = "costs: {plugin: 0}, bans: {triggers: {plugin: 100/m}, steps: [10m]}";
    gateway.reload(&setup(60, wide, bans));
    eventually("the ban", || {
        let _ = bot(&site);
        holds(packets(&gateway, "drop_banned") >= 1.0, "not banned yet")
    });
    assert!(!site.admitted(BAD) && site.admitted(GOOD));
}

/// A list that holds an honest client is switched to shadow by itself, the other one is not, and a reload arms it again.
#[test]
fn a_list_that_hits_the_innocent_is_switched_off_alone() {
    privileged!();
    let site = Site::new();
    let setup = |lists: &str| {
        let more =
            format!("enforcement: enforce, blast_radius: {{percent: 5, sources: 1}}, lists: [{lists}]");
        site.setup_with("auto", "100000/s", &more)
    };
    let lists = format!("{{name: wrong, sources: [{GOOD}]}}, {{name: right, sources: [{BAD}]}}");
    let gateway = Gateway::start(&setup(""));
    let key = |source| {
        let mut connection = site.connect(source).expect("a connection");
        Request::get("/private").header("apikey", "open-sesame").send_on(&mut connection).expect(200);
    };
    key(GOOD);
    gateway.reload(&setup(&lists));
    assert!(!site.admitted(BAD));
    // The beat comes once a second, and each of its SYNs counts as one more of the same source.
    eventually("the innocent let in again", || holds(site.admitted(GOOD), "still dropped"));
    assert!(!site.admitted(BAD), "the other list is in force");
    let status = gateway.status();
    assert_eq!(status["kernel"]["tripped"], serde_json::json!(["list wrong"]), "{status}");
    assert_eq!(gateway.metrics().get("portcullis_xdp_tripped", &[("reason", "drop_denied")]), 1.0);
    let said = gateway.stderr();
    assert!(said.contains("switched to shadow") && said.contains("wrong"), "{said}");
    assert!(packets(&gateway, "shadow_denied") >= 1.0);
    // What an operator writes anew is in force again, until it does the same harm.
    let begun = Instant::now();
    gateway.reload(&setup(&lists));
    let armed = !site.admitted(GOOD);
    println!("armed again: {armed}, looked at after {:?}", begun.elapsed());
    eventually("the innocent let in again", || holds(site.admitted(GOOD), "still dropped"));
    assert!(!site.admitted(BAD));
}
