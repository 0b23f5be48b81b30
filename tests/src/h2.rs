//! A client of HTTP/2 that sends exactly the frames it is told to, and reads what comes back.
//!
//! Owns the frames and as much of HPACK as a test needs: field lines are written as literals without an index, so that a
//! block can be told by its bytes; of responses only the status is decoded. It never obeys: windows, settings and states
//! are the test's affair.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What a client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest wait for a frame.
const PATIENCE: Duration = Duration::from_secs(20);

/// Frame types.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Frame flags.
pub mod flag {
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 32;
}

/// Error codes (RFC 9113 section 7).
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// A frame as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(u32::MAX, u32::from_be_bytes)
    }

    /// The first four octets as a number: the increment of a WINDOW_UPDATE.
    pub fn word(&self) -> u32 {
        self.payload.first_chunk().map_or(0, |word| u32::from_be_bytes(*word))
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9 + payload.len());
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A SETTINGS frame of these parameters.
pub fn settings(parameters: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in parameters {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// A WINDOW_UPDATE frame.
pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// A RST_STREAM frame.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// Field lines as a header block: literals that are not indexed, without Huffman coding.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        text(&mut bytes, name.as_bytes());
        text(&mut bytes, value.as_bytes());
    }
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    // An integer with a prefix of seven bits (RFC 7541 section 5.1).
    let mut rest = text.len();
    if rest < 127 {
        bytes.push(rest as u8);
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        bytes.push(rest as u8);
    }
    bytes.extend_from_slice(text);
}

/// The pseudo-fields of a request.
pub fn pseudo<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "test")]
}

/// A GET without a body on `stream`: one HEADERS frame.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, &block(&pseudo("GET", path)))
}

/// The head of a POST whose body follows.
pub fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream, &block(&pseudo("POST", path)))
}

/// A connection of HTTP/2 without TLS, by prior knowledge.
#[derive(Debug)]
pub struct H2 {
    stream: TcpStream,
    received: Vec<u8>,
    /// SETTINGS frames of the other side are acknowledged as they come.
    pub acknowledges: bool,
}

impl H2 {
    /// Connects, and sends nothing.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> H2 {
        Self::over(TcpStream::connect(addr).expect("a connection"))
    }

    /// On a connection that is there.
    ///
    /// # Panics
    /// When its options cannot be set.
    #[track_caller]
    pub fn over(stream: TcpStream) -> H2 {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        H2 { stream, received: Vec::new(), acknowledges: true }
    }

    /// Connects, and exchanges prefaces and settings.
    #[track_caller]
    pub fn open(addr: SocketAddr) -> H2 {
        Self::open_with(addr, &[])
    }

    /// [`open`](Self::open) with settings of ours.
    #[track_caller]
    pub fn open_with(addr: SocketAddr, parameters: &[(u16, u32)]) -> H2 {
        let mut h2 = Self::connect(addr);
        h2.send(&[PREFACE, &settings(parameters)].concat());
        let first = h2.frame().expect("SETTINGS come first");
        assert_eq!((first.kind, first.flags), (kind::SETTINGS, 0), "{first:?}");
        let acknowledged = h2.until(|frame| frame.kind == kind::SETTINGS && frame.has(flag::ACK));
        assert!(acknowledged.is_some(), "our SETTINGS are acknowledged");
        h2
    }

    /// Sends bytes. A connection that is gone is found out when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// [`send`](Self::send) that tells.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(PATIENCE))?;
        self.stream.write_all(bytes)
    }

    /// The next frame; `None` when the connection has ended.
    ///
    /// # Panics
    /// When nothing comes.
    #[track_caller]
    pub fn frame(&mut self) -> Option<Frame> {
        match self.frame_within(PATIENCE) {
            Ok(frame) => frame,
            Err(Silence) => panic!("no frame within {PATIENCE:?}"),
        }
    }

    /// The next frame that comes within `time`.
    ///
    /// # Errors
    /// [`Silence`] when none does.
    pub fn frame_within(&mut self, time: Duration) -> Result<Option<Frame>, Silence> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(frame) = self.take() {
                if self.acknowledges && frame.kind == kind::SETTINGS && !frame.has(flag::ACK) {
                    self.send(&self::frame(kind::SETTINGS, flag::ACK, 0, &[]));
                }
                return Ok(Some(frame));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Silence);
            }
            self.stream.set_read_timeout(Some(left)).expect("a time limit");
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(n) => self.received.extend_from_slice(&bytes[..n]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(Silence);
                }
                Err(_) => return Ok(None),
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let header: [u8; 9] = *self.received.first_chunk()?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let payload = self.received.get(9..9 + length)?.to_vec();
        self.received.drain(..9 + length);
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & 0x7fff_ffff;
        Some(Frame { kind: header[3], flags: header[4], stream, payload })
    }

    /// Reads until a frame is wanted; `None` when the connection ends first.
    #[track_caller]
    pub fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.frame()?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// Waits for the head of the response on `stream`, and gives its status.
    ///
    /// # Panics
    /// When the stream or the connection ends without one.
    #[track_caller]
    pub fn status(&mut self, stream: u32) -> u16 {
        let frame = self.until(|frame| {
            (frame.stream == stream && matches!(frame.kind, kind::HEADERS | kind::RST_STREAM))
                || frame.kind == kind::GOAWAY
        });
        let frame = frame.unwrap_or_else(|| panic!("the connection ended before the response on {stream}"));
        assert_eq!(frame.kind, kind::HEADERS, "instead of a response on {stream}: {frame:?}");
        status_of(&frame.payload)
    }

    /// Receives a whole response on `stream`, and gives status and body.
    #[track_caller]
    pub fn response(&mut self, stream: u32) -> (u16, Vec<u8>) {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let frame = self.until(|frame| frame.stream == stream || frame.kind == kind::GOAWAY);
            let frame =
                frame.unwrap_or_else(|| panic!("the connection ended within the response on {stream}"));
            match frame.kind {
                kind::HEADERS if status < 200 => status = status_of(&frame.payload),
                kind::HEADERS => {}
                kind::DATA => body.extend_from_slice(&frame.payload),
                kind::WINDOW_UPDATE => continue,
                _ => panic!("within the response on {stream}: {frame:?}"),
            }
            if frame.has(flag::END_STREAM) {
                return (status, body);
            }
        }
    }

    /// Asserts that the connection still works: a PING is answered.
    #[track_caller]
    pub fn expect_alive(&mut self) {
        let payload = *b"are you?";
        self.send(&frame(kind::PING, 0, 0, &payload));
        let answer = self.until(|frame| {
            frame.kind == kind::GOAWAY || (frame.kind == kind::PING && frame.payload == payload)
        });
        let answer = answer.expect("the connection ended instead of answering a PING");
        assert_eq!((answer.kind, answer.flags), (kind::PING, flag::ACK), "{answer:?}");
    }

    /// Waits for the end of the connection, and gives the error code of the GOAWAY before it, if there was one.
    #[track_caller]
    pub fn end(&mut self) -> Option<u32> {
        let mut said = None;
        while let Some(frame) = self.frame() {
            if frame.kind == kind::GOAWAY {
                said = Some(frame.code());
            }
        }
        said
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// Nothing came in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence;

/// The status in a header block that begins with it, as every response's does (RFC 9113 section 8.3).
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn status_of(block: &[u8]) -> u16 {
    match without_size_update(block) {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        // A literal whose name is `:status`, with or without an index.
        [0x08 | 0x48 | 0x18, length, rest @ ..] => {
            let value = &rest[..usize::from(length & 0x7f)];
            let digits = if length & 0x80 == 0 { value.to_vec() } else { huffman_digits(value) };
            std::str::from_utf8(&digits).ok().and_then(|text| text.parse().ok()).expect("a number")
        }
        other => panic!("no status at the start of {other:x?}"),
    }
}

/// A block may begin with an update of the table's size (RFC 7541 section 6.3).
fn without_size_update(block: &[u8]) -> &[u8] {
    match block {
        [0x3f, rest @ ..] => {
            let end = rest.iter().position(|byte| byte & 0x80 == 0).map_or(rest.len(), |last| last + 1);
            &rest[end..]
        }
        [0x20..=0x3e, rest @ ..] => rest,
        block => block,
    }
}

/// Digits in the code of RFC 7541 appendix B: 0 to 2 have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> Vec<u8> {
    let mut digits = Vec::new();
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let mut at = 0;
    while let Some(five) = bits.get(at..at + 5) {
        let short = five.iter().fold(0, |code, bit| code << 1 | bit);
        if short <= 2 {
            digits.push(b'0' + short);
            at += 5;
            continue;
        }
        let Some(six) = bits.get(at..at + 6) else { break };
        let long = six.iter().fold(0, |code, bit| code << 1 | bit);
        if !(0x19..=0x1f).contains(&long) {
            break;
        }
        digits.push(b'3' + long - 0x19);
        at += 6;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_in_every_spelling() {
        assert_eq!(status_of(&[0x88]), 200);
        assert_eq!(status_of(&[0x3f, 0xe1, 0x1f, 0x8d]), 404);
        assert_eq!(status_of(b"\x08\x03503"), 503);
        // RFC 7541 appendix C.6.1: 302 in Huffman code.
        assert_eq!(status_of(&[0x48, 0x82, 0x64, 0x02]), 302);
    }
}
