//! Tasks that wait for a place on a connection to a target, whichever connection it is.
//!
//! Owns their order: whoever has waited longest is woken first, one for each place that comes free. Owns no places: a task
//! that was woken looks for one by itself, and waits on in its old position where another was quicker.
//!
//! Invariant: a wake is not lost with the task that got it. One that gives up after it was woken, without having taken a
//! place, passes it on.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

/// The tasks of all connections to one target.
#[derive(Default)]
pub struct Waiters {
    line: RefCell<VecDeque<(u64, Waker)>>,
    next: Cell<u64>,
}

/// A task's position. Given up by dropping it.
pub struct Position {
    waiters: Rc<Waiters>,
    number: u64,
    served: bool,
}

impl Waiters {
    /// A position behind all others. Nothing waits in it yet.
    pub fn stand(self: &Rc<Self>) -> Position {
        let number = self.next.get();
        self.next.set(number + 1);
        Position { waiters: self.clone(), number, served: false }
    }

    /// A place has come free.
    pub fn wake_one(&self) {
        let first = self.line.borrow_mut().pop_front();
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }

    /// There is something for everybody to learn.
    pub fn wake_all(&self) {
        if !self.line.borrow().is_empty() {
            self.line.take().into_iter().for_each(|(_, waker)| waker.wake());
        }
    }
}

impl Position {
    /// Has the task of `cx` woken when it is its turn.
    pub fn wait(&self, cx: &Context<'_>) {
        let mut line = self.waiters.line.borrow_mut();
        let at = line.partition_point(|(number, _)| *number < self.number);
        match line.get_mut(at) {
            Some((number, waker)) if *number == self.number => waker.clone_from(cx.waker()),
            _ => line.insert(at, (self.number, cx.waker().clone())),
        }
    }

    /// It has led to a place. There may be more than one: the next in line looks too.
    pub fn serve(mut self) {
        self.served = true;
        let waiters = self.waiters.clone();
        drop(self);
        waiters.wake_one();
    }
}

impl Drop for Position {
    fn drop(&mut self) {
        let mut line = self.waiters.line.borrow_mut();
        let at = line.partition_point(|(number, _)| *number < self.number);
        if line.get(at).is_some_and(|(number, _)| *number == self.number) {
            line.remove(at);
        } else if !self.served {
            drop(line);
            self.waiters.wake_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn tasks<const N: usize>() -> ([Arc<Woken>; N], impl Fn(usize) -> u32) {
        let tasks: [Arc<Woken>; N] = std::array::from_fn(|_| Arc::default());
        let seen = tasks.clone();
        (tasks, move |task| seen[task].0.load(Relaxed))
    }

    fn wait(position: &Position, task: &Arc<Woken>) {
        position.wait(&Context::from_waker(&Waker::from(task.clone())));
    }

    #[test]
    fn the_first_in_line_is_woken_and_keeps_its_position() {
        let waiters = Rc::new(Waiters::default());
        let (tasks, woken) = tasks::<3>();
        let positions = [(); 3].map(|()| waiters.stand());
        for (position, task) in positions.iter().zip(&tasks) {
            wait(position, task);
            wait(position, task);
        }
        waiters.wake_one();
        assert_eq!([woken(0), woken(1), woken(2)], [1, 0, 0]);
        // Another was quicker.
        wait(&positions[0], &tasks[0]);
        waiters.wake_one();
        assert_eq!([woken(0), woken(1), woken(2)], [2, 0, 0]);
        let [first, ..] = positions;
        first.serve();
        assert_eq!([woken(0), woken(1), woken(2)], [2, 1, 0]);
        waiters.wake_all();
        waiters.wake_all();
        assert_eq!([woken(0), woken(1), woken(2)], [2, 1, 1]);
    }

    #[test]
    fn who_gives_up_passes_a_wake_on_and_leaves_the_line() {
        let waiters = Rc::new(Waiters::default());
        let (tasks, woken) = tasks::<3>();
        let [first, second, third] = [(); 3].map(|()| waiters.stand());
        for (position, task) in [&first, &second, &third].into_iter().zip(&tasks) {
            wait(position, task);
        }
        drop(second);
        assert_eq!([woken(0), woken(1), woken(2)], [0, 0, 0]);
        waiters.wake_one();
        drop(first);
        assert_eq!([woken(0), woken(1), woken(2)], [1, 0, 1]);
    }
}
