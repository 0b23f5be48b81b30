//! One downstream connection: from accept over the TLS handshake to the HTTP that is spoken on it.

use std::net::SocketAddr;
use std::rc::Rc;

use portcullis_abi::Reason;

use super::downstream::Ends;
use super::shard::{OpenConnection, Shard};
use super::{http1, passthrough, refuse, streams};
use crate::http::h2::{Preface, looks_like_preface};
use crate::http::proxy_protocol;
use crate::limit::Behaviour;
use crate::metrics::HandshakeFailure;
use crate::net::{self, clock};
use crate::snapshot::Local;
use crate::tls::{self, FaultKind, HEAD_ROOM, HandshakeError};

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
    let Some((tls, proxied, passes_on, h2c)) =
        local.snapshot.listener(listener).map(|l| (l.tls.clone(), l.proxy_protocol, l.passthrough, l.h2c))
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
        None => {
            let known = !h2c || begins(&shard, &local, &mut stream, &mut received).await;
            known.then(|| (tls::Stream::plain(stream), received))
        }
        Some(config) => handshake(&shard, &local, stream, config, source, received).await,
    };
    // A connection may outlive many generations; hold none while it waits.
    drop(local);
    let Some((stream, received)) = accepted else { return };
    let speaks_http2 = match stream.with_session(tls::Session::alpn) {
        Some(chosen) => chosen == Some(tls::Alpn::H2),
        None => h2c && looks_like_preface(&received) == Preface::Yes,
    };
    if speaks_http2 {
        streams::serve(shard, stream, received, ends, open).await;
    } else {
        http1::serve(shard, stream, received, ends, open).await;
    }
}

/// An IPv4 client of a dual-stack listener is an IPv4 client.
fn canonical(source: SocketAddr) -> SocketAddr {
    SocketAddr::new(source.ip().to_canonical(), source.port())
}

/// Receives what tells HTTP/2 from HTTP/1 where both are spoken without TLS: the first octets, until they cannot be the
/// preface of HTTP/2 any more, or are. False: there was nothing to tell.
async fn begins(shard: &Shard, local: &Local, stream: &mut net::Stream, received: &mut Vec<u8>) -> bool {
    stream.rx.deadline.arm(local.snapshot.config.timeouts.request_head);
    while looks_like_preface(received) == Preface::Partial {
        received.reserve(HEAD_ROOM);
        if matches!(stream.rx.recv(received, HEAD_ROOM).await, Ok(1..)) {
            continue;
        }
        if !received.is_empty() && stream.rx.deadline.expired() && !shard.draining() {
            shard.refused(Reason::RequestTimeout);
        }
        return false;
    }
    stream.rx.deadline.disarm();
    true
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
                received.reserve(HEAD_ROOM);
                if !matches!(stream.rx.recv(received, HEAD_ROOM).await, Ok(1..)) {
                    break;
                }
            }
        }
    }
    shard.refused_source(Reason::BadProxyHeader, ends.source.ip());
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
                    let limiter = &local.snapshot.source_limiter;
                    limiter.mark_established(&shard.table, source.ip(), clock::now_ns());
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
    shard.refused_source(reason, source.ip());
    shard.metrics.tls_handshake_failed(cause);
    let limiter = &local.snapshot.source_limiter;
    let behaviour = match cause {
        HandshakeFailure::TimedOut | HandshakeFailure::Abandoned | HandshakeFailure::Reset => {
            Behaviour::TlsHandshakeAbandoned
        }
        _ => Behaviour::TlsHandshakeFailed,
    };
    // A ban that comes of it is in the table; whoever closes the source's connections finds it there.
    let _ = limiter.penalize(&shard.table, source.ip(), behaviour, clock::now_ns());
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
