//! Scripted origins: what stands behind the gateway in a test, well and badly behaved.
//!
//! A script is a named type in [`behaved`], [`bad`], [`moody`] or [`timed`]; [`Origin`] runs it with a thread
//! a connection and records every request and every raw byte it received. An origin decides
//! nothing about the test: suites read the record and the gateway's answer.
//! Invariant: dropping an origin closes its listener and its connections before it returns, so a
//! test can take an origin away and know that it is gone.

mod bad;
mod behaved;
mod moody;
pub mod secure;
mod timed;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

pub use bad::{Chatty, EarlyResponse, Garbage, KeepAliveCloser, Moment, Resetting, Truncating};
pub use behaved::{Bulk, Canned, Chunked, Counting, Echo, Interim, UntilClose};
pub use moody::{Handle, Mood, Moody};
pub use timed::{Gate, Held, Slow};

use crate::eventually::eventually;
use crate::wire::{Body, Framing, Head, Inbox};

/// Raw bytes kept of each connection.
const RAW_KEPT: usize = 256 * 1024;

/// What an origin does with a connection.
pub trait Script: Send + Sync + 'static {
    /// Serves one connection; it is closed when this returns.
    ///
    /// # Errors
    /// Of the socket; they end the connection and are otherwise ignored.
    fn serve(&self, wire: &mut Wire) -> io::Result<()>;
}

/// A request as an origin received it.
#[derive(Debug, Clone)]
pub struct Received {
    pub head: Head,
    pub body: Body,
    /// Number of the connection it came on, from 0.
    pub connection: usize,
}

#[derive(Debug, Default)]
struct Seen {
    requests: Mutex<Vec<Received>>,
    count: AtomicUsize,
    raw: Mutex<Vec<Vec<u8>>>,
    open: Mutex<Vec<Option<TcpStream>>>,
}

/// A running origin on a loopback port of its own.
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    seen: Arc<Seen>,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Origin {
    /// Starts `script` on a free port.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn start(script: impl Script) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for an origin");
        Self::on(listener, script)
    }

    /// Starts `script` at an address that a test reserved or that another origin has left.
    ///
    /// # Panics
    /// When the address cannot be bound within the patience of a test.
    pub fn start_at(addr: SocketAddr, script: impl Script) -> Origin {
        let listener = eventually("binding an origin", || {
            let socket =
                socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)
                    .map_err(|error| error.to_string())?;
            let bound = socket
                .set_reuse_address(true)
                .and_then(|()| socket.set_reuse_port(true))
                .and_then(|()| socket.bind(&addr.into()))
                .and_then(|()| socket.listen(1024));
            bound.map(|()| TcpListener::from(socket)).map_err(|error| error.to_string())
        });
        Self::on(listener, script)
    }

    fn on(listener: TcpListener, script: impl Script) -> Origin {
        let addr = listener.local_addr().expect("a bound address");
        let seen = Arc::new(Seen::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let acceptor = {
            let (seen, stopping, script) = (seen.clone(), stopping.clone(), Arc::new(script));
            std::thread::spawn(move || accept(&listener, &seen, &stopping, &script))
        };
        Origin { addr, seen, stopping, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://` and the address.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Requests read to their end so far.
    pub fn requests(&self) -> usize {
        self.seen.count.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.seen.raw.lock().expect("record").len()
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.seen.open.lock().expect("record").iter().flatten().count()
    }

    /// The recorded requests, in the order of their ends.
    pub fn seen(&self) -> Vec<Received> {
        self.seen.requests.lock().expect("record").clone()
    }

    /// The most recent request.
    ///
    /// # Panics
    /// When there was none.
    #[track_caller]
    pub fn last(&self) -> Received {
        self.seen.requests.lock().expect("record").last().cloned().expect("the origin saw a request")
    }

    /// The raw bytes that came on connection `index`, up to a bound.
    pub fn raw(&self, index: usize) -> Vec<u8> {
        self.seen.raw.lock().expect("record")[index].clone()
    }

    /// Waits until `count` requests have come.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        eventually("requests at the origin", || {
            let got = self.requests();
            if got >= count { Ok(()) } else { Err(format!("{got} of {count}")) }
        });
    }

    /// Forgets the recorded requests; the counts stay.
    pub fn forget(&self) {
        self.seen.requests.lock().expect("record").clear();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the accept call; it fails when the listener is gone already, which is as good.
        drop(TcpStream::connect_timeout(&self.addr, Duration::from_secs(1)));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
        for stream in self.seen.open.lock().expect("record").iter().flatten() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn accept<S: Script>(listener: &TcpListener, seen: &Arc<Seen>, stopping: &AtomicBool, script: &Arc<S>) {
    while let Ok((stream, _)) = listener.accept() {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        drop(stream.set_nodelay(true));
        let Ok(twin) = stream.try_clone() else { continue };
        let index = {
            let mut raw = seen.raw.lock().expect("record");
            raw.push(Vec::new());
            raw.len() - 1
        };
        {
            let mut open = seen.open.lock().expect("record");
            open.resize_with(index + 1, || None);
            open[index] = Some(twin);
        }
        let (seen, script) = (seen.clone(), script.clone());
        std::thread::spawn(move || {
            let mut wire = Wire { inbox: Inbox::new(Tee { stream, seen: seen.clone(), index }), index };
            // An error here is the other side going away, which is what some tests are about.
            drop(script.serve(&mut wire));
            drop(wire);
            seen.open.lock().expect("record")[index] = None;
        });
    }
}

#[derive(Debug)]
struct Tee {
    stream: TcpStream,
    seen: Arc<Seen>,
    index: usize,
}

impl Read for Tee {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(buf)?;
        let mut raw = self.seen.raw.lock().expect("record");
        let kept = &mut raw[self.index];
        let room = RAW_KEPT.saturating_sub(kept.len()).min(n);
        kept.extend_from_slice(&buf[..room]);
        Ok(n)
    }
}

/// One accepted connection, as a script sees it.
#[derive(Debug)]
pub struct Wire {
    inbox: Inbox<Tee>,
    index: usize,
}

impl Wire {
    /// Number of this connection at its origin, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Reads a head only; `None` at the end of the connection.
    ///
    /// # Errors
    /// Of the socket.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        self.inbox.head()
    }

    /// Reads the body that `head` announces and records the request.
    ///
    /// # Errors
    /// Of the socket, and of a body cut short.
    pub fn finish(&mut self, head: Head) -> io::Result<Received> {
        let body = match head.request_framing() {
            Framing::Length(0) => Body::default(),
            framing => self.inbox.body(framing)?,
        };
        let received = Received { head, body, connection: self.index };
        self.record(received.clone());
        Ok(received)
    }

    /// Records a request whose body this origin does not read.
    pub fn record(&mut self, received: Received) {
        let seen = &self.inbox.stream().seen;
        seen.requests.lock().expect("record").push(received);
        seen.count.fetch_add(1, Ordering::SeqCst);
    }

    /// Reads and records a whole request, answering `Expect: 100-continue` on the way.
    ///
    /// # Errors
    /// Of the socket, and of a message cut short.
    pub fn request(&mut self) -> io::Result<Option<Received>> {
        let Some(head) = self.head()? else { return Ok(None) };
        if head.has_token("expect", "100-continue") {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        self.finish(head).map(Some)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Of the socket.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inbox.stream().stream.write_all(bytes)
    }

    /// Answers with a head, `Content-Length` and a body. `fields` are whole lines with CRLF.
    ///
    /// # Errors
    /// Of the socket.
    pub fn answer(&mut self, status: &str, fields: &str, body: &[u8]) -> io::Result<()> {
        let mut text =
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n", body.len()).into_bytes();
        text.extend_from_slice(body);
        self.send(&text)
    }

    /// Ends the connection with a TCP reset instead of a FIN.
    ///
    /// # Errors
    /// Of the socket.
    pub fn reset(&mut self) -> io::Result<()> {
        let stream = &self.inbox.stream().stream;
        SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
        // The record holds a second descriptor of this socket; the reset is sent by the last close.
        self.inbox.stream().seen.open.lock().expect("record")[self.index] = None;
        Err(io::Error::other("reset on purpose"))
    }

    /// Half-closes: no more bytes will come, reading goes on.
    ///
    /// # Errors
    /// Of the socket.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        self.inbox.stream().stream.shutdown(Shutdown::Write)
    }

    /// Reads what comes next, whatever it is; nothing at the end of the connection.
    ///
    /// # Errors
    /// Of the socket.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        self.inbox.some()
    }

    /// Reads and drops everything until the other side closes.
    ///
    /// # Errors
    /// Of the socket.
    pub fn drain(&mut self) -> io::Result<()> {
        while self.inbox.fill()? {}
        Ok(())
    }
}
