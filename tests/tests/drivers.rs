//! The same traffic over both I/O drivers. The other suites run on whatever `auto` gives.

use portcullis_tests::client::load::{Load, Reuse};
use portcullis_tests::client::programs::skip;
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Bulk, Echo, KeepAliveCloser, Origin};
use portcullis_tests::pattern;

/// Whether this kernel and this sandbox let a process make a ring.
fn ring_allowed() -> bool {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    disabled.trim() != "2"
}

fn smoke(driver: &str, shown: &str) {
    let (echo, bulk) = (Origin::start(Echo::default()), Origin::start(Bulk { len: 20 << 20, chunked: true }));
    let closer = Origin::start(KeepAliveCloser { after: 1 });
    let body = format!(
        "services:\n  - {{name: echo, url: 'http://{}', routes: [{{name: echo, paths: [/], strip_path: false}}]}}\n  \
         - {{name: bulk, url: 'http://{}', routes: [{{name: bulk, paths: [/bulk]}}]}}\n  \
         - {{name: closer, url: 'http://{}', routes: [{{name: closer, paths: [/closer]}}]}}\n",
        echo.addr(),
        bulk.addr(),
        closer.addr()
    );
    let setup = Setup::new(body).driver(driver);
    let gateway = Gateway::start(&setup);
    let metrics = gateway.metrics();
    assert_eq!(
        metrics.sum("portcullis_shard_driver_info", &[("driver", shown)]),
        2.0,
        "both shards use {shown}"
    );

    let mut connection = Connection::open(gateway.addr());
    let pipelined: Vec<u8> = (0..20).flat_map(|n| Request::get(&format!("/{n}")).keep().bytes()).collect();
    connection.send(&pipelined);
    for number in 0..20 {
        assert_eq!(connection.response().expect(200).echoed().target(), format!("/{number}"));
    }
    let told =
        Request::post("/up", pattern::whole(5 << 20)).keep().send_on(&mut connection).expect(200).json();
    assert_eq!((told["body_len"].as_u64(), &told["body_ok"]), (Some(5 << 20), &true.into()));
    let down = Request::get("/bulk").keep().send_on(&mut connection).expect(200);
    assert_eq!((down.body.len, down.body.off_pattern), (20 << 20, false));
    for _ in 0..20 {
        Request::get("/closer").keep().send_on(&mut connection).expect(200);
    }
    connection.send("BAD\r\n\r\n").response().expect(400);
    connection.expect_closed();

    let load = Load::start(gateway.addr(), 4, Reuse::KeepAlive, &Request::get("/").keep().bytes(), "");
    load.wait_for(200);
    gateway.reload(&setup.clone().with("# again"));
    load.wait_for(200);
    gateway.stop();
    load.stop().expect_no_failure();
}

#[test]
fn epoll() {
    smoke("epoll", "epoll");
}

#[test]
fn io_uring() {
    if ring_allowed() {
        smoke("io_uring", "io_uring");
    } else {
        skip("io_uring is disabled on this machine");
    }
}

#[test]
fn auto_takes_the_ring_where_it_may() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").driver("auto"));
    let metrics = gateway.metrics();
    let (ring, epoll) = (
        metrics.sum("portcullis_shard_driver_info", &[("driver", "io_uring")]),
        metrics.sum("portcullis_shard_driver_info", &[("driver", "epoll")]),
    );
    assert_eq!(ring + epoll, 2.0);
    assert!(gateway.stderr().contains(if ring > 0.0 { "io_uring" } else { "epoll" }), "the choice is logged");
    if ring_allowed() {
        assert_eq!(ring, 2.0, "{}", gateway.stderr());
    }
}
