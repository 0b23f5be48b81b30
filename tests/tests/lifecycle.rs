//! Start, reload, drain and end, under load where that is the point.

use std::io::Read;
use std::net::SocketAddr;
use std::process::Command;

use portcullis_tests::client::load::{Load, Reuse};
use portcullis_tests::client::{Connection, Request, Response};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup, binary};
use portcullis_tests::origin::{Echo, Gate, Held, Origin};

/// One route for everything. The target that the origin sees, and an echo tells, begins with `mark`.
fn marked(origin: SocketAddr, mark: &str) -> Setup {
    Setup::new(format!(
        "services:\n  - name: web\n    url: http://{origin}/{mark}\n    routes: [{{name: all, paths: [/]}}]\n"
    ))
    .timeouts("drain: 20s, drain_delay: 0s")
    // Some tests send more on one connection than the default allows.
    .with("limits: {requests_per_connection: 1000000000}")
}

fn small() -> Origin {
    Origin::start(Echo::default())
}

/// The configuration that was in force for a response.
fn mark(response: &Response) -> &str {
    response.header("x-target").trim_matches('/')
}

#[test]
fn reloads_under_load_fail_no_request() {
    let origin = small();
    let gateway = Gateway::start(&marked(origin.addr(), "a"));
    let request = Request::get("/").keep().bytes();
    let kept = Load::start(gateway.addr(), 4, Reuse::KeepAlive, &request, "x-target");
    let fresh = Load::start(gateway.addr(), 2, Reuse::Never, &Request::get("/").bytes(), "x-target");
    for round in 0..10 {
        kept.wait_for(100);
        fresh.wait_for(20);
        gateway.reload(&marked(origin.addr(), if round % 2 == 0 { "b" } else { "a" }));
    }
    kept.wait_for(100);
    let (kept, fresh) = (kept.stop(), fresh.stop());
    kept.expect_no_failure();
    fresh.expect_no_failure();
    assert_eq!((kept.connections, kept.refused + fresh.refused), (4, 0), "connections outlive reloads");
    for tally in [&kept, &fresh] {
        let marks: Vec<_> = tally.by_label.keys().map(|target| target.trim_matches('/')).collect();
        assert_eq!(marks, ["a", "b"], "every answer came whole from one configuration: {:?}", tally.by_label);
    }
}

#[test]
fn the_new_configuration_is_in_force_once_reload_says_so() {
    let origin = small();
    let gateway = Gateway::start(&marked(origin.addr(), "0"));
    let mut connection = Connection::open(gateway.addr());
    for round in 1..=10 {
        let wanted = round.to_string();
        gateway.reload(&marked(origin.addr(), &wanted));
        eventually("the new mark on an old connection", || {
            let response = Request::get("/").keep().send_on(&mut connection).expect(200);
            holds(mark(&response) == wanted, format!("{} instead of {wanted}", mark(&response)))
        });
    }
    assert_eq!(origin.connections(), 1, "the pool outlives reloads");
}

#[test]
fn a_request_under_way_keeps_its_configuration() {
    let gate = Gate::shut();
    let held = Origin::start(Held { gate: gate.clone(), midway: false });
    let gateway = Gateway::start(&marked(held.addr(), "old"));
    let mut connection = Connection::open(gateway.addr());
    connection.send(Request::get("/").keep().bytes());
    held.wait_for(1);
    let other = small();
    gateway.reload(&marked(other.addr(), "new"));
    assert_eq!(mark(&Request::get("/").send(gateway.addr())), "new");
    gate.open();
    assert_eq!(connection.response().expect(200).text(), "held-on\n");
    assert_eq!(held.last().head.word(1).trim_matches('/'), "old");
    assert_eq!(mark(&Request::get("/").keep().send_on(&mut connection).expect(200)), "new");
}

#[test]
fn a_bad_file_changes_nothing_and_is_explained() {
    let origin = small();
    let gateway = Gateway::start(&marked(origin.addr(), "good"));
    let before = gateway.generation();
    let good = std::fs::read_to_string(gateway.config()).expect("the configuration");
    for (bad, word) in [
        (good.replace("paths:", "pths:"), "paths"),
        (good.clone() + "plugins: [{name: no-such-plugin}]\n", "no-such-plugin"),
        ("services: [\n".to_owned(), "portcullis.yaml"),
    ] {
        std::fs::write(gateway.config(), bad).expect("writing");
        let failed = || gateway.metrics().get("portcullis_config_reloads_total", &[("result", "failed")]);
        let failures = failed();
        gateway.signal("HUP");
        eventually("a refused reload", || holds(failed() > failures, "not counted"));
        eventually("the reason in the log", || holds(gateway.stderr().contains(word), format!("no {word}")));
        assert_eq!(gateway.generation(), before);
        assert_eq!(mark(&Request::get("/").send(gateway.addr()).expect(200)), "good");
        assert_eq!(gateway.metrics().get("portcullis_config_last_reload_success", &[]), 0.0);
    }
    // The gateway is not stuck: a good file is taken again.
    gateway.reload(&marked(origin.addr(), "better"));
    assert_eq!(gateway.metrics().get("portcullis_config_last_reload_success", &[]), 1.0);
}

#[test]
fn the_reload_command_reports_success_and_errors() {
    let origin = small();
    let gateway = Gateway::start(&marked(origin.addr(), "a"));
    let socket = gateway.socket().display().to_string();
    gateway.write(&marked(origin.addr(), "b"));
    let output = gateway.cli(&["reload", "--admin", &socket]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(mark(&Request::get("/").send(gateway.addr()).expect(200)), "b");
    std::fs::write(gateway.config(), "servces: []\n").expect("writing");
    let output = gateway.cli(&["reload", "--admin", &socket]);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("services"), "the suggestion is shown: {text}");
}

#[test]
fn drain_under_load_fails_no_request_and_exits_0() {
    let origin = small();
    let gateway = Gateway::start(&marked(origin.addr(), "a"));
    let load = Load::start(gateway.addr(), 6, Reuse::KeepAlive, &Request::get("/").keep().bytes(), "");
    load.wait_for(200);
    gateway.stop();
    load.stop().expect_no_failure();
}

#[test]
fn a_connection_that_was_accepted_before_the_listeners_close_is_served() {
    let origin = small();
    let gateway = Gateway::start(&marked(origin.addr(), "a"));
    let load = Load::start(gateway.addr(), 6, Reuse::Never, &Request::get("/").bytes(), "");
    load.wait_for(200);
    gateway.stop();
    let tally = load.stop();
    tally.expect_no_failure();
    assert!(tally.refused > 0, "who comes later is refused and can go elsewhere");
}

#[test]
fn what_is_under_way_is_finished_before_the_end() {
    let gate = Gate::shut();
    let held = Origin::start(Held { gate: gate.clone(), midway: false });
    let gateway = Gateway::start(&marked(held.addr(), "a"));
    let mut idle = Connection::open(gateway.addr());
    let mut waiting = Connection::open(gateway.addr());
    waiting.send(Request::get("/").keep().bytes());
    held.wait_for(1);
    gateway.signal("TERM");
    eventually("readiness turning off", || {
        let ready = gateway.try_admin("GET", "/status/ready").map(|response| response.status);
        holds(ready.as_ref().is_ok_and(|status| *status == 503), format!("{ready:?}"))
    });
    eventually("a closed listener", || {
        holds(Connection::try_open(gateway.addr()).is_err(), "still accepting")
    });
    idle.expect_closed();
    gate.open();
    let response = waiting.response().expect(200);
    assert_eq!(response.text(), "held-on\n");
    waiting.expect_closed();
    let mut gateway = gateway;
    assert!(gateway.wait_end().success());
}

#[test]
fn what_does_not_finish_is_cut_when_the_time_is_over() {
    let held = Origin::start(Held { gate: Gate::shut(), midway: true });
    let setup = Setup::proxy(held.addr(), "").timeouts("drain: 500ms, drain_delay: 0s");
    let gateway = Gateway::start(&setup);
    let mut waiting = Connection::open(gateway.addr());
    waiting.send(Request::get("/").keep().bytes());
    assert_eq!(waiting.try_head().expect("the head").word(1), "200");
    gateway.stop();
    let mut rest = Vec::new();
    drop(waiting.stream().read_to_end(&mut rest));
    assert!(rest.len() < 8, "the body was never finished");
}

#[test]
fn connections_are_told_to_end_while_balancers_look_away() {
    let origin = small();
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").timeouts("drain_delay: 3s"));
    let mut kept = Connection::open(gateway.addr());
    let response = Request::get("/").keep().send_on(&mut kept).expect(200);
    assert!(!response.head.has_token("connection", "close"));
    gateway.signal("TERM");
    eventually("not ready", || {
        let status = gateway.admin("GET", "/status/ready").status;
        holds(status == 503, format!("{status}"))
    });
    let response = Request::get("/").keep().send_on(&mut kept).expect(200);
    assert!(response.head.has_token("connection", "close"), "{:?}", response.head.fields);
    kept.expect_closed();
    // Who comes still is served, and sent away after.
    let mut late = Connection::open(gateway.addr());
    let response = Request::get("/").keep().send_on(&mut late).expect(200);
    assert!(response.head.has_token("connection", "close"), "{:?}", response.head.fields);
    let mut gateway = gateway;
    assert!(gateway.wait_end().success());
}

#[test]
fn interrupt_drains_too() {
    let origin = small();
    let mut gateway = Gateway::start(&marked(origin.addr(), "a"));
    gateway.signal("INT");
    assert!(gateway.wait_end().success(), "{}", gateway.stderr());
}

#[test]
fn listeners_come_and_go_with_a_reload() {
    let origin = small();
    let plain = marked(origin.addr(), "a");
    let gateway = Gateway::start(&plain);
    let extra = portcullis_tests::ports::Reserved::new();
    let text = std::fs::read_to_string(gateway.config()).expect("the configuration");
    let more =
        text.replacen("shards:", &format!("  - name: extra\n    address: {}\nshards:", extra.addr()), 1);
    std::fs::write(gateway.config(), more).expect("writing");
    gateway.signal("HUP");
    eventually("the new listener", || {
        let opened = Connection::try_open(extra.addr());
        holds(opened.is_ok(), format!("{opened:?}; {}", gateway.stderr()))
    });
    Request::get("/").send(extra.addr()).expect(200);
    gateway.reload(&plain);
    eventually("the end of the listener", || {
        holds(Connection::try_open(extra.addr()).is_err(), "still accepting")
    });
    Request::get("/").send(gateway.addr()).expect(200);
}

#[test]
fn a_killed_gateway_starts_again_in_its_place() {
    let origin = small();
    let mut gateway = Gateway::start(&marked(origin.addr(), "a"));
    Request::get("/").send(gateway.addr()).expect(200);
    gateway.restart();
    Request::get("/").send(gateway.addr()).expect(200);
}

#[test]
fn a_taken_port_is_an_error_at_the_start() {
    let origin = small();
    // Without SO_REUSEPORT on it, nobody can share this port.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let gateway = Gateway::start(&marked(origin.addr(), "a"));
    let text = std::fs::read_to_string(gateway.config()).expect("the configuration");
    let dir = tempfile::TempDir::new().expect("a folder");
    let file = dir.path().join("taken.yaml");
    let text = text
        .replace(&gateway.addr().to_string(), &taken.local_addr().expect("an address").to_string())
        .replace(&gateway.socket().display().to_string(), &dir.path().join("a.sock").display().to_string());
    std::fs::write(&file, text).expect("writing");
    let output =
        Command::new(binary()).arg("run").arg("--config").arg(&file).output().expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{stderr}");
    assert!(stderr.contains(&taken.local_addr().expect("an address").port().to_string()), "{stderr}");
}

#[test]
fn a_bad_file_is_an_error_at_the_start() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let file = dir.path().join("bad.yaml");
    std::fs::write(&file, "services:\n  - name: x\n    url: nonsense\n").expect("writing");
    let output =
        Command::new(binary()).arg("run").arg("--config").arg(&file).output().expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("bad.yaml:3"), "{stderr}");
    let gone =
        Command::new(binary()).args(["run", "--config", "/nonexistent/file"]).output().expect("it starts");
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("/nonexistent/file"));
}

#[test]
fn an_empty_connection_does_not_delay_the_end() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&marked(origin.addr(), "a"));
    let idle: Vec<_> = (0..50).map(|_| Connection::open(gateway.addr())).collect();
    let mut used = Connection::open(gateway.addr());
    Request::get("/").keep().send_on(&mut used).expect(200);
    gateway.stop();
    drop(idle);
}
