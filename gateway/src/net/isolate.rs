//! Tasks that may panic without harm to others.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::driver;

/// Starts a task of which a panic ends it alone, and not the thread with all others. `panicked` is called then.
pub fn spawn_isolated(
    task: Pin<Box<impl Future<Output = ()> + 'static>>,
    panicked: impl FnMut() + Unpin + 'static,
) {
    driver::spawn(Isolated { task, panicked });
}

/// Runs a task so that a panic in it ends it alone, and not the thread with all other connections.
struct Isolated<F, P> {
    /// Boxed, as a future moved into another one takes its place twice.
    task: Pin<Box<F>>,
    panicked: P,
}

impl<F: Future<Output = ()>, P: FnMut() + Unpin> Future for Isolated<F, P> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.task.as_mut();
        // What the task shares with others is cells and tables whose every state is a valid one, hence unwind-safe.
        let polled = catch_unwind(AssertUnwindSafe(|| task.poll(cx)));
        polled.unwrap_or_else(|_| {
            (self.panicked)();
            Poll::Ready(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::net::Driver;

    #[test]
    fn a_panic_ends_its_own_task_only() {
        let panics = Rc::new(Cell::new(0));
        let counted = panics.clone();
        let ended = driver::block_on(Driver::Epoll, async move {
            let broken = async {
                driver::sleep(Duration::from_millis(1)).await;
                panic!("on purpose");
            };
            spawn_isolated(Box::pin(broken), move || counted.set(counted.get() + 1));
            driver::sleep(Duration::from_millis(50)).await;
        });
        assert_eq!((ended.is_ok(), panics.get()), (true, 1));
    }
}
