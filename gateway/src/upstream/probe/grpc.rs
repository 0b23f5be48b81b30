//! Asking a target by the health protocol of gRPC (`grpc.health.v1.Health/Check`).
//!
//! Owns one call from its head to the status in its answer, and the few octets of protobuf that takes: a request with the
//! service's name in field 1, a response with an enum in field 1, of which 1 is SERVING.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::{ProbeSpec, Verdict};
use crate::http::h2::Settings;
use crate::http::h2::client::{self, Outgoing, Received};
use crate::http::{Known, RequestHead, ResponseHead};
use crate::net;
use crate::net::deadline::SendLimit;
use crate::tls;

const PATH: &str = "/grpc.health.v1.Health/Check";
/// Octets of an answer that are looked at: a status takes 7.
const ANSWER: usize = 1024;

/// Calls the target, at most `limit`. The connection ends after it.
pub(super) async fn check(stream: tls::Stream, probe: &ProbeSpec, host: &[u8], limit: Duration) -> Verdict {
    let settings = Settings::default();
    let Some((client, run)) = client::connect(stream, &settings, limit, Rc::default()) else {
        return Verdict::Broken;
    };
    net::spawn(run);
    let (mut call, mut limit) = (pin!(call(&client, probe, host, limit)), pin!(net::sleep(limit)));
    poll_fn(|cx| {
        if let Poll::Ready(verdict) = call.as_mut().poll(cx) {
            return Poll::Ready(verdict.unwrap_or(Verdict::Broken));
        }
        limit.as_mut().poll(cx).map(|()| Verdict::TimedOut)
    })
    .await
}

/// `None` where the call broke off.
async fn call(client: &client::Client, probe: &ProbeSpec, host: &[u8], limit: Duration) -> Option<Verdict> {
    let mut request = RequestHead::new();
    request.set_method("POST");
    request.set_path(PATH);
    request.head.set_known(Known::Host, host);
    request.head.append_known(Known::ContentType, "application/grpc");
    let outgoing = Outgoing { https: probe.tls.is_some(), te_trailers: true, ..Outgoing::default() };
    let (mut body, mut response) = client.reserve()?.request(&request, outgoing).ok()?;
    body.data(Bytes::from(question(&probe.grpc_service)), true, SendLimit::whole(limit)).await.ok()?;
    let mut head = ResponseHead::new();
    while response.head(&probe.limits, &mut head).await.ok()? == Received::Interim {}
    // An error comes in a head alone, or in trailers behind no message.
    if head.status() != 200 {
        return Some(Verdict::Serving(false));
    }
    let mut answer = Vec::new();
    if let Some((mut body, _place)) = response.into_body() {
        while answer.len() < ANSWER
            && let Some(octets) = body.data(limit).await.ok()?
        {
            answer.extend_from_slice(&octets);
        }
    }
    Some(Verdict::Serving(is_serving(&answer)))
}

/// A message as gRPC frames it.
fn question(service: &str) -> Vec<u8> {
    let name = &service.as_bytes()[..service.len().min(127)];
    let message = match name.len() {
        0 => Vec::new(),
        len => [&[0x0a, len as u8], name].concat(),
    };
    [&[0, 0, 0, 0, message.len() as u8], &*message].concat()
}

/// Whether the first message of an answer says SERVING.
fn is_serving(answer: &[u8]) -> bool {
    let [0, len @ ..] = answer else { return false };
    let Some((len, message)) = len.split_first_chunk::<4>() else { return false };
    let Some(mut message) = message.get(..u32::from_be_bytes(*len) as usize) else { return false };
    let mut serving = false;
    // The last of repeated fields counts. Fields that are no numbers are none of this message's.
    while let [tag, rest @ ..] = message {
        let Some((value, rest)) = varint(rest).filter(|_| tag & 7 == 0) else { return false };
        if tag >> 3 == 1 {
            serving = value == 1;
        }
        message = rest;
    }
    serving
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (place, octet) in bytes.iter().enumerate().take(9) {
        value |= u64::from(octet & 0x7f) << (7 * place);
        if octet & 0x80 == 0 {
            return Some((value, &bytes[place + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_name_the_service() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("a.B"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
    }

    #[test]
    fn only_serving_is_serving() {
        assert!(is_serving(&[0, 0, 0, 0, 2, 0x08, 1]));
        assert!(is_serving(&[0, 0, 0, 0, 4, 0x08, 2, 0x08, 1]), "the last counts");
        for other in [
            &[][..],
            &[0],
            &[0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 2, 0x08, 2],
            &[0, 0, 0, 0, 2, 0x08, 0],
            &[0, 0, 0, 0, 3, 0x08, 0x81, 0],
            &[0, 0, 0, 0, 2, 0x08],
            &[1, 0, 0, 0, 2, 0x08, 1],
            &[0, 0, 0, 0, 3, 0x0a, 1, 1],
            &[0, 0xff, 0xff, 0xff, 0xff, 0x08, 1],
        ] {
            // Two octets for 1 are 1 as well.
            assert_eq!(is_serving(other), other == [0, 0, 0, 0, 3, 0x08, 0x81, 0], "{other:?}");
        }
    }
}
