//! The time limit of an exchange as a whole.
//!
//! Owns one timer, which all attempts of an exchange share: the client's own deadline (`grpc-timeout`), or the route's
//! `timeouts.total`, whichever is earlier. Exchanges without either have none. Never ends anything itself.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use portcullis_abi::Reason;

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

/// Runs until the limit.
pub struct Expiry {
    limit: Option<Limit>,
    sleep: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    passed: Cell<bool>,
}

impl Expiry {
    /// A timer for `limit`.
    pub fn new(limit: Option<Limit>, now_ns: u64) -> Self {
        let sleep =
            limit.map(|limit| Box::pin(net::sleep(limit.left(now_ns))) as Pin<Box<dyn Future<Output = ()>>>);
        Self { limit, sleep: RefCell::new(sleep), passed: Cell::new(false) }
    }

    /// Whether there is nothing to wait for.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.limit.is_none() || self.passed.get()
    }

    /// Ready when the limit passes; once.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleep = self.sleep.borrow_mut();
        let Some(running) = &mut *sleep else { return Poll::Pending };
        if running.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        *sleep = None;
        self.passed.set(true);
        Poll::Ready(())
    }

    /// Why the exchange is over, if its time is.
    pub fn passed(&self) -> Option<Reason> {
        self.limit.filter(|_| self.passed.get()).map(|limit| limit.reason)
    }
}
