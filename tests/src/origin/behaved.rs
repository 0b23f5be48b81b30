//! Origins that keep to the protocol.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{Received, Script, Wire};
use crate::pattern;

/// Answers 200 with a JSON description of the request exactly as it was received.
///
/// Keys: `origin` (the name given), `method`, `target`, `version`, `headers` (list of pairs in
/// order), `raw_head`, `body` (text of its beginning), `body_len`, `body_ok` (followed the
/// pattern), `trailers`, `chunks`, `connection`. The header `X-Target` repeats the target.
#[derive(Debug, Default)]
pub struct Echo {
    /// Tells two echoes of one upstream apart.
    pub name: &'static str,
}

impl Script for Echo {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while let Some(received) = wire.request()? {
            let close = received.head.has_token("connection", "close");
            let head_only = received.head.word(0) == "HEAD";
            let body = describe(self.name, &received).to_string();
            let fields = format!("Content-Type: application/json\r\nX-Target: {}\r\n", received.head.word(1));
            if head_only {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
                wire.send(head.as_bytes())?;
            } else {
                wire.answer("200 OK", &fields, body.as_bytes())?;
            }
            if close {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn describe(name: &str, received: &Received) -> serde_json::Value {
    let Received { head, body, connection } = received;
    json!({
        "origin": name,
        "method": head.word(0),
        "target": head.word(1),
        "version": head.word(2),
        "headers": head.fields,
        "raw_head": String::from_utf8_lossy(&head.raw),
        "body": if body.len <= 64 * 1024 { body.text() } else { String::new() },
        "body_len": body.len,
        "body_ok": !body.off_pattern,
        "trailers": body.trailers,
        "chunks": body.chunks,
        "connection": connection,
    })
}

/// Gives every request the same answer.
#[derive(Debug)]
pub struct Canned {
    /// Status code and reason phrase.
    pub status: &'static str,
    /// Header lines, each with its CRLF; `Content-Length` is added.
    pub fields: &'static str,
    pub body: &'static str,
}

impl Script for Canned {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while wire.request()?.is_some() {
            wire.answer(self.status, self.fields, self.body.as_bytes())?;
        }
        Ok(())
    }
}

/// Answers with `len` bytes of the pattern, by `Content-Length` or in chunks of one piece.
#[derive(Debug)]
pub struct Bulk {
    /// Length of the body in bytes.
    pub len: u64,
    /// Sends chunks instead of a length.
    pub chunked: bool,
}

impl Script for Bulk {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while wire.request()?.is_some() {
            if self.chunked {
                wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            } else {
                wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", self.len).as_bytes())?;
            }
            let mut sent = 0;
            while sent < self.len {
                let part = pattern::piece(sent, usize::try_from(self.len - sent).unwrap_or(pattern::PIECE));
                if self.chunked {
                    wire.send(format!("{:x}\r\n", part.len()).as_bytes())?;
                }
                wire.send(part)?;
                if self.chunked {
                    wire.send(b"\r\n")?;
                }
                sent += part.len() as u64;
            }
            if self.chunked {
                wire.send(b"0\r\n\r\n")?;
            }
        }
        Ok(())
    }
}

/// Answers with given chunks, each in a write of its own, with extensions and trailers as told.
#[derive(Debug)]
pub struct Chunked {
    /// Further header lines, each with its CRLF.
    pub fields: &'static str,
    pub chunks: &'static [&'static str],
    /// Put after each chunk size, `;name=value`.
    pub extension: &'static str,
    /// Trailer lines, each with its CRLF.
    pub trailers: &'static str,
}

impl Script for Chunked {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while wire.request()?.is_some() {
            let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{}\r\n", self.fields);
            wire.send(head.as_bytes())?;
            for chunk in self.chunks {
                wire.send(format!("{:x}{}\r\n{chunk}\r\n", chunk.len(), self.extension).as_bytes())?;
            }
            wire.send(format!("0\r\n{}\r\n", self.trailers).as_bytes())?;
        }
        Ok(())
    }
}

/// Sends interim responses before the final one; reads the body only after them.
#[derive(Debug)]
pub struct Interim {
    /// Whole interim heads, each ending with an empty line.
    pub interim: &'static str,
}

impl Script for Interim {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while let Some(head) = wire.head()? {
            wire.send(self.interim.as_bytes())?;
            wire.finish(head)?;
            wire.answer("200 OK", "", b"final")?;
        }
        Ok(())
    }
}

/// Delimits its body by the end of the connection, as HTTP/1.0 does.
#[derive(Debug)]
pub struct UntilClose {
    /// Version it claims, `HTTP/1.0` or `HTTP/1.1`.
    pub version: &'static str,
    pub body: &'static str,
}

impl Script for UntilClose {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        if wire.request()?.is_some() {
            wire.send(format!("{} 200 OK\r\nContent-Type: text/plain\r\n\r\n", self.version).as_bytes())?;
            wire.send(self.body.as_bytes())?;
        }
        Ok(())
    }
}

/// Answers `name number`, with the number counting all its requests from 1.
#[derive(Debug, Default)]
pub struct Counting {
    pub name: &'static str,
    count: AtomicUsize,
}

impl Counting {
    /// A counter that calls itself `name`.
    pub fn named(name: &'static str) -> Self {
        Counting { name, count: AtomicUsize::new(0) }
    }
}

impl Script for Counting {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while wire.request()?.is_some() {
            let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
            wire.answer("200 OK", "", format!("{} {number}", self.name).as_bytes())?;
        }
        Ok(())
    }
}
