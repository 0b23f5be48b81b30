//! The receiving half together with what it has received and nobody has used yet.
//!
//! **Invariant.** `start <= received.len()`, and the buffer never grows beyond what a caller asked room for: a
//! connection's memory is bounded by the limits on heads and by [`BODY_ROOM`], whatever the other side sends.

use std::cell::RefCell;
use std::io;

use super::Rx;

/// Room for receiving while a connection is quiet or a head is awaited: holds a common head, and is all that an idle
/// connection keeps.
pub const HEAD_ROOM: usize = 4 * 1024;
/// Room for receiving while a body is relayed.
pub const BODY_ROOM: usize = 64 * 1024;

/// Buffers of [`BODY_ROOM`] that a shard keeps for the next body: 2 MiB.
const BODY_BUFFERS_MAX: usize = 32;

thread_local! {
    /// Warm buffers: the next body is received into memory that is in the cache.
    static BODY_BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A receiving half with its buffer.
pub struct Intake {
    pub rx: Rx,
    received: Vec<u8>,
    start: usize,
}

impl Intake {
    /// An intake with nothing received.
    pub fn new(rx: Rx) -> Self {
        Self::with_received(rx, Vec::new())
    }

    /// An intake that begins with bytes that were received before.
    pub fn with_received(rx: Rx, received: Vec<u8>) -> Self {
        Self { rx, received, start: 0 }
    }

    /// What was received and not consumed.
    #[inline]
    pub fn unread(&self) -> &[u8] {
        &self.received[self.start..]
    }

    /// Whether everything received was consumed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.received.len()
    }

    /// Marks the next `n` bytes as used.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.unread().len());
        self.start += n;
        if self.start >= self.received.len() {
            self.received.clear();
            self.start = 0;
        }
    }

    /// Receives more, with room for at least one byte and at most `room` unread bytes in all. Zero bytes: the other
    /// side has closed or the receive limit passed.
    ///
    /// # Errors
    /// Those of [`Rx::recv`]; `OutOfMemory` when `room` bytes are unread already.
    pub async fn receive(&mut self, room: usize) -> io::Result<usize> {
        if self.start > 0 {
            self.received.drain(..self.start);
            self.start = 0;
        }
        let free = room.saturating_sub(self.received.len());
        if free == 0 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if self.received.capacity() < room {
            self.grow(room, free);
        }
        self.rx.recv(&mut self.received, free).await
    }

    /// The buffer and where its unread part begins, for sending from it without a copy.
    pub fn buffer_mut(&mut self) -> (&mut Vec<u8>, usize) {
        (&mut self.received, self.start)
    }

    fn grow(&mut self, room: usize, free: usize) {
        if room < BODY_ROOM {
            self.received.reserve_exact(free);
            return;
        }
        let mut large = BODY_BUFFERS.with(|kept| kept.borrow_mut().pop()).unwrap_or_default();
        large.reserve_exact(room);
        large.extend_from_slice(&self.received);
        self.received = large;
    }

    /// Gives back the memory of a large body before the connection becomes idle.
    pub fn relax(&mut self) {
        if self.received.capacity() > HEAD_ROOM && self.is_empty() {
            let large = std::mem::take(&mut self.received);
            BODY_BUFFERS.with(|kept| {
                let mut kept = kept.borrow_mut();
                if large.capacity() == BODY_ROOM && kept.len() < BODY_BUFFERS_MAX {
                    kept.push(large);
                }
            });
        }
    }
}
