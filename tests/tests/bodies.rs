//! Bodies through the gateway: both framings, both directions, whole, and in bounded memory.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Bulk, Chunked, Echo, Gate, Held, Origin, Script, Wire};
use portcullis_tests::pattern;

/// 50 MiB, far above anything that buffers on the way may hold.
const BIG: u64 = 50 << 20;
/// What the gateway may grow by while bodies pass: socket buffers are the kernel's and not counted.
const GROWTH: u64 = 24 << 20;

fn gateway(origin: SocketAddr) -> Gateway {
    let gateway = Gateway::start(&Setup::proxy(origin, "").with("limits:\n  body: 64MiB"));
    // The first exchange fills pools and arenas, which are not the growth that is looked for.
    Request::get("/warm").send(gateway.addr());
    gateway
}

fn upload(connection: &mut Connection, chunked: bool) {
    let head =
        if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {BIG}") };
    connection.send(format!("POST /up HTTP/1.1\r\nHost: test\r\n{head}\r\n\r\n"));
    let mut sent = 0;
    while sent < BIG {
        let part = pattern::piece(sent, usize::try_from(BIG - sent).unwrap_or(pattern::PIECE));
        if chunked {
            connection.send(format!("{:x}\r\n", part.len())).send(part).send("\r\n");
        } else {
            connection.send(part);
        }
        sent += part.len() as u64;
    }
    if chunked {
        connection.send("0\r\n\r\n");
    }
}

#[test]
fn big_uploads_stream_through() {
    let origin = Origin::start(Echo::default());
    let gateway = gateway(origin.addr());
    let before = gateway.resident();
    for chunked in [false, true] {
        let mut connection = Connection::open(gateway.addr());
        upload(&mut connection, chunked);
        let told = connection.response().expect(200).json();
        assert_eq!(
            (told["body_len"].as_u64(), &told["body_ok"]),
            (Some(BIG), &true.into()),
            "chunked {chunked}"
        );
        assert_eq!(told["chunks"].as_u64() > Some(0), chunked, "framing is kept");
        connection.expect_kept();
    }
    let growth = gateway.resident().saturating_sub(before);
    assert!(growth < GROWTH, "grew by {} MiB", growth >> 20);
}

#[test]
fn big_downloads_stream_through() {
    for chunked in [false, true] {
        let origin = Origin::start(Bulk { len: BIG, chunked });
        let gateway = Gateway::start(&Setup::proxy(origin.addr(), ""));
        let before = gateway.resident();
        let mut connection = Connection::open(gateway.addr());
        for _ in 0..2 {
            let response = Request::get("/down").keep().send_on(&mut connection).expect(200);
            assert_eq!((response.body.len, response.body.off_pattern), (BIG, false), "chunked {chunked}");
            assert_eq!(response.has("content-length"), !chunked);
        }
        let growth = gateway.resident().saturating_sub(before);
        assert!(growth < GROWTH, "grew by {} MiB", growth >> 20);
    }
}

#[test]
fn a_client_that_does_not_read_holds_the_origin_back() {
    let origin = Origin::start(Bulk { len: BIG, chunked: false });
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), ""));
    let before = gateway.resident();
    let mut stuck: Vec<_> = (0..8).map(|_| Connection::open(gateway.addr())).collect();
    for connection in &mut stuck {
        connection.send(Request::get("/down").bytes());
        connection.try_head().expect("the head comes, the body is not read");
    }
    origin.wait_for(8);
    // Another client is served meanwhile, so the loop has had the turns to buffer all it would.
    let response = Request::get("/other").send(gateway.addr()).expect(200);
    assert_eq!(response.body.len, BIG);
    let growth = gateway.resident().saturating_sub(before);
    assert!(growth < GROWTH, "8 unread bodies of 50 MiB grew it by {} MiB", growth >> 20);
}

#[test]
fn an_origin_that_does_not_read_holds_the_client_back() {
    // `Held` reads nothing before its request is whole, so use an origin that never reads.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let gateway = gateway_on(listener.local_addr().expect("an address"));
    let before = gateway.resident();
    let mut connection = Connection::open(gateway.addr());
    connection.send(format!("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: {BIG}\r\n\r\n"));
    let (mut upstream, _) = listener.accept().expect("the gateway connects");
    connection.stream().set_write_timeout(Some(Duration::from_millis(300))).expect("a time limit");
    let mut sent = 0;
    while sent < BIG {
        let part = pattern::piece(sent, pattern::PIECE);
        match connection.stream().write(part) {
            Ok(n) => sent += n as u64,
            Err(_) => break,
        }
    }
    assert!(sent < BIG, "all of it was taken though nobody reads");
    let growth = gateway.resident().saturating_sub(before);
    assert!(growth < GROWTH, "grew by {} MiB", growth >> 20);

    // Once the origin reads, the rest flows.
    let reader = std::thread::spawn(move || {
        let mut received = 0;
        let mut piece = vec![0; pattern::PIECE];
        while let Ok(n) = upstream.read(&mut piece) {
            received += n as u64;
            if n == 0 || received > sent {
                break;
            }
        }
        received
    });
    connection.stream().set_write_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    while sent < BIG {
        let part = pattern::piece(sent, usize::try_from(BIG - sent).unwrap_or(pattern::PIECE));
        if connection.try_send(part).is_err() {
            break;
        }
        sent += part.len() as u64;
    }
    assert!(reader.join().expect("the reader") > 0);
}

fn gateway_on(origin: SocketAddr) -> Gateway {
    Gateway::start(&Setup::proxy(origin, "").with("limits:\n  body: 64MiB"))
}

#[test]
fn the_first_part_of_a_response_does_not_wait_for_the_last() {
    let gate = Gate::shut();
    let origin = Origin::start(Held { gate: gate.clone(), midway: true });
    let gateway = gateway_on(origin.addr());
    let mut connection = Connection::open(gateway.addr());
    connection.send(Request::get("/").keep().bytes());
    assert_eq!(connection.try_head().expect("a head").word(1), "200");
    let mut half = [0; 4];
    connection.stream().set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
    let early = connection.pending();
    if early < 4 {
        connection.stream().read_exact(&mut half[early..]).expect("the half that was sent");
    }
    gate.open();
}

#[test]
fn odd_chunk_sizes_arrive_whole() {
    let origin = Origin::start(Echo::default());
    let gateway = gateway(origin.addr());
    let mut connection = Connection::open(gateway.addr());
    connection.send("POST /odd HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut sent = 0;
    for size in [1, 2, 15, 16, 17, 255, 4095, 4096, 4097, 16_383, 16_384, 16_385, 65_535] {
        connection.send(format!("{size:X};ext=\"a\"\r\n")).send(pattern::piece(sent, size)).send("\r\n");
        sent += size as u64;
    }
    let told = connection.send("0\r\n\r\n").response().expect(200).json();
    assert_eq!((told["body_len"].as_u64(), &told["body_ok"]), (Some(sent), &true.into()));
}

#[test]
fn chunks_may_be_cut_anywhere() {
    let origin = Origin::start(Echo::default());
    let gateway = gateway(origin.addr());
    let text = "POST /cut HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n\
                5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n";
    for at in 1..text.len() {
        let mut connection = Connection::open(gateway.addr());
        let (first, second) = text.split_at(at);
        connection.send(first).send(second);
        assert_eq!(connection.response().expect(200).json()["body"], "hello world", "cut at {at}");
    }
}

#[test]
fn too_long_a_body_is_refused_by_its_length_and_by_its_bytes() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").with("limits:\n  body: 1000"));
    Request::post("/", vec![b'x'; 1000]).send(gateway.addr()).expect(200);
    let mut connection = Connection::open(gateway.addr());
    connection
        .send("POST /long HTTP/1.1\r\nHost: test\r\nContent-Length: 1001\r\n\r\n")
        .response()
        .expect(413);
    connection.expect_closed();
    let mut connection = Connection::open(gateway.addr());
    let chunk = "x".repeat(600);
    connection.send("POST /long HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.send(format!("258\r\n{chunk}\r\n258\r\n{chunk}\r\n0\r\n\r\n")).response().expect(413);
    connection.expect_closed();
    assert!(origin.seen().iter().all(|received| received.head.word(1) != "/long"));
}

#[test]
fn trailers_follow_the_rule() {
    let origin = Origin::start(Chunked {
        fields: "Trailer: X-Sum\r\n",
        chunks: &["a"],
        extension: "",
        trailers: "X-Sum: 1\r\n",
    });
    let gateway = gateway(origin.addr());
    // RFC 9110 section 6.5.1: trailers go only to a client that said it takes them.
    let response = Request::get("/").send(gateway.addr()).expect(200);
    assert_eq!((response.text().as_str(), response.body.trailers.len()), ("a", 0));
    let response = Request::get("/").header("TE", "trailers").header("Connection", "TE").send(gateway.addr());
    assert_eq!(response.body.trailers, [("X-Sum".to_owned(), "1".to_owned())]);
    // An origin may send some only to whom asks for them (section 10.1.4).
    let asked = origin.last().head;
    assert!(asked.has_token("te", "trailers") && asked.has_token("connection", "te"), "{:?}", asked.fields);
}

#[test]
fn request_trailers_reach_a_target_that_takes_them() {
    let origin = Origin::start(Echo::default());
    let body = format!(
        "services:\n  - name: web\n    url: http://{}\n    request_trailers: true\n    routes:\n      \
         - {{name: all, paths: [/]}}\n",
        origin.addr()
    );
    let gateway = Gateway::start(&Setup::new(body));
    let text = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                1\r\na\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nAuthorization: x\r\nTransfer_Encoding: y\r\n\r\n";
    let response = Connection::open(gateway.addr()).send(text).response().expect(200);
    assert_eq!(response.json()["trailers"], serde_json::json!([["X-Sum", "1"]]));
}

/// Sends events one by one, each when its gate opens.
struct Events([Gate; 3]);

impl Script for Events {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        if wire.request()?.is_some() {
            wire.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            for (number, gate) in self.0.iter().enumerate() {
                gate.pass();
                wire.send(format!("9\r\ndata: {number}\n\n\r\n").as_bytes())?;
            }
            wire.drain()?;
        }
        Ok(())
    }
}

#[test]
fn events_are_passed_on_as_they_come() {
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let gates = [Gate::shut(), Gate::shut(), Gate::shut()];
        let origin = Origin::start(Events(gates.clone()));
        let gateway = Gateway::start(&Setup::proxy(origin.addr(), ""));
        let mut connection = Connection::open(gateway.addr());
        connection.send(format!("GET / {version}\r\nHost: test\r\nAccept-Encoding: gzip, br\r\n\r\n"));
        // The head comes before the first event.
        let head = connection.try_head().expect("a head");
        assert_eq!(
            (head.get("content-type"), head.get("content-encoding")),
            (Some("text/event-stream"), None)
        );
        for (number, gate) in gates.iter().enumerate() {
            assert!(!connection.readable_within(Duration::from_millis(50)), "an event that was not sent");
            gate.open();
            let event = format!("data: {number}\n\n");
            let want = if version == "HTTP/1.1" { format!("9\r\n{event}\r\n") } else { event };
            assert_eq!(String::from_utf8_lossy(&connection.take(want.len())), want, "{version}");
        }
    }
}

#[test]
fn request_trailers_never_become_headers() {
    let origin = Origin::start(Echo::default());
    let gateway = gateway(origin.addr());
    let mut connection = Connection::open(gateway.addr());
    let text = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Role\r\n\r\n\
                1\r\na\r\n0\r\nX-Role: admin\r\n\r\n";
    let response = connection.send(text).response().expect(200);
    assert!(response.echoed().all("x-role").is_empty());
    connection.expect_kept();
    eventually("the echo", || holds(origin.requests() >= 2, "not yet"));
}
