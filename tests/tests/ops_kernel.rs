//! What an operator orders and asks where the kernel part acts: bans at the card, samples of what it dropped, and a
//! successor that takes it over.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::netns::VETH;
use portcullis_tests::privileged;
use portcullis_tests::site::{BAD, GATE, GOOD, PATIENCE, Site, packets};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// A gateway whose limits nobody here meets, not even who connects as fast as he can.
fn setup(site: &Site, more: &str) -> Setup {
    site.setup_with("auto", "100000/s", more)
}

fn ordered(gateway: &Gateway, order: &[&str]) -> String {
    let (text, ok) = gateway.order(order);
    assert!(ok, "{order:?}: {text}");
    text
}

fn json(gateway: &Gateway, order: &[&str]) -> Value {
    let text = ordered(gateway, order);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{order:?}: {error}: {text}"))
}

#[test]
fn an_operators_ban_is_dropped_in_the_kernel_in_shadow_mode_too() {
    privileged!();
    let site = Site::new();
    let gateway = Gateway::start(&setup(&site, "enforcement: shadow"));
    let mut open = site.connect(BAD).expect("a connection");
    assert_eq!(Request::get("/").keep().send_on(&mut open).status, 200);
    let said = ordered(&gateway, &["ban", BAD, "--for", "5m", "--reason", "scraping"]);
    assert!(said.contains("refused by kernel and proxy"), "{said}");
    assert!(!site.admitted(BAD));
    assert!(site.admitted(GOOD));
    assert!(packets(&gateway, "drop_banned") >= 1.0);
    let why = ordered(&gateway, &["why", BAD]);
    assert!(why.contains("banned by operator") && why.contains("dropped: "), "{why}");
    ordered(&gateway, &["unban", BAD]);
    assert!(site.admitted(BAD));

    let wide = ordered(&gateway, &["ban", "10.77.0.0/30", "--for", "5m"]);
    assert!(wide.contains("refused by proxy (kernel part in shadow mode)"), "{wide}");
    eventually("a prefix refused by the proxy", || holds(site.status(BAD, "/") != Some(200), "served"));
    ordered(&gateway, &["unban", "10.77.0.0/30"]);

    // With the lists in force a prefix is dropped as well. It reaches the kernel's lists and the shards a moment after the
    // answer.
    gateway.reload(&setup(&site, "enforcement: enforce"));
    let dropped = packets(&gateway, "drop_banned");
    ordered(&gateway, &["ban", "10.77.0.0/30", "--for", "5m"]);
    eventually("a prefix dropped", || {
        holds(
            site.status(BAD, "/") != Some(200) && packets(&gateway, "drop_banned") > dropped,
            "not in the kernel",
        )
    });
    assert!(site.admitted(GOOD));
    let why = json(&gateway, &["why", BAD, "--json"]);
    assert!(
        why["rules"].as_array().is_some_and(|rules| rules.iter().any(|rule| rule["list"] == "ban")),
        "{why}"
    );
    ordered(&gateway, &["unban", "10.77.0.0/30"]);
    eventually("the end of it", || holds(site.status(BAD, "/") == Some(200), "still banned"));
}

#[test]
fn dropped_packets_are_shown_and_captured() {
    privileged!();
    let site = Site::new();
    let gateway =
        Gateway::start(&setup(&site, &format!("enforcement: enforce, samples: 1000/s, deny: [{BAD}]")));
    assert!(!site.admitted(BAD));
    let text = ordered(&gateway, &["drops"]);
    let line = text.lines().next().unwrap_or_else(|| panic!("no sample"));
    assert!(line.contains(&format!(" {VETH} {BAD}:")), "{text}");
    assert!(line.contains(&format!("> {GATE} tcp")) && line.ends_with("drop_denied"), "{text}");

    let file = gateway.dir().join("drops.pcapng");
    let path = file.to_str().expect("a path");
    ordered(&gateway, &["drops", "--count", "1", "--pcap", path]);
    let read = Command::new("tcpdump").args(["-nn", "-r", path]).output().expect("tcpdump");
    let shown = String::from_utf8_lossy(&read.stdout).into_owned();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(
        shown.contains(&format!("IP {BAD}.")) && shown.contains("> 10.77.0.2.8080: Flags [S]"),
        "{shown}"
    );

    let status = ordered(&gateway, &["status"]);
    assert!(status.contains("kernel rule denied: drop"), "{status}");
    let why = json(&gateway, &["why", BAD, "--json"]);
    let rule =
        why["rules"].as_array().and_then(|rules| rules.iter().find(|rule| rule["decides"] == true)).cloned();
    assert_eq!(rule.map(|rule| rule["list"].clone()), Some("deny".into()), "{why}");
    assert!(
        why["verdict"].as_str().is_some_and(|verdict| verdict.contains("dropped in the kernel")),
        "{why}"
    );
    assert!(gateway.metrics().get("portcullis_xdp_drop_samples_total", &[]) >= 1.0);
}

#[test]
fn a_ban_for_behaviour_ends_what_the_source_has_open_and_is_listed() {
    privileged!();
    let site = Site::new();
    let more = "enforcement: enforce, bans: {triggers: {malformed: 3/m}, steps: [1m]}";
    let gateway = Gateway::start(&setup(&site, more));
    let mut kept = site.connect(BAD).expect("a connection");
    assert_eq!(Request::get("/").keep().send_on(&mut kept).status, 200);
    for _ in 0..20 {
        let Ok(mut connection) = site.connect(BAD) else { break };
        let sent = connection.try_send(b"NO HTTP\r\n\r\n");
        if sent.is_err() || connection.try_response(false).is_err() {
            break;
        }
    }
    eventually("the ban", || {
        let bans = json(&gateway, &["bans", "--json"]);
        let ban = &bans["bans"][0];
        holds(ban["source"] == BAD && ban["by"] == "behaviour", format!("{bans}"))
    });
    kept.expect_closed();
    assert!(!site.admitted(BAD) && site.admitted(GOOD));
}

/// Knocks from the bad source until a SYN is not answered; when that one was sent. Each connection that is had is reset, or
/// ports would run out.
fn first_unanswered(site: &Site, knocks: &AtomicUsize) -> Instant {
    site.lab.in_client(|| {
        let source: SocketAddr = format!("{BAD}:0").parse().expect("an address");
        let gate: SocketAddr = GATE.parse().expect("an address");
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.bind(&source.into()).expect("binding");
            socket.set_linger(Some(Duration::ZERO)).expect("a reset at the end");
            let begun = Instant::now();
            if let Err(error) = socket.connect_timeout(&gate.into(), PATIENCE) {
                assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "dropped, not refused");
                return begun;
            }
            knocks.fetch_add(1, Ordering::Relaxed);
            std::thread::park_timeout(Duration::from_micros(200));
        }
    })
}

/// From an operator's order, and from the request that was one too many, to the first SYN that is dropped. Prints how long
/// it took, from end to end; not judged, as other tests share the machine.
#[test]
fn a_ban_reaches_the_card_by_either_way() {
    privileged!();
    const ROUNDS: usize = 7;
    let site = Site::new();
    let more = "enforcement: enforce, bans: {triggers: {malformed: 3/h}, steps: [10m]}";
    let gateway = Gateway::start(&setup(&site, more));
    let offend = |connection: &mut Connection| {
        let _ = connection.try_send(b"NO HTTP\r\n\r\n");
    };
    let timed = |what: &str, act: &mut dyn FnMut()| {
        let mut took: Vec<Duration> = Vec::new();
        for _ in 0..ROUNDS {
            let knocks = AtomicUsize::new(0);
            took.push(std::thread::scope(|scope| {
                let knocker = scope.spawn(|| first_unanswered(&site, &knocks));
                eventually("knocks that are answered", || {
                    holds(knocks.load(Ordering::Relaxed) >= 20, "too few yet")
                });
                let begun = Instant::now();
                act();
                knocker.join().expect("a SYN that is dropped").saturating_duration_since(begun)
            }));
            assert!(!site.admitted(BAD) && site.admitted(GOOD));
            ordered(&gateway, &["unban", BAD]);
            eventually("the end of the ban", || holds(site.status(BAD, "/") == Some(200), "still dropped"));
        }
        took.sort_unstable();
        println!(
            "{what} to the first SYN dropped: half within {:?}, all within {:?}",
            took[ROUNDS / 2],
            took[ROUNDS - 1]
        );
    };
    timed("from the start of `portcullis ban`", &mut || {
        ordered(&gateway, &["ban", BAD, "--for", "5m"]);
    });
    // Three may be; each that follows is one too many.
    for _ in 0..3 {
        offend(&mut site.connect(BAD).expect("a connection"));
    }
    timed("from the request that is one too many", &mut || {
        offend(&mut site.connect(BAD).expect("a connection"));
    });
    assert!(packets(&gateway, "drop_banned") >= 2.0 * ROUNDS as f64);
}

#[test]
fn a_successor_takes_the_kernel_part_over_and_nothing_passes_meanwhile() {
    privileged!();
    let site = Site::new();
    let mut gateway = Gateway::start(&setup(&site, "enforcement: enforce"));
    ordered(&gateway, &["ban", BAD, "--for", "10m", "--reason", "kept"]);
    assert!(!site.admitted(BAD));
    let dropped = packets(&gateway, "drop_banned");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let good = scope.spawn(|| {
            let mut served = 0;
            while !done.load(Ordering::Relaxed) {
                assert!(site.admitted(GOOD), "an honest client is refused during the upgrade");
                served += 1;
            }
            served
        });
        let bad = scope.spawn(|| {
            let mut tried = 0;
            while !done.load(Ordering::Relaxed) {
                assert!(!site.admitted(BAD), "a banned source gets in during the upgrade");
                tried += 1;
            }
            tried
        });
        let upgraded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gateway.upgrade()));
        done.store(true, Ordering::Relaxed);
        assert!(upgraded.is_ok(), "the upgrade failed");
        let (served, tried) = (good.join().expect("the good"), bad.join().expect("the bad"));
        assert!(served > 5 && tried > 0, "{served} served, {tried} tried");
    });
    assert!(packets(&gateway, "drop_banned") > dropped, "the counters go on");
    let bans = json(&gateway, &["bans", "--json"]);
    assert_eq!(bans["bans"][0]["reason"], "kept");
    let status = gateway.status();
    assert_eq!(status["kernel"]["enforcement"], "enforce");
}
