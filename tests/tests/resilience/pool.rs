//! Connections to targets: how many, who waits for one, and how long one serves.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::h2::{frame, settings};
use portcullis_tests::origin::{Echo, Gate, Held, Origin, Script, Wire};

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

/// Speaks HTTP/2 with prior knowledge: on its first connection it says nothing, on others it answers each request 200.
struct DeadThenAlive;

impl Script for DeadThenAlive {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        if wire.index() == 0 {
            return wire.drain();
        }
        wire.send(&settings(&[]))?;
        // HEADERS of streams 1, 3, ... that end them, with `:status: 200` from the static table.
        let mut stream = 1;
        while !wire.some()?.is_empty() {
            wire.send(&frame(1, 5, stream, &[0x88]))?;
            stream += 2;
        }
        Ok(())
    }
}

#[test]
fn a_shared_connection_that_is_silent_is_given_up() {
    let origin = Origin::start(DeadThenAlive);
    let service = "retries: 0\nhttp_version: '2'\nread_timeout: 1500";
    let gateway = Gateway::start(&setup(&[origin.addr()], NO_HEALTH, service));
    Request::get("/").send(gateway.addr()).expect(504);
    Request::get("/").send(gateway.addr()).expect(200);
    assert_eq!(origin.connections(), 2);
}

/// A listener whose queue is full, so that a connect hangs; and what fills it.
fn hanging() -> (SocketAddr, socket2::Socket, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into()).expect("a port");
    socket.listen(0).expect("listening");
    let addr = socket.local_addr().ok().and_then(|addr| addr.as_socket()).expect("an address");
    let fill = || TcpStream::connect_timeout(&addr, Duration::from_millis(100)).ok();
    let filling = (0..4).map_while(|_| fill()).collect();
    (addr, socket, filling)
}

#[test]
fn a_client_without_time_says_nothing_of_the_target() {
    let (addr, _socket, _filling) = hanging();
    for version in ["1.1", "2"] {
        let health = "healthchecks: {passive: {unhealthy: {timeouts: 1}, max_ejected_percent: 100}}";
        let service = format!(
            "retries: 0\nconnect_timeout: 60000\nhttp_version: '{version}'\ntimeouts: {{total: 300ms}}"
        );
        let gateway = Gateway::start(&setup(&[addr], health, &service));
        for _ in 0..3 {
            Request::get("/").send(gateway.addr()).expect(504);
        }
        assert_eq!(counted(&gateway, "total_timeout"), 3.0, "HTTP/{version}");
        let healthy = gateway.metrics().sum("portcullis_upstream_target_healthy", &[("upstream", "many")]);
        assert_eq!(healthy, 1.0, "HTTP/{version}");
    }
}

#[test]
fn a_handshake_that_hangs_is_a_connect_that_hangs() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = silent.local_addr().expect("bound");
    let service = "retries: 0\nprotocol: https\ntls_verify: false\nconnect_timeout: 300";
    let gateway = Gateway::start(&setup(&[addr], NO_HEALTH, service));
    Request::get("/").send(gateway.addr()).expect(504);
    gateway.logged(|line| line["reason"] == "connect_timeout");
}
