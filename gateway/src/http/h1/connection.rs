//! What concerns one connection only: persistence, hop-by-hop fields, expectations.
//!
//! Owns the meaning of the Connection field and the removal of what must not be forwarded (RFC 9110
//! section 7.6.1). Never closes anything. Invariant: a sender can use Connection to take away only
//! fields that no rule of the gateway depends on.
//!
//! Persistence (RFC 9112 section 9.3), by version and Connection options:
//!
//! | version | close | keep-alive | persistent |
//! |---|---|---|---|
//! | 1.1 | no | any | yes |
//! | 1.1 | yes | any | no |
//! | 1.0 | no | yes | yes |
//! | 1.0 | no | no | no |
//! | 1.0 | yes | any | no |
//!
//! A name listed in Connection is removed, and so are connection-specific fields, listed or not. Names
//! stay that a rule of the gateway or of the target depends on, even if listed: the host and the length,
//! credentials, and what proxies say of a client and its request ([`KEPT`], and all of the class
//! `X-Forwarded-*`). `Connection: Authorization` or `Connection: X-Forwarded-For` would otherwise strip
//! what an earlier, trusted hop has added. Ignoring them is preferred to a 400, as no sender that means
//! well lists them, and no request fails. The removal comes before the gateway adds fields of its own.
//! More than [`LISTED`] options are refused.

use crate::http::forwarded::is_forwarded_class;
use crate::http::{Head, Known, KnownSet, Reason, Refusal, RequestHead, Span, Version};

/// The options of the Connection field that are understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectionOptions {
    /// `close`
    pub close: bool,
    /// `keep-alive`
    pub keep_alive: bool,
    /// `upgrade`
    pub upgrade: bool,
}

/// What the removed hop-by-hop fields said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HopByHop {
    /// Options of Connection.
    pub options: ConnectionOptions,
    /// Upgrade lists `websocket`, and Connection `upgrade` (RFC 9110 section 7.8).
    pub websocket: bool,
    /// TE lists `trailers`: the sender takes trailer fields.
    pub te_trailers: bool,
}

/// What a written head says of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persistence {
    /// No Connection field: the default of the receiver's version holds.
    Implied,
    /// `Connection: keep-alive`, for a receiver of version 1.0.
    KeepAlive,
    /// `Connection: close`
    Close,
    /// `Connection: upgrade`
    Upgrade,
    /// `TE: trailers`, with the option in Connection that keeps it on this connection (RFC 9110 section 10.1.4).
    TakesTrailers,
}

impl Persistence {
    /// What to write to a receiver of version `to` so that it keeps the connection or not.
    pub fn to(to: Version, keep: bool) -> Persistence {
        match (keep, to) {
            (false, _) => Persistence::Close,
            (true, Version::Http10) => Persistence::KeepAlive,
            (true, _) => Persistence::Implied,
        }
    }
}

/// Whether the sender expects a word before it sends the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expectation {
    /// No expectation.
    None,
    /// `100-continue`
    Continue,
}

/// Reads the Connection field.
pub fn connection_options(head: &Head) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    for value in head.all_known(Known::Connection) {
        for option in list(value) {
            options.note(option);
        }
    }
    options
}

/// Whether the connection stays open after a message with these options, by the table above.
pub fn keep_alive(version: Version, options: ConnectionOptions) -> bool {
    match version {
        Version::Http10 => options.keep_alive && !options.close,
        _ => !options.close,
    }
}

/// The expectation of a request (RFC 9110 section 10.1.1): 417 for any but `100-continue`, and
/// none in HTTP/1.0, where it must be ignored.
pub fn expectation(request: &RequestHead) -> Result<Expectation, Refusal> {
    let Some(value) = request.head.get_known(Known::Expect) else { return Ok(Expectation::None) };
    if request.version() == Version::Http10 {
        return Ok(Expectation::None);
    }
    if request.head.count_known(Known::Expect) == 1 && value.eq_ignore_ascii_case(b"100-continue") {
        return Ok(Expectation::Continue);
    }
    Err(Refusal::new(Reason::UnsupportedExpectation))
}

/// Removes the fields that concern one connection only, and says what they said.
///
/// # Errors
/// Connection lists more than [`LISTED`] options. The head is to be thrown away then.
pub fn strip_hop_by_hop(head: &mut Head) -> Result<HopByHop, TooManyOptions> {
    let mut hop = HopByHop { te_trailers: te_trailers(head), ..HopByHop::default() };
    let mut listed = KnownSet::default();
    let mut options = 0;
    let mut line = 0;
    while let Some(value) = head.value_span(Known::Connection, line) {
        line += 1;
        let mut at = value.start();
        while at < value.end() {
            let rest = head.slice(Span::new(at, value.end() - at));
            let len = rest.iter().position(|&byte| byte == b',').unwrap_or(rest.len());
            let option = rest[..len].trim_ascii();
            // An option is a token without spaces, so where it starts tells where it is.
            let lead = rest[..len].len() - rest[..len].trim_ascii_start().len();
            let span = Span::new(at + lead, option.len());
            at += len + 1;
            if option.is_empty() {
                continue;
            }
            options += 1;
            if options > LISTED {
                return Err(TooManyOptions);
            }
            if hop.options.note(option) {
                continue;
            }
            match Known::of(option) {
                Known::Other if is_forwarded_class(option) => {}
                Known::Other => head.remove_named(span),
                known => listed = listed.and(KnownSet::of(&[known])),
            }
        }
    }
    if hop.options.upgrade {
        let mut protocols = head.all_known(Known::Upgrade).flat_map(list);
        hop.websocket = protocols.any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    }
    head.remove_set(listed.without(KEPT).and(CONNECTION_SPECIFIC));
    Ok(hop)
}

/// Options of Connection that a message may list: each costs a look at all fields, and a head has room for thousands.
const LISTED: usize = 32;

/// More options in Connection than [`LISTED`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyOptions;

/// Names that stay though Connection lists them.
const KEPT: KnownSet = KnownSet::of(&[
    Known::Host,
    Known::ContentLength,
    // Credentials, and below identity, which a hop before may have added. A Cookie is only ever its client's.
    Known::Authorization,
    Known::Apikey,
    // What proxies say: through whom it came, and below whose request it is and how it came.
    Known::Via,
    Known::XRequestId,
    Known::MaxForwards,
    // Asked about after the removal, and removed then in any case.
    Known::Expect,
])
.and(KnownSet::IDENTITY)
.and(KnownSet::FORWARDED);

/// Fields that are never forwarded as they came. Transfer-Encoding is among them because the body
/// is framed anew; Trailer is not, as trailers are forwarded.
pub const CONNECTION_SPECIFIC: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Te,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::Http2Settings,
    Known::ProxyAuthorization,
    Known::ProxyAuthenticate,
    Known::ProxyAuthenticationInfo,
]);

impl ConnectionOptions {
    /// Notes an option; says whether it is one of the understood.
    fn note(&mut self, option: &[u8]) -> bool {
        if option.eq_ignore_ascii_case(b"close") {
            self.close = true;
        } else if option.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else {
            return false;
        }
        true
    }
}

fn te_trailers(head: &Head) -> bool {
    head.all_known(Known::Te).flat_map(list).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// The elements of a comma-separated value.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests;
