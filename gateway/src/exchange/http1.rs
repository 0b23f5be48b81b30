//! A downstream connection of HTTP/1: request after request.
//!
//! Owns phase 1, the time limits between requests, and the connection's end.

use std::rc::Rc;
use std::time::Duration;

use portcullis_abi::Reason;

use super::client::{Client, Http1};
use super::downstream::{Downstream, Ends, Origin};
use super::shard::{OpenConnection, Shard};
use super::{Next, exchange, refuse};
use crate::http::h1::{Parsed, parse_request};
use crate::http::{Refusal, Version};
use crate::snapshot::Local;
use crate::tls::{self, HEAD_ROOM, Intake};

/// How long a connection whose last answer came in a drain, yet promised another request, waits for that request.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// Serves a connection until it ends. `received`: what was read of it already.
pub(super) async fn serve(
    shard: Rc<Shard>,
    stream: tls::Stream,
    received: Vec<u8>,
    ends: Ends,
    open: OpenConnection,
) {
    let mut down = Downstream::new(Rc::new(Origin::new(&stream, ends, Version::Http11)));
    let mut client =
        Http1 { intake: Intake::with_received(stream.rx, received), tx: stream.tx, lookout: open.lookout() };
    loop {
        let local = match receive_head(&shard, &mut client, &mut down).await {
            Received::Head(local) => local,
            Received::Closed => break,
            Received::Refused(refusal, local) => {
                refuse::malformed(&shard, &local, &mut Client::Http1(&mut client), &mut down, refusal).await;
                break;
            }
        };
        down.exchanges += 1;
        client.lookout.set_busy(true);
        let next = exchange(&shard, &local, &mut Client::Http1(&mut client), &mut down).await;
        // A drain closes what is idle. Where one began during this exchange, the client may have been promised
        // another request: the connection then ends by its own grace.
        client.lookout.set_busy(shard.draining());
        match next {
            Next::KeepAlive => {}
            Next::Close => break,
            Next::Reset => {
                client.tx.reset_on_close();
                return;
            }
        }
    }
    refuse::close(&mut client).await;
}

enum Received {
    Head(Rc<Local>),
    /// Nothing to answer: closed between requests, or idle for too long.
    Closed,
    Refused(Refusal, Rc<Local>),
}

/// Phase 1: receives until a head is whole.
async fn receive_head(shard: &Rc<Shard>, client: &mut Http1, down: &mut Downstream) -> Received {
    down.request.clear();
    let first = down.exchanges == 0;
    let mut waiting_for_rest = false;
    loop {
        // The generation is chosen with the first byte of the request at hand, and kept to its end.
        let local = shard.local();
        let limits = &local.snapshot.head_limits;
        let timeouts = &local.snapshot.config.timeouts;
        let deadline = client.intake.rx.deadline();
        if !client.intake.is_empty() {
            match parse_request(client.intake.unread(), limits, &mut down.request) {
                Ok(Parsed::Complete { head_len }) => {
                    client.intake.consume(head_len);
                    // Nobody receives while the target is thinking.
                    client.intake.rx.deadline().disarm();
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
            client.intake.relax();
        }
        // Room for a head that is as large as allowed and one byte more, so that the parser sees the excess.
        let room = if waiting_for_rest { limits.head + 1 } else { HEAD_ROOM };
        match client.intake.receive(room.max(HEAD_ROOM)).await {
            Ok(1..) => {}
            _ if waiting_for_rest && client.intake.rx.deadline().expired() => {
                let refusal = Refusal { reason: Reason::RequestTimeout, status: 408 };
                return Received::Refused(refusal, local);
            }
            _ => return Received::Closed,
        }
    }
}
