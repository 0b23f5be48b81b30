//! What ends an exchange from outside while it is carried: its client has left, or its time is over.
//!
//! Owns the looking out for both, for all attempts of an exchange together: the client's own deadline (`grpc-timeout`), or
//! the route's `timeouts.total`, whichever is earlier. Cuts nothing itself: whoever carries the exchange does, and what is
//! cut ends by itself and is awaited to its end.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use portcullis_abi::Reason;

use super::lookout::Lookout;
use crate::net;

/// When an exchange is to be over, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// On the monotonic clock.
    pub at_ns: u64,
    pub reason: Reason,
}

impl Limit {
    /// How much is left of it.
    pub fn left(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(self.at_ns.saturating_sub(now_ns))
    }
}

/// Looks out until it is dropped.
pub struct Expiry {
    limit: Option<Limit>,
    sleep: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    /// Of a client on a connection of its own. One on a stream says so by itself.
    lookout: Option<Rc<Lookout>>,
    ended: Cell<Option<Reason>>,
}

impl Expiry {
    /// Looks out for `limit`, and for the client of `lookout`.
    pub fn new(limit: Option<Limit>, lookout: Option<Rc<Lookout>>, now_ns: u64) -> Self {
        let sleep = limit.map(|limit| {
            let sleep: Pin<Box<dyn Future<Output = ()>>> = Box::pin(net::sleep(limit.left(now_ns)));
            sleep
        });
        if let Some(lookout) = &lookout {
            lookout.set_carried(true);
        }
        Self { limit, sleep: RefCell::new(sleep), lookout, ended: Cell::new(None) }
    }

    /// Whether there is nothing to look out for.
    #[inline]
    pub fn is_idle(&self) -> bool {
        (self.limit.is_none() && self.lookout.is_none()) || self.ended.get().is_some()
    }

    /// Ready when the exchange is to end; once.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended.get().is_some() {
            return Poll::Pending;
        }
        if self.lookout.as_ref().is_some_and(|lookout| lookout.has_left(cx)) {
            self.ended.set(Some(Reason::ClientAborted));
            return Poll::Ready(());
        }
        let mut sleep = self.sleep.borrow_mut();
        let Some(running) = &mut *sleep else { return Poll::Pending };
        if running.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        *sleep = None;
        self.ended.set(self.limit.map(|limit| limit.reason));
        Poll::Ready(())
    }

    /// Why the exchange was to end, if it was.
    pub fn passed(&self) -> Option<Reason> {
        self.ended.get()
    }
}

impl Drop for Expiry {
    fn drop(&mut self) {
        if let Some(lookout) = &self.lookout {
            lookout.set_carried(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::{TcpListener, TcpStream};
    use std::pin::pin;

    use super::*;
    use crate::net::clock;

    /// What ends a wait of half a second, when `with` has its way with the client.
    fn ended_by(
        total: Option<Duration>,
        half_closed: bool,
        with: impl FnOnce(TcpStream) + 'static,
    ) -> Option<Reason> {
        let result = Rc::new(Cell::new(None));
        let told = result.clone();
        net::block_on(net::Driver::Epoll, async move {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let stream = net::connect(address, Duration::from_secs(5)).await.unwrap();
            let client = listener.accept().unwrap().0;
            let lookout = Rc::new(Lookout::new(stream.rx.deadline.cutter(), stream.tx.deadline.cutter()));
            let now_ns = clock::now_ns();
            let limit = total
                .map(|total| Limit { at_ns: now_ns + total.as_nanos() as u64, reason: Reason::TotalTimeout });
            let expiry = Expiry::new(limit, Some(lookout.clone()), now_ns);
            net::spawn(async move {
                with(client);
                for _ in 0..4 {
                    net::sleep(Duration::from_millis(10)).await;
                    lookout.look(half_closed);
                }
            });
            let mut patience = pin!(net::sleep(Duration::from_millis(400)));
            poll_fn(|cx| {
                let over = expiry.poll(cx).is_ready() || patience.as_mut().poll(cx).is_ready();
                if over { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            told.set(expiry.passed());
        })
        .unwrap();
        result.get()
    }

    #[test]
    fn a_client_that_leaves_ends_it_and_so_does_time() {
        let stay: fn(TcpStream) = |client| std::mem::forget(client);
        let reset: fn(TcpStream) = |client| {
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        };
        let finish: fn(TcpStream) = |client| {
            client.shutdown(std::net::Shutdown::Write).unwrap();
            std::mem::forget(client);
        };
        let millis = Duration::from_millis;
        for (total, half_closed, with, want) in [
            (None, false, stay, None),
            (Some(millis(50)), false, stay, Some(Reason::TotalTimeout)),
            (None, false, reset, Some(Reason::ClientAborted)),
            (None, true, reset, Some(Reason::ClientAborted)),
            (None, false, finish, Some(Reason::ClientAborted)),
            (None, true, finish, None),
        ] {
            assert_eq!(ended_by(total, half_closed, with), want, "{total:?} {half_closed}");
        }
    }
}
