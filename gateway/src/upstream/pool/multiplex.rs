//! Connections that carry many requests at once.
//!
//! A request takes a place on the connection with the fewest streams; where all are full, another connection is made, up to
//! a bound, and past that it waits for a place. While a connection is being made, those that come meanwhile wait for it
//! instead of making one each. A connection that is leaving (GOAWAY, worn out, idle for too long) is forgotten: its streams
//! end on it, and the next request makes another.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::http::h2::Settings;
use crate::http::h2::client::{self, Client, Lease};
use crate::http::h2::waiters::{Position, Waiters};
use crate::net;
use crate::tls;

/// The connections to one target that speak HTTP/2.
#[derive(Default)]
pub(super) struct Multiplexed {
    clients: RefCell<Vec<Client>>,
    /// Connections being made.
    connecting: Cell<u32>,
    /// How often one could not be made, and whether the last was not made in time.
    failures: Cell<u64>,
    timed_out: Cell<bool>,
    /// How often the target has chosen HTTP/1 instead.
    declined: Cell<u64>,
    /// Who waits for a place, or for a connection that is being made.
    waiters: Rc<Waiters>,
    /// How many they are.
    waiting: Cell<u32>,
}

/// Counts who waits, for as long as it is held.
struct Waiting<'a> {
    count: &'a Cell<u32>,
    position: Option<Position>,
}

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<u32>, position: Position) -> Self {
        count.set(count.get() + 1);
        Self { count, position: Some(position) }
    }

    fn wait(&self, cx: &Context<'_>) {
        if let Some(position) = &self.position {
            position.wait(cx);
        }
    }

    fn serve(&mut self) {
        if let Some(position) = self.position.take() {
            position.serve();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.set(self.count.get() - 1);
    }
}

/// What came of waiting for a place.
pub(super) enum Turn {
    /// Here is one.
    Place(Lease),
    /// The target has chosen HTTP/1.
    Http1,
    /// None came free within the time limit.
    TimedOut,
    /// As many as may wait do.
    QueueFull,
    /// The connection that was waited for could not be made: not in time, or not at all.
    Failed { timed_out: bool },
}

/// A connection that is being made.
pub(super) struct Connecting(Rc<Multiplexed>);

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.connecting.set(self.0.connecting.get() - 1);
        self.0.waiters.wake_all();
    }
}

impl Multiplexed {
    /// A place on a connection that is there.
    pub fn reserve(&self) -> Option<Lease> {
        let mut clients = self.clients.borrow_mut();
        clients.retain(|client| !client.is_leaving() || client.streams() > 0);
        clients.iter().min_by_key(|client| (client.is_leaving(), client.streams()))?.reserve()
    }

    /// Waits for a place, at most `limit`, with at most `room` who wait. Where another connection may be had, up to `max`,
    /// `connect` has it made: by a task of its own, since it is for whoever comes first and not for who asks first.
    pub async fn turn(
        self: &Rc<Self>,
        max: usize,
        room: u32,
        limit: Duration,
        connect: impl Fn(Connecting),
    ) -> Turn {
        let mut limit = pin!(net::sleep(limit));
        let mut waiting: Option<Waiting<'_>> = None;
        let (failures, declined) = (self.failures.get(), self.declined.get());
        poll_fn(|cx| {
            if let Some(lease) = self.reserve() {
                waiting.iter_mut().for_each(Waiting::serve);
                return Poll::Ready(Turn::Place(lease));
            }
            if self.declined.get() != declined {
                return Poll::Ready(Turn::Http1);
            }
            if self.failures.get() != failures {
                return Poll::Ready(Turn::Failed { timed_out: self.timed_out.get() });
            }
            let staying = self.clients.borrow().iter().filter(|client| !client.is_leaving()).count();
            if self.connecting.get() == 0 && staying < max {
                connect(self.begin());
            }
            if limit.as_mut().poll(cx).is_ready() {
                // What is waited for may be a place, or the target.
                let connecting = self.connecting.get() > 0;
                return Poll::Ready(if connecting {
                    Turn::Failed { timed_out: true }
                } else {
                    Turn::TimedOut
                });
            }
            if waiting.is_none() && self.waiting.get() >= room {
                return Poll::Ready(Turn::QueueFull);
            }
            waiting.get_or_insert_with(|| Waiting::new(&self.waiting, self.waiters.stand())).wait(cx);
            Poll::Pending
        })
        .await
    }

    /// Notes that a connection is being made.
    fn begin(self: &Rc<Self>) -> Connecting {
        self.connecting.set(self.connecting.get() + 1);
        Connecting(self.clone())
    }

    /// Notes that a connection could not be made: who waits for it need not try in turn.
    pub fn failed(&self, timed_out: bool) {
        self.timed_out.set(timed_out);
        self.failures.set(self.failures.get() + 1);
        self.waiters.wake_all();
    }

    /// Notes that the target has chosen HTTP/1.
    pub fn declined(&self) {
        self.declined.set(self.declined.get() + 1);
        self.waiters.wake_all();
    }

    /// Takes a connection in that was just made; its places are for all. False: it is not to be had.
    pub fn add(&self, stream: tls::Stream, settings: &Settings, send_limit: Duration) -> bool {
        let Some((client, run)) = client::connect(stream, settings, send_limit, self.waiters.clone()) else {
            return false;
        };
        net::spawn(run);
        self.clients.borrow_mut().push(client);
        self.waiters.wake_all();
        true
    }

    /// A place on a connection that was just made, which ends with it.
    pub fn alone(&self, stream: tls::Stream, settings: &Settings, send_limit: Duration) -> Option<Lease> {
        let (client, run) = client::connect(stream, settings, send_limit, self.waiters.clone())?;
        net::spawn(run);
        client.reserve()
    }

    /// Forgets connections that are leaving or were idle for longer than `idle_ns`.
    pub fn sweep(&self, now_ns: u64, idle_ns: u64) {
        self.clients.borrow_mut().retain(|client| {
            client.streams() > 0
                || !(client.is_leaving() || now_ns.saturating_sub(client.idle_since_ns()) > idle_ns)
        });
    }

    /// Idle connections and open streams.
    pub fn sizes(&self) -> (usize, u32) {
        let clients = self.clients.borrow();
        let idle = clients.iter().filter(|client| client.streams() == 0).count();
        (idle, clients.iter().map(Client::streams).sum())
    }
}
