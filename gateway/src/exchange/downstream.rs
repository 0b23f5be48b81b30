//! What the exchanges of a client share, and the memory that they reuse.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use super::forward;
use crate::http::proxy_protocol::Tlvs;
use crate::http::{Head, RequestHead, ResponseHead, Version};
use crate::plugin;
use crate::snapshot::Local;
use crate::tls::{self, Covered, HEAD_ROOM, Peer};

/// The messages of an exchange, in memory that the next one reuses.
pub struct Downstream {
    /// Bytes to be sent downstream.
    pub out: Vec<u8>,
    /// Bytes to be sent upstream.
    pub upstream_out: Vec<u8>,
    pub request: RequestHead,
    pub response: ResponseHead,
    /// Fields that plugins add to the response.
    pub plugin_fields: Head,
    pub origin: Rc<Origin>,
    /// Exchanges of the connection so far.
    pub exchanges: u32,
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
    /// The client speaks TLS, to us or to a trusted balancer that says so in its PROXY header.
    pub https: bool,
    /// What is spoken on it, as far as `Via` is concerned.
    pub version: Version,
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

impl Origin {
    /// The facts of `stream`, on which `version` is spoken.
    pub(super) fn new(stream: &tls::Stream, ends: Ends, version: Version) -> Self {
        let Ends { source, speaker, listener, destination, proxied } = ends;
        // TLS may have ended at the balancer, which is trusted to say so.
        let https = stream.with_session(|_| ()).is_some()
            || proxied.as_deref().is_some_and(|said| said.ssl.is_some());
        Self {
            provenance: forward::provenance(&speaker.ip().to_string(), https, listener.port(), version),
            speaker_text: speaker.ip().to_string(),
            source,
            speaker,
            listener,
            listener_port: listener.port(),
            destination,
            https,
            version,
            peer: stream.with_session(tls::Session::peer).flatten(),
            covered: stream.with_session(tls::Session::covered).flatten(),
            proxied,
            tls_version: stream.with_session(|s| s.version().map(|v| v.as_str())).flatten(),
            sni: stream.with_session(|s| s.sni().map(|name| name.to_ascii_lowercase().into())).flatten(),
        }
    }
}

impl Downstream {
    /// No exchange so far.
    pub fn new(origin: Rc<Origin>) -> Self {
        Self {
            origin,
            out: Vec::new(),
            upstream_out: Vec::new(),
            request: RequestHead::new(),
            response: ResponseHead::new(),
            plugin_fields: Head::new(),
            exchanges: 0,
        }
    }

    /// What plugins may know of the connection.
    pub fn facts(&self) -> plugin::Connection {
        plugin::Connection {
            source_port: self.origin.source.port(),
            listener_port: self.origin.listener_port,
            exchanges: self.exchanges.saturating_sub(1),
        }
    }
}

/// Arena of a head that an idle connection may keep.
const HEAD_KEEP: usize = 2 * 1024;

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
