//! Ends the waiting of one direction from elsewhere in the same task.
//!
//! An operation on a socket owns a buffer and is awaited to its end, which shutting the socket down brings about. What
//! waits for a stream of HTTP/2 owns nothing: it looks at a flag, and is given up. Nobody need be woken for that: whoever
//! sets the flag polls the waiting future next.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::net;
use crate::net::deadline::Cutter;

/// Ends a direction.
pub enum Cut<'a> {
    Socket(Cutter),
    Stream(&'a Cell<bool>),
}

impl Cut<'_> {
    /// At once.
    pub fn cut(&self) {
        match self {
            Self::Socket(cutter) => cutter.cut(),
            Self::Stream(halt) => halt.set(true),
        }
    }

    /// After some time, which a socket is given so that what it receives is not lost; a stream loses nothing.
    pub fn cut_after(&self, time: Duration) {
        match self {
            Self::Socket(cutter) => cutter.cut_after(time),
            Self::Stream(halt) => halt.set(true),
        }
    }
}

/// Awaits `future` unless the flag is set. `None`: it was, and the future is dropped.
pub async fn unless<T>(halt: &Cell<bool>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| if halt.get() { Poll::Ready(None) } else { future.as_mut().poll(cx).map(Some) }).await
}

/// Awaits `future` for at most `limit` from when `begun` is set. `None`: that has passed. Whoever sets `begun` polls this
/// next.
pub async fn within<T>(begun: &Cell<bool>, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut sleep = None;
    poll_fn(|cx| {
        if let Poll::Ready(done) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        if begun.get() {
            let sleep = sleep.get_or_insert_with(|| Box::pin(net::sleep(limit)));
            return sleep.as_mut().poll(cx).map(|()| None);
        }
        Poll::Pending
    })
    .await
}

/// Awaits `other` to its end, and looks meanwhile whether there is still anybody it is for: `gone` is ready when not, and
/// `cut` then makes `other` end. Says whether that happened.
pub async fn watched<T>(
    mut gone: impl FnMut(&mut Context<'_>) -> Poll<()>,
    cut: &Cut<'_>,
    other: impl Future<Output = T>,
) -> (T, bool) {
    let mut other = pin!(other);
    let mut is_gone = false;
    let done = poll_fn(|cx| {
        if !is_gone && gone(cx).is_ready() {
            is_gone = true;
            cut.cut();
        }
        other.as_mut().poll(cx)
    })
    .await;
    (done, is_gone)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_set_flag_ends_the_waiting_at_the_next_look() {
        let halt = Cell::new(false);
        let mut waiting = pin!(unless(&halt, pending::<()>()));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        Cut::Stream(&halt).cut();
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(None));
    }
}
