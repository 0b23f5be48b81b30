//! Calls to other services: what a plugin asks over HTTP/1.1 before it decides.
//!
//! Owns one call from connect to the end of the response, the few connections that are kept for the next, and where
//! the service is. Never follows a redirect, and never decides what an answer means.
//!
//! **Invariant.** A call ends within its time limit, and its answer has at most as many octets as the caller allows.
//! What fails is an error, never an empty answer.

mod url;

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use portcullis_config::{Fault, Fields};

pub use self::url::Url;
use crate::http::h1::{BodyDecoder, HeadLimits, Parsed, keep_alive, parse_response, response_framing};
use crate::http::{Method, ResponseHead};
use crate::net::{self, clock};
use crate::tls::{self, Alpn, HEAD_ROOM, Intake, Tx, Verify, Version, VersionRange};

/// Connections kept for the next call, of one service on one shard.
const IDLE_MAX: usize = 16;
/// How long one is kept: less than the services' own limits use to be.
const IDLE_NS: u64 = 20_000_000_000;
/// How old an address may be before its name is looked up again.
const ADDRESS_NS: u64 = 60_000_000_000;

/// A service that is called.
pub struct Service {
    pub url: Url,
    /// Where it was when the configuration was compiled.
    address: Option<SocketAddr>,
    tls: Option<tls::ClientConfig>,
    /// The server name that is asked for, where it is not the URL's host.
    tls_name: Option<String>,
}

/// A service as one shard calls it.
pub struct Caller {
    service: Arc<Service>,
    tls: Option<tls::ClientConfig>,
    address: Cell<Option<SocketAddr>>,
    /// When the name was looked up.
    resolved_ns: Cell<u64>,
    /// A look-up under way, on a thread of its own because it blocks.
    resolving: RefCell<Option<Receiver<Option<SocketAddr>>>>,
    idle: RefCell<Vec<Idle>>,
}

struct Idle {
    connection: Connection,
    since_ns: u64,
}

struct Connection {
    intake: Intake,
    tx: Tx,
}

/// What a service answered.
pub struct Reply {
    pub head: ResponseHead,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The name has no address.
    Unresolved,
    /// No connection, or no valid TLS.
    Connect,
    TimedOut,
    /// Closed or reset before the answer was complete.
    Broken,
    /// Not HTTP, or more of it than is allowed.
    BadResponse,
}

impl Service {
    /// Reads the URL in `key`. Blocks on the look-up of its name, and on the machine's trust store.
    pub fn read(fields: &Fields<'_>, key: &str, verify: bool) -> Option<Arc<Self>> {
        let text = fields.optional_string(key)?;
        Self::new(fields, key, &text, verify)
    }

    /// As [`read`](Self::read), with the URL itself.
    pub fn new(fields: &Fields<'_>, key: &str, text: &str, verify: bool) -> Option<Arc<Self>> {
        Self::with_tls(fields, key, text, || client_config(verify), None)
    }

    /// As [`new`](Self::new), with TLS of other settings and another server name.
    pub fn with_tls(
        fields: &Fields<'_>,
        key: &str,
        text: &str,
        client: impl FnOnce() -> Result<tls::ClientConfig, tls::TlsError>,
        tls_name: Option<String>,
    ) -> Option<Arc<Self>> {
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(fault) => {
                fields.error(key, fault);
                return None;
            }
        };
        let address = resolve(&url);
        if address.is_none() {
            let fault = Fault::new(format!("the name {:?} has no address now", url.host));
            fields.warning(key, fault.hint("it is looked up again when the service is needed"));
        }
        let tls = match url.https.then(client).transpose() {
            Ok(tls) => tls,
            Err(error) => {
                fields.error(key, error.to_string());
                return None;
            }
        };
        Some(Arc::new(Self { url, address, tls, tls_name }))
    }

    /// The service at another URL of the same scheme, with the same demands on its certificate. Its name is looked up
    /// when it is called.
    pub fn elsewhere(&self, url: Url) -> Arc<Self> {
        debug_assert_eq!(url.https, self.url.https);
        Arc::new(Self { url, address: None, tls: self.tls.clone(), tls_name: None })
    }
}

fn client_config(verify: bool) -> Result<tls::ClientConfig, tls::TlsError> {
    let verify = if verify { Verify::Against(tls::Roots::system()?) } else { Verify::Off };
    tls::client_config(&tls::ClientOptions {
        verify,
        identity: None,
        versions: VersionRange { min: Version::V12, max: Version::V13 },
        alpn: vec![Alpn::Http11],
    })
}

fn resolve(url: &Url) -> Option<SocketAddr> {
    (url.host.as_str(), url.port).to_socket_addrs().ok()?.next()
}

impl Caller {
    /// The service as this shard calls it; no connection is made yet.
    pub fn new(service: Arc<Service>) -> Self {
        Self {
            tls: service.tls.as_ref().map(tls::ClientConfig::for_shard),
            address: Cell::new(service.address),
            resolved_ns: Cell::new(clock::now_ns()),
            resolving: RefCell::new(None),
            idle: RefCell::new(Vec::new()),
            service,
        }
    }

    /// The service.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Sends `request`, a whole message, and reads the answer within `limit`: at most `body_max` octets of body.
    ///
    /// A kept connection may turn out to be closed; the request is then sent again on a new one, so `request` must be
    /// one that may be repeated.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        request: &[u8],
        method: Method,
        limit: Duration,
        body_max: usize,
    ) -> Result<Reply, CallError> {
        let end = clock::now_ns().saturating_add(limit.as_nanos() as u64);
        while let Some(connection) = self.take_idle() {
            match self.ask(connection, request, method, end, Keep::UpTo(body_max)).await {
                Err(CallError::Broken) => {}
                outcome => return outcome,
            }
        }
        let connection = self.connect(end).await?;
        self.ask(connection, request, method, end, Keep::UpTo(body_max)).await
    }

    /// As [`call`](Self::call), for who does not look at the answer: it is read to its end and thrown away. Gives the status.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn tell(&self, request: &[u8], method: Method, limit: Duration) -> Result<u16, CallError> {
        let end = clock::now_ns().saturating_add(limit.as_nanos() as u64);
        // Not to be sent twice, so not on a connection that may be closed.
        let connection = match self.take_idle() {
            Some(connection) => connection,
            None => self.connect(end).await?,
        };
        let reply = self.ask(connection, request, method, end, Keep::Nothing).await?;
        Ok(reply.head.status())
    }

    fn take_idle(&self) -> Option<Connection> {
        let now = clock::now_ns();
        let mut idle = self.idle.borrow_mut();
        while let Some(one) = idle.pop() {
            if now.saturating_sub(one.since_ns) < IDLE_NS && one.connection.intake.rx.is_quiet() {
                return Some(one.connection);
            }
        }
        None
    }

    async fn connect(&self, end: u64) -> Result<Connection, CallError> {
        let address = self.address_now(end).await?;
        let stream = match net::connect(address, left(end)?).await {
            Ok(stream) => stream,
            Err(error) => {
                self.resolved_ns.set(0); // perhaps it has moved
                let timed_out = matches!(error, net::ConnectError::TimedOut);
                return Err(if timed_out { CallError::TimedOut } else { CallError::Connect });
            }
        };
        stream.rx.deadline.arm(left(end)?);
        stream.tx.deadline.arm(left(end)?);
        let stream = match &self.tls {
            None => tls::Stream::plain(stream),
            Some(config) => {
                let name = self.service.tls_name.as_ref().unwrap_or(&self.service.url.host);
                let session = tls::Session::client(config, name).map_err(|_| CallError::Connect)?;
                match tls::Stream::handshake(stream, session, Vec::new()).await {
                    Ok(stream) => stream,
                    Err(tls::HandshakeError::TimedOut) => return Err(CallError::TimedOut),
                    Err(_) => return Err(CallError::Connect),
                }
            }
        };
        Ok(Connection { intake: Intake::new(stream.rx, 0), tx: stream.tx })
    }

    /// The address, which may be as old as the last look-up: a new one is waited for only where there is none.
    async fn address_now(&self, end: u64) -> Result<SocketAddr, CallError> {
        loop {
            self.look_up();
            if let Some(address) = self.address.get() {
                return Ok(address);
            }
            if self.resolving.borrow().is_none() {
                return Err(CallError::Unresolved);
            }
            net::sleep(RESOLVE_PAUSE.min(left(end)?)).await;
        }
    }

    /// Takes the result of a look-up, or starts one where the address is old.
    fn look_up(&self) {
        let mut resolving = self.resolving.borrow_mut();
        let now = clock::now_ns();
        match resolving.as_ref().map(Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => return,
            Some(outcome) => {
                *resolving = None;
                self.resolved_ns.set(now);
                if let Ok(Some(address)) = outcome {
                    self.address.set(Some(address));
                }
                return;
            }
            None => {}
        }
        let missing = self.address.get().is_none() && now.saturating_sub(self.resolved_ns.get()) > MISSING_NS;
        if !missing && now.saturating_sub(self.resolved_ns.get()) < ADDRESS_NS {
            return;
        }
        let (found, receiver) = channel();
        let service = self.service.clone();
        let look = move || {
            // The receiver is gone when the shard is.
            let _ = found.send(resolve(&service.url));
        };
        if std::thread::Builder::new().name("resolve".into()).spawn(look).is_ok() {
            *resolving = Some(receiver);
        }
    }

    async fn ask(
        &self,
        mut connection: Connection,
        request: &[u8],
        method: Method,
        end: u64,
        keep: Keep,
    ) -> Result<Reply, CallError> {
        let limit = left(end)?;
        connection.intake.rx.deadline().arm(limit);
        connection.tx.deadline().arm(limit);
        let sent = connection.tx.send(&mut request.to_vec()).await;
        connection.tx.deadline().disarm();
        let outcome = match sent {
            Ok(()) => read(&mut connection.intake, method, keep).await,
            Err(_) => Err(CallError::Broken),
        };
        if connection.intake.rx.deadline().expired() {
            return Err(CallError::TimedOut);
        }
        connection.intake.rx.deadline().disarm();
        let (reply, again) = outcome?;
        let mut idle = self.idle.borrow_mut();
        if again && idle.len() < IDLE_MAX {
            connection.intake.relax();
            idle.push(Idle { connection, since_ns: clock::now_ns() });
        }
        Ok(reply)
    }
}

/// Between two looks at a look-up that is waited for.
const RESOLVE_PAUSE: Duration = Duration::from_millis(10);
/// Between two look-ups of a name that has no address.
const MISSING_NS: u64 = 1_000_000_000;

/// What is left until `end`.
fn left(end: u64) -> Result<Duration, CallError> {
    match end.saturating_sub(clock::now_ns()) {
        0 => Err(CallError::TimedOut),
        left => Ok(Duration::from_nanos(left)),
    }
}

/// What becomes of the body of an answer.
#[derive(Clone, Copy)]
enum Keep {
    /// It is given back; a longer one is a fault.
    UpTo(usize),
    /// It is thrown away.
    Nothing,
}

/// Reads an answer. True beside it where the connection can be used again.
async fn read(intake: &mut Intake, method: Method, keep: Keep) -> Result<(Reply, bool), CallError> {
    let limits = HeadLimits::default();
    let mut head = ResponseHead::new();
    loop {
        match parse_response(intake.unread(), &limits, &mut head) {
            Ok(Parsed::Complete { head_len }) => {
                intake.consume(head_len);
                if !head.is_interim() {
                    break;
                }
                head.clear();
            }
            Ok(Parsed::Partial) => match intake.receive((limits.head + 1).max(HEAD_ROOM)).await {
                Ok(1..) => {}
                _ => return Err(CallError::Broken),
            },
            Err(_) => return Err(CallError::BadResponse),
        }
    }
    let framing = response_framing(&head, method).map_err(|_| CallError::BadResponse)?;
    let mut decoder = BodyDecoder::response(framing);
    let mut body = Vec::new();
    let mut by_close = false;
    while !decoder.is_done() {
        let step = decoder.decode(intake.unread()).map_err(|_| CallError::BadResponse)?;
        if let Keep::UpTo(body_max) = keep {
            body.extend_from_slice(&intake.unread()[step.payload]);
            if body.len() > body_max {
                return Err(CallError::BadResponse);
            }
        }
        intake.consume(step.consumed);
        if step.done || !intake.is_empty() {
            continue;
        }
        match intake.receive(HEAD_ROOM).await {
            Ok(1..) => {}
            // A body that ends with the connection is complete only if the end is no attacker's.
            Ok(0) if intake.rx.ended_cleanly() => {
                by_close = true;
                decoder.close().map_err(|_| CallError::Broken)?;
            }
            _ => return Err(CallError::Broken),
        }
    }
    let hop = crate::http::h1::strip_hop_by_hop(&mut head.head).map_err(|_| CallError::BadResponse)?;
    let again = !by_close && intake.is_empty() && keep_alive(head.version(), hop.options);
    Ok((Reply { head, body }, again))
}

#[cfg(test)]
mod tests;
