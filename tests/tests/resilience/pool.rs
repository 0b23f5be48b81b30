//! Connections to targets: how many, who waits for one, and how long one serves.

use std::net::SocketAddr;

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Echo, Gate, Held, Origin};

use super::{NO_HEALTH, counted, setup};

fn start(target: SocketAddr, limits: &str, timeouts: &str) -> Gateway {
    let setup = setup(&[target], NO_HEALTH, "retries: 0");
    Gateway::start(
        &setup.with(&format!("limits: {{{limits}}}")).timeouts(&format!("drain_delay: 0s{timeouts}")),
    )
}

fn ask(gateway: &Gateway) -> Connection {
    let mut connection = Connection::open(gateway.addr());
    connection.send(Request::get("/").keep().bytes());
    connection
}

#[test]
fn requests_wait_for_a_connection_and_are_served_by_it() {
    let gate = Gate::shut();
    let origin = Origin::start(Held { gate: gate.clone(), midway: false });
    let gateway = start(origin.addr(), "upstream_connections: 1", ", upstream_queue: 60s");
    let mut clients: Vec<_> = (0..5).map(|_| ask(&gateway)).collect();
    origin.wait_for(1);
    gate.open();
    for client in &mut clients {
        client.response().expect(200);
    }
    assert_eq!((origin.connections(), origin.requests()), (1, 5));
}

#[test]
fn the_queue_is_bounded() {
    let gate = Gate::shut();
    let origin = Origin::start(Held { gate: gate.clone(), midway: false });
    let gateway = start(origin.addr(), "upstream_connections: 1, upstream_queue: 2", ", upstream_queue: 60s");
    let mut clients: Vec<_> = (0..6).map(|_| ask(&gateway)).collect();
    // One is served, two wait, and of three that is not waited for.
    eventually("refusals", || {
        let refused = counted(&gateway, "queue_full");
        holds(refused as usize == 3, format!("{refused} refused"))
    });
    gate.open();
    let mut seen: Vec<u16> = clients.iter_mut().map(|client| client.response().status).collect();
    seen.sort_unstable();
    assert_eq!(seen, [200, 200, 200, 503, 503, 503]);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn the_wait_is_bounded() {
    let gate = Gate::shut();
    let origin = Origin::start(Held { gate: gate.clone(), midway: false });
    let gateway = start(origin.addr(), "upstream_connections: 1", ", upstream_queue: 200ms");
    let mut first = ask(&gateway);
    origin.wait_for(1);
    Request::get("/").send(gateway.addr()).expect(503);
    gateway.logged(|line| line["reason"] == "queue_timeout");
    gate.open();
    first.response().expect(200);
    // Whoever gave up holds nothing.
    Request::get("/").send(gateway.addr()).expect(200);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_connection_serves_so_many_requests() {
    let origin = Origin::start(Echo::default());
    let gateway = start(origin.addr(), "upstream_requests_per_connection: 2", "");
    let mut connection = Connection::open(gateway.addr());
    for _ in 0..8 {
        Request::get("/").keep().send_on(&mut connection).expect(200);
    }
    assert_eq!(origin.connections(), 4);
}
