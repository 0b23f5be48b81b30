//! Tasks that serve one job after the other.
//!
//! Owns who waits for a job and how it is handed over. The task of a stream is a few kilobytes to be allocated, filled and
//! given back; one that has served its stream is ready for the next of any connection of its shard. Never runs a task.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Tasks that wait at most, a megabyte of them; more than that end when they are done.
const IDLE_MAX: usize = 128;

/// The tasks of a shard that wait.
pub struct Workers<J> {
    idle: RefCell<Vec<Rc<Place<J>>>>,
}

/// Where one of them finds its next job.
pub struct Place<J> {
    job: Cell<Option<J>>,
    waker: RefCell<Option<Waker>>,
}

impl<J> Default for Workers<J> {
    fn default() -> Self {
        Self { idle: RefCell::default() }
    }
}

impl<J> Default for Place<J> {
    fn default() -> Self {
        Self { job: Cell::new(None), waker: RefCell::default() }
    }
}

impl<J> Workers<J> {
    /// Hands a job to a task that waits; gives it back where there is none.
    pub fn give(&self, job: J) -> Option<J> {
        let Some(place) = self.idle.borrow_mut().pop() else { return Some(job) };
        place.job.set(Some(job));
        let waker = place.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
        None
    }

    /// Waits for the next job; `None` where enough others wait already. Not to be dropped before its end, unless with all
    /// tasks of the thread.
    pub async fn next(&self, place: &Rc<Place<J>>) -> Option<J> {
        {
            let mut idle = self.idle.borrow_mut();
            if idle.len() >= IDLE_MAX {
                return None;
            }
            idle.push(place.clone());
        }
        poll_fn(|cx| match place.job.take() {
            Some(job) => Poll::Ready(Some(job)),
            None => {
                *place.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn a_job_goes_to_whoever_waits_and_back_where_nobody_does() {
        let workers = Workers::default();
        assert_eq!(workers.give(1), Some(1));
        let (one, other) = (Rc::default(), Rc::default());
        let (mut one, mut other) = (pin!(workers.next(&one)), pin!(workers.next(&other)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(one.as_mut().poll(&mut cx).is_pending());
        assert!(other.as_mut().poll(&mut cx).is_pending());
        assert_eq!(workers.give(2), None);
        assert_eq!(other.as_mut().poll(&mut cx), Poll::Ready(Some(2)));
        assert!(one.as_mut().poll(&mut cx).is_pending());
        assert_eq!(workers.give(3), None);
        assert_eq!(one.as_mut().poll(&mut cx), Poll::Ready(Some(3)));
        assert_eq!(workers.give(4), Some(4));
    }

    #[test]
    fn no_more_wait_than_may() {
        let workers = Workers::<u8>::default();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..IDLE_MAX {
            assert!(pin!(workers.next(&Rc::default())).poll(&mut cx).is_pending());
        }
        assert_eq!(pin!(workers.next(&Rc::default())).poll(&mut cx), Poll::Ready(None));
    }
}
