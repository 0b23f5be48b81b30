//! A new process takes over from the running one: no connection is refused or reset, whatever the load.

use std::net::{SocketAddr, TcpStream};

use portcullis_tests::client::load::{Load, Reuse};
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Counting, Echo, Gate, Held, Origin};
use portcullis_tests::ports::Reserved;

fn setup(origin: SocketAddr) -> Setup {
    Setup::proxy(origin, "")
        .timeouts("drain: 20s, drain_delay: 5s")
        .with("limits: {requests_per_connection: 1000000000}")
}

fn under_load(driver: &str) {
    let origin = Origin::start(Echo::default());
    let mut gateway = Gateway::start(&setup(origin.addr()).driver(driver));
    let fresh = Load::start(gateway.addr(), 6, Reuse::Never, &Request::get("/").bytes(), "x-target");
    let kept =
        Load::start(gateway.addr(), 3, Reuse::KeepAlive, &Request::get("/").keep().bytes(), "x-target");
    for _ in 0..3 {
        fresh.wait_for(100);
        kept.wait_for(100);
        let before = gateway.pid();
        gateway.upgrade();
        assert_ne!(gateway.pid(), before);
    }
    fresh.wait_for(100);
    kept.wait_for(100);
    let (fresh, kept) = (fresh.stop(), kept.stop());
    fresh.expect_no_failure();
    kept.expect_no_failure();
    assert_eq!(fresh.refused + kept.refused, 0, "a connection was refused");
    assert!(gateway.metrics().get("portcullis_requests_total", &[("class", "2xx")]) > 100.0);
    gateway.stop();
}

#[test]
fn no_connection_is_refused_or_reset_with_io_uring() {
    under_load("auto");
}

#[test]
fn no_connection_is_refused_or_reset_with_epoll() {
    under_load("epoll");
}

#[test]
fn connections_in_the_queue_and_exchanges_under_way_are_served() {
    let gate = Gate::shut();
    let held = Origin::start(Held { gate: gate.clone(), midway: false });
    let mut gateway = Gateway::start(&setup(held.addr()));
    let mut under_way = Connection::open(gateway.addr());
    under_way.send(Request::get("/").keep().bytes());
    held.wait_for(1);
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(gateway.addr()).expect("a connection")).collect();
    let opener = std::thread::spawn({
        let gate = gate.clone();
        move || {
            std::thread::park_timeout(std::time::Duration::from_millis(500));
            gate.open();
        }
    });
    gateway.upgrade();
    opener.join().expect("the opener");
    assert_eq!(under_way.response().status, 200, "what was under way came to its end");
    // Connected before and silent until after: the predecessor held them, and ended.
    drop(silent);
    assert_eq!(Request::get("/").send(gateway.addr()).status, 200);
}

#[test]
fn more_and_fewer_shards_take_the_same_sockets() {
    let origin = Origin::start(Counting::named("origin"));
    let base = || setup(origin.addr());
    let mut gateway = Gateway::start(&base().shards(3));
    for shards in [1, 4, 2] {
        let load = Load::start(gateway.addr(), 4, Reuse::Never, &Request::get("/").bytes(), "x-target");
        load.wait_for(20);
        gateway.write(&base().shards(shards));
        gateway.upgrade();
        load.wait_for(100);
        let tally = load.stop();
        tally.expect_no_failure();
        assert_eq!(tally.refused, 0);
        assert_eq!(gateway.status()["shards"].as_array().map(Vec::len), Some(shards));
    }
}

#[test]
fn a_successor_that_cannot_start_changes_nothing() {
    let origin = Origin::start(Counting::named("origin"));
    let gateway = Gateway::start(&setup(origin.addr()));
    let good = std::fs::read_to_string(gateway.config()).expect("the configuration");
    // A listener that cannot be had: found only when everything else is ready.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let broken = gateway.dir().join("broken.yaml");
    let more =
        format!("listeners:\n  - name: taken\n    address: {}\n", taken.local_addr().expect("an address"));
    std::fs::write(&broken, good.replacen("listeners:\n", &more, 1)).expect("writing");
    let output = gateway.cli(&["run", "--upgrade", "--config", broken.to_str().expect("a path")]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("cannot listen"), "{said}");
    assert_eq!(Request::get("/").send(gateway.addr()).status, 200);
    assert_eq!(gateway.status()["state"], "serving");
    let (text, ok) = gateway.order(&["status"]);
    assert!(ok && text.contains("serving"), "{text}");
    gateway.stop();
}

#[test]
fn the_admin_port_and_the_log_go_over_too() {
    let origin = Origin::start(Counting::named("origin"));
    // Given back before use: the admin port is bound exclusively.
    let port = Reserved::new().addr();
    let mut gateway = Gateway::start(&setup(origin.addr()).admin_address(port));
    let pid = || {
        let mut connection = Connection::open(port);
        let host = port.to_string();
        Request::get("/status").header("host", host).send_on(&mut connection).expect(200).json()["pid"]
            .clone()
    };
    assert_eq!(pid(), gateway.pid());
    gateway.upgrade();
    eventually("the successor on the port", || holds(pid() == gateway.pid(), "the predecessor answers"));
    assert_eq!(Request::get("/").send(gateway.addr()).status, 200);
    gateway.logged(|line| line["path"] == "/");
}

#[test]
fn without_a_predecessor_it_is_a_start_like_any_other() {
    let origin = Origin::start(Counting::named("origin"));
    let mut gateway = Gateway::start(&setup(origin.addr()).timeouts("drain_delay: 0s"));
    gateway.kill();
    let config = gateway.config();
    let child = std::process::Command::new(portcullis_tests::gateway::binary())
        .args(["run", "--upgrade", "--config"])
        .arg(&config)
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut child = child.expect("the binary starts");
    eventually("an answer", || {
        let answer = gateway.try_admin("GET", "/status/ready").map_err(|error| error.to_string())?;
        holds(answer.status == 200, format!("{}", answer.status))
    });
    assert_eq!(Request::get("/").send(gateway.addr()).status, 200);
    child.kill().expect("killing");
    child.wait().expect("its end");
}
