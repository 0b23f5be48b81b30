//! The control thread's runtime: tokio-uring, or plain tokio where io_uring is refused.
//!
//! Owns: the choice, and the only names of tokio-uring besides the access log's file. Never: a silent
//! fallback; [`Runtime::refused`] says why there is no ring. Invariant: both kinds are one thread with a
//! local task set, so the code on top is the same.

use std::future::Future;
use std::io;

/// A current-thread runtime for `!Send` tasks.
pub struct Runtime {
    kind: Kind,
    refused: Option<io::Error>,
}

enum Kind {
    /// Boxed for its size beside the other.
    Ring(Box<tokio_uring::Runtime>),
    Plain(tokio::runtime::Runtime, tokio::task::LocalSet),
}

impl Runtime {
    /// Asks for a ring; takes a runtime without one if the kernel refuses (a container's seccomp profile,
    /// the `io_uring_disabled` sysctl, a kernel before 5.11).
    ///
    /// # Errors
    /// Neither runtime could be made: no descriptors left, most likely.
    pub fn new() -> io::Result<Self> {
        // The default flags: with DEFER_TASKRUN tokio-uring never sees its completions.
        match tokio_uring::Runtime::new(tokio_uring::builder().entries(RING_ENTRIES)) {
            Ok(runtime) => Ok(Self { kind: Kind::Ring(Box::new(runtime)), refused: None }),
            Err(cause) => Self::without_ring(cause),
        }
    }

    fn without_ring(cause: io::Error) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { kind: Kind::Plain(runtime, tokio::task::LocalSet::new()), refused: Some(cause) })
    }

    /// Why there is no ring; `None` if there is one.
    pub fn refused(&self) -> Option<&io::Error> {
        self.refused.as_ref()
    }

    /// Runs `future` and everything it spawns locally until it is done.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        match &self.kind {
            Kind::Ring(runtime) => runtime.block_on(future),
            Kind::Plain(runtime, tasks) => tasks.block_on(runtime, future),
        }
    }
}

/// Only log writes go through this ring, one at a time.
const RING_ENTRIES: u32 = 64;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A runtime of each kind that this machine allows.
    pub fn both() -> Vec<Runtime> {
        let plain = Runtime::without_ring(io::ErrorKind::PermissionDenied.into()).unwrap();
        let asked = Runtime::new().unwrap();
        if let Some(cause) = asked.refused() {
            eprintln!("no ring on this machine ({cause}): tested without");
            return vec![plain];
        }
        vec![plain, asked]
    }

    #[test]
    fn local_tasks_and_timers_run_on_both() {
        for runtime in both() {
            let answer = runtime.block_on(async {
                let task = tokio::task::spawn_local(async {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                    std::rc::Rc::new(7)
                });
                task.await.map(|seven| *seven)
            });
            assert_eq!(answer.unwrap(), 7);
        }
    }
}
