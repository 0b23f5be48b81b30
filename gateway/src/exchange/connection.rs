//! One downstream connection: from accept over the TLS handshake to request after request.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_abi::Reason;

use super::shard::{OpenConnection, Shard};
use super::{Next, exchange, forward, passthrough, refuse};
use crate::http::h1::{Parsed, parse_request};
use crate::http::proxy_protocol::{self, Tlvs};
use crate::http::{Head, Refusal, RequestHead, ResponseHead};
use crate::limit::Behaviour;
use crate::metrics::HandshakeFailure;
use crate::net::{self, clock};
use crate::plugin;
use crate::snapshot::Local;
use crate::tls::{self, Covered, FaultKind, HEAD_ROOM, HandshakeError, Intake, Peer};

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
    /// The listener's address as configured.
    pub listener: SocketAddr,
    pub listener_port: u16,
    /// Where the client connected to, if targets are told.
    pub destination: SocketAddr,
    pub https: bool,
    /// TLS version, for the log.
    pub tls_version: Option<&'static str>,
    /// Server name the client asked for, lower case.
    pub sni: Option<Box<str>>,
    /// The client's certificate, which verified.
    pub peer: Option<Arc<Peer>>,
    /// The names that the connection may be used for, where that matters.
    pub covered: Option<Covered>,
    /// What a trusted balancer's PROXY header says beside addresses.
    pub proxied: Option<Rc<Tlvs>>,
}

/// Who is at the other end of a connection, before its first byte.
pub(super) struct Ends {
    pub source: SocketAddr,
    pub speaker: SocketAddr,
    pub listener: SocketAddr,
    pub destination: SocketAddr,
    pub proxied: Option<Rc<Tlvs>>,
}

impl Downstream {
    fn new(stream: tls::Stream, received: Vec<u8>, ends: Ends) -> Self {
        let Ends { source, speaker, listener, destination, proxied } = ends;
        let https = stream.with_session(|_| ()).is_some();
        Self {
            origin: Origin {
                provenance: forward::provenance(&speaker.ip().to_string(), https, listener.port()),
                speaker_text: speaker.ip().to_string(),
                source,
                speaker,
                listener,
                listener_port: listener.port(),
                destination,
                https,
                peer: stream.with_session(tls::Session::peer).flatten(),
                covered: stream.with_session(tls::Session::covered).flatten(),
                proxied,
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
    let Some((tls, proxied, passes_on)) =
        local.snapshot.listener(listener).map(|l| (l.tls.clone(), l.proxy_protocol, l.passthrough))
    else {
        return; // the listener was removed between accept and here
    };
    let mut received = Vec::new();
    // A system call, so only where somebody is told.
    let own = local.snapshot.tells_destination.then(|| stream.local_address());
    let destination = own.and_then(Result::ok).map_or(listener, canonical);
    let mut ends = Ends { source, speaker: source, listener, destination, proxied: None };
    if proxied
        && local.snapshot.trusted_proxies.contains(source.ip())
        && !proxy_header(&shard, &local, &mut stream, &mut received, &mut ends).await
    {
        return;
    }
    if passes_on {
        // A drain leaves streams alone until they fall silent.
        open.set_busy(true);
        match passthrough::take(&shard, &local, stream, received, &ends, tls.is_some()).await {
            Some(left) => (stream, received) = left,
            None => return,
        }
        open.set_busy(false);
    }
    let accepted = match tls {
        None => Some((tls::Stream::plain(stream), received)),
        Some(config) => handshake(&shard, &local, stream, config, source, received).await,
    };
    // A connection may outlive many generations; hold none while it waits.
    drop(local);
    let Some((stream, received)) = accepted else { return };
    let mut down = Downstream::new(stream, received, ends);
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
/// follows the header stays in `received`. False: there was no valid header, and the connection is over.
async fn proxy_header(
    shard: &Shard,
    local: &Local,
    stream: &mut net::Stream,
    received: &mut Vec<u8>,
    ends: &mut Ends,
) -> bool {
    stream.rx.deadline.arm(local.snapshot.config.timeouts.request_head);
    received.reserve_exact(HEAD_ROOM);
    loop {
        match proxy_protocol::parse(received) {
            proxy_protocol::Parsed::Complete(header) => {
                stream.rx.deadline.disarm();
                received.drain(..header.len);
                ends.speaker = header.client.unwrap_or(ends.source);
                ends.destination = header.destination.unwrap_or(ends.destination);
                ends.proxied = (!header.tlvs.is_empty()).then(|| Rc::new(header.tlvs));
                return true;
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
    shard.refused(Reason::BadProxyHeader);
    false
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
    let (cause, reason) = match first {
        Ok(1..) if tls::looks_like_plain_http(&received) => {
            refuse::plain_http_on_tls(&mut stream).await;
            (HandshakeFailure::PlainHttp, Reason::PlainHttpOnTls)
        }
        Ok(1..) => match tls::Session::server(&config) {
            Err(_) => (HandshakeFailure::Internal, Reason::InternalError),
            Ok(session) => match tls::Stream::handshake(stream, session, received).await {
                Ok(stream) => {
                    shard.metrics.tls_handshake_done(stream.with_session(|s| s.resumed()) == Some(true));
                    return Some((stream, Vec::new()));
                }
                Err(error) => failure_of(&error),
            },
        },
        // Connected and said nothing: a port scan or a health check of a balancer (which may end with a reset), no
        // handshake yet.
        Ok(0) | Err(_) if !stream.rx.deadline.expired() => return None,
        _ => (HandshakeFailure::TimedOut, Reason::TlsHandshakeTimeout),
    };
    failed_handshake(shard, local, source, cause, reason);
    None
}

/// Counts a handshake that came to nothing, and charges the source for it.
pub(super) fn failed_handshake(
    shard: &Shard,
    local: &Local,
    source: SocketAddr,
    cause: HandshakeFailure,
    reason: Reason,
) {
    if shard.draining() && reason == Reason::TlsHandshakeTimeout {
        return; // it was the drain that cut it
    }
    shard.refused(reason);
    shard.metrics.tls_handshake_failed(cause);
    let limiter = &local.snapshot.source_limiter;
    limiter.penalize(&shard.table, source.ip(), Behaviour::TlsHandshakeFailed, clock::now_ns());
}

fn failure_of(error: &HandshakeError) -> (HandshakeFailure, Reason) {
    match error {
        HandshakeError::TimedOut => (HandshakeFailure::TimedOut, Reason::TlsHandshakeTimeout),
        HandshakeError::Abandoned => (HandshakeFailure::Abandoned, Reason::TlsHandshakeFailed),
        HandshakeError::Io(_) => (HandshakeFailure::Reset, Reason::TlsHandshakeFailed),
        HandshakeError::Fault(fault) => (cause_of(fault.kind), fault.downstream_reason()),
    }
}

/// The cause that a fault of TLS is counted as.
pub(super) fn cause_of(kind: FaultKind) -> HandshakeFailure {
    match kind {
        FaultKind::AlertReceived => HandshakeFailure::AlertReceived,
        FaultKind::BadRecord => HandshakeFailure::BadRecord,
        FaultKind::CertificateMissing => HandshakeFailure::CertificateMissing,
        FaultKind::CertificateRefused => HandshakeFailure::CertificateRefused,
        FaultKind::Internal => HandshakeFailure::Internal,
        FaultKind::NotTls => HandshakeFailure::NotTls,
        FaultKind::NothingInCommon => HandshakeFailure::NothingInCommon,
        FaultKind::Protocol => HandshakeFailure::Protocol,
        FaultKind::UnknownName => HandshakeFailure::UnknownName,
    }
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
    let config = &local.snapshot.config;
    let rule =
        forward::RealIp { header: &config.real_ip_header, recursive: config.real_ip_recursive, trusted };
    rule.client(&down.request.head, speaker)
}
