//! Answers that the gateway makes by itself, and the orderly end of a connection.

use std::time::Duration;

use bytes::Bytes;
use portcullis_abi::Reason;

use super::client::{Client, Http1};
use super::downstream::Downstream;
use super::finish::{Record, finish};
use super::shard::Shard;
use crate::http::grpc::{self, Call};
use crate::http::h1::{Answer, Content, Persistence, fill_answer, write_answer};
use crate::http::{Head, Known, Method, Refusal, Version};
use crate::limit::Behaviour;
use crate::net::deadline::SendLimit;
use crate::net::{self, clock};
use crate::plugin::Response;
use crate::snapshot::Local;
use crate::tls::{HEAD_ROOM, Tx};

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
        Reason::BreakerOpen => "The upstream server is resting after failures",
        Reason::QueueFull | Reason::QueueTimeout => "The upstream server is busy",
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

/// Sends an answer of ours, and counts its bytes. False: the client is gone.
pub async fn send(
    client: &mut Client<'_>,
    down: &mut Downstream,
    answer: &OwnAnswer<'_>,
    limit: Duration,
    record: &mut Record,
) -> bool {
    let mut fields: Vec<(&str, &[u8])> =
        answer.response.fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    if let Some(extra) = answer.fields {
        // Names come from plugins and are tokens, so they are ASCII.
        fields.extend(
            extra.iter().filter_map(|(_, name, value)| Some((std::str::from_utf8(name).ok()?, value))),
        );
    }
    let call = record.call.map(|call| Told::new(&call, answer.response));
    if let Some(told) = &call {
        fields.push(("grpc-status", told.status.as_bytes()));
        fields.push(("grpc-message", told.message.as_bytes()));
    }
    let head_only = down.request.method() == Method::Head;
    let persistence = Persistence::to(down.request.version(), answer.keep);
    let mut answer = answer.as_written(&fields, head_only, persistence);
    if let Some(told) = &call {
        answer.status = 200;
        answer.content = Some(Content { media_type: told.media_type.as_bytes(), bytes: &[] });
    }
    match client {
        Client::Http1(client) => {
            write_answer(&answer, &mut down.out);
            (record.head_bytes, record.response_bytes) = sizes(&down.out);
            client.tx.deadline().arm(limit);
            client.tx.send(&mut down.out).await.is_ok()
        }
        Client::Http2(client) => {
            let mut body = Vec::new();
            fill_answer(&answer, &mut down.response, &mut body);
            if call.is_some() {
                down.response.head.remove_known(Known::ContentLength);
            }
            (record.head_bytes, record.response_bytes) = (octets(&down.response.head), body.len() as u64);
            let end = body.is_empty();
            match client.reply.respond(&down.response, end) {
                Ok(_) if end => true,
                Ok(send) => send.data(Bytes::from(body), true, SendLimit::whole(limit)).await.is_ok(),
                Err(_) => false,
            }
        }
    }
}

/// What a call is told in place of an answer in HTTP: trailers alone, which are a head.
struct Told {
    status: String,
    message: String,
    media_type: &'static str,
}

impl Told {
    fn new(call: &Call, response: &Response) -> Self {
        Self {
            status: response
                .grpc_status
                .unwrap_or_else(|| grpc::status_of(response.status, response.reason))
                .to_string(),
            message: grpc::message(&response.message),
            media_type: call.media_type(),
        }
    }
}

/// An answer of ours, and what is said beside it.
pub struct OwnAnswer<'a> {
    pub response: &'a Response,
    pub date: &'a [u8],
    /// Fields of plugins.
    pub fields: Option<&'a Head>,
    /// The connection goes on.
    pub keep: bool,
}

impl OwnAnswer<'_> {
    fn as_written<'w>(
        &'w self,
        fields: &'w [(&'w str, &'w [u8])],
        head_only: bool,
        persistence: Persistence,
    ) -> Answer<'w> {
        let response = self.response;
        Answer {
            status: response.status,
            message: &response.message,
            member: response.member,
            content: response
                .content
                .as_ref()
                .map(|content| Content { media_type: content.media_type.as_bytes(), bytes: &content.bytes }),
            fields,
            date: self.date,
            head_only,
            persistence,
        }
    }
}

/// Bytes of the head and of the body of an answer.
fn sizes(answer: &[u8]) -> (u64, u64) {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    (end as u64, (answer.len() - end) as u64)
}

/// Octets of the fields of a head on a stream, before they are compressed.
pub fn octets(head: &Head) -> u64 {
    head.iter().map(|(_, name, value)| (name.len() + value.len()) as u64).sum()
}

/// Answers a request that never became one, counts it and charges its source. A connection of HTTP/1 is closed after it.
pub async fn malformed(
    shard: &Shard,
    local: &Local,
    client: &mut Client<'_>,
    down: &mut Downstream,
    refusal: Refusal,
) {
    let now_ns = clock::now_ns();
    let mut record = Record::new(shard, now_ns, down.origin.speaker.ip());
    if refusal.status == 505 {
        // An answer in a version that the client does speak.
        down.request.set_version(Version::Http11);
    }
    let response = response(refusal.status, refusal.reason);
    record.status = refusal.status;
    record.reason = Some(refusal.reason);
    record.call = Call::of(&down.request);
    if record.call.is_some() {
        // What a call is told is its `grpc-status`.
        (record.status, record.verdict) = (200, Some(refusal.status));
    }
    let answer = OwnAnswer { response: &response, date: &shard.date(), fields: None, keep: false };
    // A client that is gone gets no answer; it is counted all the same.
    // One that came too slowly is charged for that, by its reason.
    record.malformed = Behaviour::of_reason(refusal.reason).is_none();
    send(client, down, &answer, LINGER, &mut record).await;
    finish(shard, local, down, &record);
}

/// Tells somebody who speaks HTTP to a TLS port what is wrong, and ends the connection so that it arrives.
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
    if stream.tx.send(&mut out).await.is_err() {
        return; // nobody to tell
    }
    stream.tx.finish();
    stream.rx.deadline.arm(LINGER);
    let (mut rest, mut drained) = (Vec::with_capacity(HEAD_ROOM), 0);
    while drained < LINGER_BYTES {
        rest.clear();
        match stream.rx.recv(&mut rest, HEAD_ROOM).await {
            Ok(n @ 1..) => drained += n,
            _ => return,
        }
    }
}

/// Tells the client that nothing more will come.
pub async fn finish_sending(tx: &mut Tx) {
    tx.deadline().arm(LINGER);
    tx.finish().await;
}

/// Ends a connection so that what was sent arrives.
pub async fn close(client: &mut Http1) {
    finish_sending(&mut client.tx).await;
    client.intake.rx.deadline().arm(LINGER);
    let mut drained = 0;
    while drained < LINGER_BYTES {
        let unread = client.intake.unread().len();
        client.intake.consume(unread);
        match client.intake.receive(HEAD_ROOM).await {
            Ok(n @ 1..) => drained += n,
            _ => return,
        }
    }
}
