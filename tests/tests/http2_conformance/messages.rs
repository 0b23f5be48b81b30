//! Header blocks, messages and HPACK: sections 6.10, 7, 8 and 10.5.1 of RFC 9113, and RFC 7541.

use super::*;

#[test]
fn section_6_10_continuation() {
    let text = block(&pseudo("GET", "/"));
    let (one, rest) = text.split_at(5);
    let (two, three) = rest.split_at(7);
    let begin = frame(kind::HEADERS, flag::END_STREAM, 1, one);
    let more = |flags: u8, part: &[u8]| frame(kind::CONTINUATION, flags, 1, part);
    case(
        "a block in three frames",
        &[begin.clone(), more(0, two), more(4, three)].concat(),
        &Expect::Status(1, 200),
    );
    case(
        "another frame after CONTINUATION",
        &[begin.clone(), more(0, two), frame(kind::DATA, 1, 1, b"x")].concat(),
        &PROTOCOL,
    );
    case(
        "CONTINUATION on stream 0",
        &[begin.clone(), frame(kind::CONTINUATION, 4, 0, rest)].concat(),
        &PROTOCOL,
    );
    case(
        "CONTINUATION on another stream",
        &[begin, frame(kind::CONTINUATION, 4, 3, rest)].concat(),
        &PROTOCOL,
    );
    case("CONTINUATION after the end of a block", &[post(1, "/"), more(4, three)].concat(), &PROTOCOL);
    case(
        "CONTINUATION after DATA",
        &[post(1, "/"), frame(kind::DATA, 1, 1, b"x"), more(4, three)].concat(),
        &PROTOCOL,
    );
}

#[test]
fn section_7_unknown_error_codes() {
    case("RST_STREAM with an unknown code", &[post(1, "/"), reset(1, 0xff)].concat(), &Expect::Alive);
    let goaway = frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]);
    let suite = suite();
    let mut h2 = H2::open(suite.gateway.addr());
    h2.send(&[goaway, frame(kind::PING, 0, 0, &[0; 8])].concat());
    // The client leaves, with nothing open: the connection may end, in order.
    while let Some(frame) = h2.frame() {
        assert!(frame.kind != kind::GOAWAY || frame.code() == code::NO_ERROR, "{frame:?}");
        if frame.kind == kind::PING {
            break;
        }
    }
}

#[test]
fn section_8_1_message_framing() {
    let trailers = |flags: u8, fields: &[(&str, &str)]| headers(flags, 1, fields);
    let body = [post(1, "/"), frame(kind::DATA, 0, 1, b"body")].concat();
    case("trailers", &[body.clone(), trailers(END, &[("x-sum", "1")])].concat(), &Expect::Status(1, 200));
    case("trailers that end nothing", &[body.clone(), trailers(4, &[("x-sum", "1")])].concat(), &MALFORMED);
    for fields in [[(":method", "GET"), ("x", "1")], [(":status", "200"), ("x", "1")]] {
        case("a pseudo-field in trailers", &[body.clone(), trailers(END, &fields)].concat(), &MALFORMED);
    }
    // `:path: /x` comes in by incremental indexing, and again by its index in the dynamic table.
    let indexing = [
        &block(&[(":method", "POST"), (":scheme", "http"), (":authority", "test")])[..],
        &[0x44, 2, b'/', b'x'],
    ];
    let head = frame(kind::HEADERS, flag::END_HEADERS, 1, &indexing.concat());
    case(
        "a pseudo-field in trailers, by the dynamic table",
        &[head, frame(kind::HEADERS, END, 1, &[0xbe])].concat(),
        &MALFORMED,
    );
    case(
        "a pseudo-field in trailers, after a field",
        &[body, trailers(END, &[("x", "1"), (":method", "GET")])].concat(),
        &MALFORMED,
    );
}

#[test]
fn section_8_1_1_the_length_is_what_the_fields_say() {
    let post = |length: &str| {
        headers(flag::END_HEADERS, 1, &[&pseudo("POST", "/"), &[("content-length", length)][..]].concat())
    };
    let data = |flags: u8, octets: &[u8]| frame(kind::DATA, flags, 1, octets);
    case("as long as said", &[post("4"), data(0, b"bo"), data(1, b"dy")].concat(), &Expect::Status(1, 200));
    case("shorter", &[post("5"), data(1, b"body")].concat(), &MALFORMED);
    case("longer", &[post("1"), data(1, b"body")].concat(), &MALFORMED);
    case("longer, in several frames", &[post("3"), data(0, b"bo"), data(1, b"dy")].concat(), &MALFORMED);
    case("no number", &[post("1x"), data(1, b"b")].concat(), &MALFORMED);
    case(
        "two numbers",
        &headers(
            END,
            1,
            &[&pseudo("POST", "/"), &[("content-length", "0"), ("content-length", "1")][..]].concat(),
        ),
        &MALFORMED,
    );
    case(
        "a length without a body",
        &headers(END, 1, &[&pseudo("POST", "/"), &[("content-length", "1")][..]].concat()),
        &MALFORMED,
    );
}

#[test]
fn section_8_2_fields() {
    // The codec ends the connection over names that are none: every stream error may become a connection error.
    let bad_name = Expect::Stream(1, &[code::PROTOCOL_ERROR, code::COMPRESSION_ERROR]);
    case("an upper-case name", &get_with(1, &[("X-Upper", "1")]), &bad_name);
    case("a name with a space", &get_with(1, &[("x a", "1")]), &bad_name);
    case("a name with a colon in it", &get_with(1, &[("x:a", "1")]), &bad_name);
    case("an empty name", &get_with(1, &[("", "1")]), &bad_name);
    case("a line end in a value", &get_with(1, &[("x", "a\r\nb: c")]), &bad_name);
    case("NUL in a value", &get_with(1, &[("x", "a\0b")]), &bad_name);
    case("a space before a value", &get_with(1, &[("x", " a")]), &MALFORMED);
    case("a tab after a value", &get_with(1, &[("x", "a\t")]), &MALFORMED);
    case("what is allowed", &get_with(1, &[("x-a!#$%&'*+.^_`|~", "a\tb \u{e9}")]), &Expect::Status(1, 200));
}

#[test]
fn section_8_2_2_connection_specific_fields() {
    for (name, value) in [
        ("connection", "keep-alive"),
        ("keep-alive", "5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
    ] {
        case(&format!("{name}: {value}"), &get_with(1, &[(name, value)]), &MALFORMED);
    }
    case("te: trailers", &get_with(1, &[("te", "trailers")]), &Expect::Status(1, 200));
}

#[test]
fn section_8_3_pseudo_fields() {
    let check = |what: &str, fields: &[(&str, &str)]| {
        case(
            what,
            &headers(END, 1, fields),
            &Expect::Stream(1, &[code::PROTOCOL_ERROR, code::COMPRESSION_ERROR]),
        )
    };
    let (method, scheme, path, host) =
        ((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "test"));
    check("one that nobody knows", &[method, scheme, path, host, (":unknown", "1")]);
    check("one of responses", &[method, scheme, path, host, (":status", "200")]);
    check("one after a field", &[method, scheme, host, ("x", "1"), path]);
    check("no method", &[scheme, path, host]);
    check("no scheme", &[method, path, host]);
    check("no path", &[method, scheme, host]);
    check("an empty path", &[method, scheme, (":path", ""), host]);
    check("two methods", &[method, method, scheme, path, host]);
    check("two schemes", &[method, scheme, scheme, path, host]);
    check("two paths", &[method, scheme, path, path, host]);
    check("two authorities", &[method, scheme, path, host, host]);
    check("a protocol without CONNECT", &[method, scheme, path, host, (":protocol", "websocket")]);
}

#[test]
fn section_8_3_1_what_http1_would_refuse_is_answered() {
    let check = |what: &str, fields: &[(&str, &str)], status: u16| {
        case(what, &headers(END, 1, fields), &Expect::Status(1, status));
    };
    let (get, scheme, path, host) =
        ((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "test"));
    check("no host at all", &[get, scheme, path], 400);
    check("Host alone", &[get, scheme, path, ("host", "test")], 200);
    check("a scheme that is not ours", &[get, (":scheme", "ftp"), path, host], 400);
    check("https without TLS", &[get, (":scheme", "https"), path, host], 421);
    let call = [(":method", "POST"), (":scheme", "https"), path, host, ("content-type", "application/grpc")];
    check("the same of a gRPC call", &call, 200);
    check("another Host", &[get, scheme, path, host, ("host", "other")], 400);
    check("the same Host", &[get, scheme, path, host, ("host", "TEST:80")], 200);
    check("two Hosts", &[get, scheme, path, ("host", "a"), ("host", "a")], 400);
    check("userinfo", &[get, scheme, path, (":authority", "user@test")], 400);
    check("an encoded slash", &[get, scheme, (":path", "/a%2fb"), host], 400);
    check("an asterisk", &[get, scheme, (":path", "*"), host], 400);
    // Answered here: it asks what the gateway can do, and is of no route (RFC 9110 section 9.3.7).
    check("OPTIONS *", &[(":method", "OPTIONS"), scheme, (":path", "*"), host], 200);
    check("TRACE", &[(":method", "TRACE"), scheme, path, host], 405);
    check("CONNECT", &[(":method", "CONNECT"), (":authority", "test:443")], 405);
    check(
        "CONNECT for something else",
        &[(":method", "CONNECT"), scheme, path, host, (":protocol", "connect-udp")],
        501,
    );
    let long = format!("/{}", "p".repeat(9000));
    check("a long path", &[get, scheme, (":path", &long), host], 414);
    let many: Vec<(&str, &str)> =
        [get, scheme, path, host].into_iter().chain((0..120).map(|_| ("x", "1"))).collect();
    check("many fields", &many, 431);
}

#[test]
fn section_10_5_1_a_header_list_beyond_the_limit() {
    let check = |size: usize, expected: &Expect<'_>| {
        let value = "v".repeat(1000);
        let fields: Vec<(&str, &str)> = (0..size).map(|_| ("x-large", value.as_str())).collect();
        let text = block(&[&pseudo("GET", "/"), &fields[..]].concat());
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        for (n, piece) in text.chunks(16_000).enumerate() {
            let last = (n + 1) * 16_000 >= text.len();
            let kind = if n == 0 { kind::HEADERS } else { kind::CONTINUATION };
            let ends = if n == 0 { flag::END_STREAM } else { 0 } | if last { flag::END_HEADERS } else { 0 };
            pieces.push(frame(kind, ends, 1, piece));
        }
        case(&format!("{size} KiB"), &pieces.concat(), expected);
    };
    check(20, &Expect::Status(1, 200));
    check(40, &Expect::Status(1, 431));
    check(100, &Expect::Connection(&[code::ENHANCE_YOUR_CALM]));
}

#[test]
fn hpack_rfc7541() {
    let broken = |what: &str, bytes: &[u8]| {
        case(what, &frame(kind::HEADERS, END, 1, bytes), &Expect::Connection(COMPRESSION));
    };
    let request = block(&pseudo("GET", "/"));
    let after = |bytes: &[u8]| [&request[..], bytes].concat();
    broken("2.3.3: an index beyond the tables", &after(&[0xff, 0x00]));
    broken("2.3.3: a literal with a name beyond the tables", &after(&[0x7f, 0xff, 0x00, 1, b'a']));
    broken("4.2: a size update at the end of a block", &after(&[0x20]));
    broken(
        "5.1: an integer that does not end",
        &after(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
    );
    broken("5.2: a text longer than the block", &after(&[0, 1, b'x', 0x7f, 0xff, 0x7f]));
    // `x`, and a value in Huffman code: `a` is 00011, and padding is the first bits of EOS, which are ones.
    broken("5.2: padding of eight bits and more", &after(&[0, 1, b'x', 0x82, 0x1f, 0xff]));
    broken("5.2: padding of zeros", &after(&[0, 1, b'x', 0x81, 0x18]));
    broken("5.2: EOS in a text", &after(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xfc]));
    broken("6.1: index 0", &after(&[0x80]));
    broken("6.3: a table larger than the settings", &[&[0x3f, 0xe2, 0x1f][..], &request].concat());

    let fine = |what: &str, bytes: &[u8]| {
        case(what, &frame(kind::HEADERS, END, 1, bytes), &Expect::Status(1, 200));
    };
    fine("6.3: a table of the size of the settings", &[&[0x3f, 0xe1, 0x1f][..], &request].concat());
    fine("6.3: no table", &[&[0x20][..], &request].concat());
    fine("6.2.3: a literal that is never to be indexed", &after(&[0x10, 1, b'x', 1, b'y']));
    fine("5.2: a value in Huffman code", &after(&[0, 1, b'x', 0x81, 0x1f]));
    // `:method: GET`, `:scheme: http`, `:path: /` by index, and the authority as an indexed literal, then by its index.
    let suite = suite();
    let mut h2 = H2::open(suite.gateway.addr());
    let first = [&[0x82, 0x86, 0x84, 0x41, 4][..], b"test"].concat();
    h2.send(&frame(kind::HEADERS, END, 1, &first));
    assert_eq!(h2.status(1), 200);
    h2.send(&frame(kind::HEADERS, END, 3, &[0x82, 0x86, 0x84, 0xbe]));
    assert_eq!(h2.status(3), 200, "the table lasts from block to block");
}
