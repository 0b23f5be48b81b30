//! Origins that break the protocol or the connection.

use std::io;

use super::{Gate, Received, Script, Wire};
use crate::wire::Body;

/// Announces more than it sends, then closes.
#[derive(Debug)]
pub struct Truncating {
    /// Bytes announced by `Content-Length`, or in chunks when 0.
    pub announced: usize,
    /// What is really sent; in chunked form it is one whole chunk without the last one.
    pub sent: &'static str,
}

impl Script for Truncating {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        if wire.request()?.is_none() {
            return Ok(());
        }
        let text = if self.announced == 0 {
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n",
                self.sent.len(),
                self.sent
            )
        } else {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", self.announced, self.sent)
        };
        wire.send(text.as_bytes())
    }
}

/// When a [`Resetting`] origin sends its reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// As soon as the connection is accepted.
    Accepted,
    /// When the head has come, before anything is answered.
    Asked,
    /// Inside its own response body.
    Answering,
}

/// Resets the TCP connection.
#[derive(Debug)]
pub struct Resetting {
    pub moment: Moment,
}

impl Script for Resetting {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        if self.moment == Moment::Accepted {
            return wire.reset();
        }
        let Some(head) = wire.head()? else { return Ok(()) };
        let connection = wire.index();
        wire.record(Received { head, body: Body::default(), connection });
        if self.moment == Moment::Answering {
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin")?;
        }
        wire.reset()
    }
}

/// Answers with bytes that are no HTTP response, or a wrong one, then closes.
#[derive(Debug)]
pub struct Garbage {
    pub bytes: &'static [u8],
}

impl Script for Garbage {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        if wire.request()?.is_some() {
            wire.send(self.bytes)?;
        }
        Ok(())
    }
}

/// Answers on the head alone, then reads what still comes or closes.
#[derive(Debug)]
pub struct EarlyResponse {
    pub status: &'static str,
    /// Closes after the answer instead of reading the body.
    pub close: bool,
}

impl Script for EarlyResponse {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while let Some(head) = wire.head()? {
            let connection = wire.index();
            if self.close {
                wire.record(Received { head, body: Body::default(), connection });
                wire.answer(self.status, "Connection: close\r\n", b"early")?;
                wire.finish_sending()?;
                return wire.drain();
            }
            wire.answer(self.status, "", b"early")?;
            wire.finish(head)?;
        }
        Ok(())
    }
}

/// Keeps the connection after its answers, then closes it while it is idle.
///
/// Whoever sends the next request on the kept connection meets a FIN or a reset.
#[derive(Debug)]
pub struct KeepAliveCloser {
    /// Requests answered on each connection before it is closed.
    pub after: usize,
}

impl Script for KeepAliveCloser {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        for _ in 0..self.after {
            if wire.request()?.is_none() {
                return Ok(());
            }
            wire.answer("200 OK", "", b"kept")?;
        }
        Ok(())
    }
}

/// Answers each request rightly, and adds bytes that nobody asked for.
#[derive(Debug)]
pub struct Chatty {
    /// The right answer, head and body.
    pub answer: &'static str,
    /// What comes after it.
    pub extra: &'static str,
    /// Holds the extra bytes back until the first gate opens; then they reach a connection that is
    /// idle, and the second gate is opened.
    pub gates: Option<[Gate; 2]>,
}

impl Script for Chatty {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while wire.request()?.is_some() {
            match &self.gates {
                None => wire.send(format!("{}{}", self.answer, self.extra).as_bytes())?,
                Some([held, sent]) => {
                    wire.send(self.answer.as_bytes())?;
                    held.pass();
                    wire.send(self.extra.as_bytes())?;
                    sent.open();
                }
            }
        }
        Ok(())
    }
}
