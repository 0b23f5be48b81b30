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
use std::task::Poll;
use std::time::Duration;

use crate::http::h2::Settings;
use crate::http::h2::client::{self, Client, Lease, Waiters};
use crate::net;
use crate::tls;

/// The connections to one target that speak HTTP/2.
#[derive(Default)]
pub(super) struct Multiplexed {
    clients: RefCell<Vec<Client>>,
    /// Connections being made.
    connecting: Cell<u32>,
    /// How often one could not be made.
    failures: Cell<u64>,
    /// Who waits for a place, or for a connection that is being made.
    waiters: Rc<Waiters>,
    /// How many they are.
    waiting: Cell<u32>,
}

/// Counts who waits, for as long as it is held.
struct Waiting<'a>(&'a Cell<u32>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What to do for a place.
pub(super) enum Turn<'a> {
    /// Here is one.
    Place(Lease),
    /// Make a connection; the guard is kept meanwhile.
    Connect(Connecting<'a>),
    /// None came free within the time limit.
    TimedOut,
    /// As many as may wait do.
    QueueFull,
    /// The connection that was waited for could not be made.
    Failed,
}

/// A connection that is being made.
pub(super) struct Connecting<'a>(&'a Multiplexed);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(self.0.connecting.get() - 1);
        self.0.waiters.wake();
    }
}

impl Multiplexed {
    /// A place on a connection that is there.
    pub fn reserve(&self) -> Option<Lease> {
        let mut clients = self.clients.borrow_mut();
        clients.retain(|client| !client.is_leaving() || client.streams() > 0);
        clients.iter().min_by_key(|client| (client.is_leaving(), client.streams()))?.reserve()
    }

    /// Waits for a place or for leave to make a connection, at most `limit`, with at most `room` who wait. `max`
    /// connections are kept.
    pub async fn turn(&self, max: usize, room: u32, limit: Duration) -> Turn<'_> {
        let mut limit = pin!(net::sleep(limit));
        let mut waiting = None;
        let failures = self.failures.get();
        poll_fn(|cx| {
            if let Some(lease) = self.reserve() {
                return Poll::Ready(Turn::Place(lease));
            }
            if self.failures.get() != failures {
                return Poll::Ready(Turn::Failed);
            }
            let staying = self.clients.borrow().iter().filter(|client| !client.is_leaving()).count();
            if self.connecting.get() == 0 && staying < max {
                return Poll::Ready(Turn::Connect(self.begin()));
            }
            if limit.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Turn::TimedOut);
            }
            if waiting.is_none() {
                if self.waiting.get() >= room {
                    return Poll::Ready(Turn::QueueFull);
                }
                self.waiting.set(self.waiting.get() + 1);
                waiting = Some(Waiting(&self.waiting));
            }
            self.waiters.wait(cx);
            Poll::Pending
        })
        .await
    }

    /// Notes that a connection is being made.
    pub fn begin(&self) -> Connecting<'_> {
        self.connecting.set(self.connecting.get() + 1);
        Connecting(self)
    }

    /// Notes that a connection could not be made: who waits for it need not try in turn.
    pub fn failed(&self) {
        self.failures.set(self.failures.get() + 1);
    }

    /// Takes a connection that was just made, and a place on it. One that is not `shared` ends with that place.
    pub fn add(
        &self,
        stream: tls::Stream,
        settings: &Settings,
        send_limit: Duration,
        shared: bool,
    ) -> Option<Lease> {
        let (client, run) = client::connect(stream, settings, send_limit, self.waiters.clone())?;
        net::spawn(run);
        let mut lease = client.reserve();
        if let Some(lease) = &mut lease {
            lease.first = true;
        }
        if shared {
            self.clients.borrow_mut().push(client);
        }
        lease
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
