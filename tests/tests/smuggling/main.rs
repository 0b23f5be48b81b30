//! Known smuggling payloads through the gateway to origins of other authors: each reads what the gateway forwarded as the
//! gateway did. Those of HTTP/1 are here, those of HTTP/2 that become requests of HTTP/1 in `streams`.
//!
//! Three origins: Node with its lenient parser, h11, nginx. After each payload an origin must have seen exactly the
//! requests that the gateway says it forwarded, with those targets, and the next honest client must get its own answer.

mod streams;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use portcullis_tests::client::programs::{node, python_with, skip};
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::ports::Reserved;

/// An origin in a program of its own, which ends with its guard.
struct Program {
    name: &'static str,
    child: Child,
    addr: SocketAddr,
    told: Told,
    _folder: Option<tempfile::TempDir>,
}

/// Where an origin tells of its requests.
enum Told {
    Lines(Arc<Mutex<Vec<String>>>),
    File(PathBuf),
}

impl Program {
    /// Runs a script that prints its port and then its requests.
    fn script(name: &'static str, command: Option<Command>) -> Option<Program> {
        let mut child = command?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let port = lines.next().expect("a line").expect("a line");
        let port: u16 = port.strip_prefix("port ").and_then(|port| port.parse().ok()).expect("a port");
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = told.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                telling.lock().expect("lines").push(line);
            }
        });
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        Some(Program { name, child, addr, told: Told::Lines(told), _folder: None })
    }

    fn nginx() -> Option<Program> {
        let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"]
            .into_iter()
            .find(|path| PathBuf::from(path).exists());
        let Some(program) = program else {
            skip("nginx is not installed");
            return None;
        };
        let folder = tempfile::TempDir::new().expect("a folder");
        let reserved = Reserved::new();
        let (dir, addr) = (folder.path().display(), reserved.addr());
        let told = folder.path().join("requests");
        let config = format!(
            "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error;\nevents {{}}\nhttp {{\n\
             log_format told '$request_method $request_uri';\n\
             access_log {dir}/requests told;\n\
             client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u;\n\
             scgi_temp_path {dir}/s;\n\
             server {{ listen {addr} reuseport; location / {{ return 200 $request_uri; }} }}\n}}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).expect("a file");
        let mut command = Command::new(program);
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file).stdin(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("nginx starts");
        eventually("nginx", || Connection::try_open(addr).map(drop).map_err(|error| error.to_string()));
        Some(Program { name: "nginx", child, addr, told: Told::File(told), _folder: Some(folder) })
    }

    /// `METHOD TARGET` of each whole request so far. What the gateway broke off is none.
    fn seen(&self) -> Vec<String> {
        let lines = match &self.told {
            Told::Lines(lines) => lines.lock().expect("lines").clone(),
            Told::File(path) => {
                std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
            }
        };
        let whole = lines.iter().filter(|line| *line != "broken");
        whole.map(|line| line.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ")).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A payload: its class, and the bytes, in which `@` is the path prefix of the origin, `~` the number of the case, and `#`
/// the length of [`INNER`], `%` the same as a chunk size.
type Payload = (&'static str, String);

fn post(fields: &str, body: &str) -> String {
    format!("POST @/~/outer HTTP/1.1\r\nHost: test\r\n{fields}\r\n{body}")
}

/// What the attacker wants the origin to take for a request.
const INNER: &str = "GET @/~/smuggled HTTP/1.1\r\nHost: test\r\n\r\n";

fn payloads() -> Vec<Payload> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let inner_chunk = format!("%\r\n{INNER}\r\n0\r\n\r\n");
    let mut list: Vec<Payload> = vec![
        ("CL.TE", post(&format!("Content-Length: 100\r\n{chunked}"), &format!("0\r\n\r\n{INNER}"))),
        ("TE.CL", post(&format!("{chunked}Content-Length: 4\r\n"), &inner_chunk)),
        ("CL.CL", post("Content-Length: 0\r\nContent-Length: 60\r\n", INNER)),
        ("CL.CL list", post("Content-Length: 0, 60\r\n", INNER)),
        ("CL.0", post("Content-Length: #\r\n", INNER)),
        ("0.CL", post("Content-Length: 0\r\n", INNER)),
        ("GET.CL", format!("GET @/~/outer HTTP/1.1\r\nHost: test\r\nContent-Length: #\r\n\r\n{INNER}")),
        ("GET.TE", format!("GET @/~/outer HTTP/1.1\r\nHost: test\r\n{chunked}\r\n0\r\n\r\n{INNER}")),
        ("HEAD.CL", format!("HEAD @/~/outer HTTP/1.1\r\nHost: test\r\nContent-Length: #\r\n\r\n{INNER}")),
        ("1.0 TE", format!("POST @/~/outer HTTP/1.0\r\nHost: test\r\n{chunked}\r\n0\r\n\r\n{INNER}")),
        ("Expect CL", post("Expect: 100-continue\r\nContent-Length: #\r\n", INNER)),
        (
            "Expect twice",
            post("Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 0\r\n", INNER),
        ),
        ("Expect look-alike", post("Expect: 100-continue, x\r\nContent-Length: #\r\n", INNER)),
        ("Expect 0.CL", post("Expect: y 100-continue\r\nContent-Length: #\r\n", INNER)),
        ("Connection CL", post("Connection: content-length\r\nContent-Length: #\r\n", INNER)),
        ("Connection TE", post(&format!("Connection: transfer-encoding\r\n{chunked}"), &inner_chunk)),
        (
            "Upgrade h2c",
            post(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: 0\r\n",
                INNER,
            ),
        ),
        ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("HTTP/0.9", format!("GET @/~/outer\r\n{INNER}")),
        ("request line fold", format!("GET @/~/outer HTTP/1.1\r\n Host: test\r\n\r\n{INNER}")),
        ("two hosts", format!("GET @/~/outer HTTP/1.1\r\nHost: test\r\nHost: evil\r\n\r\n{INNER}")),
        ("trailer CL", post(chunked, &format!("0\r\nContent-Length: #\r\n\r\n{INNER}"))),
        ("trailer TE", post(chunked, &format!("0\r\nTransfer-Encoding: chunked\r\n\r\n{INNER}"))),
        ("method override", post("X-HTTP-Method-Override: HEAD\r\nContent-Length: #\r\n", INNER)),
        ("absolute", format!("GET http://test@/~/outer HTTP/1.1\r\nHost: evil\r\n\r\n{INNER}")),
        ("CRLF in path", format!("GET @/~/a%0D%0AX:%20y HTTP/1.1\r\nHost: test\r\n\r\n{INNER}")),
    ];
    for obfuscated in [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding:\u{b}chunked",
        "Transfer-Encoding:\u{c}chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer_Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\u{0}",
        "Content-Encoding: chunked",
    ] {
        for length in ["", "Content-Length: 4\r\n"] {
            let body = if length.is_empty() { format!("0\r\n\r\n{INNER}") } else { inner_chunk.clone() };
            list.push(("TE.TE", post(&format!("{length}{obfuscated}\r\n"), &body)));
        }
    }
    for length in
        ["+#", "0x30", "#.0", "4 8", "\u{b}#", "#;", "-1", "18446744073709551664", "000#", "", "#\u{0}"]
    {
        list.push(("CL spelling", post(&format!("Content-Length: {length}\r\n"), INNER)));
    }
    for size in [
        "0x0",
        "00000000000000000",
        "10000000000000000",
        "fffffffffffffffff",
        "-0",
        "+0",
        " 0",
        "0 ",
        "0\t",
        "0;x\n",
        "0;\r",
        "0;x=\"\r\n\"",
        "0\u{b}",
        "0_",
        "",
        ";x",
        "0;x\u{0}",
        "2;\nxx",
    ] {
        list.push(("chunk size", post(chunked, &format!("{size}\r\n\r\n{INNER}"))));
    }
    for end in ["\n", "\r", "\n\r", ""] {
        list.push(("chunk end", post(chunked, &format!("3\r\nabc{end}0\r\n\r\n{INNER}"))));
        list.push(("size end", post(chunked, &format!("0{end}\r\n{INNER}"))));
        list.push(("trailer end", post(chunked, &format!("0\r\nA: b{end}\r\n{INNER}"))));
        list.push((
            "head end",
            format!("POST @/~/outer HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n{end}\r\n{INNER}"),
        ));
    }
    list
}

/// What the gateway says it forwarded: `METHOD TARGET` of each exchange with an upstream, those that were `served` or those
/// that broke off, of which the origin may have seen the head.
fn forwarded(gateway: &Gateway, prefix: &str, served: bool) -> Vec<String> {
    let lines = gateway.access_log();
    let reached =
        lines.iter().filter(|line| line["upstream"].is_string() && (line["status"] == 200) == served);
    let told =
        reached.map(|line| (line["method"].as_str().unwrap_or(""), line["path"].as_str().unwrap_or("")));
    told.filter(|(_, path)| path.starts_with(prefix))
        .map(|(method, path)| format!("{method} {path}"))
        .collect()
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

#[track_caller]
fn check(origin: &Program) {
    let prefix = format!("/{}", origin.name);
    let body = format!(
        "services:\n  - name: web\n    url: http://{}\n    routes:\n      - {{name: all, paths: [/], strip_path: false}}\n",
        origin.addr
    );
    // Half a message is not waited for long.
    let timeouts = "drain_delay: 0s, request_head: 150ms, request_body_idle: 150ms, first_byte: 2s";
    let gateway = Gateway::start(&Setup::new(body).h2c().timeouts(timeouts));
    for (number, (class, payload)) in payloads().into_iter().enumerate() {
        let fill = |text: &str| text.replace('@', &prefix).replace('~', &number.to_string());
        let inner = fill(INNER).len();
        let bytes = fill(&payload).replace('#', &inner.to_string()).replace("%\r", &format!("{inner:x}\r"));
        let shown = format!("{} {class}: {bytes:?}", origin.name);
        let mut connection = Connection::open(gateway.addr());
        drop(connection.try_send(bytes.as_bytes()));
        let head_only = bytes.starts_with("HEAD");
        // As many answers as there are requests for the gateway; then it closes, or its patience ends.
        let mut answers = 0;
        while answers < 4 && connection.readable_within(std::time::Duration::from_millis(250)) {
            match connection.try_response(head_only && answers == 0) {
                Ok(response) if !response.head.has_token("connection", "close") => answers += 1,
                _ => break,
            }
        }
        drop(connection);
        unmixed(origin, &gateway, &number.to_string(), &shown);
    }
    streams::check(origin, &gateway);
}

/// Asserts that the next honest client gets its own answer, and that gateway and origin tell of the same requests.
#[track_caller]
fn unmixed(origin: &Program, gateway: &Gateway, number: &str, shown: &str) {
    let prefix = format!("/{}", origin.name);
    let honest = format!("{prefix}/{number}/honest");
    let answer = Request::get(&honest).send(gateway.addr()).expect(200);
    assert_eq!(answer.text(), honest, "{shown}: somebody else's answer");
    eventually("the same requests on both sides", || {
        let (mut ours, broken) = (forwarded(gateway, &prefix, true), forwarded(gateway, &prefix, false));
        let theirs = sorted(origin.seen());
        // nginx answers a head without its body, and tells of it as if it had been whole.
        ours.extend(broken.into_iter().filter(|one| theirs.binary_search(one).is_ok()));
        let ours = sorted(ours);
        holds(ours == theirs && theirs.iter().any(|one| one.contains(&honest)), {
            let lacking: Vec<_> = theirs.iter().filter(|one| !ours.contains(one)).collect();
            format!("{shown}: only the origin has {lacking:?}; {} and {}", ours.len(), theirs.len())
        })
    });
}

#[test]
fn node_with_its_lenient_parser() {
    let Some(origin) = Program::script("node", node("count_origin.mjs")) else { return };
    check(&origin);
}

#[test]
fn h11() {
    let Some(origin) = Program::script("h11", python_with("h11", "count_origin.py")) else { return };
    check(&origin);
}

#[test]
fn nginx() {
    let Some(origin) = Program::nginx() else { return };
    check(&origin);
}
