//! A downstream connection as it is seen from outside its task.
//!
//! Owns the looking out for clients that leave, and no socket. What becomes of an exchange then is `expiry`'s.
//!
//! A client that waits for an answer of HTTP/1 sends nothing, so nobody receives from it, and its leaving is noticed by a
//! look at its socket every second (`Shard::sweep_clients`). One that has only finished sending looks the same at first; it
//! has until the second look to get its answer.

use std::cell::Cell;
use std::task::{Context, Waker};

use crate::net::deadline::{Cutter, HangUp};

/// One downstream connection, as seen from outside its task.
pub struct Lookout {
    cutter: Cutter,
    /// Ends sending too.
    both: Cutter,
    /// An exchange is under way.
    busy: Cell<bool>,
    /// It is carried: the client can be looked at.
    carried: Cell<bool>,
    /// The client had finished sending at the last look.
    finished: Cell<bool>,
    left: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Lookout {
    /// Of the connection whose receiving `cutter` ends, and `both` all of it.
    pub fn new(cutter: Cutter, both: Cutter) -> Self {
        Self {
            cutter,
            both,
            busy: Cell::new(false),
            carried: Cell::new(false),
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

    /// Says whether an exchange is carried, so that its client can be looked at.
    #[inline]
    pub fn set_carried(&self, carried: bool) {
        self.carried.set(carried);
        self.finished.set(false);
    }

    /// Whether the client has left; if not, wakes the task of `cx` when it does.
    pub fn has_left(&self, cx: &Context<'_>) -> bool {
        if self.left.get() {
            return true;
        }
        let known = self.waker.take();
        let same = known.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        self.waker.set(if same { known } else { Some(cx.waker().clone()) });
        false
    }

    /// Looks at the client of an exchange that is carried. `half_closed`: one that has finished sending is served.
    pub fn look(&self, half_closed: bool) {
        if !self.carried.get() || self.left.get() {
            return;
        }
        // What we have cut ourselves ends by itself, and knows why better.
        if self.cutter.is_cut() || self.both.is_cut() {
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
