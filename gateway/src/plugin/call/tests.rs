//! Calls against a service that answers by a script, on a shard's own runtime.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::net::{Driver, block_on};

/// A service that gives each connection the next script: one answer for each request. Counts connections.
fn service(scripts: Vec<Vec<&'static str>>) -> (Arc<Service>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = accepted.clone();
    thread::spawn(move || {
        for script in scripts {
            let Ok((mut stream, _)) = listener.accept() else { return };
            counted.fetch_add(1, Ordering::SeqCst);
            for answer in script {
                let mut received = Vec::new();
                let mut byte = [0];
                while !received.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    received.push(byte[0]);
                }
                let _ = stream.write_all(answer.as_bytes());
                if answer.is_empty() {
                    let _ = stream.read(&mut byte); // silent until the caller goes
                }
            }
        }
    });
    let url = Url::parse(&format!("http://{address}/")).expect("a URL");
    (Arc::new(Service { url, address: Some(address), tls: None, tls_name: None }), accepted)
}

/// What comes of calls in a row.
fn calls(service: Arc<Service>, count: usize, body_max: usize) -> Vec<Result<(u16, String), CallError>> {
    let run = async move {
        net::spawn(async { net::deadline::turn_wheel().await });
        let caller = Rc::new(Caller::new(service));
        let mut outcomes = Vec::new();
        for _ in 0..count {
            let limit = Duration::from_millis(1500);
            let call = caller.call(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Method::Get, limit, body_max);
            let text =
                |reply: Reply| (reply.head.status(), String::from_utf8_lossy(&reply.body).into_owned());
            outcomes.push(call.await.map(text));
        }
        outcomes
    };
    block_on(Driver::Epoll, run).expect("a runtime")
}

const FOUR: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour";

#[test]
fn a_connection_is_used_again_while_it_is_open() {
    let chunked = "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (service, accepted) = service(vec![vec![FOUR, chunked], vec![FOUR]]);
    let found = calls(service, 3, 100);
    let four = Ok((200, "four".to_owned()));
    assert_eq!(found, [four.clone(), Ok((403, "abc".to_owned())), four]);
    assert_eq!(accepted.load(Ordering::SeqCst), 2, "the first connection was closed after two");
}

#[test]
fn an_answer_that_is_too_long_or_broken_is_no_answer() {
    for (answer, expected) in [
        (FOUR, CallError::BadResponse),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", CallError::Broken),
        ("SSH-2.0\r\n\r\n", CallError::BadResponse),
        ("", CallError::TimedOut),
    ] {
        let (service, _) = service(vec![vec![answer]]);
        assert_eq!(calls(service, 1, 3), [Err(expected)], "{answer:?}");
    }
}

#[test]
fn nobody_there() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let url = Url::parse(&format!("http://{address}/")).expect("a URL");
    let nobody = Arc::new(Service { url, address: Some(address), tls: None, tls_name: None });
    assert_eq!(calls(nobody, 1, 3), [Err(CallError::Connect)]);
}
