//! The same traffic over both I/O drivers. The other suites run on whatever `auto` gives.

use portcullis_tests::client::load::{Load, Reuse};
use portcullis_tests::client::programs::skip;
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Bulk, Echo, KeepAliveCloser, Origin};
use portcullis_tests::pattern;

/// Whether this kernel and this sandbox let a process make a ring.
fn ring_allowed() -> bool {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    disabled.trim() != "2"
}

/// Drivers that the two shards got, with the number of shards.
fn drivers(gateway: &Gateway) -> Vec<(&'static str, f64)> {
    eventually("both shards in the metrics", || {
        let metrics = gateway.metrics();
        let of = |driver| (driver, metrics.sum("portcullis_shard_driver_info", &[("driver", driver)]));
        let got: Vec<_> =
            ["io_uring", "epoll"].map(of).into_iter().filter(|(_, shards)| *shards > 0.0).collect();
        holds(got.iter().map(|(_, shards)| shards).sum::<f64>() == 2.0, format!("{got:?}")).map(|()| got)
    })
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
    assert_eq!(drivers(&gateway), [(shown, 2.0)]);

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
    let got = drivers(&gateway);
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(gateway.stderr().contains(got[0].0), "the choice is logged: {}", gateway.stderr());
    if ring_allowed() {
        assert_eq!(got, [("io_uring", 2.0)], "{}", gateway.stderr());
    }
}
