//! HTTP/1.1 messages off a byte stream, for both the clients and the origins of the tests.
//!
//! Deliberately naive and independent of the gateway's parser: it accepts what it is given, keeps
//! the raw bytes, and leaves every judgement to the test. It never normalises a head.

use std::io::{self, Read};

use crate::pattern;

/// Bytes of a body that are kept; what follows is counted and compared with the pattern only.
const KEPT: usize = 256 * 1024;

/// A head as it came over the wire.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// Request line or status line without its line end.
    pub start: String,
    /// Fields in order, names as sent, values without surrounding blanks.
    pub fields: Vec<(String, String)>,
    /// Every byte, the empty line included.
    pub raw: Vec<u8>,
}

impl Head {
    fn parse(raw: Vec<u8>) -> Head {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .filter(|line| !line.is_empty())
            .map(|line| line.split_once(':').unwrap_or((line, "")))
            .map(|(name, value)| (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
            .collect();
        Head { start, fields, raw }
    }

    /// First value of a field; names compare without case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// All values of a field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The `index`-th blank-separated word of the first line.
    pub fn word(&self, index: usize) -> &str {
        self.start.split(' ').nth(index).unwrap_or_default()
    }

    /// Whether a comma-separated field holds `token`.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).iter().flat_map(|value| value.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
    }

    /// How the body of a request with this head is delimited.
    pub fn request_framing(&self) -> Framing {
        if self.has_token("transfer-encoding", "chunked") {
            return Framing::Chunked;
        }
        match self.get("content-length").and_then(|v| v.parse().ok()) {
            Some(length) => Framing::Length(length),
            None => Framing::Length(0),
        }
    }

    /// How the body of a response with this head is delimited (RFC 9112 section 6.3).
    pub fn response_framing(&self, to_head: bool) -> Framing {
        let status: u16 = self.word(1).parse().unwrap_or(0);
        if to_head || status < 200 || status == 204 || status == 304 {
            return Framing::Length(0);
        }
        if self.has_token("transfer-encoding", "chunked") {
            return Framing::Chunked;
        }
        match self.get("content-length").and_then(|v| v.parse().ok()) {
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        }
    }
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// A body as received: its beginning, its length, and whether all of it followed [`pattern`].
#[derive(Debug, Clone, Default)]
pub struct Body {
    /// The first bytes, up to a bound.
    pub bytes: Vec<u8>,
    /// Length of the payload without framing, in bytes.
    pub len: u64,
    /// Set once a byte differs from the pattern.
    pub off_pattern: bool,
    /// Trailer fields of a chunked body.
    pub trailers: Vec<(String, String)>,
    /// Chunks seen, the last one not counted; 0 for other framings.
    pub chunks: usize,
}

impl Body {
    fn push(&mut self, part: &[u8]) {
        self.off_pattern |= !pattern::matches(self.len, part);
        self.len += part.len() as u64;
        let room = KEPT.saturating_sub(self.bytes.len()).min(part.len());
        self.bytes.extend_from_slice(&part[..room]);
    }

    /// The kept bytes as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// A buffered reader of messages.
#[derive(Debug)]
pub struct Inbox<R> {
    stream: R,
    buf: Vec<u8>,
}

impl<R: Read> Inbox<R> {
    /// Reads from `stream`, which is taken over so that no byte is lost between two messages.
    pub fn new(stream: R) -> Self {
        Inbox { stream, buf: Vec::new() }
    }

    /// The stream under it.
    pub fn stream(&mut self) -> &mut R {
        &mut self.stream
    }

    /// Reads more; `false` at the end of the stream.
    ///
    /// # Errors
    /// Those of the stream, its time limit included.
    pub fn fill(&mut self) -> io::Result<bool> {
        let mut piece = [0; 16 * 1024];
        // A debugger at the process interrupts what waits with a time limit (signal(7)).
        let n = loop {
            match self.stream.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.buf.extend_from_slice(&piece[..n]);
        Ok(n > 0)
    }

    /// Bytes received and not consumed yet.
    pub fn pending(&self) -> &[u8] {
        &self.buf
    }

    /// Reads one head; `None` when the stream ends before its first byte.
    ///
    /// # Errors
    /// `UnexpectedEof` inside a head, and those of the stream.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(at) = find(&self.buf, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill()? {
                return if self.buf.is_empty() { Ok(None) } else { Err(cut("inside a head")) };
            }
        };
        Ok(Some(Head::parse(self.buf.drain(..end).collect())))
    }

    /// Reads what comes next, whatever it is; nothing at the end of the stream.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.buf.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.buf))
    }

    /// Reads exactly `len` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` when there are fewer, and those of the stream.
    pub fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.buf.len() < len {
            if !self.fill()? {
                return Err(cut(&format!("after {} of {len} bytes", self.buf.len())));
            }
        }
        Ok(self.buf.drain(..len).collect())
    }

    /// Reads one line, without its CRLF.
    ///
    /// # Errors
    /// `UnexpectedEof` before the line end, and those of the stream.
    pub fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.buf, b"\r\n") {
                let line: Vec<u8> = self.buf.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.fill()? {
                return Err(cut("inside a line"));
            }
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// `UnexpectedEof` when it ends early, `InvalidData` on a bad chunk size, those of the stream.
    pub fn body(&mut self, framing: Framing) -> io::Result<Body> {
        let mut body = Body::default();
        match framing {
            Framing::Length(length) => self.exactly(length, &mut body)?,
            Framing::UntilClose => loop {
                body.push(&self.buf);
                self.buf.clear();
                if !self.fill()? {
                    break;
                }
            },
            Framing::Chunked => self.chunks(&mut body)?,
        }
        Ok(body)
    }

    fn chunks(&mut self, body: &mut Body) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("chunk size {line:?}")))?;
            if size == 0 {
                break;
            }
            self.exactly(size, body)?;
            body.chunks += 1;
            if !self.line()?.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no line end after a chunk"));
            }
        }
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { return Ok(()) };
            body.trailers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn exactly(&mut self, length: u64, body: &mut Body) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.buf.is_empty() && !self.fill()? {
                return Err(cut("inside a body"));
            }
            let take = self.buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            body.push(&self.buf[..take]);
            self.buf.drain(..take);
            left -= take as u64;
        }
        Ok(())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn cut(place: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the stream ended {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_chunks_with_extension_and_trailers() {
        let text = b"3;x=1\r\n\x00\x01\x02\r\n2\r\n\x03\x04\r\n0\r\nA: b\r\n\r\nrest";
        let mut inbox = Inbox::new(&text[..]);
        let body = inbox.body(Framing::Chunked).expect("a body");
        assert_eq!((body.len, body.chunks, body.off_pattern), (5, 2, false));
        assert_eq!(body.trailers, [("A".to_owned(), "b".to_owned())]);
        assert_eq!(inbox.pending(), b"rest");
    }

    #[test]
    fn a_short_body_is_an_error() {
        let mut inbox = Inbox::new(&b"abc"[..]);
        let error = inbox.body(Framing::Length(4)).expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn response_framing_by_table() {
        let head = |text: &str| Head::parse(text.as_bytes().to_vec());
        let length = head("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
        assert_eq!(length.response_framing(false), Framing::Length(4));
        assert_eq!(length.response_framing(true), Framing::Length(0));
        assert_eq!(head("HTTP/1.1 204 x\r\n\r\n").response_framing(false), Framing::Length(0));
        assert_eq!(head("HTTP/1.0 200 x\r\n\r\n").response_framing(false), Framing::UntilClose);
        let chunked = head("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n");
        assert_eq!(chunked.response_framing(false), Framing::Chunked);
    }
}
