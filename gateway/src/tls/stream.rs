//! A connection that is plain or TLS, with the same two calls either way: `recv` into an owned buffer, `send` one.
//!
//! Both halves share the TLS state through a `RefCell` that is borrowed only between awaits, so a receive and a send
//! may be in flight at once. What the receiving half makes the session say (a key update, an alert) leaves with the
//! next send or with [`Tx::flush`].

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use super::{Session, TlsFault};
use crate::net;

/// Ciphertext received at once while a connection is quiet.
const CIPHER_CHUNK: usize = 4 * 1024;
/// Ciphertext received at once when records come in full: one record and its header.
const CIPHER_CHUNK_LARGE: usize = 16 * 1024 + 256;

/// A connected transport in two halves.
pub struct Stream {
    pub rx: Rx,
    pub tx: Tx,
}

/// The receiving half.
pub struct Rx {
    raw: net::Rx,
    tls: Option<TlsRx>,
}

/// The sending half.
pub struct Tx {
    raw: net::Tx,
    tls: Option<TlsTx>,
}

struct TlsRx {
    session: Rc<RefCell<Session>>,
    cipher: Vec<u8>,
}

struct TlsTx {
    session: Rc<RefCell<Session>>,
    cipher: Vec<u8>,
}

/// Why a handshake did not end in a session.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the other side closed during the handshake")]
    Abandoned,
    #[error("the handshake took longer than its limit")]
    TimedOut,
    #[error(transparent)]
    Fault(#[from] TlsFault),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Stream {
    /// A connection without TLS.
    pub fn plain(stream: net::Stream) -> Self {
        Self { rx: Rx { raw: stream.rx, tls: None }, tx: Tx { raw: stream.tx, tls: None } }
    }

    /// Runs the handshake of `session` over `stream`. `received` holds what was read already (the caller looks at the
    /// first bytes to tell plain HTTP from TLS). The caller arms and disarms the deadline of the receiving half.
    ///
    /// # Errors
    /// See [`HandshakeError`]; the alert that says why was sent when there was one to send.
    pub async fn handshake(
        mut stream: net::Stream,
        mut session: Session,
        received: Vec<u8>,
    ) -> Result<Self, HandshakeError> {
        let mut cipher = received;
        let mut out = Vec::new();
        loop {
            let fed = if cipher.is_empty() { Ok(()) } else { session.feed(&cipher) };
            cipher.clear();
            session.take_output(&mut out);
            if !out.is_empty() {
                stream.tx.send(&mut out).await?;
            }
            fed?;
            if !session.is_handshaking() {
                break;
            }
            cipher.reserve(CIPHER_CHUNK);
            if stream.rx.recv(&mut cipher, CIPHER_CHUNK).await? == 0 {
                return Err(if stream.rx.deadline.expired() {
                    HandshakeError::TimedOut
                } else {
                    HandshakeError::Abandoned
                });
            }
        }
        let session = Rc::new(RefCell::new(session));
        cipher.clear();
        Ok(Self {
            rx: Rx { raw: stream.rx, tls: Some(TlsRx { session: session.clone(), cipher }) },
            tx: Tx { raw: stream.tx, tls: Some(TlsTx { session, cipher: out }) },
        })
    }

    /// Reads a fact of the session (SNI, version, ALPN); `None` without TLS.
    pub fn with_session<T>(&self, read: impl FnOnce(&Session) -> T) -> Option<T> {
        self.rx.tls.as_ref().map(|tls| read(&tls.session.borrow()))
    }
}

impl Rx {
    /// The time limit of receiving.
    pub fn deadline(&self) -> &net::deadline::Deadline {
        &self.raw.deadline
    }

    /// As [`net::Rx::recv`], of plaintext. Zero also when a TLS connection ends without close_notify: message framing
    /// decides whether that was a truncation.
    ///
    /// # Errors
    /// Those of the socket; `InvalidData` for a TLS fault.
    pub async fn recv(&mut self, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.raw.recv(buffer, max).await;
        };
        let max = max.min(buffer.capacity() - buffer.len());
        loop {
            let plain = tls.session.borrow_mut().read_plain(buffer, max);
            if plain > 0 {
                return Ok(plain);
            }
            if tls.session.borrow().received_close_notify() {
                return Ok(0);
            }
            let chunk = if tls.cipher.capacity() > CIPHER_CHUNK { CIPHER_CHUNK_LARGE } else { CIPHER_CHUNK };
            tls.cipher.clear();
            tls.cipher.reserve(chunk);
            let n = self.raw.recv(&mut tls.cipher, chunk).await?;
            if n == 0 {
                return Ok(0);
            }
            let fed = tls.session.borrow_mut().feed(&tls.cipher);
            fed.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
            if n == CIPHER_CHUNK {
                // Full reads: more is waiting, so receive whole records from now on.
                tls.cipher.clear();
                tls.cipher.reserve(CIPHER_CHUNK_LARGE);
            }
        }
    }

    /// Whether an end that was received is the other side's word: always without TLS, by close_notify with it.
    pub fn ended_cleanly(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.session.borrow().received_close_notify())
    }

    /// As [`net::Rx::is_quiet`].
    pub fn is_quiet(&self) -> bool {
        self.raw.is_quiet()
    }

    /// Frees what a quiet connection need not hold.
    pub fn shrink(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.cipher = Vec::new();
        }
    }
}

impl Tx {
    /// The time limit of sending.
    pub fn deadline(&self) -> &net::deadline::Deadline {
        &self.raw.deadline
    }

    /// As [`net::Tx::send`].
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn send(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let result = self.send_from(buffer, 0).await;
        buffer.clear();
        result
    }

    /// As [`net::Tx::send_from`]. The time limit holds for this send: once all is sent, it is disarmed, as it would
    /// otherwise cut a connection that waits for something else.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn send_from(&mut self, buffer: &mut Vec<u8>, start: usize) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            self.raw.send_from(buffer, start).await?;
            self.raw.deadline.disarm();
            return Ok(());
        };
        let mut done = start;
        while done < buffer.len() {
            {
                // Takes at most OUTPUT_LIMIT bytes a turn, which bounds the memory of a large send.
                let mut session = tls.session.borrow_mut();
                done += session.write_plain(&buffer[done..]);
                session.take_output(&mut tls.cipher);
            }
            if tls.cipher.is_empty() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.raw.send(&mut tls.cipher).await?;
        }
        self.raw.deadline.disarm();
        if tls.cipher.capacity() > 2 * CIPHER_CHUNK_LARGE {
            tls.cipher = Vec::new();
        }
        Ok(())
    }

    /// Sends what the session has to say by itself (alerts, key updates).
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        tls.session.borrow_mut().take_output(&mut tls.cipher);
        if tls.cipher.is_empty() { Ok(()) } else { self.raw.send(&mut tls.cipher).await }
    }

    /// Says that nothing more will be sent: close_notify where there is TLS, then FIN.
    pub async fn finish(&mut self) {
        if let Some(tls) = &self.tls {
            tls.session.borrow_mut().send_close_notify();
            // The other side may be gone already; then there is nobody to tell.
            let _ = self.flush().await;
        }
        self.raw.finish();
    }

    /// As [`net::Tx::reset_on_close`].
    pub fn reset_on_close(&self) {
        self.raw.reset_on_close();
    }
}
