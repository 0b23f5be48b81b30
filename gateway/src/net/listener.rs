//! Listening sockets: bound by the control thread, before anything is published, and handed to a shard each.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use monoio::io::Canceller;
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

/// Lets the kernel give each new connection to the socket whose shard is pinned to the core that received it; where no
/// shard is, the kernel's hash decides as before. `cores` are those of the sockets of one address in the order in
/// which they were bound. A classic BPF program, which needs no privilege.
///
/// # Errors
/// Those of setsockopt(2) for SO_ATTACH_REUSEPORT_CBPF.
pub fn steer_by_core(group: &StdListener, cores: &[usize]) -> io::Result<()> {
    const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    /// `SKF_AD_OFF + SKF_AD_CPU`, linux/filter.h.
    const RECEIVING_CORE: u32 = (-0x1000_i32 + 36) as u32;
    /// No socket has this number, so the kernel falls back to its hash.
    const NOBODY: u32 = u32::MAX;
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = vec![op(LOAD_WORD, 0, 0, RECEIVING_CORE)];
    for (socket, &core) in cores.iter().enumerate() {
        program.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, core as u32));
        program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, socket as u32));
    }
    program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, NOBODY));
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the socket is open; the option takes a sock_fprog, whose instructions live to the end of the call.
    let answer = unsafe {
        libc::setsockopt(
            group.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes a steering program off the sockets of an address, if there is one: the hash decides again.
pub fn steer_by_hash(group: &StdListener) {
    let none: libc::c_int = 0;
    // SAFETY: the socket is open; the option reads one integer. ENOENT says that there was none.
    unsafe {
        libc::setsockopt(
            group.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_REUSEPORT_BPF,
            (&raw const none).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

/// A listening socket on a shard.
pub struct Listener {
    inner: TcpListener,
    fd: RawFd,
    /// Of the accept that is pending.
    canceller: RefCell<Canceller>,
    left: Cell<bool>,
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
        let inner = TcpListener::from_std(socket)?;
        Ok(Self { inner, fd, canceller: RefCell::default(), left: Cell::new(false) })
    }

    /// The next connection; `None` once [`Listener::close`] or [`Listener::leave`] was called.
    pub async fn accept(&self) -> Option<(Stream, SocketAddr)> {
        loop {
            if self.left.get() {
                return None;
            }
            let handle = self.canceller.borrow().handle();
            match self.inner.cancelable_accept(handle).await {
                Ok((socket, from)) => match Stream::new(socket) {
                    Ok(stream) => return Some((stream, from)),
                    Err(_) => continue,
                },
                // After shutdown(2) on a listening socket, accept answers EINVAL.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return None,
                // Why, the next turn looks at: it was to leave, or to look again.
                Err(e) if e.raw_os_error() == Some(libc::ECANCELED) => {}
                // The connection died between handshake and accept: that one only.
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => driver::sleep(ACCEPT_BACKOFF).await,
            }
        }
    }

    /// Has a pending accept look at the queue again. Where two processes wait on one socket, the kernel wakes one of them
    /// for a connection; if that one is about to leave and its accept is cancelled meanwhile, nobody else is told before
    /// the next connection comes. False: there is nothing to wait for any more.
    pub fn look_again(&self) -> bool {
        if !self.left.get() {
            self.cancel();
        }
        !self.left.get()
    }

    fn cancel(&self) {
        let pending = self.canceller.take();
        self.canceller.replace(pending.cancel());
    }

    /// Ends a pending accept and begins no other, without a word to the socket: another process has it too, and takes
    /// the connections in its queue. One that is accepted in this very moment is still handed out.
    pub fn leave(&self) {
        self.left.set(true);
        self.cancel();
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

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn an_accept_that_looks_again_goes_on_until_it_is_left() {
        for driver in [Driver::IoUring, Driver::Epoll] {
            let socket = bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
            let address = socket.local_addr().unwrap();
            let ended = driver::block_on(driver, async move {
                let listener = Rc::new(Listener::new(socket).unwrap());
                let other = listener.clone();
                driver::spawn(async move {
                    // Each time while the accept is pending.
                    for _ in 0..3 {
                        driver::sleep(Duration::from_millis(5)).await;
                        assert!(other.look_again());
                    }
                    let client = TcpStream::connect(address).unwrap();
                    driver::sleep(Duration::from_millis(20)).await;
                    other.leave();
                    assert!(!other.look_again());
                    drop(client);
                });
                let accepted = listener.accept().await.map(|(_, from)| from.ip());
                (accepted, listener.accept().await.is_none())
            });
            assert_eq!(ended.unwrap(), (Some(address.ip()), true), "{driver:?}");
        }
    }
}
