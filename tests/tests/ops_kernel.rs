//! What an operator orders and asks where the kernel part acts: bans at the card, samples of what it dropped, and a
//! successor that takes it over.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup, binary};
use portcullis_tests::netns::{Lab, VETH};
use portcullis_tests::origin::{Counting, Origin};
use portcullis_tests::privileged;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

const GATE: &str = "10.77.0.2:8080";
const BAD: &str = "10.77.0.1";
const GOOD: &str = "10.77.0.9";
/// A SYN that is not answered by then was dropped; on a veth an answer takes microseconds.
const PATIENCE: Duration = Duration::from_millis(300);

/// A lab with a gateway's surroundings, and a folder for pins that goes with it.
struct Site {
    lab: Lab,
    origin: Option<Origin>,
    pins: PathBuf,
}

impl Site {
    fn new() -> Site {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let lab = Lab::new().expect("two namespaces");
        lab.client_ip(&["addr", "add", &format!("{GOOD}/16"), "dev", VETH]).expect("a second address");
        let origin = lab.in_server(|| Origin::start(Counting::named("origin")));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!("/sys/fs/bpf/portcullis-ops-{}-{number}", std::process::id()));
        Site { lab, origin: Some(origin), pins }
    }

    fn setup(&self, more: &str) -> Setup {
        let origin = self.origin.as_ref().expect("an origin").addr();
        Setup::new(format!(
            "services:\n  - name: web\n    url: http://{origin}\n    routes:\n      - {{name: all, paths: [/]}}\n\
             xdp: {{mode: auto, interfaces: [{VETH}], pin_path: {pins}, table_entries: 1024, {more}}}\n",
            pins = self.pins.display(),
        ))
        .inside(self.lab.server_namespace(), GATE.parse().expect("an address"))
    }

    fn connect(&self, from: &str) -> io::Result<Connection> {
        self.lab.in_client(|| {
            let source: SocketAddr = format!("{from}:0").parse().expect("an address");
            let target: SocketAddr = GATE.parse().expect("an address");
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&source.into())?;
            socket.connect_timeout(&target.into(), PATIENCE)?;
            Connection::over(TcpStream::from(socket))
        })
    }

    /// Whether a request on a new connection from `from` is answered, however it is refused if not.
    fn served(&self, from: &str) -> bool {
        let Ok(mut connection) = self.connect(from) else { return false };
        let sent = connection.try_send(&Request::get("/").bytes());
        sent.is_ok() && connection.try_response(false).is_ok_and(|response| response.status == 200)
    }

    /// Whether a new connection from `from` is answered; false: its SYN was dropped.
    #[track_caller]
    fn admitted(&self, from: &str) -> bool {
        match self.connect(from) {
            Ok(mut connection) => Request::get("/").send_on(&mut connection).status == 200,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::TimedOut, "dropped, not refused");
                false
            }
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let detached = Command::new(binary()).args(["xdp", "detach", "--pins"]).arg(&self.pins).output();
        if !detached.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("detaching: {detached:?}");
        }
        drop(std::fs::remove_dir_all(&self.pins));
        // The origin stops by a connection to itself, which has to come from its own namespace.
        let origin = self.origin.take();
        self.lab.in_server(|| drop(origin));
    }
}

fn packets(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metrics().get("portcullis_xdp_packets_total", &[("reason", reason)])
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
    let gateway = Gateway::start(&site.setup("enforcement: shadow"));
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
    eventually("a prefix refused by the proxy", || holds(!site.served(BAD), "served"));
    ordered(&gateway, &["unban", "10.77.0.0/30"]);

    // With the lists in force a prefix is dropped as well. It reaches the kernel's lists and the shards a moment after the
    // answer.
    gateway.reload(&site.setup("enforcement: enforce"));
    let dropped = packets(&gateway, "drop_banned");
    ordered(&gateway, &["ban", "10.77.0.0/30", "--for", "5m"]);
    eventually("a prefix dropped", || {
        holds(!site.served(BAD) && packets(&gateway, "drop_banned") > dropped, "not in the kernel")
    });
    assert!(site.admitted(GOOD));
    let why = json(&gateway, &["why", BAD, "--json"]);
    assert!(
        why["rules"].as_array().is_some_and(|rules| rules.iter().any(|rule| rule["list"] == "ban")),
        "{why}"
    );
    ordered(&gateway, &["unban", "10.77.0.0/30"]);
    eventually("the end of it", || holds(site.served(BAD), "still banned"));
}

#[test]
fn dropped_packets_are_shown_and_captured() {
    privileged!();
    let site = Site::new();
    let gateway =
        Gateway::start(&site.setup(&format!("enforcement: enforce, samples: 1000/s, deny: [{BAD}]")));
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
    let gateway = Gateway::start(&site.setup(more));
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

#[test]
fn a_successor_takes_the_kernel_part_over_and_nothing_passes_meanwhile() {
    privileged!();
    let site = Site::new();
    let mut gateway = Gateway::start(&site.setup("enforcement: enforce"));
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
