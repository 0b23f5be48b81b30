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

/// Headroom of responses: holds a common head, so that head and body leave in one send.
pub const RESPONSE_HEADROOM: usize = 1024;
/// Large buffers that a shard keeps for the next body, 64 KiB of address space each; only what was once used of them is
/// resident.
const BODY_BUFFERS_MAX: usize = 128;

thread_local! {
    /// Warm buffers: the next body is received into memory that is in the cache.
    static BODY_BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A receiving half with its buffer.
///
/// ```text
/// | headroom | consumed | unread ...... | free |
/// 0                     start           len    capacity
/// ```
pub struct Intake {
    pub rx: Rx,
    received: Vec<u8>,
    start: usize,
    /// Bytes kept free before what is received, so that a new head can be put in front of a body where it lies.
    headroom: usize,
}

impl Intake {
    /// An intake with nothing received and `headroom` bytes free in front.
    pub fn new(rx: Rx, headroom: usize) -> Self {
        Self { rx, received: Vec::new(), start: 0, headroom }
    }

    /// An intake that begins with bytes that were received before.
    pub fn with_received(rx: Rx, received: Vec<u8>) -> Self {
        Self { rx, received, start: 0, headroom: 0 }
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
            self.received.truncate(self.headroom);
            self.start = self.received.len();
        }
    }

    /// Makes these bytes the next unread ones.
    pub fn put_back(&mut self, bytes: &[u8]) {
        self.received.splice(self.start..self.start, bytes.iter().copied());
    }

    /// Receives more, with room for at least one byte and at most `room` unread bytes in all. Zero bytes: the other
    /// side has closed or the receive limit passed.
    ///
    /// # Errors
    /// Those of [`Rx::recv`]; `OutOfMemory` when `room` bytes are unread already.
    pub async fn receive(&mut self, room: usize) -> io::Result<usize> {
        if self.received.len() < self.headroom {
            self.received.reserve_exact(self.headroom + room.min(HEAD_ROOM));
            self.received.resize(self.headroom, 0);
            self.start = self.headroom;
        } else if self.start > self.headroom {
            let unread = self.received.len() - self.start;
            self.received.copy_within(self.start.., self.headroom);
            self.received.truncate(self.headroom + unread);
            self.start = self.headroom;
        }
        let free = room.saturating_sub(self.received.len() - self.start);
        if free == 0 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if self.received.capacity() < self.headroom + room {
            self.grow(room, free);
        }
        debug_assert!(self.received.capacity() > self.received.len());
        self.rx.recv(&mut self.received, free).await
    }

    /// The buffer and where its unread part begins, for sending from it without a copy. What lies before may be
    /// overwritten.
    pub fn buffer_mut(&mut self) -> (&mut Vec<u8>, usize) {
        (&mut self.received, self.start)
    }

    fn grow(&mut self, room: usize, free: usize) {
        let wanted = self.headroom + room;
        if room < BODY_ROOM || wanted > RESPONSE_HEADROOM + BODY_ROOM {
            // A head limit may be larger than the room of a body; such a buffer grows as it fills.
            self.received.reserve(free.min(BODY_ROOM));
            return;
        }
        let mut large = BODY_BUFFERS.with(|kept| kept.borrow_mut().pop()).unwrap_or_default();
        large.clear();
        large.reserve_exact(RESPONSE_HEADROOM + BODY_ROOM);
        large.extend_from_slice(&self.received);
        self.received = large;
    }

    /// Gives back the memory of a large body before the connection becomes idle.
    pub fn relax(&mut self) {
        if self.received.capacity() > HEAD_ROOM + self.headroom && self.is_empty() {
            let large = std::mem::take(&mut self.received);
            self.start = 0;
            BODY_BUFFERS.with(|kept| {
                let mut kept = kept.borrow_mut();
                if large.capacity() == RESPONSE_HEADROOM + BODY_ROOM && kept.len() < BODY_BUFFERS_MAX {
                    kept.push(large);
                }
            });
        }
    }
}
