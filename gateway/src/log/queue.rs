//! Blocks on their way from the shards to the control thread.
//!
//! Owns: one bounded queue a shard, the way back for emptied blocks, and the wake of the reader. Never: a
//! wait on the shards' side. Invariant: if a queue holds a block, the wake flag is set or the reader is
//! between clearing it and looking.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

/// A shard's end of the queue.
#[derive(Debug)]
pub struct Outbox {
    lane: Arc<Lane>,
    bell: Arc<Bell>,
}

/// The control thread's end.
#[derive(Debug)]
pub struct Inbox {
    lanes: Vec<Arc<Lane>>,
    bell: Arc<Bell>,
}

/// What did not reach the log, summed over all shards since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    pub blocks: u64,
    pub lines: u64,
}

#[derive(Debug)]
struct Lane {
    full: ArrayQueue<Vec<u8>>,
    /// Emptied blocks come back, so that a shard in its stride allocates none.
    empty: ArrayQueue<Vec<u8>>,
    lost_blocks: AtomicU64,
    lost_lines: AtomicU64,
}

#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    sender: UnixStream,
}

/// Makes the queue: the control thread's end, one end a shard, and the socket that becomes readable when a
/// block waits (non-blocking; the reader gives its bytes no meaning).
pub fn channel(shards: usize) -> io::Result<(Inbox, Vec<Outbox>, UnixStream)> {
    let (sender, receiver) = UnixStream::pair()?;
    sender.set_nonblocking(true)?;
    receiver.set_nonblocking(true)?;
    let bell = Arc::new(Bell { rung: AtomicBool::new(false), sender });
    let lanes = (0..shards).map(|_| Arc::new(Lane::new())).collect::<Vec<_>>();
    let outboxes =
        lanes.iter().map(|lane| Outbox { lane: Arc::clone(lane), bell: Arc::clone(&bell) }).collect();
    Ok((Inbox { lanes, bell }, outboxes, receiver))
}

impl Lane {
    fn new() -> Self {
        Self {
            full: ArrayQueue::new(BLOCKS_PER_SHARD),
            empty: ArrayQueue::new(BLOCKS_PER_SHARD),
            lost_blocks: AtomicU64::new(0),
            lost_lines: AtomicU64::new(0),
        }
    }
}

impl Outbox {
    /// Hands over a block of `lines` lines. Either way the result is an empty block to fill next.
    ///
    /// # Errors
    /// The queue is full: the lines are lost, and counted.
    pub(super) fn hand_over(&self, block: Vec<u8>, lines: u64) -> Result<Vec<u8>, Vec<u8>> {
        match self.lane.full.push(block) {
            Ok(()) => {
                self.bell.ring();
                Ok(self.lane.empty.pop().unwrap_or_default())
            }
            Err(mut refused) => {
                // One writer, this shard: no read-modify-write needed.
                add(&self.lane.lost_blocks, 1);
                add(&self.lane.lost_lines, lines);
                self.bell.ring();
                refused.clear();
                Err(refused)
            }
        }
    }
}

impl Bell {
    fn ring(&self) {
        // SeqCst on both sides: the flag is read after the block is in its queue, and the reader looks into
        // the queues after it has cleared the flag, so one of the two sees the other.
        if !self.rung.swap(true, Ordering::SeqCst) {
            // A full socket buffer means that the reader has a wake waiting already.
            let _ = (&self.sender).write(&[1]);
        }
    }
}

impl Inbox {
    /// Call after the socket became readable and before the blocks are taken.
    pub fn clear_wake(&self) {
        self.bell.rung.store(false, Ordering::SeqCst);
    }

    /// The next block of any shard; blocks of one shard come in order.
    ///
    /// Looks at the shards in turn from `*from` on, so that a busy one cannot starve the others.
    pub fn take(&self, from: &mut usize) -> Option<(usize, Vec<u8>)> {
        for _ in 0..self.lanes.len() {
            let shard = *from % self.lanes.len();
            *from = shard + 1;
            if let Some(block) = self.lanes[shard].full.pop() {
                return Some((shard, block));
            }
        }
        None
    }

    /// Gives a written block back to its shard.
    pub fn give_back(&self, shard: usize, mut block: Vec<u8>) {
        block.clear();
        if let Some(lane) = self.lanes.get(shard) {
            // More empties than the queue holds are simply freed.
            let _ = lane.empty.push(block);
        }
    }

    /// Blocks and lines lost so far to full queues.
    pub fn lost(&self) -> Lost {
        let sum = |word: fn(&Lane) -> &AtomicU64| {
            self.lanes.iter().map(|lane| word(lane).load(Ordering::Relaxed)).sum()
        };
        Lost { blocks: sum(|lane| &lane.lost_blocks), lines: sum(|lane| &lane.lost_lines) }
    }
}

fn add(word: &AtomicU64, count: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

/// Blocks that may wait for the disk: 64 of 64 KiB is 4 MiB a shard, or about 80 ms of lines at 100,000
/// requests a second. A longer stall loses lines rather than memory.
const BLOCKS_PER_SHARD: usize = 64;

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn blocks_arrive_in_order_and_come_back() {
        let (inbox, outboxes, mut wake) = channel(2).unwrap();
        assert!(wake.read(&mut [0; 8]).is_err(), "a wake without a block");
        assert_eq!(outboxes[1].hand_over(b"one\n".to_vec(), 1).unwrap().capacity(), 0);
        outboxes[1].hand_over(b"two\n".to_vec(), 1).unwrap();
        outboxes[0].hand_over(b"other\n".to_vec(), 1).unwrap();
        assert_eq!(wake.read(&mut [0; 8]).unwrap(), 1, "one wake for three blocks");
        inbox.clear_wake();
        let mut from = 0;
        let taken = std::iter::from_fn(|| inbox.take(&mut from)).collect::<Vec<_>>();
        let shards = taken.iter().map(|(shard, _)| *shard).collect::<Vec<_>>();
        assert_eq!(shards, [0, 1, 1]);
        assert_eq!(taken[1].1, b"one\n");
        for (shard, block) in taken {
            inbox.give_back(shard, block);
        }
        let next = outboxes[1].hand_over(b"three\n".to_vec(), 1).unwrap();
        assert!(next.is_empty() && next.capacity() >= 4);
        assert_eq!(wake.read(&mut [0; 8]).unwrap(), 1, "the bell rings again after it was cleared");
    }

    #[test]
    fn a_full_queue_loses_and_counts() {
        let (inbox, outboxes, _wake) = channel(1).unwrap();
        for _ in 0..BLOCKS_PER_SHARD {
            outboxes[0].hand_over(b"kept\n".to_vec(), 1).unwrap();
        }
        assert_eq!(inbox.lost(), Lost::default());
        let reused = outboxes[0].hand_over(b"a\nb\nc\n".to_vec(), 3).unwrap_err();
        assert!(reused.is_empty() && reused.capacity() >= 6, "the refused block is filled anew");
        assert_eq!(inbox.lost(), Lost { blocks: 1, lines: 3 });
        let mut from = 0;
        assert_eq!(std::iter::from_fn(|| inbox.take(&mut from)).count(), BLOCKS_PER_SHARD);
    }
}
