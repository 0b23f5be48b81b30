//! How many connections of HTTP/1 to a target are in use, and who waits until there are fewer.
//!
//! Owns the count, and the line: first come, first served, at most so long and at most so many. A place that comes free goes
//! to the first in line at once, so nobody can slip in between. Never touches a connection.
//!
//! **Invariant.** While somebody waits, the count is at its bound.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::AcquireError;
use crate::net;

/// The places of one pool.
#[derive(Default)]
pub(super) struct Queue {
    /// Most in use; 0: no limit.
    max: Cell<u32>,
    active: Cell<u32>,
    line: RefCell<VecDeque<Rc<Ticket>>>,
}

/// The right to a connection; given back when it is dropped, unless a connection keeps it.
pub(super) struct Slot<'a>(&'a Queue);

#[derive(Default)]
struct Ticket {
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A place in the line; left when it is dropped.
struct Waiting<'a> {
    queue: &'a Queue,
    ticket: Rc<Ticket>,
    done: bool,
}

impl Slot<'_> {
    /// A connection has it now: whoever puts that back or closes it calls [`Queue::leave`].
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if self.ticket.granted.get() {
            self.queue.leave();
        } else {
            self.queue.line.borrow_mut().retain(|ticket| !Rc::ptr_eq(ticket, &self.ticket));
        }
    }
}

impl Queue {
    /// Sets the bound.
    pub fn set_max(&self, max: u32) {
        self.max.set(max);
        self.grant();
    }

    /// How many are in use.
    pub fn active(&self) -> u32 {
        self.active.get()
    }

    /// A place, if there is one.
    pub fn enter(&self) -> Option<Slot<'_>> {
        self.has_room().then(|| self.enter_anyway())
    }

    /// A place, whatever the bound: for a connection that is there already.
    pub fn enter_anyway(&self) -> Slot<'_> {
        self.active.set(self.active.get() + 1);
        Slot(self)
    }

    /// Waits for a place, at most `limit`, with at most `room` in line.
    pub async fn wait(&self, room: u32, limit: Duration) -> Result<Slot<'_>, AcquireError> {
        if self.line.borrow().len() >= room as usize {
            return Err(AcquireError::QueueFull);
        }
        let mut waiting = Waiting { queue: self, ticket: Rc::default(), done: false };
        self.line.borrow_mut().push_back(waiting.ticket.clone());
        let mut limit = pin!(net::sleep(limit));
        let ticket = waiting.ticket.clone();
        poll_fn(|cx| {
            if ticket.granted.get() || limit.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            *ticket.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        if !ticket.granted.get() {
            return Err(AcquireError::Full);
        }
        waiting.done = true;
        Ok(Slot(self))
    }

    /// A place is given back.
    pub fn leave(&self) {
        self.active.set(self.active.get().saturating_sub(1));
        self.grant();
    }

    fn has_room(&self) -> bool {
        let max = self.max.get();
        max == 0 || self.active.get() < max
    }

    fn grant(&self) {
        while self.has_room() {
            let Some(first) = self.line.borrow_mut().pop_front() else { return };
            self.active.set(self.active.get() + 1);
            first.granted.set(true);
            if let Some(waker) = first.waker.take() {
                waker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `test` on a driver of its own.
    fn run<F: Future<Output = ()> + 'static>(test: F) {
        net::block_on(net::Driver::Epoll, test).expect("a driver");
    }

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn places_are_handed_on_in_order() {
        run(async {
            let queue = Rc::new(Queue::default());
            queue.set_max(1);
            let first = queue.enter().expect("room");
            assert!(queue.enter().is_none());
            let order = Rc::new(RefCell::new(Vec::new()));
            for number in 0..3 {
                let (queue, order) = (queue.clone(), order.clone());
                net::spawn(async move {
                    let slot = queue.wait(9, LONG).await.expect("a place");
                    order.borrow_mut().push(number);
                    assert_eq!(queue.active(), 1);
                    net::sleep(Duration::from_millis(1)).await;
                    drop(slot);
                });
            }
            while queue.line.borrow().len() < 3 {
                net::sleep(Duration::from_millis(1)).await;
            }
            drop(first);
            while order.borrow().len() < 3 {
                net::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(*order.borrow(), [0, 1, 2]);
        });
    }

    #[test]
    fn the_line_is_bounded_in_number_and_time() {
        run(async {
            let queue = Queue::default();
            queue.set_max(1);
            let held = queue.enter().expect("room");
            assert!(matches!(queue.wait(0, LONG).await, Err(AcquireError::QueueFull)));
            assert!(matches!(queue.wait(1, SOON).await, Err(AcquireError::Full)));
            // Who gave up is not in line any more.
            assert!(queue.line.borrow().is_empty());
            drop(held);
            assert_eq!(queue.active(), 0);
            assert!(queue.enter().is_some());
        });
    }

    #[test]
    fn a_greater_bound_lets_the_line_in() {
        run(async {
            let queue = Rc::new(Queue::default());
            queue.set_max(1);
            let _held = queue.enter().expect("room");
            let other = queue.clone();
            net::spawn(async move {
                net::sleep(Duration::from_millis(1)).await;
                other.set_max(2);
            });
            let slot = queue.wait(1, LONG).await.expect("a place");
            assert_eq!(queue.active(), 2);
            drop(slot);
            // No bound.
            queue.set_max(0);
            assert!(queue.enter().is_some() && queue.enter().is_some());
        });
    }
}
