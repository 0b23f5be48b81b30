//! What ends an exchange from outside while it is carried: its client has left, or its time is over.
//!
//! Owns the looking out for both, and no socket: whoever carries the exchange says how it is cut. Nothing is dropped in
//! flight: what is cut ends by itself, and is awaited to its end.
//!
//! A client that waits for an answer of HTTP/1 sends nothing, so nobody receives from it, and its leaving is noticed by a
//! look at its socket every second (`Shard::sweep_clients`). One that has only finished sending looks the same at first; it
//! has until the second look to get its answer.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Waker;
use std::time::Duration;

use portcullis_abi::Reason;

use crate::net;
use crate::net::deadline::{Cutter, HangUp};

/// One downstream connection, as seen from outside its task.
pub struct Lookout {
    cutter: Cutter,
    /// An exchange is under way.
    busy: Cell<bool>,
    /// It is carried: the client can be looked at.
    carried: Cell<bool>,
    /// The client has got the head of the response.
    answering: Cell<bool>,
    /// The client had finished sending at the last look.
    finished: Cell<bool>,
    left: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Lookout {
    /// Of the connection whose receiving `cutter` ends.
    pub fn new(cutter: Cutter) -> Self {
        Self {
            cutter,
            busy: Cell::new(false),
            carried: Cell::new(false),
            answering: Cell::new(false),
            finished: Cell::new(false),
            left: Cell::new(false),
            waker: Cell::new(None),
        }
    }

    /// Says whether an exchange is under way: a drain leaves the connection alone then.
    #[inline]
    pub fn set_busy(&self, busy: bool) {
        self.busy.set(busy);
    }

    /// Ends the connection if nothing is under way on it.
    pub fn cut_idle(&self) {
        if !self.busy.get() {
            self.cutter.cut();
        }
    }

    /// Says that the client has got the head of its response.
    #[inline]
    pub fn set_answering(&self) {
        self.answering.set(true);
    }

    /// Whether the client has got the head of its response.
    pub fn is_answering(&self) -> bool {
        self.answering.get()
    }

    /// Looks at the client of an exchange that is carried. `half_closed`: one that has finished sending is served.
    pub fn look(&self, half_closed: bool) {
        if !self.carried.get() || self.left.get() {
            return;
        }
        let left = match self.cutter.hang_up() {
            HangUp::No => false,
            HangUp::Finished => self.finished.replace(true) && !half_closed,
            HangUp::Gone => true,
        };
        if left {
            self.left.set(true);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }
}

/// Carries an exchange to its end, and calls `cut` once if its client leaves or `total` has passed before. Gives why.
pub async fn looking_out<T>(
    lookout: &Lookout,
    total: Option<Duration>,
    cut: impl Fn(Reason),
    carried: impl Future<Output = T>,
) -> (T, Option<Reason>) {
    let mut carried = pin!(carried);
    let mut sleep = total.map(|total| Box::pin(net::sleep(total)));
    let mut ended = None;
    lookout.carried.set(true);
    lookout.answering.set(false);
    lookout.finished.set(false);
    let done = poll_fn(|cx| {
        if ended.is_none() {
            if lookout.left.get() {
                ended = Some(Reason::ClientAborted);
            } else if let Some(over) = &mut sleep
                && over.as_mut().poll(cx).is_ready()
            {
                ended = Some(Reason::TotalTimeout);
            }
            if let Some(reason) = ended {
                cut(reason);
            }
        }
        let polled = carried.as_mut().poll(cx);
        if polled.is_pending() {
            lookout.waker.set(Some(cx.waker().clone()));
        }
        polled
    })
    .await;
    lookout.carried.set(false);
    (done, ended)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::rc::Rc;
    use std::task::Poll;

    use super::*;

    /// What ends a wait of half a minute, when `with` has its way with the client.
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
            let lookout = Rc::new(Lookout::new(stream.rx.deadline.cutter()));
            let looking = lookout.clone();
            net::spawn(async move {
                with(client);
                for _ in 0..4 {
                    net::sleep(Duration::from_millis(10)).await;
                    looking.look(half_closed);
                }
            });
            let over = Cell::new(false);
            // As what is carried does: it ends when it is cut.
            let mut patience = pin!(net::sleep(Duration::from_millis(400)));
            let carried = poll_fn(|cx| if over.get() { Poll::Ready(()) } else { patience.as_mut().poll(cx) });
            told.set(looking_out(&lookout, total, |_| over.set(true), carried).await.1);
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
