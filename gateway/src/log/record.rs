//! One line of the access log.
//!
//! | field | meaning | absent when |
//! |---|---|---|
//! | `time` | end of the exchange, RFC 3339 UTC with milliseconds | never |
//! | `request_id` | the id that targets see too | the head did not parse |
//! | `source`, `client` | address of the connection; address the trusted hops name | never |
//! | `method`, `host`, `path` | as received, query redacted | the head did not parse |
//! | `status` | what the client got | nothing was sent |
//! | `reason` | why the gateway refused or ended the exchange | it did not |
//! | `route`, `service`, `consumer` | names | no match, none authenticated |
//! | `upstream`, `attempts` | address of the last target tried; how many tries | no attempt was made |
//! | `request_bytes`, `response_bytes` | body bytes, as received and as sent; of a tunnel all that followed the 101 | never |
//! | `total_us`, `gateway_us` | head received to last byte sent; the part not spent waiting on the target, nor in a tunnel | never |
//! | `connect_us`, `first_byte_us` | last attempt: connect, and until the response's head | no attempt, pooled |
//! | `user_agent`, `tls`, `http` | header; TLS and HTTP versions | not sent, not TLS |
//! | `sni`, `client_cert` | server name asked for; subject of the client's certificate | not TLS, none sent |
//! | `proxy_id`, `proxy_authority`, `proxy_alpn` | what a trusted balancer's PROXY header says beside addresses | it says none |
//! | `headers` | request headers that the configuration asks for, masked where it says so | none asked for |
//! | `generation`, `shard` | of the configuration; which thread | never |
//!
//! Owns: names and order of the fields. Invariant: absent means absent, never `null` or an empty string.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use super::redact::{MASK, Redaction};
use super::{escape, number};

/// What there is to say about an exchange. Text is as received: escaping is the formatter's work.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Milliseconds since 1970, UTC.
    pub unix_ms: u64,
    pub request_id: Option<&'a [u8]>,
    pub source: SocketAddr,
    pub client: IpAddr,
    pub method: Option<&'a [u8]>,
    pub host: Option<&'a [u8]>,
    pub path: Option<&'a [u8]>,
    /// Without the `?`.
    pub query: Option<&'a [u8]>,
    /// 0: nothing was sent.
    pub status: u16,
    /// `Reason::as_str`.
    pub reason: Option<&'static str>,
    pub route: Option<&'a str>,
    pub service: Option<&'a str>,
    pub consumer: Option<&'a str>,
    pub upstream: Option<SocketAddr>,
    pub attempts: u32,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub durations: Durations,
    pub user_agent: Option<&'a [u8]>,
    /// Request headers to add, lower-case names; a name that comes twice has two fields of one name.
    pub headers: &'a [(&'a str, &'a [u8])],
    pub tls: Option<&'static str>,
    pub hop: Hop<'a>,
    /// Empty for a stream that is no HTTP to us.
    pub http: &'static str,
    pub generation: u64,
    pub shard: u32,
}

/// What is known of the client's connection beside addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop<'a> {
    /// Server name that the client asked for.
    pub sni: Option<&'a str>,
    /// Subject of its certificate.
    pub certificate: Option<&'a str>,
    /// The balancer's name for the connection.
    pub proxy_id: Option<&'a [u8]>,
    /// Server name that the client asked the balancer for.
    pub proxy_authority: Option<&'a str>,
    /// Protocol that the balancer agreed on.
    pub proxy_alpn: Option<&'a str>,
}

/// Where the time of an exchange went, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    pub total_us: u64,
    pub gateway_us: u64,
    pub connect_us: Option<u64>,
    pub first_byte_us: Option<u64>,
}

/// Turns records into lines; one per shard, since it remembers the second it last wrote.
#[derive(Debug, Default)]
pub struct Format {
    stamp: number::Stamp,
    redaction: Redaction,
}

impl Format {
    /// A formatter that hides the values of `redaction`'s parameters.
    pub fn new(redaction: Redaction) -> Self {
        Self { stamp: number::Stamp::default(), redaction }
    }

    /// Appends one JSON object and a newline to `out`.
    pub fn append(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        self.stamp.append(record.unix_ms, out);
        out.push(b'"');
        text(b",\"request_id\":", record.request_id, out);
        out.extend_from_slice(b",\"source\":\"");
        socket_address(&record.source, out);
        out.extend_from_slice(b"\",\"client\":\"");
        address(&record.client, out);
        out.push(b'"');
        text(b",\"method\":", record.method, out);
        text(b",\"host\":", record.host, out);
        self.append_path(record, out);
        if record.status != 0 {
            integer(b",\"status\":", u64::from(record.status), out);
        }
        text(b",\"reason\":", record.reason.map(str::as_bytes), out);
        text(b",\"route\":", record.route.map(str::as_bytes), out);
        text(b",\"service\":", record.service.map(str::as_bytes), out);
        text(b",\"consumer\":", record.consumer.map(str::as_bytes), out);
        if let Some(target) = &record.upstream {
            out.extend_from_slice(b",\"upstream\":\"");
            socket_address(target, out);
            out.push(b'"');
        }
        if record.attempts > 0 {
            integer(b",\"attempts\":", u64::from(record.attempts), out);
        }
        integer(b",\"request_bytes\":", record.request_bytes, out);
        integer(b",\"response_bytes\":", record.response_bytes, out);
        append_durations(&record.durations, out);
        text(b",\"user_agent\":", record.user_agent, out);
        text(b",\"tls\":", record.tls.map(str::as_bytes), out);
        append_hop(&record.hop, out);
        text(b",\"http\":", Some(record.http.as_bytes()).filter(|version| !version.is_empty()), out);
        self.append_headers(record.headers, out);
        integer(b",\"generation\":", record.generation, out);
        integer(b",\"shard\":", u64::from(record.shard), out);
        out.extend_from_slice(b"}\n");
    }

    fn append_path(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let Some(path) = record.path else { return };
        out.extend_from_slice(b",\"path\":\"");
        escape::content(path, out);
        if let Some(query) = record.query {
            out.push(b'?');
            self.redaction.append(query, out);
        }
        out.push(b'"');
    }

    fn append_headers(&self, headers: &[(&str, &[u8])], out: &mut Vec<u8>) {
        for (index, (name, value)) in headers.iter().enumerate() {
            out.extend_from_slice(if index == 0 { b",\"headers\":{" } else { b"," });
            escape::string(name.as_bytes(), out);
            out.push(b':');
            escape::string(if self.redaction.hides_header(name) { MASK } else { value }, out);
        }
        if !headers.is_empty() {
            out.push(b'}');
        }
    }
}

fn append_hop(hop: &Hop<'_>, out: &mut Vec<u8>) {
    text(b",\"sni\":", hop.sni.map(str::as_bytes), out);
    text(b",\"client_cert\":", hop.certificate.map(str::as_bytes), out);
    text(b",\"proxy_id\":", hop.proxy_id, out);
    text(b",\"proxy_authority\":", hop.proxy_authority.map(str::as_bytes), out);
    text(b",\"proxy_alpn\":", hop.proxy_alpn.map(str::as_bytes), out);
}

fn append_durations(durations: &Durations, out: &mut Vec<u8>) {
    integer(b",\"total_us\":", durations.total_us, out);
    integer(b",\"gateway_us\":", durations.gateway_us, out);
    if let Some(connect) = durations.connect_us {
        integer(b",\"connect_us\":", connect, out);
    }
    if let Some(first_byte) = durations.first_byte_us {
        integer(b",\"first_byte_us\":", first_byte, out);
    }
}

fn text(key: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        out.extend_from_slice(key);
        escape::string(value, out);
    }
}

fn integer(key: &[u8], value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(key);
    number::decimal(value, out);
}

fn address(address: &IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => {
            for (index, octet) in v4.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                number::decimal(u64::from(octet), out);
            }
        }
        IpAddr::V6(v6) => {
            // Compression rules are worth the standard library's pace; a Vec takes every write.
            let _ = write!(out, "{v6}");
        }
    }
}

fn socket_address(socket: &SocketAddr, out: &mut Vec<u8>) {
    match socket {
        SocketAddr::V4(v4) => {
            address(&IpAddr::V4(*v4.ip()), out);
            out.push(b':');
            number::decimal(u64::from(v4.port()), out);
        }
        SocketAddr::V6(v6) => {
            let _ = write!(out, "{v6}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn least() -> Record<'static> {
        Record {
            unix_ms: 1_709_164_800_001,
            request_id: None,
            source: "192.0.2.1:4321".parse().unwrap(),
            client: "192.0.2.1".parse().unwrap(),
            method: None,
            host: None,
            path: None,
            query: None,
            status: 0,
            reason: None,
            route: None,
            service: None,
            consumer: None,
            upstream: None,
            attempts: 0,
            request_bytes: 0,
            response_bytes: 0,
            durations: Durations::default(),
            user_agent: None,
            headers: &[],
            tls: None,
            hop: Hop::default(),
            http: "1.1",
            generation: 1,
            shard: 0,
        }
    }

    fn line(record: &Record<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        Format::default().append(record, &mut out);
        out
    }

    fn parsed(record: &Record<'_>) -> Value {
        serde_json::from_slice(&line(record)).unwrap()
    }

    #[test]
    fn absent_fields_are_absent() {
        let expected = json!({
            "time": "2024-02-29T00:00:00.001Z", "source": "192.0.2.1:4321", "client": "192.0.2.1",
            "request_bytes": 0, "response_bytes": 0, "total_us": 0, "gateway_us": 0, "http": "1.1",
            "generation": 1, "shard": 0,
        });
        assert_eq!(parsed(&least()), expected);
    }

    #[test]
    fn every_field() {
        let record = Record {
            request_id: Some(b"01f"),
            source: "[2001:db8::1]:80".parse().unwrap(),
            client: "2001:db8:0:0::2".parse().unwrap(),
            method: Some(b"GET"),
            host: Some(b"a.example"),
            path: Some(b"/x/\"y\""),
            query: Some(b"token=t&q=1"),
            status: 503,
            reason: Some("no_healthy_target"),
            route: Some("r\u{e9}"),
            service: Some("s"),
            consumer: Some("c"),
            upstream: Some("198.51.100.7:8080".parse().unwrap()),
            attempts: 2,
            request_bytes: 1,
            response_bytes: u64::MAX,
            durations: Durations { total_us: 9, gateway_us: 4, connect_us: Some(0), first_byte_us: Some(5) },
            user_agent: Some(b"curl\\8"),
            headers: &[("x-a", b"1"), ("Authorization", b"Bearer x")],
            tls: Some("TLSv1.3"),
            hop: Hop {
                sni: Some("a.example"),
                certificate: Some("CN=\"ann\""),
                proxy_id: Some(b"id"),
                proxy_authority: Some("b.example"),
                proxy_alpn: Some("h2"),
            },
            shard: 3,
            ..least()
        };
        let expected = json!({
            "time": "2024-02-29T00:00:00.001Z", "request_id": "01f", "source": "[2001:db8::1]:80",
            "client": "2001:db8::2", "method": "GET", "host": "a.example", "path": "/x/\"y\"?token=***&q=1",
            "status": 503, "reason": "no_healthy_target", "route": "r\u{e9}", "service": "s", "consumer": "c",
            "upstream": "198.51.100.7:8080", "attempts": 2, "request_bytes": 1, "response_bytes": u64::MAX,
            "total_us": 9, "gateway_us": 4, "connect_us": 0, "first_byte_us": 5, "user_agent": "curl\\8",
            "headers": {"x-a": "1", "Authorization": "***"}, "tls": "TLSv1.3", "http": "1.1", "generation": 1, "shard": 3,
            "sni": "a.example", "client_cert": "CN=\"ann\"", "proxy_id": "id", "proxy_authority": "b.example",
            "proxy_alpn": "h2",
        });
        assert_eq!(parsed(&record), expected);
    }

    proptest! {
        #[test]
        fn hostile_text_makes_one_line_of_json(
            method in any::<Vec<u8>>(), path in any::<Vec<u8>>(), query in any::<Vec<u8>>(),
            agent in any::<Vec<u8>>(), route in any::<String>(), octets in any::<u32>(), port in any::<u16>(),
        ) {
            let client = IpAddr::from(octets.to_be_bytes());
            let record = Record {
                method: Some(&method), path: Some(&path), query: Some(&query), user_agent: Some(&agent),
                route: Some(&route), client, source: (client, port).into(), ..least()
            };
            let text = line(&record);
            prop_assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(text.last(), Some(&b'\n'));
            let value: Value = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(&value["route"], &json!(route));
            prop_assert_eq!(&value["method"], &json!(String::from_utf8_lossy(&method)));
            prop_assert_eq!(&value["user_agent"], &json!(String::from_utf8_lossy(&agent)));
            prop_assert_eq!(&value["client"], &json!(client.to_string()));
            prop_assert_eq!(&value["source"], &json!(record.source.to_string()));
        }
    }
}
