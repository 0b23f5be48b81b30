//! One downstream connection: from accept over the TLS handshake to request after request.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use portcullis_abi::Reason;

use super::shard::{OpenConnection, Shard};
use super::{Next, exchange, forward, proxy_protocol, refuse};
use crate::http::h1::{Parsed, parse_request};
use crate::http::{Head, Refusal, RequestHead, ResponseHead};
use crate::limit::Behaviour;
use crate::net::{self, clock};
use crate::plugin;
use crate::snapshot::Local;
use crate::tls::{self, HEAD_ROOM, HandshakeError, Intake};

/// A downstream connection and the memory that its exchanges reuse.
pub struct Downstream {
    pub intake: Intake,
    pub tx: tls::Tx,
    /// Bytes to be sent downstream.
    pub out: Vec<u8>,
    /// Bytes to be sent upstream.
    pub upstream_out: Vec<u8>,
    pub request: RequestHead,
    pub response: ResponseHead,
    /// Fields that plugins add to the response.
    pub plugin_fields: Head,
    pub origin: Origin,
    /// Exchanges so far.
    pub exchanges: u32,
}

impl Downstream {
    /// What plugins may know of the connection.
    pub fn facts(&self) -> plugin::Connection {
        plugin::Connection {
            source_port: self.origin.source.port(),
            listener_port: self.origin.listener_port,
            exchanges: self.exchanges.saturating_sub(1),
        }
    }
}

/// Facts of a connection that do not change.
pub struct Origin {
    /// Where packets come from: what the kernel knows, and is charged for.
    pub source: SocketAddr,
    /// Who speaks HTTP to us: the source, or whom a trusted balancer names in a PROXY header.
    pub speaker: SocketAddr,
    /// The speaker's address as text, for forwarding fields.
    pub speaker_text: String,
    /// What is said of its requests as a rule; see `forward`.
    pub provenance: Head,
    pub listener_port: u16,
    pub https: bool,
    /// TLS version, for the log.
    pub tls_version: Option<&'static str>,
    /// Server name the client asked for, lower case.
    pub sni: Option<Box<str>>,
}

impl Downstream {
    fn new(
        stream: tls::Stream,
        received: Vec<u8>,
        source: SocketAddr,
        speaker: SocketAddr,
        listener: SocketAddr,
    ) -> Self {
        let https = stream.with_session(|_| ()).is_some();
        Self {
            origin: Origin {
                provenance: forward::provenance(&speaker.ip().to_string(), https, listener.port()),
                speaker_text: speaker.ip().to_string(),
                source,
                speaker,
                listener_port: listener.port(),
                https,
                tls_version: stream.with_session(|s| s.version().map(|v| v.as_str())).flatten(),
                sni: stream.with_session(|s| s.sni().map(|name| name.to_ascii_lowercase().into())).flatten(),
            },
            intake: Intake::with_received(stream.rx, received),
            tx: stream.tx,
            out: Vec::new(),
            upstream_out: Vec::new(),
            request: RequestHead::new(),
            response: ResponseHead::new(),
            plugin_fields: Head::new(),
            exchanges: 0,
        }
    }
}

/// How long a connection whose last answer came in a drain, yet promised another request, waits for that request.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// Arena of a head that an idle connection may keep.
const HEAD_KEEP: usize = 2 * 1024;

/// Serves a connection until it ends.
pub async fn serve(
    shard: Rc<Shard>,
    mut stream: net::Stream,
    source: SocketAddr,
    listener: SocketAddr,
    open: OpenConnection,
) {
    let source = canonical(source);
    let local = shard.local();
    let Some((tls, proxied)) = local.snapshot.listener(listener).map(|l| (l.tls.clone(), l.proxy_protocol))
    else {
        return; // the listener was removed between accept and here
    };
    let mut received = Vec::new();
    let mut speaker = source;
    if proxied && local.snapshot.trusted_proxies.contains(source.ip()) {
        match proxy_header(&shard, &local, &mut stream, &mut received, source).await {
            Some(client) => speaker = client.unwrap_or(source),
            None => return,
        }
    }
    let accepted = match tls {
        None => Some((tls::Stream::plain(stream), received)),
        Some(config) => handshake(&shard, &local, stream, config, source, received).await,
    };
    // A connection may outlive many generations; hold none while it waits.
    drop(local);
    let Some((stream, received)) = accepted else { return };
    let mut down = Downstream::new(stream, received, source, speaker, listener);
    loop {
        let local = match receive_head(&shard, &mut down).await {
            Received::Head(local) => local,
            Received::Closed => break,
            Received::Refused(refusal, local) => {
                refuse::malformed(&shard, &local, &mut down, refusal).await;
                break;
            }
        };
        down.exchanges += 1;
        open.set_busy(true);
        let next = exchange(&shard, &local, &mut down).await;
        // A drain closes what is idle. Where one began during this exchange, the client may have been promised
        // another request: the connection then ends by its own grace.
        open.set_busy(shard.draining());
        match next {
            Next::KeepAlive => {}
            Next::Close => break,
            Next::Reset => {
                down.tx.reset_on_close();
                return;
            }
        }
    }
    refuse::close(&mut down).await;
}

/// An IPv4 client of a dual-stack listener is an IPv4 client.
fn canonical(source: SocketAddr) -> SocketAddr {
    SocketAddr::new(source.ip().to_canonical(), source.port())
}

enum Received {
    Head(Rc<Local>),
    /// Nothing to answer: closed between requests, or idle for too long.
    Closed,
    Refused(Refusal, Rc<Local>),
}

/// Phase 1: receives until a head is whole.
async fn receive_head(shard: &Rc<Shard>, down: &mut Downstream) -> Received {
    down.request.clear();
    let first = down.exchanges == 0;
    let mut waiting_for_rest = false;
    loop {
        // The generation is chosen with the first byte of the request at hand, and kept to its end.
        let local = shard.local();
        let limits = &local.snapshot.head_limits;
        let timeouts = &local.snapshot.config.timeouts;
        let deadline = down.intake.rx.deadline();
        if !down.intake.is_empty() {
            match parse_request(down.intake.unread(), limits, &mut down.request) {
                Ok(Parsed::Complete { head_len }) => {
                    down.intake.consume(head_len);
                    // Nobody receives while the target is thinking.
                    down.intake.rx.deadline().disarm();
                    return Received::Head(local);
                }
                Ok(Parsed::Partial) => {}
                Err(refusal) => return Received::Refused(refusal, local),
            }
            if !waiting_for_rest {
                waiting_for_rest = true;
                deadline.arm(timeouts.request_head);
            }
        } else {
            deadline.arm(match (first, shard.draining()) {
                (true, _) => timeouts.request_head,
                (false, true) => DRAIN_GRACE,
                (false, false) => timeouts.keep_alive,
            });
            down.intake.relax();
        }
        // Room for a head that is as large as allowed and one byte more, so that the parser sees the excess.
        let room = if waiting_for_rest { limits.head + 1 } else { HEAD_ROOM };
        match down.intake.receive(room.max(HEAD_ROOM)).await {
            Ok(1..) => {}
            _ if waiting_for_rest && down.intake.rx.deadline().expired() => {
                let refusal = Refusal { reason: Reason::RequestTimeout, status: 408 };
                return Received::Refused(refusal, local);
            }
            _ => return Received::Closed,
        }
    }
}

/// Receives the PROXY header of a trusted balancer, which tells the client's address unless it speaks for itself. What
/// follows the header stays in `received`. `None`: there was no valid header, and the connection is over.
async fn proxy_header(
    shard: &Shard,
    local: &Local,
    stream: &mut net::Stream,
    received: &mut Vec<u8>,
    source: SocketAddr,
) -> Option<Option<SocketAddr>> {
    stream.rx.deadline.arm(local.snapshot.config.timeouts.request_head);
    received.reserve_exact(HEAD_ROOM);
    loop {
        match proxy_protocol::parse(received) {
            proxy_protocol::Parsed::Complete(header) => {
                stream.rx.deadline.disarm();
                received.drain(..header.len);
                return Some(header.client);
            }
            proxy_protocol::Parsed::Malformed => break,
            proxy_protocol::Parsed::Partial => {
                let room = proxy_protocol::HEADER_MAX.saturating_sub(received.len()).max(1);
                if !matches!(stream.rx.recv(received, room).await, Ok(1..)) {
                    break;
                }
            }
        }
    }
    shard.refused_source(Reason::BadProxyHeader, source.ip());
    None
}

/// Runs a TLS handshake; says why when there is none, and charges the source for it.
async fn handshake(
    shard: &Rc<Shard>,
    local: &Local,
    mut stream: net::Stream,
    config: tls::ServerConfig,
    source: SocketAddr,
    mut received: Vec<u8>,
) -> Option<(tls::Stream, Vec<u8>)> {
    stream.rx.deadline.arm(local.snapshot.config.timeouts.tls_handshake);
    let first = match received.len() {
        0 => {
            received.reserve_exact(HEAD_ROOM);
            stream.rx.recv(&mut received, HEAD_ROOM).await
        }
        behind_proxy_header => Ok(behind_proxy_header),
    };
    let mut behaviour = Behaviour::TlsHandshakeFailed;
    let reason = match first {
        Ok(1..) if tls::looks_like_plain_http(&received) => {
            refuse::plain_http_on_tls(&mut stream).await;
            Reason::PlainHttpOnTls
        }
        Ok(1..) => match tls::Session::server(&config) {
            Err(_) => Reason::InternalError,
            Ok(session) => match tls::Stream::handshake(stream, session, received).await {
                Ok(stream) => {
                    let limiter = &local.snapshot.source_limiter;
                    limiter.mark_established(&shard.table, source.ip(), clock::now_ns());
                    shard.metrics.tls_handshake_done(stream.with_session(|s| s.resumed()) == Some(true));
                    return Some((stream, Vec::new()));
                }
                Err(HandshakeError::TimedOut) => Reason::TlsHandshakeTimeout,
                Err(HandshakeError::Abandoned | HandshakeError::Io(_)) => {
                    behaviour = Behaviour::TlsHandshakeAbandoned;
                    Reason::TlsHandshakeFailed
                }
                Err(HandshakeError::Fault(fault)) => fault.downstream_reason(),
            },
        },
        // Connected and said nothing: a port scan or a health check of a balancer (which may end with a reset), no
        // handshake yet.
        Ok(0) | Err(_) if !stream.rx.deadline.expired() => return None,
        _ => Reason::TlsHandshakeTimeout,
    };
    if shard.draining() && reason == Reason::TlsHandshakeTimeout {
        return None; // it was the drain that cut it
    }
    shard.refused_source(reason, source.ip());
    shard.metrics.tls_handshake_failed();
    let limiter = &local.snapshot.source_limiter;
    if reason == Reason::TlsHandshakeTimeout {
        behaviour = Behaviour::TlsHandshakeAbandoned;
    }
    let _ = limiter.penalize(&shard.table, source.ip(), behaviour, clock::now_ns());
    None
}

/// Frees what an idle connection need not keep; called after each exchange.
pub(super) fn relax(down: &mut Downstream) {
    if down.out.capacity() > HEAD_ROOM {
        down.out = Vec::new();
    }
    if down.upstream_out.capacity() > HEAD_ROOM {
        down.upstream_out = Vec::new();
    }
    if down.request.head.capacity() > HEAD_KEEP {
        down.request.head.shrink(HEAD_KEEP);
    }
    if down.response.head.capacity() > HEAD_KEEP {
        down.response.head.shrink(HEAD_KEEP);
    }
    down.plugin_fields.clear();
    if down.plugin_fields.capacity() > HEAD_KEEP {
        down.plugin_fields.shrink(HEAD_KEEP);
    }
}

/// The client's address: what a trusted proxy says of it, else the speaker.
pub(super) fn client_address(local: &Local, down: &Downstream) -> IpAddr {
    let speaker = down.origin.speaker.ip();
    let trusted = &local.snapshot.trusted_proxies;
    if trusted.is_empty() || !trusted.contains(speaker) {
        return speaker;
    }
    super::forward::client_from_fields(&down.request.head, speaker, trusted)
}
