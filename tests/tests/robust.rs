//! What must not happen whatever is sent: a panic, a hang, a leak, a request that nobody made.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Echo, Moment, Origin, Resetting};
use portcullis_tests::ports::Reserved;

/// A reproducible stream of numbers (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }
}

const SEEDS: [&[u8]; 6] = [
    b"GET /chaos?a=b HTTP/1.1\r\nHost: test\r\nAccept: */*\r\n\r\n",
    b"POST /chaos HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /chaos HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"HEAD http://test:80/chaos HTTP/1.1\r\nHost: test:80\r\nConnection: close, x\r\n\r\n",
    b"PUT /chaos/%41/../b HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
    b"GET /chaos HTTP/1.1\r\nHost: [::1]\r\nX-Forwarded-For: 1.2.3.4, [::1]:80\r\nTE: trailers\r\n\r\n",
];

/// Pieces that mean something to a parser, so that mutations get past the first line.
const PIECES: [&[u8]; 12] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b": ",
    b" ",
    b"Content-Length: 18446744073709551615\r\n",
    b"\xff\xfe",
    b"%00",
    b"0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
];

fn mutated(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = SEEDS[dice.roll(SEEDS.len())].to_vec();
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(bytes.len());
        match dice.roll(4) {
            0 => bytes[at] = dice.roll(256) as u8,
            1 => drop(bytes.remove(at)),
            2 => drop(bytes.splice(at..at, PIECES[dice.roll(PIECES.len())].iter().copied())),
            _ => bytes.truncate(at.max(1)),
        }
        if bytes.is_empty() {
            bytes.push(b'G');
        }
    }
    bytes
}

#[test]
fn mutated_requests_never_panic_it_nor_pass_malformed() {
    let origin = Origin::start(Echo::default());
    let gateway =
        Gateway::start(&Setup::proxy(origin.addr(), "").timeouts("drain_delay: 0s, request_head: 2s"));
    let mut dice = Dice(0x5eed_0001);
    for _ in 0..3000 {
        let bytes = mutated(&mut dice);
        let mut connection = Connection::open(gateway.addr());
        drop(connection.try_send(&bytes));
        // Half-closing tells the gateway that the rest never comes, so nothing waits for a time limit.
        connection.finish_sending();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match connection.try_response(bytes.starts_with(b"HEAD")) {
            Ok(response) => {
                assert!(matches!(response.status, 200 | 400..=505), "{text:?}: {}", response.head.start)
            }
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no answer to {text:?}"),
        }
    }
    Request::get("/after").send(gateway.addr()).expect(200);
    for received in origin.seen() {
        let head = &received.head;
        let raw = String::from_utf8_lossy(&head.raw).into_owned();
        assert_eq!(head.start.split(' ').count(), 3, "{raw:?}");
        assert!(!head.raw.contains(&0) && !raw.replace("\r\n", "").contains(['\r', '\n']), "{raw:?}");
        assert_eq!(head.all("host").len(), 1, "{raw:?}");
        assert!(head.all("content-length").len() + head.all("transfer-encoding").len() <= 1, "{raw:?}");
    }
    let stderr = gateway.stop();
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn descriptors(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("a living gateway").count()
}

#[test]
fn no_descriptor_is_left_behind() {
    let (origin, reset) =
        (Origin::start(Echo::default()), Origin::start(Resetting { moment: Moment::Asked }));
    let down = Reserved::new();
    // A full queue makes connects hang until they are given up.
    let full = TcpListener::bind("127.0.0.1:0").expect("a port");
    let hanging = hanging(&full);
    let body = format!(
        "services:\n  - {{name: good, url: 'http://{}', routes: [{{name: good, paths: [/]}}]}}\n  \
         - {{name: reset, url: 'http://{}', routes: [{{name: reset, paths: [/reset]}}]}}\n  \
         - {{name: down, url: 'http://{}', routes: [{{name: down, paths: [/down]}}]}}\n  \
         - {{name: hang, url: 'http://{}', connect_timeout: 100, retries: 0, routes: [{{name: hang, paths: [/hang]}}]}}\n",
        origin.addr(),
        reset.addr(),
        down.addr(),
        hanging.0,
    );
    let gateway = Gateway::start(&Setup::new(body).timeouts("drain_delay: 0s, upstream_keep_alive: 500ms"));
    let round = || {
        for _ in 0..40 {
            Request::get("/").send(gateway.addr()).expect(200);
            Request::get("/reset").send(gateway.addr()).expect(502);
            Request::get("/down").send(gateway.addr()).expect(502);
            drop(Connection::open(gateway.addr()));
            Connection::open(gateway.addr()).reset();
            let mut half = Connection::open(gateway.addr());
            half.send("GET / HTTP/1.1\r\nHost: x\r\n");
            half.reset();
        }
        for _ in 0..5 {
            Request::get("/hang").send(gateway.addr()).expect(504);
        }
    };
    let rest = || {
        let metrics = gateway.metrics();
        let down = metrics.sum("portcullis_downstream_connections_active", &[]);
        let idle = metrics.get("portcullis_upstream_connections", &[("state", "idle")]);
        holds(down == 0.0 && idle == 0.0, format!("{down} clients, {idle} idle"))
    };
    round();
    eventually("rest after the first round", rest);
    let before = descriptors(&gateway);
    (0..3).for_each(|_| round());
    eventually("rest after three more", rest);
    eventually("as many descriptors as before", || {
        let now = descriptors(&gateway);
        holds(now <= before, format!("{now} instead of {before}"))
    });
}

/// An address whose connects hang, and what keeps it so.
fn hanging(listener: &TcpListener) -> (SocketAddr, Vec<std::net::TcpStream>) {
    // `listen` again with the shortest queue; it holds one or two connections.
    socket2::SockRef::from(listener).listen(0).expect("listening");
    let addr = listener.local_addr().expect("an address");
    let wait = Duration::from_millis(100);
    let filling = (0..6).map_while(|_| std::net::TcpStream::connect_timeout(&addr, wait).ok()).collect();
    (addr, filling)
}

#[test]
fn idle_connections_are_small() {
    const IDLE: usize = 400;
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), ""));
    let open = || {
        let mut connection = Connection::open(gateway.addr());
        Request::post("/", "a body").keep().send_on(&mut connection).expect(200);
        connection
    };
    let _warm: Vec<_> = (0..100).map(|_| open()).collect();
    let before = gateway.resident();
    let _idle: Vec<_> = (0..IDLE).map(|_| open()).collect();
    let each = gateway.resident().saturating_sub(before) / IDLE as u64;
    // The bound of the project is 14 KiB; the rest is room for the allocator.
    assert!(each <= 20 * 1024, "{each} bytes for each idle connection");
}

#[test]
fn a_source_has_no_more_connections_than_it_may() {
    let origin = Origin::start(Echo::default());
    let setup = Setup::proxy(origin.addr(), "").shards(2).with("limits: {connections_per_source: 3}");
    let gateway = Gateway::start(&setup);
    let mut held: Vec<_> = (0..3).map(|_| Connection::open(gateway.addr())).collect();
    for connection in &mut held {
        Request::get("/held").keep().send_on(connection).expect(200);
    }
    for _ in 0..5 {
        let mut refused = Connection::open(gateway.addr());
        refused.expect_closed();
    }
    let refusals = || gateway.metrics().get("portcullis_refusals_total", &[("reason", "connection_limit")]);
    eventually("the refusals to be counted", || holds(refusals() == 5.0, refusals().to_string()));
    drop(held.pop());
    eventually("the place to be free", || {
        let mut again = Connection::open(gateway.addr());
        let sent = again.try_send(&Request::get("/again").bytes());
        holds(sent.is_ok() && again.try_response(false).is_ok(), "still taken")
    });
    gateway.stop();
}

#[test]
fn many_connections_at_once() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), ""));
    let mut connections: Vec<_> = (0..300).map(|_| Connection::open(gateway.addr())).collect();
    for (number, connection) in connections.iter_mut().enumerate() {
        connection.send(Request::get(&format!("/{number}")).keep().bytes());
    }
    for (number, connection) in connections.iter_mut().enumerate() {
        assert_eq!(connection.response().expect(200).echoed().target(), format!("/{number}"));
    }
}

#[test]
fn ipv6_in_and_out() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return portcullis_tests::client::programs::skip("this machine has no IPv6 loopback");
    };
    let free = listener.local_addr().expect("an address");
    drop(listener);
    let origin = Origin::start_at(free, Echo::default());
    let entry = TcpListener::bind("[::1]:0").and_then(|probe| probe.local_addr()).expect("a port");
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").listener("six", entry));
    let echoed = Request::get("/six").header("Host", entry.to_string()).send(entry).expect(200).echoed();
    assert_eq!(echoed.all("x-forwarded-for"), ["::1"]);
    assert_eq!(echoed.all("x-real-ip"), ["::1"]);
    assert_eq!(echoed.all("host"), [origin.addr().to_string()]);
    let line = gateway.logged(|line| line["path"] == "/six");
    assert_eq!(
        (&line["client"], &line["upstream"]),
        (&"::1".into(), &origin.addr().to_string().into()),
        "{line}"
    );
}
