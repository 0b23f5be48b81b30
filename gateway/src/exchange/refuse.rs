//! Answers that the gateway makes by itself, and the orderly end of a connection.

use std::time::Duration;

use portcullis_abi::Reason;

use super::connection::Downstream;
use super::finish::{Record, finish};
use super::shard::Shard;
use crate::http::h1::{Answer, Content, Persistence, write_answer};
use crate::http::{Head, Method, Refusal, Version};
use crate::limit::Behaviour;
use crate::net::{self, clock};
use crate::plugin::Response;
use crate::snapshot::Local;
use crate::tls::Tx;

/// How long, and for how many bytes, a connection that we close keeps reading: the client is sending still, and bytes
/// that arrive at a closed socket make a reset, which would destroy the answer on its way.
pub const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 512 * 1024;

/// What goes on the wire for a refusal.
pub fn message(reason: Reason) -> &'static str {
    match reason {
        Reason::RequestTimeout | Reason::BodyTimeout => "Request timed out",
        Reason::BodyTooLarge => "Request size limit exceeded",
        Reason::UriTooLong => "Request URI is too long",
        Reason::HeaderTooLarge | Reason::TooManyHeaders => "Request header fields are too large",
        Reason::UnsupportedExpectation => "Expectation failed",
        Reason::UnsupportedVersion => "HTTP version not supported",
        Reason::UnsupportedTransferCoding => "Transfer coding not supported",
        Reason::ConnectRefused | Reason::TraceRefused => "Method not allowed",
        Reason::NoRoute => "no Route matched with those values",
        Reason::NoHealthyTarget => "failure to get a peer from the ring-balancer",
        Reason::UpstreamTimeout | Reason::ConnectTimeout => "The upstream server is timing out",
        Reason::ConnectFailed
        | Reason::UpstreamReset
        | Reason::UpstreamBadResponse
        | Reason::UpstreamProtocolError
        | Reason::UpstreamTruncated => "An invalid response was received from the upstream server",
        Reason::SourceLimited => "API rate limit exceeded",
        Reason::MisdirectedRequest => "Misdirected request: this host needs a connection of its own",
        Reason::PlainHttpOnTls => "This port speaks HTTPS; use https://",
        Reason::InternalError => "An unexpected error occurred",
        _ => "Bad request",
    }
}

/// The plain answer for a reason.
pub fn response(status: u16, reason: Reason) -> Box<Response> {
    Response::new(status, reason, message(reason))
}

/// Writes an answer of ours into `down.out`.
pub fn write(down: &mut Downstream, date: &[u8], response: &Response, extra: Option<&Head>, keep: bool) {
    let mut fields: Vec<(&str, &[u8])> =
        response.fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    if let Some(extra) = extra {
        // Names come from plugins and are tokens, so they are ASCII.
        fields.extend(
            extra.iter().filter_map(|(_, name, value)| Some((std::str::from_utf8(name).ok()?, value))),
        );
    }
    let answer = Answer {
        status: response.status,
        message: &response.message,
        member: response.member,
        content: response
            .content
            .as_ref()
            .map(|content| Content { media_type: content.media_type.as_bytes(), bytes: &content.bytes }),
        fields: &fields,
        date,
        head_only: down.request.method() == Method::Head,
        persistence: Persistence::to(down.request.version(), keep),
    };
    write_answer(&answer, &mut down.out);
}

/// Answers a request that never became one, counts it and charges its source. The connection is closed after it.
pub async fn malformed(shard: &Shard, local: &Local, down: &mut Downstream, refusal: Refusal) {
    let now_ns = clock::now_ns();
    let mut record = Record::new(shard, now_ns, down.origin.speaker.ip());
    if refusal.status == 505 {
        // An answer in a version that the client does speak.
        down.request.set_version(Version::Http11);
    }
    let response = response(refusal.status, refusal.reason);
    write(down, &shard.date(), &response, None, false);
    record.status = refusal.status;
    record.reason = Some(refusal.reason);
    record.count_answer(&down.out);
    down.tx.deadline().arm(LINGER);
    // A client that is gone gets no answer; it is counted all the same.
    let _ = down.tx.send(&mut down.out).await;
    if refusal.reason != Reason::RequestTimeout {
        let limiter = &local.snapshot.source_limiter;
        limiter.penalize(&shard.table, down.origin.source.ip(), Behaviour::Malformed, now_ns);
    }
    finish(shard, local, down, &record);
}

/// Tells somebody who speaks HTTP to a TLS port what is wrong.
pub async fn plain_http_on_tls(stream: &mut net::Stream) {
    let mut out = Vec::with_capacity(256);
    let answer = Answer {
        status: 400,
        message: message(Reason::PlainHttpOnTls),
        member: "message",
        content: None,
        fields: &[],
        date: &crate::http::date::imf_fixdate(clock::wall().as_secs()),
        head_only: false,
        persistence: Persistence::Close,
    };
    write_answer(&answer, &mut out);
    stream.tx.deadline.arm(LINGER);
    // Nobody to tell when it fails.
    let _ = stream.tx.send(&mut out).await;
    stream.tx.finish();
}

/// Tells the client that nothing more will come.
pub async fn finish_sending(tx: &mut Tx) {
    tx.deadline().arm(LINGER);
    tx.finish().await;
}

/// Ends a connection so that what was sent arrives.
pub async fn close(down: &mut Downstream) {
    finish_sending(&mut down.tx).await;
    down.intake.rx.deadline().arm(LINGER);
    let mut drained = 0;
    while drained < LINGER_BYTES {
        let unread = down.intake.unread().len();
        down.intake.consume(unread);
        match down.intake.receive(crate::tls::HEAD_ROOM).await {
            Ok(n @ 1..) => drained += n,
            _ => return,
        }
    }
}
