//! Bodies that plugins see whole: what goes on, what is refused, and that bodies nobody edits are streamed.

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Canned, Chunked, Echo, Origin};

const PLUGINS: &str = "plugins:\n- name: request-transformer\n  config: {remove: {body: [secret]}, add: {body: ['who:gateway']}}\n\
                       - name: response-transformer\n  config: {remove: {json: [internal]}}\n";

fn start(origin: &Origin) -> Gateway {
    let routes = "    routes:\n    - {name: all, paths: [/], strip_path: false}\n    \
                  - {name: roomy, paths: [/roomy], strip_path: false, buffered_body: 8KiB}\n";
    let text = format!(
        "limits: {{buffered_body: 1KiB}}\n{PLUGINS}services:\n  - name: s\n    url: {}\n{routes}",
        origin.url()
    );
    Gateway::start(&Setup::new(text))
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[test]
fn edited_requests_keep_the_connection_and_its_order() {
    let origin = Origin::start(Echo::default());
    let gateway = start(&origin);
    let mut connection = Connection::open(gateway.addr());
    // Both at once, the first of unknown length: what follows a body is the next request.
    connection.send(
        "POST /one HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         7\r\n{\"a\":1,\r\na\r\n\"secret\":2\r\n1\r\n}\r\n0\r\n\r\n\
         POST /two HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 12\r\n\r\nsecret=1&b=2",
    );
    let first = connection.response().expect(200).echoed();
    assert_eq!((first.target(), &first.0["body"]), ("/one", &r#"{"a":1,"who":"gateway"}"#.into()));
    assert_eq!((first.all("content-length"), first.all("transfer-encoding").len()), (vec!["23"], 0));
    let second = connection.response().expect(200).echoed();
    assert_eq!((second.target(), &second.0["body"]), ("/two", &"b=2&who=gateway".into()));
}

#[test]
fn a_client_that_waits_for_leave_gets_it() {
    let origin = Origin::start(Echo::default());
    let gateway = start(&origin);
    let mut connection = Connection::open(gateway.addr());
    connection.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert!(connection.try_head().expect("an interim response").raw.starts_with(b"HTTP/1.1 100"));
    connection.send("{}");
    assert_eq!(connection.response().expect(200).echoed().0["body"], r#"{"who":"gateway"}"#);
}

#[test]
fn too_large_and_malformed_requests_are_refused_and_others_streamed() {
    let origin = canned("Content-Type: text/plain\r\n", "fine");
    let gateway = start(&origin);
    let post =
        |kind: &str, body: String| Request::post("/", body).header("Content-Type", kind).send(gateway.addr());
    let large = || format!("{{\"a\":\"{}\"}}", "x".repeat(2000));
    post("application/json", large()).expect(413);
    Request::post("/roomy", large()).header(JSON.0, JSON.1).send(gateway.addr()).expect(200);
    post("application/json", "{".into()).expect(400);
    post("text/plain", large()).expect(200);
    let gzip = Request::post("/", "x").header(JSON.0, JSON.1).header("Content-Encoding", "gzip");
    gzip.send(gateway.addr()).expect(415);
    assert_eq!(origin.requests(), 2, "what is refused never gets there");
    assert_eq!(origin.last().body.bytes.len(), large().len());
}

fn canned(fields: &'static str, body: &'static str) -> Origin {
    Origin::start(Canned { status: "200 OK", fields, body })
}

#[test]
fn responses_are_edited_or_not_let_out() {
    let origin = canned("Content-Type: application/json\r\nETag: \"1\"\r\n", r#"{"internal":1,"a":2}"#);
    let gateway = start(&origin);
    let mut connection = Connection::open(gateway.addr());
    for _ in 0..2 {
        let response = Request::get("/").keep().send_on(&mut connection).expect(200);
        assert_eq!((&*response.text(), response.header("content-length")), (r#"{"a":2}"#, "7"));
        assert!(!response.has("etag"));
    }
    let head = Request::new("HEAD", "/").send(gateway.addr()).expect(200);
    assert!(!head.has("content-length"), "the length is that of a body which is not edited");
    let broken = canned("Content-Type: application/json\r\n", "{\"internal\":");
    start(&broken).admin("GET", "/status").expect(200);
    Request::get("/").send(start(&broken).addr()).expect(502);
    let large: &'static str = Box::leak(format!("{{\"a\":\"{}\"}}", "x".repeat(2000)).into_boxed_str());
    let huge = canned("Content-Type: application/json\r\n", large);
    Request::get("/").send(start(&huge).addr()).expect(502);
    let text = canned("Content-Type: text/plain\r\n", large);
    assert_eq!(Request::get("/").send(start(&text).addr()).expect(200).text(), large);
}

#[test]
fn chunked_json_gets_a_length() {
    let origin = Origin::start(Chunked {
        fields: "Content-Type: application/json\r\n",
        chunks: &["{\"internal\":1", ",\"a\":[]}"],
        extension: "",
        trailers: "",
    });
    let gateway = start(&origin);
    let response = Request::get("/").send(gateway.addr()).expect(200);
    assert_eq!((&*response.text(), response.header("content-length")), (r#"{"a":[]}"#, "8"));
    assert!(!response.has("transfer-encoding"));
}
