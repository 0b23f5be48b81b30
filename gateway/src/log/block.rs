//! The block of lines that a shard is filling.
//!
//! Owns: when a block is handed over: at 64 KiB, or once it is 100 ms old. Never: a clock or a timer; the
//! shard's loop says what time it is.

use super::queue::Outbox;
use super::record::{Format, Record};

/// A shard's access log.
#[derive(Debug)]
pub struct ShardLog {
    format: Format,
    block: Vec<u8>,
    lines: u64,
    lost: u64,
    /// When the first line of the block was written, ns of the monotonic clock.
    opened_ns: u64,
    outbox: Outbox,
}

impl ShardLog {
    /// An empty block in front of `outbox`.
    pub fn new(format: Format, outbox: Outbox) -> Self {
        Self { format, block: Vec::new(), lines: 0, lost: 0, opened_ns: 0, outbox }
    }

    /// Writes one line; hands the block over if it is full.
    pub fn write(&mut self, now_ns: u64, record: &Record<'_>) {
        if self.block.is_empty() {
            self.block.reserve(BLOCK_BYTES + LINE_ROOM);
            self.opened_ns = now_ns;
        }
        self.format.append(record, &mut self.block);
        self.lines += 1;
        if self.block.len() >= BLOCK_BYTES {
            self.flush();
        }
    }

    /// Hands over a block that is 100 ms old. For the shard's coarse tick; costs one comparison otherwise.
    pub fn tick(&mut self, now_ns: u64) {
        if !self.block.is_empty() && now_ns.saturating_sub(self.opened_ns) >= FLUSH_AFTER_NS {
            self.flush();
        }
    }

    /// Hands over whatever there is: before a shard ends.
    pub fn flush(&mut self) {
        if !self.block.is_empty() {
            let block = std::mem::take(&mut self.block);
            let lines = std::mem::take(&mut self.lines);
            let handed_over = self.outbox.hand_over(block, lines);
            if handed_over.is_err() {
                self.lost += lines;
            }
            self.block = handed_over.unwrap_or_else(|refused| refused);
        }
    }

    /// Lines lost to a full queue since the last call, for the shard's counter.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Replaces the formatter, as a new configuration does. Lines already written stay as they are.
    pub fn set_format(&mut self, format: Format) {
        self.format = format;
    }
}

/// Bytes after which a block is handed over. A block ends with the line that reaches it.
pub const BLOCK_BYTES: usize = 64 * 1024;

/// Age at which a block is handed over, in nanoseconds.
pub const FLUSH_AFTER_NS: u64 = 100_000_000;

/// Room for the last line: longer than nearly all, so that a block is allocated once.
const LINE_ROOM: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::super::record::{Durations, Hop};
    use super::super::{Inbox, channel};
    use super::*;

    fn record() -> Record<'static> {
        Record {
            unix_ms: 0,
            request_id: None,
            source: "192.0.2.1:4321".parse().unwrap(),
            client: "192.0.2.1".parse().unwrap(),
            method: Some(b"GET"),
            host: None,
            path: Some(b"/"),
            query: None,
            status: 200,
            reason: None,
            route: None,
            service: None,
            consumer: None,
            upstream: None,
            attempts: 0,
            request_bytes: 0,
            response_bytes: 0,
            durations: Durations::default(),
            user_agent: None,
            headers: &[],
            tls: None,
            hop: Hop::default(),
            http: "1.1",
            generation: 1,
            shard: 0,
        }
    }

    fn take(inbox: &Inbox) -> Option<Vec<u8>> {
        inbox.take(&mut 0).map(|(_, block)| block)
    }

    #[test]
    fn a_block_goes_when_it_is_old_or_full_or_flushed() {
        let (inbox, mut outboxes, _wake) = channel(1).unwrap();
        let mut log = ShardLog::new(Format::default(), outboxes.remove(0));
        log.tick(u64::MAX);
        log.write(1_000, &record());
        log.tick(1_000 + FLUSH_AFTER_NS - 1);
        assert!(take(&inbox).is_none());
        log.tick(1_000 + FLUSH_AFTER_NS);
        assert_eq!(take(&inbox).unwrap().iter().filter(|byte| **byte == b'\n').count(), 1);

        let mut written = 0_usize;
        let full = loop {
            log.write(2_000, &record());
            written += 1;
            if let Some(block) = take(&inbox) {
                break block;
            }
        };
        assert!(full.len() >= BLOCK_BYTES && full.len() < BLOCK_BYTES + LINE_ROOM);
        assert_eq!(full.iter().filter(|byte| **byte == b'\n').count(), written);
        assert_eq!(full.last(), Some(&b'\n'));

        log.write(3_000, &record());
        log.flush();
        log.flush();
        assert!(take(&inbox).is_some() && take(&inbox).is_none());

        assert_eq!(log.take_lost(), 0);
        for _ in 0..100 {
            log.write(4_000, &record());
            log.write(4_000, &record());
            log.flush();
        }
        let lost = log.take_lost();
        assert!(lost > 0 && lost.is_multiple_of(2));
        assert_eq!((inbox.lost().lines, log.take_lost()), (lost, 0));
    }
}
