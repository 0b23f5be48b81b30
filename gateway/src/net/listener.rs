//! Listening sockets: bound by the control thread, before anything is published, and handed to a shard each.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use monoio::net::TcpListener;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use super::driver::{self, Driver};
use super::stream::Stream;

/// Pause after accept failed for want of descriptors or memory, so that it does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);

/// Binds one socket of an address that several shards share (SO_REUSEPORT: the kernel spreads new connections).
/// `backlog` connections may wait between handshake and accept; the kernel caps it at net.core.somaxconn.
///
/// # Errors
/// Those of socket(2), bind(2), listen(2).
pub fn bind(address: SocketAddr, backlog: u32) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        // One socket, one family: `[::]:80` beside `0.0.0.0:80` must not clash.
        socket.set_only_v6(true)?;
    }
    // Inherited by accepted connections.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// A listening socket on a shard.
pub struct Listener {
    inner: TcpListener,
    fd: RawFd,
}

impl Listener {
    /// Takes over a bound socket.
    ///
    /// # Errors
    /// The descriptor could not be registered with the driver.
    pub fn new(socket: StdListener) -> io::Result<Self> {
        // Operations of the ring wait on blocking sockets; the epoll driver needs non-blocking ones.
        socket.set_nonblocking(driver::current() == Driver::Epoll)?;
        let fd = socket.as_raw_fd();
        Ok(Self { inner: TcpListener::from_std(socket)?, fd })
    }

    /// The next connection; `None` once [`Listener::close`] was called.
    pub async fn accept(&self) -> Option<(Stream, SocketAddr)> {
        loop {
            match self.inner.accept().await {
                Ok((socket, from)) => match Stream::new(socket) {
                    Ok(stream) => return Some((stream, from)),
                    Err(_) => continue,
                },
                // After shutdown(2) on a listening socket, accept answers EINVAL.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return None,
                Err(e) if transient(&e) => driver::sleep(ACCEPT_BACKOFF).await,
                // The connection died between handshake and accept: that one only.
                Err(_) => {}
            }
        }
    }

    /// Lets no further handshake begin, while those under way still end in the queue. A connection that completed
    /// between [`Listener::accept_queued`] and [`Listener::close`] would be reset, perhaps with a request on it; a
    /// client whose SYN is dropped tries again and is then refused, which it can act on.
    pub fn turn_away(&self) {
        const PAST_THE_DROP: u8 = 1;
        const SYN: u32 = 0x02;
        let op = |code: u32, jt, jf, k| SockFilter::new(code as u16, jt, jf, k);
        // A filter of a TCP socket sees packets from their TCP header on; octet 13 holds the flags.
        let program = [
            op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 13),
            op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, PAST_THE_DROP, SYN),
            op(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
            op(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        ];
        // SAFETY: the descriptor is open as long as `self.inner` lives; SockRef only borrows it.
        let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.fd) };
        // Where the kernel refuses filters, a drain is as good as it was without.
        let _ = SockRef::from(&socket).attach_filter(&program);
    }

    /// Connections already queued by the kernel, without waiting; called before closing so that none is reset.
    pub fn accept_queued(&self) -> Vec<(Stream, SocketAddr)> {
        // SAFETY: the descriptor is open as long as `self.inner` lives; SockRef only borrows it.
        let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.fd) };
        let socket = SockRef::from(&socket);
        let mut queued = Vec::new();
        if socket.set_nonblocking(true).is_err() {
            return queued;
        }
        while let Ok((connection, from)) = socket.accept() {
            let Some(from) = from.as_socket() else { continue };
            if let Ok(stream) = Stream::from_std(connection.into()) {
                queued.push((stream, from));
            }
        }
        queued
    }

    /// Stops listening: a pending accept ends, new connections go to the other sockets of the address.
    pub fn close(&self) {
        // SAFETY: the descriptor is open as long as `self.inner` lives; shutdown takes no memory.
        unsafe { libc::shutdown(self.fd, libc::SHUT_RD) };
    }
}

fn transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
