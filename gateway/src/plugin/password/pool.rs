//! Threads that compare passwords with slow hashes.
//!
//! Owns the threads of the process and their queue: bounded, and never waited for by who puts something in. A shard looks
//! for the answer now and then ([`Check::answer`]); it is asleep meanwhile as far as this request goes.
//!
//! **Invariant.** A comparison that nobody waits for any more is not begun.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};

use crossbeam_queue::ArrayQueue;

use super::Password;

/// Threads. Each keeps a core busy as long as it compares, and the shards want those too.
const THREADS: usize = 2;
/// Comparisons that may wait. With bcrypt's usual cost a thread makes about twenty a second.
pub const WAITING_MAX: usize = 128;

const WAITING: u8 = 0;
const RIGHT: u8 = 1;
const WRONG: u8 = 2;
const ABANDONED: u8 = 3;

/// A comparison under way. Dropping it gives it up.
#[derive(Debug)]
pub struct Check(Arc<AtomicU8>);

impl Check {
    /// Whether the password was right, once that is known.
    pub fn answer(&self) -> Option<bool> {
        match self.0.load(Ordering::Acquire) {
            RIGHT => Some(true),
            WRONG => Some(false),
            _ => None,
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        let _ = self.0.compare_exchange(WAITING, ABANDONED, Ordering::AcqRel, Ordering::Acquire);
    }
}

struct Job {
    password: Arc<Password>,
    given: Box<[u8]>,
    state: Arc<AtomicU8>,
}

impl Job {
    fn run(self) {
        if self.state.load(Ordering::Acquire) == ABANDONED {
            return;
        }
        // What a crate for hashes does with bytes from the network must not end the thread.
        let right = catch_unwind(AssertUnwindSafe(|| self.password.is(&self.given))).unwrap_or(false);
        self.state.store(if right { RIGHT } else { WRONG }, Ordering::Release);
    }
}

/// No place in the queue, or no thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Queue and threads.
struct Pool {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
}

struct Shared {
    queue: ArrayQueue<Job>,
    /// By thread: it has found the queue empty.
    asleep: [AtomicBool; THREADS],
}

static POOL: OnceLock<Pool> = OnceLock::new();

/// Starts the threads, if they are not there. Called where a configuration is compiled.
pub fn start() {
    POOL.get_or_init(|| Pool::new(WAITING_MAX));
}

/// Asks whether `given` is the password.
///
/// # Errors
/// [`Full`]: too many are waiting.
pub fn check(password: &Arc<Password>, given: &[u8]) -> Result<Check, Full> {
    POOL.get().ok_or(Full)?.check(password, given)
}

impl Pool {
    fn new(capacity: usize) -> Self {
        let shared = Arc::new(Shared { queue: ArrayQueue::new(capacity), asleep: Default::default() });
        let start = |number: usize| {
            let shared = shared.clone();
            let thread = thread::Builder::new().name(format!("password-{number}"));
            thread.spawn(move || shared.work(number)).ok().map(|handle| handle.thread().clone())
        };
        let threads = (0..THREADS).filter_map(start).collect();
        Self { shared, threads }
    }

    fn check(&self, password: &Arc<Password>, given: &[u8]) -> Result<Check, Full> {
        if self.threads.is_empty() {
            return Err(Full);
        }
        let state = Arc::new(AtomicU8::new(WAITING));
        let job = Job { password: password.clone(), given: given.into(), state: state.clone() };
        self.shared.queue.push(job).map_err(|_| Full)?;
        let sleeper = self.shared.asleep.iter().position(|asleep| asleep.swap(false, Ordering::SeqCst));
        if let Some(thread) = sleeper.and_then(|number| self.threads.get(number)) {
            thread.unpark();
        }
        Ok(Check(state))
    }
}

impl Shared {
    fn work(&self, number: usize) -> ! {
        loop {
            while let Some(job) = self.queue.pop() {
                job.run();
            }
            self.asleep[number].store(true, Ordering::SeqCst);
            // What was put in between the two lines above woke nobody.
            match self.queue.pop() {
                Some(job) => {
                    self.asleep[number].store(false, Ordering::SeqCst);
                    job.run();
                }
                None => thread::park(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// bcrypt with the lowest cost.
    const HASH: &str = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

    fn wait(check: &Check) -> bool {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(answer) = check.answer() {
                return answer;
            }
            assert!(Instant::now() < end, "no answer");
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    #[test]
    fn many_ask_at_once_and_each_gets_its_answer() {
        let hash = bcrypt::hash("right", 4).expect("a hash");
        let (password, pool) = (Arc::new(Password::read(&hash).expect("a hash")), Pool::new(64));
        let checks: Vec<_> = (0..40)
            .map(|number| {
                let given: &[u8] = if number % 3 == 0 { b"right" } else { b"wrong" };
                (number, pool.check(&password, given).expect("room"))
            })
            .collect();
        for (number, check) in checks {
            assert_eq!(wait(&check), number % 3 == 0);
        }
    }

    #[test]
    fn who_finds_no_room_is_told_and_what_nobody_waits_for_is_not_begun() {
        // No thread takes anything out.
        let shared = Arc::new(Shared { queue: ArrayQueue::new(2), asleep: Default::default() });
        let pool = Pool { shared, threads: vec![thread::current()] };
        let password = Arc::new(Password::read(HASH).expect("a hash"));
        let first = pool.check(&password, b"a").expect("room");
        let second = pool.check(&password, b"b").expect("room");
        assert_eq!(pool.check(&password, b"c").err(), Some(Full));
        drop(first);
        let job = pool.shared.queue.pop().expect("the first");
        let state = job.state.clone();
        job.run();
        assert_eq!(state.load(Ordering::Acquire), ABANDONED);
        pool.shared.queue.pop().expect("the second").run();
        assert!(second.answer().is_some());
    }
}
