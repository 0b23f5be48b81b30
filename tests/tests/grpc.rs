//! gRPC end to end: grpcio as client and as server, with the gateway between them.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use portcullis_tests::certs::{Authority, Leaf};
use portcullis_tests::client::background::Background;
use portcullis_tests::client::programs::{python_with, run_json};
use portcullis_tests::gateway::{Gateway, Setup};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A server and a gateway before it.
struct Pair {
    origin: Background,
    addr: SocketAddr,
    gateway: Gateway,
    dir: TempDir,
    authority: Authority,
}

/// `below` is YAML at the indentation of the route's keys; `sections` are further top-level ones.
fn pair(below: &str, sections: &str) -> Option<Pair> {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(dir.path());
    let leaf = authority.leaf(&["localhost"]);
    let mut origin = Background::start(&mut origin_command(None)?);
    let addr = SocketAddr::from(([127, 0, 0, 1], origin.port()));
    let setup = service(&format!("grpc://{addr}"), below).with(&certificate(&leaf)).with(sections);
    let gateway = Gateway::start(&setup.h2c().tls("{certificates: [one]}"));
    Some(Pair { origin, addr, gateway, dir, authority })
}

fn origin_command(leaf: Option<&Leaf>) -> Option<Command> {
    let mut command = python_with("grpc_reflection", "grpc_origin.py")?;
    if let Some(leaf) = leaf {
        command.arg(&leaf.cert).arg(&leaf.key);
    }
    Some(command)
}

fn service(url: &str, below: &str) -> Setup {
    Setup::new(format!(
        "services:\n  - name: calls\n    url: {url}\n    routes:\n      - name: all\n        paths: [/]\n        \
         strip_path: false\n        protocols: [grpc, grpcs]\n{below}"
    ))
}

fn certificate(leaf: &Leaf) -> String {
    format!(
        "certificates:\n  - {{name: one, cert_file: '{}', key_file: '{}'}}",
        leaf.cert.display(),
        leaf.key.display()
    )
}

fn command(address: &str, scenario: &str) -> Command {
    let mut command = python_with("grpc_reflection", "grpc_client.py").expect("found for the origin");
    command.args([address, scenario]);
    command
}

impl Pair {
    /// A scenario of `grpc_client.py` without TLS.
    #[track_caller]
    fn call(&self, scenario: &str) -> Value {
        run_json(&mut command(&self.gateway.addr().to_string(), scenario))
    }

    /// The same over TLS.
    #[track_caller]
    fn call_secure(&self, scenario: &str) -> Value {
        let address = format!("localhost:{}", self.gateway.tls_addr().port());
        run_json(command(&address, scenario).arg(self.authority.ca_file()))
    }
}

fn all_kinds() -> Value {
    json!({
        "unary": "hello", "initial": "i", "trailing": "t", "binary": "00ff", "empty": true,
        "others": ["r", "own"],
        "server_stream": true, "client_stream": "100 100000", "bidi": true,
    })
}

#[test]
fn every_kind_of_call_passes() {
    let Some(pair) = pair("", "") else { return };
    assert_eq!(pair.call("kinds"), all_kinds());
    assert_eq!(pair.call_secure("kinds"), all_kinds());
    let line = pair.gateway.logged(|line| line["path"] == "/test.Echo/Bidi");
    assert_eq!(
        (&line["status"], &line["http"], &line["reason"]),
        (&json!(200), &json!("2"), &Value::Null),
        "{line}"
    );
}

#[test]
fn every_kind_of_call_passes_to_a_server_with_tls() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(dir.path());
    let leaf = authority.leaf(&["localhost", "127.0.0.1"]);
    let Some(mut command) = origin_command(Some(&leaf)) else { return };
    let mut origin = Background::start(&mut command);
    let url = format!("grpcs://localhost:{}\n    ca_certificates: [own]", origin.port());
    let authorities =
        format!("ca_certificates:\n  - {{id: own, cert_file: '{}'}}", authority.ca_file().display());
    let gateway = Gateway::start(&service(&url, "").with(&authorities).h2c());
    assert_eq!(run_json(&mut self::command(&gateway.addr().to_string(), "kinds")), all_kinds());
}

#[test]
fn messages_of_8_mib_and_streams_beyond_the_limit_on_bodies_pass() {
    let Some(pair) = pair("", "") else { return };
    assert_eq!(pair.call("large"), json!({"unary": true, "stream": format!("24 {}", 24 << 20)}));
}

#[test]
fn a_message_over_the_limit_is_refused_and_a_longer_stream_of_small_ones_is_not() {
    let Some(pair) = pair("        body_limit: 50KiB\n", "") else { return };
    let told = pair.call("refused_large");
    assert_eq!(told["code"], "RESOURCE_EXHAUSTED", "{told}");
    assert_eq!(pair.call("kinds"), all_kinds());
}

#[test]
fn many_calls_at_once_are_each_answered() {
    let Some(pair) = pair("", "") else { return };
    assert_eq!(pair.call("many"), json!({"right": 300}));
}

#[test]
fn statuses_details_and_trailing_metadata_of_the_server_arrive() {
    let Some(pair) = pair("", "") else { return };
    let told = pair.call("failures");
    for code in ["NOT_FOUND", "INTERNAL", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"] {
        assert_eq!(
            (&told[code]["code"], &told[code]["trailing"]["x-trailing"]),
            (&json!(code), &json!("t")),
            "{told}"
        );
        assert_eq!(told[code]["details"], json!(format!("50% of {code} \u{fc}")));
        assert_eq!(told[code]["trailing"]["content-length"], Value::Null, "{told}");
    }
    assert_eq!(
        (&told["long"]["code"], &told["long"]["trailing"]),
        (&json!("ABORTED"), &json!(20_000)),
        "{told}"
    );
    assert_eq!(told["unknown"], "UNIMPLEMENTED");
}

#[test]
fn metadata_and_the_rest_of_the_deadline_reach_the_server() {
    let Some(pair) = pair("", "") else { return };
    let told = pair.call("meta");
    assert_eq!(
        (&told["metadata"]["x-own"], &told["metadata"]["x-own-bin"]),
        (&json!("v"), &json!("01fe")),
        "{told}"
    );
    assert_eq!(told["metadata"]["own_key"], "u", "gRPC allows underscores: {told}");
    assert_eq!(told["metadata"]["x_real_ip"], Value::Null, "but not as a claim: {told}");
    let remaining = told["remaining"].as_f64().expect("a deadline");
    assert!((1.0..=20.0).contains(&remaining), "{told}");
    assert_eq!(told["metadata"]["x-forwarded-for"], "127.0.0.1", "{told}");
    assert_eq!(told["metadata"]["via"], "2.0 portcullis", "{told}");
}

#[test]
fn a_deadline_ends_a_call_before_its_answer_and_in_the_middle() {
    let Some(pair) = pair("", "") else { return };
    let told = pair.call("deadline");
    assert_eq!(told["wait"]["code"], "DEADLINE_EXCEEDED", "{told}");
    assert_eq!(told["begun"]["code"], "DEADLINE_EXCEEDED", "{told}");
    let mut origin = pair.origin;
    assert_eq!((origin.line(), origin.line()), ("waiting".to_owned(), "over".to_owned()));
}

/// A client that waits longer than it says, and a server that does not care.
#[test]
fn the_gateway_answers_when_a_deadline_has_passed() {
    let Some(mut python) = python_with("h2", "h2_origin.py") else { return };
    let mut origin = Background::start(&mut python);
    let gateway = Gateway::start(&service(&format!("grpc://127.0.0.1:{}", origin.port()), "").h2c());
    let call = |timeout: &str| {
        let mut python = python_with("h2", "h2_frames.py").expect("found for the origin");
        let addr = gateway.addr();
        python.args([&addr.ip().to_string(), &addr.port().to_string(), "call", "/silent", timeout]);
        run_json(&mut python)
    };
    let told = call("grpc-timeout: 300m");
    assert_eq!(
        (&told["status"], &told["reset"], &told["ended"]),
        (&json!(200), &Value::Null, &json!(true)),
        "{told}"
    );
    let fields = told["fields"].as_array().expect("fields");
    for field in [json!(["grpc-status", "4"]), json!(["content-type", "application/grpc"])] {
        assert!(fields.contains(&field), "{told}");
    }
    let line = gateway.logged(|line| line["reason"] == "grpc_deadline");
    assert_eq!(line["status"], 200, "{line}");
    let told = call("grpc-timeout: soon");
    assert!(told["fields"].as_array().expect("fields").contains(&json!(["grpc-status", "13"])), "{told}");
}

#[test]
fn a_deadline_ends_a_call_that_waits_for_a_connection() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    socket.listen(0).expect("listening");
    let addr = socket.local_addr().ok().and_then(|addr| addr.as_socket()).expect("an address");
    // With its queue full the kernel drops further SYNs, so a connect hangs.
    let wait = Duration::from_millis(100);
    let _filling: Vec<_> = (0..4).map_while(|_| TcpStream::connect_timeout(&addr, wait).ok()).collect();
    let gateway = Gateway::start(&service(&format!("grpc://{addr}\n    connect_timeout: 60000"), "").h2c());
    let Some(mut python) = python_with("h2", "h2_frames.py") else { return };
    let here = gateway.addr();
    python.args([&here.ip().to_string(), &here.port().to_string(), "call", "/late", "grpc-timeout: 300m"]);
    let told = run_json(&mut python);
    assert!(told["fields"].as_array().expect("fields").contains(&json!(["grpc-status", "4"])), "{told}");
    let line = gateway.logged(|line| line["path"] == "/late");
    assert_eq!(line["reason"], "grpc_deadline", "{line}");
}

#[test]
fn a_client_that_cancels_ends_the_call_at_the_server() {
    let Some(mut pair) = pair("", "") else { return };
    let mut client = Background::start(&mut command(&pair.gateway.addr().to_string(), "cancel"));
    assert_eq!(pair.origin.line(), "waiting");
    client.say("cancel");
    assert_eq!(pair.origin.line(), "over");
    let told: Value = serde_json::from_str(&client.line()).expect("JSON");
    assert_eq!(told, json!({"cancelled": true, "after": "still"}));
}

#[test]
fn refusals_are_statuses_of_grpc() {
    let plugin = |config: &str| format!("        plugins:\n          - {config}\n");
    for (below, code) in [
        (plugin("{name: key-auth}"), "UNAUTHENTICATED"),
        (plugin("{name: ip-restriction, config: {deny: [127.0.0.1]}}"), "PERMISSION_DENIED"),
        (plugin("{name: request-termination, config: {status_code: 503}}"), "UNAVAILABLE"),
    ] {
        let Some(pair) = pair(&below, "") else { return };
        let told = pair.call("refused");
        assert_eq!(told["code"], code, "{told}");
    }
    let limit = plugin("{name: rate-limiting, config: {minute: 1, policy: local}}");
    let Some(pair) = pair(&limit, "") else { return };
    let told = pair.call("twice");
    assert_eq!(
        (&told["first"]["code"], &told["second"]["code"]),
        (&json!("OK"), &json!("RESOURCE_EXHAUSTED")),
        "{told}"
    );
    assert_eq!(told["second"]["details"], "API rate limit exceeded", "{told}");
}

#[test]
fn a_server_that_is_gone_is_unavailable() {
    let Some(Pair { origin, gateway, addr, dir, .. }) = pair("", "") else { return };
    drop(origin);
    let told = run_json(&mut command(&gateway.addr().to_string(), "refused"));
    assert_eq!(told["code"], "UNAVAILABLE", "{addr}: {told}");
    drop(dir);
}

#[test]
fn health_checking_and_reflection_pass() {
    let Some(pair) = pair("", "") else { return };
    let told = pair.call("standard");
    let services = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"];
    assert_eq!(told, json!({"health": 1, "watched": 1, "services": services}));
}
