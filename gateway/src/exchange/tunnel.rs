//! A connection after `101 Switching Protocols`: bytes in both directions until both have ended.
//!
//! ```text
//! client ──► intake ──► upstream tx      each direction: receive, send, receive again;
//! client tx ◄── intake ◄── upstream      an end is passed on as an end (half-close)
//! ```
//!
//! Owns the two directions and their end: by themselves, by silence ([`Reason::TunnelIdle`]), or because the process
//! drains. The last two say so to the client with a close frame (1001) between two frames of the upstream, and give
//! both sides [`LINGER`] to answer. The client's answer is the upstream's close frame; if none comes in time, the upstream
//! is sent one too. Never changes a byte on its way, and never reads more than the frame headers that
//! tell where a close frame may be put.
//!
//! **Invariant.** Nothing more is received from one side before the other has taken what was received, so a tunnel
//! holds at most one buffer a direction; a direction ends by itself or is cut, and is awaited to its end.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use portcullis_abi::Reason;

use super::channel::Channel;
use super::client::Client;
use super::cut::Cut;
use super::downstream::Downstream;
use super::duplex::{Halts, Inflow, Outflow, Side};
use super::finish::Record;
use super::shard::Shard;
use super::{Next, refuse};
use crate::http::h1::{HopByHop, Persistence, write_response};
use crate::http::websocket::{CLOSE_GOING_AWAY, Fault, Frames, Proof, VERSION, masked_close_going_away};
use crate::http::{Head, Known, Method, RequestHead, ResponseHead, Version};
use crate::metrics::Counter;
use crate::net::{self, clock};
use crate::plugin::Response;
use crate::tls::{BODY_ROOM, HEAD_ROOM};

/// The one protocol that connections are upgraded to. Others (h2c above all) would carry requests past every phase.
pub const WEBSOCKET: &[u8] = b"websocket";
/// How long the sides have to end a tunnel that is to end.
const LINGER: Duration = Duration::from_secs(2);

/// Whether a request asks for a WebSocket (RFC 6455 section 4.2.1, RFC 9110 section 7.8), among other protocols or alone.
/// The others are ignored, as any server may.
pub fn is_asked(request: &RequestHead, hop: &HopByHop, no_body: bool) -> bool {
    no_body && request.version() == Version::Http11 && request.method() == Method::Get && hop.websocket
}

/// The answer to a request for a WebSocket that is none (RFC 6455 section 4.2.1), or the proof that it is to be given.
pub fn proof_for(head: &Head) -> Result<Proof, Box<Response>> {
    Proof::asked_by(head).map_err(|fault| match fault {
        Fault::Key => refuse::response(400, Reason::BadHeader),
        Fault::Version => refuse::response(426, Reason::UnsupportedVersion)
            // RFC 9110 section 7.8: who sends Upgrade lists it in Connection.
            .with_field("Connection", "upgrade")
            .with_field("Upgrade", "websocket")
            .with_field("Sec-WebSocket-Version", VERSION),
    })
}

/// Whether a 101 switches to what was asked for, by somebody who has read what that was, and to nothing else.
pub fn is_granted(response: &ResponseHead, proof: &Proof) -> bool {
    let mut protocols = response.head.all_known(Known::Upgrade);
    let first = protocols.next();
    response.version() == Version::Http11
        && first.is_some_and(|protocol| protocol.eq_ignore_ascii_case(WEBSOCKET))
        && protocols.next().is_none()
        && crate::http::h1::connection_options(&response.head).upgrade
        && proof.is_given_by(&response.head)
}

/// Makes a stream's consent the 101 that it stands for (RFC 8441 section 5): who answers an extended CONNECT has read it.
pub fn grant(response: &mut ResponseHead, proof: &Proof) {
    response.head.set("Sec-WebSocket-Accept", proof.as_bytes());
    response.set_status(101);
}

/// Adds what a request in HTTP/1 proves itself by, and one on a stream does not have (RFC 8441 section 5).
pub fn add_key(head: &mut Head) {
    let secret = crate::limit::random_secret();
    let key = [secret.a.to_ne_bytes(), secret.b.to_ne_bytes()].concat();
    head.set("Sec-WebSocket-Key", crate::http::grpc_web::encode(&key));
}

/// Puts the Upgrade field back that was removed as hop-by-hop.
pub fn ask(head: &mut Head) {
    head.append_known(Known::Upgrade, WEBSOCKET);
}

/// Makes the head of the answer out of a 101, whose own connection fields were removed; gives its length. On a stream the
/// answer is a 200 (RFC 8441 section 5).
pub fn write_head(response: &mut ResponseHead, version: Version, out: &mut Vec<u8>) -> u64 {
    // It has no body, whatever it says (RFC 9110 section 15.2).
    response.head.remove_known(Known::ContentLength);
    if version == Version::Http2 {
        response.head.remove("Sec-WebSocket-Accept");
        response.set_status(200);
        return refuse::octets(&response.head);
    }
    ask(&mut response.head);
    write_response(response, Persistence::Upgrade, out);
    out.len() as u64
}

/// Tells a tunnel, from elsewhere on its shard, that it is to end.
#[derive(Default)]
pub struct Notice {
    given: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Notice {
    /// Gives notice; the second time is nothing new.
    pub fn give(&self) {
        if !self.given.replace(true)
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// Whether notice was given.
    pub fn is_given(&self) -> bool {
        self.given.get()
    }

    /// Wakes that task when it is.
    pub fn wake(&self, waker: &Waker) {
        self.waker.set(Some(waker.clone()));
    }
}

/// Runs a tunnel to its end. The head of the answer is in `down`: of a 101 in `out`, of a stream in `response`.
pub async fn run(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    down: &mut Downstream,
    record: &mut Record,
    channel: &mut Channel,
    idle: Duration,
) -> Next {
    let (halts, upstream_halts) = (Halts::default(), Halts::default());
    let told = tell(client, down, record).await;
    let Some(client) = Side::of_client(client, &halts).filter(|_| told) else {
        record.reason = Some(Reason::ClientAborted);
        return Next::Reset;
    };
    let Some(upstream) = Side::of_upstream(channel, &upstream_halts) else {
        record.reason = Some(Reason::UpstreamReset);
        return Next::Reset;
    };
    record.tunnel_ns = Some(clock::now_ns());
    let open = shard.open_tunnel();
    let tunnel = Tunnel::new(
        open.notice(),
        idle,
        [client.cut_inflow, client.cut_outflow, upstream.cut_inflow, upstream.cut_outflow],
    );
    let (received, sent) = (
        Tally { bytes: Cell::new(0), counter: &shard.metrics.bytes_in },
        Tally { bytes: Cell::new(0), counter: &shard.metrics.bytes_out },
    );
    both(
        tunnel.to_upstream(client.inflow, upstream.outflow, &received),
        tunnel.to_client(upstream.inflow, client.outflow, &sent),
        tunnel.watch(),
    )
    .await;
    record.request_bytes = received.bytes.get();
    record.response_bytes = sent.bytes.get();
    record.reason = tunnel.reason.get();
    Next::Close
}

/// Tells the client that it has its tunnel. False: it is gone.
async fn tell(client: &mut Client<'_>, down: &mut Downstream, record: &Record) -> bool {
    match client {
        Client::Http1(client) => {
            client.tx.deadline().arm(record.response_write);
            client.tx.send(&mut down.out).await.is_ok()
        }
        Client::Http2(client) => client.reply.respond(&down.response, false).is_ok(),
    }
}

/// Runs two directions to their ends, and `watch` beside them, which has none.
pub(super) async fn both(one: impl Future<Output = ()>, other: impl Future<Output = ()>, watch: impl Future) {
    let (mut one, mut other, mut watch) = (pin!(one), pin!(other), pin!(watch));
    let (mut one_done, mut other_done) = (false, false);
    poll_fn(|cx| {
        one_done = one_done || one.as_mut().poll(cx).is_ready();
        other_done = other_done || other.as_mut().poll(cx).is_ready();
        if one_done && other_done {
            return Poll::Ready(());
        }
        // Last, so that it sees what the directions have just changed.
        let _ = watch.as_mut().poll(cx);
        Poll::Pending
    })
    .await;
}

/// Has the task polled once more: a stream that was cut looks at it only then.
async fn again() {
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::Ready(())
    })
    .await;
}

/// The bytes of one direction: of this tunnel, and of the shard.
struct Tally<'a> {
    bytes: Cell<u64>,
    counter: &'a Counter,
}

/// What the two directions and their watch share.
struct Tunnel<'a> {
    notice: &'a Notice,
    idle: Duration,
    /// When bytes last moved, in any direction.
    last_ns: Cell<u64>,
    /// When everything is cut at the latest.
    end_by_ns: Cell<u64>,
    reason: Cell<Option<Reason>>,
    /// The client is to be told, at the next end of a frame.
    ending: Cell<bool>,
    /// One side is broken.
    failing: Cell<bool>,
    /// The time to answer a close frame is over: nothing more is received.
    told: Cell<bool>,
    /// The watch has something new to look at.
    changed: Cell<bool>,
    client_finished: Cell<bool>,
    upstream_finished: Cell<bool>,
    /// Of what the client is sent.
    frames: Cell<Frames>,
    /// Of what the client has sent.
    client_frames: Cell<Frames>,
    /// Of the client's two directions, then of the upstream's: receiving and sending.
    all: [Cut<'a>; 4],
}

/// How a direction ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The sender has nothing more to say.
    Finished,
    /// The sender broke the connection.
    SourceFailed,
    /// The receiver did.
    SinkFailed,
}

impl<'a> Tunnel<'a> {
    fn new(notice: &'a Notice, idle: Duration, all: [Cut<'a>; 4]) -> Self {
        Tunnel {
            notice,
            idle,
            last_ns: Cell::new(clock::now_ns()),
            end_by_ns: Cell::new(u64::MAX),
            reason: Cell::new(None),
            ending: Cell::new(false),
            failing: Cell::new(false),
            told: Cell::new(false),
            changed: Cell::new(false),
            client_finished: Cell::new(false),
            upstream_finished: Cell::new(false),
            frames: Cell::new(Frames::default()),
            client_frames: Cell::new(Frames::default()),
            all,
        }
    }

    fn cut_upstream_rx(&self) {
        self.all[2].cut();
    }

    async fn to_upstream(&self, mut source: Inflow<'_>, mut sink: Outflow<'_>, tally: &Tally<'_>) {
        let end = self.move_bytes(&mut source, &mut sink, tally, |unread| self.sent_by_client(unread)).await;
        match end {
            End::Finished => self.client_finished.set(true),
            End::SourceFailed => self.failed(Reason::ClientAborted),
            // Who has finished before and now takes no more has closed in good order.
            End::SinkFailed if self.upstream_finished.get() => {}
            End::SinkFailed => self.failed(Reason::UpstreamReset),
        }
        let frames = self.client_frames.get();
        if self.ending.get() && end != End::SinkFailed && frames.is_between() && !frames.is_closed() {
            let [key @ .., _, _, _, _] = crate::limit::random_secret().a.to_ne_bytes();
            sink.limit(LINGER);
            // An upstream that is gone need not be told.
            let _ = sink.say(&masked_close_going_away(key)).await;
        }
        sink.finish().await;
    }

    /// Follows the client's frames, all of which are passed on.
    fn sent_by_client(&self, unread: &[u8]) -> usize {
        let mut frames = self.client_frames.get();
        frames.advance(unread);
        self.client_frames.set(frames);
        unread.len()
    }

    async fn to_client(&self, mut source: Inflow<'_>, mut sink: Outflow<'_>, tally: &Tally<'_>) {
        let end = self.move_bytes(&mut source, &mut sink, tally, |unread| self.sendable(unread)).await;
        match end {
            End::Finished => self.upstream_finished.set(true),
            End::SourceFailed => self.failed(Reason::UpstreamReset),
            End::SinkFailed if self.client_finished.get() => {}
            End::SinkFailed => self.failed(Reason::ClientAborted),
        }
        let frames = self.frames.get();
        if self.ending.get() && end != End::SinkFailed && frames.is_between() && !frames.is_closed() {
            // A client that is gone cannot be told; the end comes all the same.
            let _ = sink.say(&CLOSE_GOING_AWAY).await;
        }
        sink.finish().await;
    }

    /// Moves bytes until one side ends. `sendable` says how many of those received are sent; fewer than all means that
    /// no more are.
    async fn move_bytes(
        &self,
        source: &mut Inflow<'_>,
        sink: &mut Outflow<'_>,
        tally: &Tally<'_>,
        sendable: impl Fn(&[u8]) -> usize,
    ) -> End {
        let mut room = HEAD_ROOM;
        loop {
            if !source.unread().is_empty() {
                let unread = source.unread().len();
                let send = sendable(source.unread());
                if source.pass(send, sink).await.is_err() {
                    return End::SinkFailed;
                }
                tally.bytes.set(tally.bytes.get() + send as u64);
                tally.counter.add(send as u64);
                self.last_ns.set(clock::now_ns());
                if send < unread {
                    return End::Finished;
                }
            }
            if room == HEAD_ROOM {
                // A quiet tunnel holds little.
                source.relax();
            }
            match source.receive(room).await {
                Ok(0) => return End::Finished,
                Ok(n) => room = if n >= HEAD_ROOM { BODY_ROOM } else { HEAD_ROOM },
                Err(_) => return End::SourceFailed,
            }
            self.last_ns.set(clock::now_ns());
        }
    }

    /// How much of what came from the upstream the client is sent: all, until the tunnel is to end; then up to the end
    /// of a frame.
    fn sendable(&self, unread: &[u8]) -> usize {
        let before = self.frames.get();
        let mut frames = before;
        let last_end = frames.advance(unread);
        let send = match last_end {
            _ if !self.ending.get() => unread.len(),
            _ if before.is_between() => 0,
            Some(end) => end,
            None => unread.len(),
        };
        if send < unread.len() {
            frames = before;
            frames.advance(&unread[..send]);
        }
        self.frames.set(frames);
        if self.ending.get() && frames.is_between() {
            self.cut_upstream_rx();
        }
        send
    }

    /// Notes that a direction broke, and why; the other has little time left then.
    fn failed(&self, reason: Reason) {
        if self.reason.get().is_none() {
            self.reason.set(Some(reason));
        }
        self.failing.set(true);
        self.changed.set(true);
    }

    /// Begins the end: the client is told as soon as no frame is under way.
    fn end(&self, reason: Reason, now_ns: u64) {
        if self.ending.replace(true) {
            return;
        }
        if self.reason.get().is_none() {
            self.reason.set(Some(reason));
        }
        self.end_by_ns.set(now_ns + LINGER.as_nanos() as u64);
        if self.frames.get().is_between() {
            self.cut_upstream_rx();
        }
    }

    /// When silence has lasted too long, or the time to end is over.
    fn due_ns(&self) -> u64 {
        if self.ending.get() {
            return self.end_by_ns.get();
        }
        let silence = if self.failing.get() { LINGER.min(self.idle) } else { self.idle };
        self.last_ns.get() + silence.as_nanos() as u64
    }

    /// Sees to it that the tunnel ends in time. Owns no buffer, so it may be dropped at any point.
    async fn watch(&self) -> Infallible {
        loop {
            self.changed.set(false);
            let now_ns = clock::now_ns();
            if self.notice.given.get() {
                self.end(Reason::Draining, now_ns);
            }
            let due_ns = self.due_ns();
            if now_ns < due_ns {
                self.wait(Duration::from_nanos(due_ns - now_ns)).await;
            } else if self.ending.get() && !self.told.replace(true) {
                // The two directions say their last words.
                self.all[0].cut();
                self.cut_upstream_rx();
                self.end_by_ns.set(now_ns + LINGER.as_nanos() as u64);
                again().await;
            } else if self.ending.get() || self.failing.get() {
                self.all.iter().for_each(Cut::cut);
                again().await;
                return pending().await;
            } else {
                self.end(Reason::TunnelIdle, now_ns);
            }
        }
    }

    async fn wait(&self, time: Duration) {
        let mut sleep = pin!(net::sleep(time));
        poll_fn(|cx| {
            let told = self.notice.given.get() && !self.ending.get();
            if told || self.changed.get() || sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            self.notice.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}
