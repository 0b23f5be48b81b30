//! Moves bytes between the codec and a socket.
//!
//! The `h2` crate reads and writes a tokio-like transport that may be polled and dropped at any time; our socket halves
//! have futures that own kernel buffers and must be awaited to their end. Between them stand two buffers in memory:
//!
//! ```text
//! tls::Rx ─ receive ─► inbound ──► codec ──► outbound ─ send ─► tls::Tx
//! ```
//!
//! Owns the buffers, and [`drive`]: one future that polls all three beside each other, so that nothing but the socket and
//! the streams needs to wake anybody. Never knows what the bytes mean: that is the codec's, and the watcher's.
//!
//! **Invariant.** At most one receive's worth of bytes waits for the codec, and [`OUTBOUND_MAX`] bytes for the socket. When
//! `drive` ends, no operation is in flight.

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::deadline::SendLimit;
use crate::tls::{Rx, Stream, Tx};

/// Bytes that may wait to be sent.
const OUTBOUND_MAX: usize = 64 * 1024;
/// Room of a receive while little comes.
const ROOM_QUIET: usize = 4 * 1024;
/// Room of a receive when they come in full.
const ROOM_BUSY: usize = 32 * 1024;
/// How long a connection that is over may take to end: what was said last should arrive.
const LINGER: Duration = Duration::from_secs(1);
/// What is still received then, unread.
const LINGER_BYTES: usize = 256 * 1024;

/// The codec's end of the two buffers.
#[derive(Clone, Default)]
pub(super) struct Transport(Rc<RefCell<Buffers>>);

#[derive(Default)]
struct Buffers {
    inbound: Vec<u8>,
    read: usize,
    /// Nothing more will be received.
    ended: bool,
    /// The socket takes nothing more.
    broken: bool,
    outbound: Vec<u8>,
    /// The codec has to be polled once more: it waits for room, or there is something new to learn.
    recall: bool,
    /// The receiving side waits until all it received was read.
    receive_waits: bool,
    /// The codec is done: what is received is thrown away, and after what is in `outbound` nothing is sent.
    closed: bool,
    thrown_away: usize,
    socket_full: Rc<Cell<bool>>,
}

/// What else looks at the bytes of a connection, and what its codec is.
pub(super) trait Codec {
    /// Lets the codec do all that it can; ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Looks at bytes that were received. Not kept: the codec is not to see them.
    fn received(&mut self, bytes: &[u8]) -> Keep;
    /// Looks at bytes before they are sent, and may change them. Not kept: the codec has to be polled again.
    fn sending(&mut self, bytes: &mut [u8]) -> Keep;
    /// The time limit of a send.
    fn send_limit(&self) -> SendLimit;
    /// The other side takes too little of what is sent: that limit has passed.
    fn stalled(&mut self);
    /// Nothing more comes. `cut`: because a time limit passed; else the other side has closed.
    fn ended(&mut self, cut: bool) -> Keep;
}

/// Whether the codec is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Yes,
    No,
}

impl Transport {
    /// Buffers with bytes that were received already.
    pub fn with_received(received: Vec<u8>) -> Transport {
        Transport(Rc::new(RefCell::new(Buffers { inbound: received, ..Buffers::default() })))
    }

    /// Whether bytes wait for the socket to take them, which has a time limit of its own.
    pub fn socket_full(&self) -> Rc<Cell<bool>> {
        self.0.borrow().socket_full.clone()
    }
}

/// Runs a connection to its end: the codec's, or the socket's.
pub(super) async fn drive<C: Codec>(stream: Stream, transport: Transport, codec: &RefCell<C>) {
    let Stream { mut rx, mut tx } = stream;
    let (cut_rx, cut_tx) = (rx.deadline().cutter(), tx.deadline().cutter());
    let mut receive = pin!(receive(&mut rx, &transport, codec));
    let mut send = pin!(send(&mut tx, &transport, codec));
    let (mut receiving, mut sending, mut running) = (true, true, true);
    poll_fn(|cx| {
        loop {
            if receiving && receive.as_mut().poll(cx).is_ready() {
                receiving = false;
            }
            if running && codec.borrow_mut().poll(cx).is_ready() {
                running = false;
                transport.close();
                cut_rx.cut_after(LINGER);
                cut_tx.cut_after(LINGER);
            }
            if sending && send.as_mut().poll(cx).is_ready() {
                sending = false;
                if transport.0.borrow().broken {
                    cut_rx.cut();
                }
            }
            if !(running || sending || receiving) {
                return Poll::Ready(());
            }
            if !transport.turn_again(receiving, running) {
                return Poll::Pending;
            }
        }
    })
    .await;
}

impl Transport {
    /// The codec is done.
    fn close(&self) {
        let mut buffers = self.0.borrow_mut();
        buffers.closed = true;
        buffers.inbound.clear();
        buffers.read = 0;
    }

    /// Whether what one of the three did lets another go on at once.
    fn turn_again(&self, receiving: bool, running: bool) -> bool {
        let mut buffers = self.0.borrow_mut();
        let drained = buffers.read == buffers.inbound.len();
        let room = buffers.broken || buffers.outbound.len() < OUTBOUND_MAX;
        let codec_goes_on = running && room && std::mem::take(&mut buffers.recall);
        (receiving && buffers.receive_waits && drained) || codec_goes_on
    }

    /// Ready when everything received was read. Nobody is woken: `drive` sees to it.
    fn poll_drained(&self) -> Poll<()> {
        let mut buffers = self.0.borrow_mut();
        buffers.receive_waits = buffers.read < buffers.inbound.len();
        if buffers.receive_waits { Poll::Pending } else { Poll::Ready(()) }
    }
}

async fn receive<C: Codec>(rx: &mut Rx, transport: &Transport, codec: &RefCell<C>) {
    let mut room = ROOM_QUIET;
    loop {
        poll_fn(|_| transport.poll_drained()).await;
        let mut buffer = {
            let mut buffers = transport.0.borrow_mut();
            buffers.read = 0;
            std::mem::take(&mut buffers.inbound)
        };
        buffer.clear();
        if buffer.capacity() > room {
            buffer = Vec::new();
        }
        buffer.reserve_exact(room);
        let received = rx.recv(&mut buffer, room).await;
        let closed = transport.0.borrow().closed;
        match received {
            Ok(n @ 1..) if closed => {
                let mut buffers = transport.0.borrow_mut();
                buffers.thrown_away += n;
                if buffers.thrown_away > LINGER_BYTES {
                    return;
                }
            }
            Ok(n @ 1..) => {
                room = if n == room {
                    ROOM_BUSY
                } else if n < ROOM_QUIET {
                    ROOM_QUIET
                } else {
                    room
                };
                if codec.borrow_mut().received(&buffer) == Keep::Yes {
                    transport.0.borrow_mut().inbound = buffer;
                }
            }
            _ if closed => return,
            _ => {
                if codec.borrow_mut().ended(rx.deadline().expired()) == Keep::Yes {
                    transport.0.borrow_mut().ended = true;
                }
                return;
            }
        }
    }
}

async fn send<C: Codec>(tx: &mut Tx, transport: &Transport, codec: &RefCell<C>) {
    let mut buffer = Vec::new();
    let full = transport.socket_full();
    loop {
        full.set(false);
        poll_fn(|_| {
            let mut buffers = transport.0.borrow_mut();
            if buffers.outbound.is_empty() {
                return if buffers.closed { Poll::Ready(()) } else { Poll::Pending };
            }
            std::mem::swap(&mut buffer, &mut buffers.outbound);
            Poll::Ready(())
        })
        .await;
        if buffer.is_empty() {
            tx.deadline().arm(LINGER);
            tx.finish().await;
            return;
        }
        let limit = {
            let mut codec = codec.borrow_mut();
            transport.0.borrow_mut().recall |= codec.sending(&mut buffer) == Keep::No;
            codec.send_limit()
        };
        let lingers = transport.0.borrow().closed;
        tx.deadline().arm_send(if lingers { SendLimit::whole(LINGER) } else { limit });
        full.set(true);
        if tx.send(&mut buffer).await.is_err() {
            if tx.deadline().passed() && !lingers {
                codec.borrow_mut().stalled();
            }
            let mut buffers = transport.0.borrow_mut();
            buffers.broken = true;
            buffers.recall = true;
            return;
        }
        if buffer.capacity() > OUTBOUND_MAX {
            buffer = Vec::new();
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut buffers = self.0.borrow_mut();
        let waiting = &buffers.inbound[buffers.read..];
        if waiting.is_empty() {
            return if buffers.ended || buffers.broken { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let n = waiting.len().min(out.remaining());
        out.put_slice(&waiting[..n]);
        buffers.read += n;
        Poll::Ready(Ok(()))
    }
}

impl Transport {
    /// Room for what the codec writes, if there is any.
    fn poll_room(buffers: &mut Buffers) -> Poll<io::Result<usize>> {
        if buffers.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match OUTBOUND_MAX.saturating_sub(buffers.outbound.len()) {
            0 => {
                buffers.recall = true;
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut buffers = self.0.borrow_mut();
        let room = ready!(Transport::poll_room(&mut buffers))?;
        let n = bytes.len().min(room);
        buffers.outbound.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut buffers = self.0.borrow_mut();
        let room = ready!(Transport::poll_room(&mut buffers))?;
        let mut written = 0;
        for slice in slices {
            let n = slice.len().min(room - written);
            buffers.outbound.extend_from_slice(&slice[..n]);
            written += n;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
