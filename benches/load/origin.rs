//! The origin of the load runs: one thread, one epoll, two fixed responses. It has to cost less than any
//! proxy, or it would be what is measured.
//!
//! It answers `/16k` with 16 KiB, `/echo` with the request head it got (for the check before a run), and
//! anything else with 200 bytes. Never reads bodies: the jobs are all GET. Invariant: responses leave in
//! the order of the requests, also when several arrive in one read.

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

/// Length of the small body.
pub const SMALL: usize = 200;
/// Length of the large body.
pub const LARGE: usize = 16 * 1024;

const LISTENER: Token = Token(usize::MAX);
/// Longest request head; a longer one ends the connection.
const HEAD_MAX: usize = 16 * 1024;

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
}

/// Answers until the process is ended.
pub fn run(address: SocketAddr) -> Result<()> {
    anyhow::ensure!(address.ip().is_loopback(), "loopback only");
    let mut listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut connections: HashMap<Token, Connection> = HashMap::new();
    let mut next = 0;
    let responses = Responses::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let token = Token(next);
                    next += 1;
                    poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                    let connection = Connection { stream, input: Vec::new(), output: Vec::new(), sent: 0 };
                    connections.insert(token, connection);
                }
            } else if let Some(connection) = connections.get_mut(&event.token())
                && connection.turn(&responses, &mut buffer).is_err()
            {
                connections.remove(&event.token());
            }
        }
    }
}

impl Connection {
    /// Reads and answers until the socket would block; an error ends the connection.
    fn turn(&mut self, responses: &Responses, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            self.flush()?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            let used = responses.answer(&self.input, &mut self.output)?;
            self.input.drain(..used);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(n) => self.sent += n,
                // The next writable event continues.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }
}

struct Responses {
    small: Vec<u8>,
    large: Vec<u8>,
}

impl Responses {
    fn new() -> Self {
        Self { small: response(&[b's'; SMALL]), large: response(&[b'l'; LARGE]) }
    }

    /// Appends a response for each whole head in `input` and returns how much of it was used.
    fn answer(&self, input: &[u8], output: &mut Vec<u8>) -> io::Result<usize> {
        let mut used = 0;
        while let Some(length) = head_length(&input[used..]) {
            let head = &input[used..used + length];
            used += length;
            if head.starts_with(b"GET /16k") {
                output.extend_from_slice(&self.large);
            } else if head.starts_with(b"GET /echo") {
                output.extend_from_slice(&response(head));
            } else {
                output.extend_from_slice(&self.small);
            }
        }
        if input.len() - used > HEAD_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(used)
    }
}

fn head_length(input: &[u8]) -> Option<usize> {
    input.windows(4).position(|w| w == b"\r\n\r\n").map(|n| n + 4)
}

/// `X-Origin` is what the token job has to remove.
fn response(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Origin: load\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_whole_head_is_answered_in_order() {
        let responses = Responses::new();
        let mut output = Vec::new();
        let input = b"GET / HTTP/1.1\r\n\r\nGET /16k HTTP/1.1\r\n\r\nGET /half";
        assert_eq!(responses.answer(input, &mut output).unwrap(), input.len() - 9);
        let text = String::from_utf8(output).unwrap();
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2);
        assert!(text.ends_with(&"l".repeat(LARGE)));
        assert!(responses.answer(&[b'x'; HEAD_MAX + 1], &mut Vec::new()).is_err());
    }
}
