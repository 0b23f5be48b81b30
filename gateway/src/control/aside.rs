//! Work that must not be noticed by requests: threads that give way to the shards.
//!
//! Owns how such a thread is started, and the generations that are out of force until their memory is given back. A
//! configuration with a million keys takes seconds to compile, and its memory a good part of one to free; a shard that
//! shares its core with that, or does it itself because it held the last reference, would let requests wait.
//!
//! Invariant: a generation is freed on a thread of its own, never by a shard or by the control thread.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::thread;

use tokio::sync::oneshot;

use crate::net;

/// Does `job` on a thread of its own that gives way. Inside any runtime.
///
/// # Errors
/// There is no thread to be had, or the job has panicked: why, in words.
pub async fn run<T: Send + 'static>(
    name: &str,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (sender, result) = oneshot::channel();
    let thread = spawn(name, move || _ = sender.send(job())).map_err(|cause| cause.to_string())?;
    match result.await {
        Ok(result) => Ok(result),
        // Without a result it has ended, or is about to.
        Err(_) => Err(thread.join().map_or_else(|panic| words_of(&*panic), |()| "no result".to_owned())),
    }
}

fn spawn(name: &str, job: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        net::give_way();
        job();
    })
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

/// What is out of force, but may still be used by exchanges under way.
pub struct Retired<T>(Vec<Arc<T>>);

impl<T> Default for Retired<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Send + Sync + 'static> Retired<T> {
    /// Keeps it until nobody else has it.
    pub fn push(&mut self, retired: Arc<T>) {
        self.0.push(retired);
    }

    /// Frees what nobody else has any more.
    pub fn sweep(&mut self) {
        let free: Vec<Arc<T>> = self.0.extract_if(.., |retired| Arc::strong_count(retired) == 1).collect();
        if !free.is_empty()
            && let Err(cause) = spawn("retired", move || drop(free))
        {
            // The closure is dropped by now, and what it held with it.
            tracing::warn!(%cause, "an old configuration was freed on the control thread");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::control::runtime::Runtime;

    /// Says on which thread it was dropped.
    struct Watched(mpsc::Sender<Option<String>>);

    impl Drop for Watched {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().name().map(str::to_owned));
        }
    }

    #[test]
    fn what_is_retired_is_freed_when_its_last_user_is_gone_and_elsewhere() {
        let (sender, dropped) = mpsc::channel();
        let mut retired = Retired::default();
        let used = Arc::new(Watched(sender));
        retired.push(Arc::clone(&used));
        retired.sweep();
        assert_eq!(dropped.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(used);
        assert_eq!(dropped.try_recv(), Err(mpsc::TryRecvError::Empty), "not by its last user");
        retired.sweep();
        assert_eq!(dropped.recv_timeout(Duration::from_secs(10)), Ok(Some("retired".to_owned())));
    }

    #[test]
    fn a_job_has_a_result_or_a_reason() {
        let runtime = Runtime::new().unwrap();
        assert_eq!(runtime.block_on(run("job", || 7)), Ok(7));
        let failed = runtime.block_on(run("job", || -> u32 { panic!("as told by the test") }));
        assert_eq!(failed, Err("as told by the test".to_owned()));
    }
}
