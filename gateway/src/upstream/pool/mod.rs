//! Connections to one target, on one shard: kept-alive ones of HTTP/1 here, shared ones of HTTP/2 in `multiplex`.
//!
//! Last in, first out: a warm connection is the likeliest to be still open, and the surplus of a burst ages out at
//! the other end. Bounded in number and in age; a connection that the target has closed meanwhile, or on which it sent
//! bytes that nobody asked for, is found out by a peek before it is used again.

mod multiplex;
mod queue;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::preamble::Preamble;
use crate::http::h2::Settings;
use crate::http::h2::client::Lease;
use crate::net::{self, ConnectError, clock};
use crate::tls;
use multiplex::{Connecting, Multiplexed, Turn};
use queue::{Queue, Slot};

use crate::tls::{Intake, RESPONSE_HEADROOM};

/// What identifies a pool across reloads: where it connects to and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    pub address: SocketAddr,
    /// Server name and a stable rendering of the TLS settings; `None` for plaintext.
    pub tls: Option<String>,
    pub version: HttpVersion,
}

/// Which HTTP a target is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    #[default]
    One,
    /// By ALPN over TLS, by prior knowledge without (RFC 9113 section 3.3).
    Two,
    /// What the target chooses by ALPN; 1.1 without TLS.
    Auto,
}

/// How a pool makes connections.
#[derive(Clone)]
pub struct Connector {
    pub address: SocketAddr,
    /// TLS settings and the name to ask for and to verify.
    pub tls: Option<(tls::ClientConfig, String)>,
    pub version: HttpVersion,
}

/// Bounds of a pool.
#[derive(Clone, Debug)]
pub struct PoolLimits {
    /// Idle connections kept per shard and target.
    pub idle_max: usize,
    /// How long an idle connection is kept; shorter than the target's own limit, or requests meet closed ones.
    pub idle_time: Duration,
    /// Requests on one connection before it is closed.
    pub requests_max: u32,
    /// Connections of HTTP/1 in use per shard and target; 0: no limit.
    pub active_max: u32,
    /// Requests that wait for a connection.
    pub waiting_max: u32,
    /// How long they do.
    pub waiting_time: Duration,
    /// Connections of HTTP/2 per shard and target.
    pub multiplexed_max: usize,
    /// What each of them is allowed.
    pub h2: Settings,
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

/// How long a connection may be waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the target to accept it.
    pub connect: Duration,
    /// For everything together.
    pub all: Duration,
}

impl Patience {
    /// How long a connect may take that begins `waited_ns` after the wait.
    fn after(&self, waited_ns: u64) -> Duration {
        self.connect.min(self.all.saturating_sub(Duration::from_nanos(waited_ns)))
    }
}

/// A turn of the loop at most. Who learns by events whether an idle connection is still good learns it once a turn; a
/// connection that was in use in this turn is known to have been good in it.
const TURN_NS: u64 = 20_000;
/// Longest time limit of a send on a shared connection.
const SHARED_SEND: Duration = Duration::from_secs(30);

struct Idle {
    connection: UpstreamConnection,
    since_ns: u64,
}

/// What a request is sent on.
pub enum Connected {
    /// A connection of its own.
    Http1(UpstreamConnection),
    /// A place on a shared one.
    Http2(Lease),
}

/// The pool of one target.
pub struct Pool {
    connector: Connector,
    limits: RefCell<PoolLimits>,
    /// The target has chosen HTTP/1 by ALPN.
    chose_http1: Cell<bool>,
    multiplexed: Rc<Multiplexed>,
    idle: RefCell<Vec<Idle>>,
    /// Connections of HTTP/1 in use, and who waits for one.
    queue: Queue,
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
    #[error("the target does not speak HTTP/2")]
    NoHttp2,
    /// Every connection is full, and stayed so.
    #[error("the target takes no extended CONNECT (RFC 8441)")]
    NoConnect,
    #[error("no connection or stream came free in time")]
    Full,
    /// As many as may wait for a connection do.
    #[error("too many wait for a connection already")]
    QueueFull,
    #[error("the connection that others were making was not made")]
    Shared,
}

impl AcquireError {
    /// Whether the target did not answer in time, to the connect or in the TLS handshake.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::TimedOut) | Self::Handshake(tls::HandshakeError::TimedOut))
    }
}

impl Pool {
    /// An empty pool.
    pub fn new(connector: Connector, limits: PoolLimits) -> Self {
        let queue = Queue::default();
        queue.set_max(limits.active_max);
        Self {
            connector,
            limits: RefCell::new(limits),
            chose_http1: Cell::new(false),
            multiplexed: Rc::default(),
            idle: RefCell::default(),
            queue,
        }
    }

    /// Applies the bounds of a new generation.
    pub fn set_limits(&self, limits: PoolLimits) {
        self.queue.set_max(limits.active_max);
        *self.limits.borrow_mut() = limits;
    }

    /// A connection that is there, if there is a good one: of the same `owner`, which no shared one has, and fit for a
    /// `tunnel`.
    pub fn reuse(&self, now_ns: u64, owner: Option<SocketAddr>, tunnel: bool) -> Option<Connected> {
        match self.connector.version {
            HttpVersion::Auto if tunnel => self.reuse_http1(now_ns, owner).map(Connected::Http1),
            // Whether the target allows it may have to be waited for.
            HttpVersion::Two if tunnel => None,
            HttpVersion::One => self.reuse_http1(now_ns, owner).map(Connected::Http1),
            _ if owner.is_some() => None,
            HttpVersion::Two => self.multiplexed.reserve().map(Connected::Http2),
            HttpVersion::Auto => {
                let shared = self.multiplexed.reserve().map(Connected::Http2);
                shared.or_else(|| self.reuse_http1(now_ns, None).map(Connected::Http1))
            }
        }
    }

    /// A kept connection: still open, and quiet. The look at the socket costs a system call and is taken unless the
    /// connection was put back a moment ago ([`TURN_NS`]): bytes that arrived on an idle connection would be the next
    /// client's response.
    fn reuse_http1(&self, now_ns: u64, owner: Option<SocketAddr>) -> Option<UpstreamConnection> {
        let slot = self.queue.enter()?;
        let connection = self.take_idle(now_ns, owner)?;
        slot.keep();
        Some(connection)
    }

    fn take_idle(&self, now_ns: u64, owner: Option<SocketAddr>) -> Option<UpstreamConnection> {
        let idle_ns = self.limits.borrow().idle_time.as_nanos() as u64;
        let mut idle = self.idle.borrow_mut();
        while let Some(at) = idle.iter().rposition(|idle| idle.connection.owner == owner) {
            let Idle { mut connection, since_ns } = idle.remove(at);
            // The older ones below it go one by one, or with the sweep.
            // A reading of its own: `now_ns` may be from before something was waited for.
            let just_used = || clock::now_ns().saturating_sub(since_ns) < TURN_NS;
            if now_ns.saturating_sub(since_ns) <= idle_ns && (just_used() || connection.intake.rx.is_quiet())
            {
                connection.requests += 1;
                return Some(connection);
            }
        }
        None
    }

    /// A new connection, or one or a place on one that comes free; one that is fit for a `tunnel`, if it is to become one.
    /// Not to be dropped before its end.
    ///
    /// # Errors
    /// See [`AcquireError`]; nothing of the request was sent.
    pub async fn connect(
        self: &Rc<Self>,
        patience: Patience,
        preamble: Preamble,
        tunnel: bool,
    ) -> Result<Connected, AcquireError> {
        match self.connector.version {
            // Every target that has WebSockets has them in HTTP/1.1.
            HttpVersion::Auto if tunnel => self.establish_http1(patience, preamble, true).await,
            HttpVersion::Two if tunnel => match self.establish(patience, preamble).await? {
                Connected::Http2(lease) if !lease.takes_connect(patience.after(0)).await => {
                    Err(AcquireError::NoConnect)
                }
                connected => Ok(connected),
            },
            _ => self.establish(patience, preamble).await,
        }
    }

    /// A connection of one's own, once there may be another. `only`: nothing else is offered by ALPN.
    async fn establish_http1(
        &self,
        patience: Patience,
        preamble: Preamble,
        only: bool,
    ) -> Result<Connected, AcquireError> {
        let owner = preamble.owner;
        let (room, time) = {
            let limits = self.limits.borrow();
            (limits.waiting_max, limits.waiting_time)
        };
        let before = clock::now_ns();
        let slot = match self.queue.enter() {
            Some(slot) => slot,
            None => {
                let slot = self.queue.wait(room, time.min(patience.all)).await?;
                if let Some(connection) = self.take_idle(clock::now_ns(), owner) {
                    slot.keep();
                    return Ok(Connected::Http1(connection));
                }
                slot
            }
        };
        let limit = patience.after(clock::now_ns().saturating_sub(before));
        let stream = self.open(limit, preamble, only).await?;
        match stream.with_session(tls::Session::alpn).flatten() {
            Some(tls::Alpn::H2) => {
                self.chose_http1.set(false);
                drop(slot);
                self.share(stream, limit, owner)
            }
            _ => Ok(Connected::Http1(self.own(stream, owner, slot))),
        }
    }

    async fn establish(
        self: &Rc<Self>,
        patience: Patience,
        preamble: Preamble,
    ) -> Result<Connected, AcquireError> {
        let http2 = match self.connector.version {
            HttpVersion::One => false,
            HttpVersion::Two => true,
            HttpVersion::Auto => self.connector.tls.is_some() && !self.chose_http1.get(),
        };
        match http2 {
            false => self.establish_http1(patience, preamble, false).await,
            true if preamble.owner.is_some() => self.establish_alone(patience, preamble).await,
            true => self.establish_shared(patience, preamble).await,
        }
    }

    /// A connection that serves its owner alone.
    async fn establish_alone(
        &self,
        patience: Patience,
        preamble: Preamble,
    ) -> Result<Connected, AcquireError> {
        let (owner, limit) = (preamble.owner, patience.after(0));
        let stream = self.open(limit, preamble, false).await?;
        match (self.connector.version, stream.with_session(tls::Session::alpn)) {
            (_, None | Some(Some(tls::Alpn::H2))) => self.share(stream, limit, owner),
            (HttpVersion::Auto, Some(_)) => {
                Ok(Connected::Http1(self.own(stream, owner, self.queue.enter_anyway())))
            }
            _ => Err(AcquireError::NoHttp2),
        }
    }

    /// A place on a connection that others use too. Making one takes its own time, whatever that of who asks for it: others
    /// wait for it as well.
    async fn establish_shared(
        self: &Rc<Self>,
        patience: Patience,
        preamble: Preamble,
    ) -> Result<Connected, AcquireError> {
        let (max, room, time) = {
            let limits = self.limits.borrow();
            (limits.multiplexed_max, limits.waiting_max, limits.waiting_time)
        };
        let connect = |connecting: Connecting| {
            let (pool, preamble) = (self.clone(), preamble.clone());
            net::spawn(async move { pool.connect_shared(patience.connect, preamble, connecting).await });
        };
        let before = clock::now_ns();
        let limit = patience.all.min(patience.connect.saturating_add(time));
        match self.multiplexed.turn(max, room, limit, connect).await {
            Turn::Place(lease) => Ok(Connected::Http2(lease)),
            Turn::Http1 => {
                let waited = Duration::from_nanos(clock::now_ns().saturating_sub(before));
                let patience = Patience { all: patience.all.saturating_sub(waited), ..patience };
                match self.reuse_http1(clock::now_ns(), None) {
                    Some(connection) => Ok(Connected::Http1(connection)),
                    None => self.establish_http1(patience, preamble, false).await,
                }
            }
            Turn::TimedOut => Err(AcquireError::Full),
            Turn::QueueFull => Err(AcquireError::QueueFull),
            Turn::Failed { timed_out: true } => Err(ConnectError::TimedOut.into()),
            Turn::Failed { timed_out: false } => Err(AcquireError::Shared),
        }
    }

    /// Makes a connection for all that wait for one.
    async fn connect_shared(&self, limit: Duration, preamble: Preamble, connecting: Connecting) {
        let opened = self.open(limit, preamble, false).await;
        let settings = self.limits.borrow().h2.clone();
        match opened {
            Err(error) => self.multiplexed.failed(error.is_timeout()),
            Ok(stream) => match (self.connector.version, stream.with_session(tls::Session::alpn)) {
                (_, None | Some(Some(tls::Alpn::H2))) => {
                    if !self.multiplexed.add(stream, &settings, limit.max(SHARED_SEND)) {
                        self.multiplexed.failed(false);
                    }
                }
                (HttpVersion::Auto, Some(_)) => {
                    self.chose_http1.set(true);
                    let connection = self.own(stream, None, self.queue.enter_anyway());
                    self.keep(connection, clock::now_ns());
                    self.multiplexed.declined();
                }
                _ => self.multiplexed.failed(false),
            },
        }
        drop(connecting);
    }

    /// A place on a new connection; others may take places beside it unless it has an `owner`.
    fn share(
        &self,
        stream: tls::Stream,
        limit: Duration,
        owner: Option<SocketAddr>,
    ) -> Result<Connected, AcquireError> {
        let settings = self.limits.borrow().h2.clone();
        // A send that does not move for as long as a connect may take, and longer, has nobody at its other end.
        let send_limit = limit.max(SHARED_SEND);
        let lease = match owner {
            Some(_) => self.multiplexed.alone(stream, &settings, send_limit),
            None if self.multiplexed.add(stream, &settings, send_limit) => self.multiplexed.reserve(),
            None => None,
        };
        lease.map(Connected::Http2).ok_or(AcquireError::NoHttp2)
    }

    fn own(&self, stream: tls::Stream, owner: Option<SocketAddr>, slot: Slot<'_>) -> UpstreamConnection {
        slot.keep();
        let intake = Intake::new(stream.rx, RESPONSE_HEADROOM);
        UpstreamConnection { intake, tx: stream.tx, requests: 1, owner }
    }

    /// Opens a connection within `limit`, handshake included. `http1`: that is all that is offered by ALPN.
    async fn open(
        &self,
        limit: Duration,
        mut preamble: Preamble,
        http1: bool,
    ) -> Result<tls::Stream, AcquireError> {
        let begun_ns = clock::now_ns();
        let left = || limit.saturating_sub(Duration::from_nanos(clock::now_ns().saturating_sub(begun_ns)));
        let mut stream = net::connect(self.connector.address, limit).await?;
        if !preamble.header.is_empty() {
            stream.tx.deadline.arm(left());
            stream.tx.send(&mut preamble.header).await.map_err(ConnectError::Failed)?;
            stream.tx.deadline.disarm();
        }
        let Some((config, name)) = &self.connector.tls else { return Ok(tls::Stream::plain(stream)) };
        stream.rx.deadline.arm(left());
        let session = match http1 {
            true => tls::Session::client(&config.offering(&[tls::Alpn::Http11]), name)?,
            false => tls::Session::client(config, name)?,
        };
        let stream = tls::Stream::handshake(stream, session, Vec::new()).await?;
        stream.rx.deadline().disarm();
        Ok(stream)
    }

    /// Takes a connection back whose response was read to its end.
    pub fn keep(&self, connection: UpstreamConnection, now_ns: u64) {
        self.put_by(connection, now_ns);
        // Who is next in the queue finds it there.
        self.queue.leave();
    }

    fn put_by(&self, mut connection: UpstreamConnection, now_ns: u64) {
        let limits = self.limits.borrow();
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
        drop(connection);
        self.queue.leave();
    }

    /// Closes what is too old or was closed by the target. Called every few seconds.
    pub fn sweep(&self, now_ns: u64) {
        let idle_ns = self.limits.borrow().idle_time.as_nanos() as u64;
        self.multiplexed.sweep(now_ns, idle_ns);
        self.idle.borrow_mut().retain(|idle| {
            now_ns.saturating_sub(idle.since_ns) <= idle_ns && idle.connection.intake.rx.is_quiet()
        });
    }

    /// Idle connections, and requests under way.
    pub fn sizes(&self) -> (usize, u32) {
        let (idle, streams) = self.multiplexed.sizes();
        (self.idle.borrow().len() + idle, self.queue.active() + streams)
    }
}
