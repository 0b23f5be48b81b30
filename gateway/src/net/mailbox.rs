//! Messages into a shard from other threads: a bounded queue and a wake-up.
//!
//! The wake-up is a socket pair rather than an eventfd because a socket can be awaited in the ring and in the epoll
//! driver alike; it is written only when the shard may be asleep.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;
use monoio::io::AsyncReadRent;
use monoio::net::UnixStream;

use super::driver::{self, Driver};

struct Shared<T> {
    queue: ArrayQueue<T>,
    /// Set by the sender that wrote the wake-up byte, cleared by the receiver before it looks at the queue.
    woken: AtomicBool,
}

/// The sending end; may be used from any thread.
pub struct MailSender<T> {
    shared: Arc<Shared<T>>,
    wake: StdUnixStream,
}

/// The receiving end, to be made into a task's by [`MailReceiver::attach`] on the shard's thread.
pub struct MailReceiver<T> {
    shared: Arc<Shared<T>>,
    wake: StdUnixStream,
}

/// A mailbox for at most `capacity` unread messages.
///
/// # Errors
/// The socket pair could not be made.
pub fn mailbox<T>(capacity: usize) -> io::Result<(MailSender<T>, MailReceiver<T>)> {
    let (a, b) = StdUnixStream::pair()?;
    a.set_nonblocking(true)?;
    let shared = Arc::new(Shared { queue: ArrayQueue::new(capacity), woken: AtomicBool::new(false) });
    Ok((MailSender { shared: shared.clone(), wake: a }, MailReceiver { shared, wake: b }))
}

impl<T> MailSender<T> {
    /// Another sender into the same box.
    ///
    /// # Errors
    /// The descriptor could not be duplicated.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { shared: self.shared.clone(), wake: self.wake.try_clone()? })
    }

    /// Puts a message into the box and wakes the shard. Gives the message back when the box is full.
    ///
    /// # Errors
    /// The message, when `capacity` messages are unread.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.shared.queue.push(message)?;
        if !self.shared.woken.swap(true, Ordering::AcqRel) {
            // A full pipe means that a wake-up is pending already.
            let _ = io::Write::write(&mut &self.wake, b"!");
        }
        Ok(())
    }
}

/// A mailbox in use by a task.
pub struct Mailbox<T> {
    shared: Arc<Shared<T>>,
    wake: UnixStream,
    buffer: Vec<u8>,
}

impl<T> MailReceiver<T> {
    /// Binds the box to the calling shard.
    ///
    /// # Errors
    /// The descriptor could not be registered with the driver.
    pub fn attach(self) -> io::Result<Mailbox<T>> {
        self.wake.set_nonblocking(driver::current() == Driver::Epoll)?;
        Ok(Mailbox { shared: self.shared, wake: UnixStream::from_std(self.wake)?, buffer: vec![0; 64] })
    }
}

impl<T> Mailbox<T> {
    /// The next message; `None` when the sender is gone.
    pub async fn next(&mut self) -> Option<T> {
        loop {
            if let Some(message) = self.shared.queue.pop() {
                return Some(message);
            }
            self.shared.woken.store(false, Ordering::Release);
            // A message put in between the pop and the store woke nobody.
            if let Some(message) = self.shared.queue.pop() {
                return Some(message);
            }
            let (result, buffer) = self.wake.read(std::mem::take(&mut self.buffer)).await;
            self.buffer = buffer;
            if !matches!(result, Ok(1..)) {
                return self.shared.queue.pop();
            }
        }
    }
}
