//! Active health checks: probes that take targets out of service and bring them back, without a request's help.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis_tests::client::Request;
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Echo, Origin, Script, Wire};
use portcullis_tests::ports::Reserved;

/// Says how it is under `/health`, and serves everything else whatever it said.
struct Patient {
    name: &'static str,
    well: Arc<AtomicBool>,
    /// Answers no probe while not well, instead of 503.
    silent: bool,
}

impl Script for Patient {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while let Some(received) = wire.request()? {
            let well = self.well.load(Ordering::SeqCst);
            match received.head.word(1) {
                "/health" if !well && self.silent => wire.drain()?,
                "/health" if !well => wire.answer("503 Service Unavailable", "", b"ill")?,
                "/health" => wire.answer("200 OK", "", b"well")?,
                _ => wire.answer("200 OK", "", self.name.as_bytes())?,
            }
        }
        Ok(())
    }
}

fn patient(name: &'static str, silent: bool) -> (Origin, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    (Origin::start(Patient { name, well: well.clone(), silent }), well)
}

fn setup(targets: &[SocketAddr], checks: &str) -> Setup {
    let list: String = targets.iter().map(|target| format!("      - target: '{target}'\n")).collect();
    Setup::new(format!(
        "upstreams:\n  - name: many\n    targets:\n{list}    healthchecks:\n{checks}services:\n  \
         - {{name: web, host: many, retries: 0, routes: [{{name: all, paths: [/], strip_path: false}}]}}\n"
    ))
}

/// Probes ten times a second, one verdict is enough.
const PROBES: &str = "      active:\n        type: http\n        http_path: /health\n        timeout: 300ms\n        \
     headers: {X-Probe: [yes-it-is], Host: [health.test]}\n        \
     healthy: {interval: 0.1, successes: 1}\n        \
     unhealthy: {interval: 0.1, http_failures: 1, tcp_failures: 1, timeouts: 1}\n";

/// Who answers `count` requests.
fn answers(gateway: &Gateway, count: usize) -> Vec<String> {
    (0..count).map(|_| Request::get("/x").send(gateway.addr()).expect(200).text()).collect()
}

fn only(gateway: &Gateway, name: &str) -> Result<(), String> {
    let answers = answers(gateway, 8);
    holds(answers.iter().all(|answer| answer == name), format!("{answers:?}"))
}

fn both(gateway: &Gateway) -> Result<(), String> {
    let answers = answers(gateway, 8);
    holds(["a", "b"].iter().all(|name| answers.iter().any(|answer| answer == name)), format!("{answers:?}"))
}

#[test]
fn a_failing_status_takes_a_target_out_and_a_good_one_brings_it_back() {
    let ((a, _), (b, b_well)) = (patient("a", false), patient("b", false));
    let gateway = Gateway::start(&setup(&[a.addr(), b.addr()], PROBES));
    eventually("both serve", || both(&gateway));
    b_well.store(false, Ordering::SeqCst);
    eventually("b is out", || only(&gateway, "a"));
    b_well.store(true, Ordering::SeqCst);
    eventually("b is back", || both(&gateway));
    let seen = b.seen();
    let probe = seen.iter().find(|received| received.head.word(1) == "/health").expect("a probe");
    assert_eq!(probe.head.word(0), "GET");
    assert_eq!(probe.head.get("x-probe"), Some("yes-it-is"));
    assert_eq!(probe.head.get("host"), Some("health.test"));
    gateway.stop();
}

#[test]
fn a_probe_without_an_answer_counts_as_a_timeout() {
    let ((a, _), (b, b_well)) = (patient("a", false), patient("b", true));
    let gateway = Gateway::start(&setup(&[a.addr(), b.addr()], PROBES));
    eventually("both serve", || both(&gateway));
    b_well.store(false, Ordering::SeqCst);
    eventually("b is out", || only(&gateway, "a"));
    gateway.stop();
}

#[test]
fn a_tcp_probe_needs_a_connection_only() {
    let (a, _) = patient("a", false);
    let reserved = Reserved::new();
    let checks = PROBES.replace("type: http", "type: tcp");
    let gateway = Gateway::start(&setup(&[a.addr(), reserved.addr()], &checks));
    // The dead one is found without a request that fails: wait for it, then none may.
    eventually("the dead target is out", || {
        let all = (0..8).all(|_| Request::get("/x").send(gateway.addr()).status == 200);
        holds(all, "a request failed")
    });
    assert_eq!(answers(&gateway, 20), vec!["a"; 20]);
    let back = Origin::start_at(reserved.addr(), Echo { name: "b" });
    eventually("it is back", || {
        let _ = answers(&gateway, 8);
        holds(back.requests() > 0, "nothing came")
    });
    gateway.stop();
}

#[test]
fn when_all_are_down_the_answer_is_503_and_probes_end_with_the_section() {
    let (a, well) = patient("a", false);
    let with = setup(&[a.addr()], PROBES);
    let gateway = Gateway::start(&with);
    well.store(false, Ordering::SeqCst);
    eventually("the only target is out", || {
        holds(Request::get("/x").send(gateway.addr()).status == 503, "served")
    });
    // Without probes what they said last does not count, and nobody asks any more.
    gateway.reload(&setup(&[a.addr()], "      threshold: 0\n"));
    eventually("the target serves again", || {
        holds(Request::get("/x").send(gateway.addr()).status == 200, "refused")
    });
    let probes = || a.seen().iter().filter(|received| received.head.word(1) == "/health").count();
    std::thread::sleep(Duration::from_millis(300));
    let before = probes();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(probes(), before);
    gateway.stop();
}
