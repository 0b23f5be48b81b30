//! Which kernel interface moves the bytes: a probe, a runtime, and the three verbs of a shard's thread.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::task::Poll;
use std::time::Duration;

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

/// Submission queue entries of a shard's ring. The completion queue has four times as many, so that a burst of
/// completions between two turns never overflows it.
const RING_ENTRIES: u32 = 4096;

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring where it works, epoll where it is refused.
    Auto,
    IoUring,
    Epoll,
}

/// What a shard runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    IoUring,
    Epoll,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// io_uring cannot be had, and why.
#[derive(Debug, thiserror::Error)]
#[error("io_uring is refused here ({cause}): {hint}")]
pub struct ProbeError {
    cause: io::Error,
    hint: &'static str,
}

impl ProbeError {
    fn new(cause: io::Error) -> Self {
        let hint = match cause.raw_os_error() {
            Some(libc::EPERM) => {
                "a seccomp profile or the sysctl kernel.io_uring_disabled blocks it; container runtimes do so by default"
            }
            Some(libc::ENOSYS) => "the kernel has no io_uring, or a sandbox hides it",
            Some(libc::EINVAL) => "the kernel is older than 6.1 and lacks DEFER_TASKRUN",
            Some(libc::ENOMEM) => "the locked-memory limit (RLIMIT_MEMLOCK) is too small for the rings",
            _ => "see the cause",
        };
        Self { cause, hint }
    }
}

fn ring() -> io_uring::Builder {
    let mut ring = io_uring::IoUring::builder();
    // DEFER_TASKRUN is worth 17 % of a small request: without it each completion interrupts the thread.
    ring.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_cqsize(RING_ENTRIES * 4);
    ring
}

/// Finds the driver to use. With `Auto`, the refusal is returned beside epoll, to be said aloud.
///
/// # Errors
/// io_uring was asked for by name and is refused.
pub fn probe(choice: DriverChoice) -> Result<(Driver, Option<ProbeError>), ProbeError> {
    if choice == DriverChoice::Epoll {
        return Ok((Driver::Epoll, None));
    }
    match ring().build(RING_ENTRIES) {
        Ok(_ring) => Ok((Driver::IoUring, None)),
        Err(cause) if choice == DriverChoice::Auto => Ok((Driver::Epoll, Some(ProbeError::new(cause)))),
        Err(cause) => Err(ProbeError::new(cause)),
    }
}

thread_local! {
    static CURRENT: Cell<Driver> = const { Cell::new(Driver::Epoll) };
    static TURNS: Cell<u32> = const { Cell::new(0) };
}

/// The driver of the calling shard.
pub(super) fn current() -> Driver {
    CURRENT.get()
}

/// Runs `future` on a runtime of this thread until it is done.
///
/// # Errors
/// The runtime could not be made.
pub fn block_on<F: Future>(driver: Driver, future: F) -> io::Result<F::Output> {
    CURRENT.set(driver);
    match driver {
        Driver::IoUring => Ok(RuntimeBuilder::<IoUringDriver>::new()
            .with_entries(RING_ENTRIES)
            .uring_builder(ring())
            .enable_timer()
            .build()?
            .block_on(future)),
        Driver::Epoll => Ok(RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.block_on(future)),
    }
}

/// Starts a task on this shard.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    // The handle is dropped on purpose: the task goes on, and ends by itself.
    drop(monoio::spawn(task));
}

/// Receives in a row after which a task of the epoll driver lets others run.
const TURN: u32 = 16;

/// Awaited before a receive. With epoll an operation that can be done at once is, so that one fast connection could keep
/// its shard for itself; an operation of the ring always comes back by way of the scheduler.
pub(super) async fn take_turns() {
    if current() == Driver::IoUring {
        return;
    }
    let turn = TURNS.get().wrapping_add(1);
    TURNS.set(turn);
    if !turn.is_multiple_of(TURN) {
        return;
    }
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        // A task that wakes itself is the next to run; one that another task wakes is the last.
        let waker = cx.waker().clone();
        spawn(async move { waker.wake() });
        Poll::Pending
    })
    .await;
}

/// Waits on the shard's timer.
pub async fn sleep(time: Duration) {
    monoio::time::sleep(time).await;
}

/// Pins the calling thread to a core. False when the kernel refuses (the core is not ours).
pub fn pin_to_core(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}
