//! Connections to targets: how many, who waits for one, and how long one serves.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
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

/// Answers each request on a connection of HTTP/2 with 200 and nothing else. `some` receives, `send` sends.
fn serve_http2(
    mut some: impl FnMut() -> io::Result<Vec<u8>>,
    mut send: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    send(&settings(&[]))?;
    // Behind the preface: frames of a length, a type, flags and a stream.
    let (mut received, mut at) = (Vec::new(), 24);
    loop {
        let more = some()?;
        if more.is_empty() {
            return Ok(());
        }
        received.extend_from_slice(&more);
        while let Some(&[a, b, c, kind, _, ref stream @ ..]) = received.get(at..at + 9) {
            let stream = u32::from_be_bytes(stream.try_into().expect("four octets"));
            at += 9 + u32::from_be_bytes([0, a, b, c]) as usize;
            if kind == 1 {
                // HEADERS that end the stream, with `:status: 200` from the static table.
                send(&frame(1, 5, stream, &[0x88]))?;
            }
        }
    }
}

/// Speaks HTTP/2 with prior knowledge: on its first connection it says nothing, on others it answers.
struct DeadThenAlive;

impl Script for DeadThenAlive {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        if wire.index() == 0 {
            return wire.drain();
        }
        let wire = std::cell::RefCell::new(wire);
        serve_http2(|| wire.borrow_mut().some(), |bytes| wire.borrow_mut().send(bytes))
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

#[test]
fn a_connect_that_several_wait_for_is_not_over_with_the_first() {
    let (addr, socket, filling) = hanging();
    let gateway = Gateway::start(
        &Setup::new(format!(
            "services:\n  - name: web\n    url: http://{addr}\n    http_version: '2'\n    retries: 0\n    \
             connect_timeout: 60000\n    read_timeout: 60000\n    routes:\n      \
             - {{name: brief, paths: [/brief], strip_path: false, timeouts: {{total: 300ms}}}}\n      \
             - {{name: all, paths: [/], strip_path: false}}\n"
        ))
        .shards(1),
    );
    let mut brief = Connection::open(gateway.addr());
    brief.send(Request::get("/brief").keep().bytes());
    let mut patient = ask(&gateway);
    brief.response().expect(504);
    gateway.logged(|line| line["reason"] == "total_timeout");
    // Now the queue is emptied, and the connect that hung goes through.
    let listener = TcpListener::from(socket);
    let filled = filling.len();
    drop(filling);
    (0..filled).for_each(|_| drop(listener.accept().expect("one that filled the queue")));
    let origin = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("the gateway");
        let receive = || {
            let mut bytes = vec![0; 4096];
            let len = io::Read::read(&mut &stream, &mut bytes)?;
            bytes.truncate(len);
            Ok(bytes)
        };
        serve_http2(receive, |bytes| io::Write::write_all(&mut &stream, bytes))
    });
    patient.response().expect(200);
    gateway.stop();
    // Reset or closed, as it comes.
    drop(origin.join().expect("the origin"));
}
