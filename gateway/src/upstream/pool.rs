//! Kept-alive connections to one target, on one shard.
//!
//! Last in, first out: a warm connection is the likeliest to be still open, and the surplus of a burst ages out at
//! the other end. Bounded in number and in age; a connection that the target has closed meanwhile, or on which it sent
//! bytes that nobody asked for, is found out by a peek before it is used again.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use portcullis_config::ProxyHeader;

use crate::http::proxy_protocol;
use crate::net::{self, ConnectError};
use crate::tls;
use crate::tls::{Intake, RESPONSE_HEADROOM};

/// What identifies a pool across reloads: where it connects to and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    pub address: SocketAddr,
    /// Server name and a stable rendering of the TLS settings; `None` for plaintext.
    pub tls: Option<String>,
}

/// How a pool makes connections.
#[derive(Clone)]
pub struct Connector {
    pub address: SocketAddr,
    /// TLS settings and the name to ask for and to verify.
    pub tls: Option<(tls::ClientConfig, String)>,
}

/// Bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Idle connections kept per shard and target.
    pub idle_max: usize,
    /// How long an idle connection is kept; shorter than the target's own limit, or requests meet closed ones.
    pub idle_time: Duration,
    /// Requests on one connection before it is closed.
    pub requests_max: u32,
}

/// A connection to a target.
pub struct UpstreamConnection {
    pub intake: Intake,
    pub tx: tls::Tx,
    /// Requests sent on it, this one included.
    pub requests: u32,
    /// The client that its PROXY header names: nobody else's requests may be sent on it.
    pub owner: Option<SocketAddr>,
}

/// The PROXY header for a connection of `client`, who connected to `destination`; empty where none is wanted.
pub fn proxy_header(
    version: ProxyHeader,
    client: SocketAddr,
    destination: SocketAddr,
    authority: Option<&str>,
) -> Vec<u8> {
    let mut header = Vec::new();
    match version {
        ProxyHeader::Off => {}
        ProxyHeader::V1 => proxy_protocol::write_v1(client, destination, &mut header),
        ProxyHeader::V2 => proxy_protocol::write_v2(client, destination, authority, &mut header),
    }
    header
}

/// What a new connection begins with, and whose it is then.
#[derive(Clone, Debug, Default)]
pub struct Preamble {
    /// A PROXY header; empty for none.
    pub header: Vec<u8>,
    /// The client that the header names.
    pub owner: Option<SocketAddr>,
}

struct Idle {
    connection: UpstreamConnection,
    since_ns: u64,
}

/// The pool of one target.
pub struct Pool {
    connector: Connector,
    limits: Cell<PoolLimits>,
    idle: RefCell<Vec<Idle>>,
    /// Connections in use.
    active: Cell<u32>,
}

/// Why a connection could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("TLS to the target: {0}")]
    Handshake(#[from] tls::HandshakeError),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

impl Pool {
    /// An empty pool.
    pub fn new(connector: Connector, limits: PoolLimits) -> Self {
        Self { connector, limits: Cell::new(limits), idle: RefCell::default(), active: Cell::new(0) }
    }

    /// Applies the bounds of a new generation.
    pub fn set_limits(&self, limits: PoolLimits) {
        self.limits.set(limits);
    }

    /// A kept connection, if there is a good one: still open, and quiet. The look at the socket costs a system call and
    /// is always taken: bytes that arrived on an idle connection would be the next client's response.
    /// Only a connection of the same `owner` is taken.
    pub fn reuse(&self, now_ns: u64, owner: Option<SocketAddr>) -> Option<UpstreamConnection> {
        let idle_ns = self.limits.get().idle_time.as_nanos() as u64;
        let mut idle = self.idle.borrow_mut();
        while let Some(at) = idle.iter().rposition(|idle| idle.connection.owner == owner) {
            let Idle { mut connection, since_ns } = idle.remove(at);
            // The older ones below it go one by one, or with the sweep.
            if now_ns.saturating_sub(since_ns) <= idle_ns && connection.intake.rx.is_quiet() {
                connection.requests += 1;
                self.active.set(self.active.get() + 1);
                return Some(connection);
            }
        }
        None
    }

    /// A new connection.
    ///
    /// # Errors
    /// See [`AcquireError`]; nothing of the request was sent.
    pub async fn connect(
        &self,
        limit: Duration,
        mut preamble: Preamble,
    ) -> Result<UpstreamConnection, AcquireError> {
        let mut stream = net::connect(self.connector.address, limit).await?;
        if !preamble.header.is_empty() {
            stream.tx.deadline.arm(limit);
            stream.tx.send(&mut preamble.header).await.map_err(ConnectError::Failed)?;
            stream.tx.deadline.disarm();
        }
        let stream = match &self.connector.tls {
            None => tls::Stream::plain(stream),
            Some((config, name)) => {
                stream.rx.deadline.arm(limit);
                let stream =
                    tls::Stream::handshake(stream, tls::Session::client(config, name)?, Vec::new()).await?;
                stream.rx.deadline().disarm();
                stream
            }
        };
        self.active.set(self.active.get() + 1);
        Ok(UpstreamConnection {
            intake: Intake::new(stream.rx, RESPONSE_HEADROOM),
            tx: stream.tx,
            requests: 1,
            owner: preamble.owner,
        })
    }

    /// Takes a connection back whose response was read to its end.
    pub fn keep(&self, mut connection: UpstreamConnection, now_ns: u64) {
        self.active.set(self.active.get().saturating_sub(1));
        let limits = self.limits.get();
        let mut idle = self.idle.borrow_mut();
        let worn = connection.requests >= limits.requests_max;
        // Bytes nobody asked for: the next response could not be told from them.
        if worn || idle.len() >= limits.idle_max || !connection.intake.is_empty() {
            return;
        }
        connection.intake.rx.deadline().disarm();
        connection.intake.relax();
        connection.tx.deadline().disarm();
        idle.push(Idle { connection, since_ns: now_ns });
    }

    /// Forgets a connection that is not to be used again; dropping it closes it.
    pub fn discard(&self, connection: UpstreamConnection) {
        self.active.set(self.active.get().saturating_sub(1));
        drop(connection);
    }

    /// Closes what is too old or was closed by the target. Called every few seconds.
    pub fn sweep(&self, now_ns: u64) {
        let idle_ns = self.limits.get().idle_time.as_nanos() as u64;
        self.idle.borrow_mut().retain(|idle| {
            now_ns.saturating_sub(idle.since_ns) <= idle_ns && idle.connection.intake.rx.is_quiet()
        });
    }

    /// Idle and active connections.
    pub fn sizes(&self) -> (usize, u32) {
        (self.idle.borrow().len(), self.active.get())
    }
}
