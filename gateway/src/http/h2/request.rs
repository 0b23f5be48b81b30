//! The head of a request, from the codec's to ours and back.
//!
//! Owns the decisions on pseudo-fields (RFC 9113 section 8.3.1), which are those of the request target and of Host in
//! HTTP/1. The codec has refused already, with RST_STREAM: pseudo-fields that are missing, repeated, unknown, out of place
//! or no URI, upper case, connection-specific fields, `TE` but `trailers`, and lengths that contradict each other.
//!
//! | `:authority` | Host | decision |
//! |---|---|---|
//! | valid | none | a Host field is made of it |
//! | valid | one, the same host and port | accepted |
//! | valid | another, or more than one | 400 `duplicate_host` |
//! | none | as in HTTP/1 | as in HTTP/1: none is 400 `missing_host` |
//! | invalid, or with userinfo | any | 400 `bad_header` |
//!
//! | `:scheme` | decision |
//! |---|---|
//! | `http`, `https` | told of; which one fits the connection is not decided here |
//! | any other | 400 `bad_target` |
//!
//! | `:method` | `:protocol` | decision |
//! |---|---|---|
//! | CONNECT | `websocket` | a WebSocket (RFC 8441); told of as a GET |
//! | CONNECT | another | 501 |
//! | CONNECT | none | 405 `connect_refused` |
//! | TRACE | | 405 `trace_refused` |

use http::header::HeaderValue;
use http::uri::{self, Authority, PathAndQuery, Uri};
use http::{Request, request};
use portcullis_abi::Reason;

use super::fields;
use crate::http::h1::{BodyFraming, HeadLimits};
use crate::http::websocket::KEY;
use crate::http::{Known, KnownSet, Method, Refusal, RequestHead, Scheme, Underscores, Version};

/// What an extended CONNECT asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 8441.
    WebSocket,
}

/// What a request is besides its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub framing: BodyFraming,
    pub protocol: Option<Protocol>,
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Malformed as RFC 9113 section 8.1.1 has it: the stream is reset.
    Malformed,
    /// Answered.
    Refused(Refusal),
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Fault {
        Fault::Refused(Refusal::new(reason))
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::Refused(refusal)
    }
}

/// Fills `out` from a request; `ended`: it has no body. What could be read of a refused one is there for the log.
pub(super) fn read(
    parts: &request::Parts,
    ended: bool,
    limits: &HeadLimits,
    out: &mut RequestHead,
) -> Result<Facts, Fault> {
    out.clear();
    out.version = Version::Http2;
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let method = if protocol.is_some() { "GET" } else { parts.method.as_str() };
    out.method = Method::of(method.as_bytes());
    out.method_text = out.head.store(method.as_bytes());
    let target = parts.uri.path_and_query().map_or("", PathAndQuery::as_str).as_bytes();
    out.target = out.head.store(target);
    let line = method.len() + target.len();
    let authority = parts.uri.authority().map(Authority::as_str);
    if let (Some(authority), false) = (authority, parts.headers.contains_key(http::header::HOST)) {
        out.head.append_known(Known::Host, authority);
    }
    let call = || fields::is_call(out.method, &parts.headers);
    let read =
        fields::read(&parts.headers, limits.underscores, call, &mut out.head).ok_or(Fault::Malformed)?;
    out.underscored = read.underscored;
    if read.underscored > 0 && limits.underscores == Underscores::Reject {
        return Err(Reason::BadHeader.into());
    }
    if line > limits.request_line {
        return Err(Reason::UriTooLong.into());
    }
    if read.count > limits.fields {
        return Err(Reason::TooManyHeaders.into());
    }
    if line + read.octets > limits.head {
        return Err(Reason::HeaderTooLarge.into());
    }
    match out.method {
        Method::Connect => return Err(Reason::ConnectRefused.into()),
        Method::Trace => return Err(Reason::TraceRefused.into()),
        _ => {}
    }
    out.scheme = scheme(&parts.uri)?;
    take_host(authority, out.scheme.unwrap_or(Scheme::Http).default_port(), out)?;
    match target {
        b"*" if out.method == Method::Options => out.path = out.target,
        [b'/', ..] => out.take_target(out.target, &limits.path)?,
        _ => return Err(Reason::BadTarget.into()),
    }
    let protocol = match protocol.map(h2::ext::Protocol::as_str) {
        None => None,
        Some("websocket") => Some(Protocol::WebSocket),
        Some(_) => return Err(Refusal { reason: Reason::ConnectRefused, status: 501 }.into()),
    };
    Ok(Facts { framing: framing(out, ended)?, protocol })
}

/// What `:scheme` says. The codec has it in every request but CONNECT.
fn scheme(uri: &Uri) -> Result<Option<Scheme>, Reason> {
    match uri.scheme_str() {
        None => Ok(None),
        Some(text) if text.eq_ignore_ascii_case("https") => Ok(Some(Scheme::Https)),
        Some(text) if text.eq_ignore_ascii_case("http") => Ok(Some(Scheme::Http)),
        // What we are asked for is not ours to give, and would go on as something else (RFC 9110 section 7.4).
        Some(_) => Err(Reason::BadTarget),
    }
}

/// Decides which host the request is for, by the table above.
fn take_host(authority: Option<&str>, default_port: u16, out: &mut RequestHead) -> Result<(), Fault> {
    let Some(host) = out.head.value_span(Known::Host, 0) else {
        return Err(Reason::MissingHost.into());
    };
    if out.head.value_span(Known::Host, 1).is_some() {
        return Err(Reason::DuplicateHost.into());
    }
    if host.is_empty() {
        return Err(Reason::MissingHost.into());
    }
    out.take_authority(host).ok_or(Reason::BadHeader)?;
    // Where there is no Host of the client's, this is the authority itself.
    let Some(authority) = authority.filter(|text| text.as_bytes() != out.head.slice(host)) else {
        return Ok(());
    };
    let (named, named_port) = (out.host, out.port);
    let span = out.head.store(authority.as_bytes());
    out.take_authority(span).ok_or(Reason::BadHeader)?;
    let same_host = out.head.slice(named) == out.head.slice(out.host);
    if !same_host || named_port.unwrap_or(default_port) != out.port.unwrap_or(default_port) {
        return Err(Reason::DuplicateHost.into());
    }
    Ok(())
}

/// How long the body is. The codec sees to it that it is what Content-Length says (RFC 9113 section 8.1.1).
fn framing(out: &RequestHead, ended: bool) -> Result<BodyFraming, Fault> {
    let length = match out.head.get_known(Known::ContentLength) {
        None => None,
        Some(_) => Some(crate::http::h1::framing::content_length(&out.head)?),
    };
    Ok(match length {
        _ if ended => BodyFraming::None,
        Some(length) => BodyFraming::Length(length),
        None => BodyFraming::Chunked,
    })
}

/// How a request goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// What `:scheme` says.
    pub https: bool,
    /// No body follows.
    pub end: bool,
    /// Trailers are welcome: `TE: trailers`.
    pub te_trailers: bool,
    /// An extended CONNECT.
    pub protocol: Option<Protocol>,
}

/// A request as the codec takes it; `None` where it cannot be said in HTTP/2.
pub(super) fn write(request: &RequestHead, outgoing: Outgoing) -> Option<Request<()>> {
    let mut message = Request::new(());
    let authority = request.head.get_known(Known::Host).unwrap_or(request.authority());
    let mut target =
        Vec::with_capacity(request.path().len() + request.query().map_or(0, |query| query.len() + 1));
    target.extend_from_slice(request.path());
    if let Some(query) = request.query() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    let mut uri = uri::Parts::default();
    uri.scheme = Some(if outgoing.https { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    uri.authority = Some(Authority::try_from(authority).ok()?);
    uri.path_and_query = Some(PathAndQuery::from_maybe_shared(bytes::Bytes::from(target)).ok()?);
    *message.uri_mut() = Uri::from_parts(uri).ok()?;
    let mut map = fields::write(&request.head, KnownSet::of(&[Known::Host]));
    if outgoing.te_trailers {
        map.insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    *message.headers_mut() = map;
    *message.method_mut() = match outgoing.protocol {
        None => http::Method::from_bytes(request.upstream_method_text()).ok()?,
        Some(Protocol::WebSocket) => {
            // The key proves nothing here, and is not sent (RFC 8441 section 5).
            message.headers_mut().remove(KEY);
            message.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
            http::Method::CONNECT
        }
    };
    Some(message)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
