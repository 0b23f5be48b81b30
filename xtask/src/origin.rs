//! The demo origin: answers every request with a JSON account of it, so that one sees what the gateway
//! added, removed and rewrote.
//!
//! Owns a listener and a thread a connection; that is enough for curl and a browser and is no model for
//! anything faster. Never listens on anything but loopback. Invariant: a connection whose framing it does
//! not understand is closed, since nothing after such a request can be trusted.

use crate::process;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Longest request or header line it reads.
const LINE_MAX: u64 = 64 * 1024;
/// Header fields it reads.
const FIELDS_MAX: usize = 256;
/// An idle connection is closed after this long.
const IDLE: Duration = Duration::from_secs(75);

/// Starts answering on `address`, until the process ends. Returns the bound address.
pub fn start(address: SocketAddr) -> Result<SocketAddr> {
    anyhow::ensure!(address.ip().is_loopback(), "the demo origin listens on loopback only, not on {address}");
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let bound = listener.local_addr()?;
    thread::Builder::new().name("origin".into()).spawn(move || {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => {
                    // A connection that ends with an error has told its client by closing.
                    let _ = thread::Builder::new().spawn(move || serve(stream));
                }
                // Out of descriptors: without a pause the loop would spin.
                Err(_) => process::pause(Duration::from_millis(100)),
            }
        }
    })?;
    Ok(bound)
}

fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        writer.write_all(&answer(&request))?;
        if request.closes() {
            break;
        }
    }
    Ok(())
}

struct Request {
    method: String,
    target: String,
    version: String,
    fields: Vec<(String, String)>,
    body_bytes: u64,
}

impl Request {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    fn closes(&self) -> bool {
        let wish = self.field("connection").unwrap_or_default().to_ascii_lowercase();
        wish.contains("close") || (self.version == "HTTP/1.0" && !wish.contains("keep-alive"))
    }
}

/// The next request with its body counted; `None` where the client has closed between two requests.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some(first) = read_line(reader)? else { return Ok(None) };
    let mut words = first.split(' ').map(str::to_owned);
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Err(invalid("request line"));
    };
    let mut fields = Vec::new();
    loop {
        let line = read_line(reader)?.ok_or_else(|| invalid("head ends early"))?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("header field"))?;
        fields.push((name.to_owned(), value.trim().to_owned()));
        if fields.len() > FIELDS_MAX {
            return Err(invalid("too many fields"));
        }
    }
    let mut request = Request { method, target, version, fields, body_bytes: 0 };
    request.body_bytes = read_body(reader, &request)?;
    Ok(Some(request))
}

fn read_body(reader: &mut impl BufRead, request: &Request) -> io::Result<u64> {
    if request.field("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        return read_chunks(reader);
    }
    let Some(length) = request.field("content-length") else { return Ok(0) };
    let length = length.parse().map_err(|_| invalid("content-length"))?;
    skip(reader, length)?;
    Ok(length)
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut total = 0u64;
    loop {
        let line = read_line(reader)?.ok_or_else(|| invalid("chunk size"))?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16).map_err(|_| invalid("chunk size"))?;
        if size == 0 {
            // Trailers, then the empty line.
            while read_line(reader)?.is_some_and(|l| !l.is_empty()) {}
            return Ok(total);
        }
        skip(reader, size)?;
        read_line(reader)?;
        total += size;
    }
}

fn skip(reader: &mut impl BufRead, length: u64) -> io::Result<()> {
    let copied = io::copy(&mut reader.take(length), &mut io::sink())?;
    if copied == length { Ok(()) } else { Err(invalid("body ends early")) }
}

/// One line without its end; `None` at the end of the stream.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if reader.take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(invalid("line too long"));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn answer(request: &Request) -> Vec<u8> {
    let mut headers = Map::new();
    for (name, value) in &request.fields {
        // Repeated fields are shown in one value, as RFC 9110 section 5.2 lets any reader do.
        let entry = headers.entry(name.to_ascii_lowercase()).or_insert(Value::Null);
        *entry = match entry.as_str() {
            Some(before) => json!(format!("{before}, {value}")),
            None => json!(value),
        };
    }
    let account = json!({
        "origin": "portcullis demo",
        "method": request.method,
        "path": request.target,
        "headers": headers,
        "body_bytes": request.body_bytes,
    });
    let body = format!("{account:#}\n");
    let connection = if request.closes() { "close" } else { "keep-alive" };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
        body.len()
    );
    let body = if request.method == "HEAD" { "" } else { body.as_str() };
    [head.as_bytes(), body.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(sent: &str) -> String {
        let address = start("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(sent.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        got
    }

    #[test]
    fn it_tells_what_it_got() {
        let got = exchange("GET /a?b=c HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nX-A: 2\r\nConnection: close\r\n\r\n");
        let (head, body) = got.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let account: Value = serde_json::from_str(body).unwrap();
        assert_eq!(account["method"], "GET");
        assert_eq!(account["path"], "/a?b=c");
        assert_eq!(account["headers"]["x-a"], "1, 2");
    }

    #[test]
    fn bodies_are_counted_and_the_connection_goes_on() {
        let got = exchange(
            "POST /1 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloPOST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: t\r\n\r\nGET /3 HTTP/1.1\r\n\r\n",
        );
        assert_eq!(got.matches("HTTP/1.1 200 OK").count(), 3, "{got}");
        assert!(got.contains("\"body_bytes\": 5") && got.contains("\"body_bytes\": 7"), "{got}");
    }

    #[test]
    fn head_has_no_body_and_garbage_no_answer() {
        let got = exchange("HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert!(got.ends_with("\r\n\r\n"), "{got}");
        assert_eq!(exchange("garbage\r\n\r\n"), "");
        assert_eq!(exchange("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"), "");
    }

    #[test]
    fn only_loopback_is_served() {
        assert!(start("0.0.0.0:0".parse().unwrap()).is_err());
    }
}
