//! A TCP connection in two halves over owned buffers.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::deadline::{Cut, Deadline};
use super::driver::{self, Driver};

/// A connected socket. The halves may be used at the same time by two futures of one task.
pub struct Stream {
    pub rx: Rx,
    pub tx: Tx,
}

/// The receiving half.
pub struct Rx {
    /// Dropped before the socket: see [`Deadline`].
    pub deadline: Deadline,
    half: OwnedReadHalf<TcpStream>,
    fd: RawFd,
}

/// The sending half.
pub struct Tx {
    /// Dropped before the socket: see [`Deadline`].
    pub deadline: Deadline,
    half: OwnedWriteHalf<TcpStream>,
    fd: RawFd,
}

impl Stream {
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        let fd = socket.as_raw_fd();
        let (rx, tx) = socket.into_split();
        Ok(Self {
            rx: Rx { deadline: Deadline::new(fd, Cut::Receive), half: rx, fd },
            tx: Tx { deadline: Deadline::new(fd, Cut::Both), half: tx, fd },
        })
    }

    pub(super) fn from_std(socket: StdStream) -> io::Result<Self> {
        socket.set_nonblocking(driver::current() == Driver::Epoll)?;
        Self::new(TcpStream::from_std(socket)?)
    }

    /// Our address of the connection.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        borrow(self.rx.fd, |socket| socket.local_addr())?
            .as_socket()
            .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

impl Rx {
    /// Receives into the spare capacity of `buffer`, at most `max` bytes, appending. Zero bytes: the other side has
    /// closed, or the limit passed ([`Deadline::expired`] tells).
    ///
    /// # Errors
    /// Those of recv(2).
    pub async fn recv(&mut self, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        let start = buffer.len();
        let end = buffer.capacity().min(start.saturating_add(max));
        debug_assert!(start < end, "receive into a full buffer");
        driver::take_turns().await;
        let (result, slice) = self.half.read(std::mem::take(buffer).slice_mut(start..end)).await;
        *buffer = slice.into_inner();
        if result.is_err() {
            buffer.truncate(start);
        }
        result
    }

    /// Whether the connection, which should be quiet, is still good: nothing received and not closed. One
    /// non-blocking peek; for idle connections of a pool before reuse.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit(); 1];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let peek = borrow(self.fd, |socket| socket.recv_with_flags(&mut byte, flags));
        matches!(peek, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Tx {
    /// Sends all of `buffer` and empties it.
    ///
    /// # Errors
    /// Those of send(2); what was sent by then is unknown. `buffer` is left empty.
    pub async fn send(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let result = self.send_from(buffer, 0).await;
        buffer.clear();
        result
    }

    /// Sends `buffer[start..]`, leaving the buffer as it is.
    ///
    /// # Errors
    /// As [`Tx::send`].
    pub async fn send_from(&mut self, buffer: &mut Vec<u8>, start: usize) -> io::Result<()> {
        let mut done = start;
        while done < buffer.len() {
            let (result, slice) = self.half.write(std::mem::take(buffer).slice(done..)).await;
            *buffer = slice.into_inner();
            match result? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => {
                    self.deadline.note_sent(n);
                    done += n;
                }
            }
        }
        Ok(())
    }

    /// Says that nothing more will be sent (FIN after what is queued).
    pub fn finish(&self) {
        let _ = borrow(self.fd, |socket| socket.shutdown(std::net::Shutdown::Write));
    }

    /// Makes the close that follows a reset instead of an orderly end (SO_LINGER 0).
    pub fn reset_on_close(&self) {
        let _ = borrow(self.fd, |socket| socket.set_linger(Some(Duration::ZERO)));
    }
}

fn borrow<T>(fd: RawFd, call: impl FnOnce(&SockRef<'_>) -> T) -> T {
    // SAFETY: `fd` is the descriptor of the half that the caller borrows, and stays open as long as the half.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    call(&SockRef::from(&fd))
}

/// How long sent bytes may stay unacknowledged, and a connection silent before the other end is asked for a sign of life.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// Between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Why a connection to a target was not made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no answer within the connect timeout")]
    TimedOut,
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// Connects to `address` within `limit`.
///
/// The connect itself is started non-blocking and its end awaited as writability, so that the time limit can shut
/// the socket down like any other (dropping the runtime's own connect in flight leaks the descriptor).
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(address: SocketAddr, limit: Duration) -> Result<Stream, ConnectError> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // A target that vanished without a word is found out: by what it does not acknowledge, or when nothing is said.
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(UNACKNOWLEDGED).with_interval(KEEPALIVE_INTERVAL),
    )?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(e) => return Err(e.into()),
    }
    let socket: StdStream = socket.into();
    let fd = socket.as_raw_fd();
    let deadline = Deadline::new(fd, Cut::Both);
    deadline.arm(limit);
    let socket = TcpStream::from_std(socket)?;
    let writable = socket.writable(true).await;
    if deadline.expired() {
        return Err(ConnectError::TimedOut);
    }
    drop(deadline);
    writable?;
    let error = borrow(fd, |socket| {
        if driver::current() == Driver::IoUring {
            socket.set_nonblocking(false)?;
        }
        socket.take_error()
    })?;
    if let Some(error) = error {
        return Err(error.into());
    }
    Ok(Stream::new(socket)?)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::io::Write;
    use std::rc::Rc;
    use std::task::Poll;

    use super::*;

    #[test]
    fn a_connection_that_always_has_more_leaves_others_their_turn() {
        let others = driver::block_on(Driver::Epoll, async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut sender = StdStream::connect(listener.local_addr().unwrap()).unwrap();
            let mut stream = Stream::from_std(listener.accept().unwrap().0).unwrap();
            sender.write_all(&[b'x'; 4096]).unwrap();
            let received = Rc::new(Cell::new(0_u32));
            let counted = received.clone();
            driver::spawn(async move {
                let mut buffer = Vec::with_capacity(4096);
                for _ in 0..4096 {
                    assert_eq!(stream.rx.recv(&mut buffer, 1).await.unwrap(), 1);
                    counted.set(counted.get() + 1);
                }
            });
            // How far the other is, whenever it is somebody else's turn.
            let mut seen = std::collections::BTreeSet::new();
            while received.get() < 4096 {
                seen.insert(received.get());
                let turn = Rc::new(Cell::new(false));
                let (done, mut asked) = (turn.clone(), false);
                poll_fn(move |cx| {
                    if !std::mem::replace(&mut asked, true) {
                        let (waker, turn) = (cx.waker().clone(), turn.clone());
                        driver::spawn(async move {
                            turn.set(true);
                            waker.wake();
                        });
                    }
                    if done.get() { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
            seen.len()
        });
        assert!(others.unwrap() > 100);
    }
}
