//! The access log on a shard: one JSON line per exchange, gathered in blocks and handed to the control
//! thread, which writes them.
//!
//! Owns: the text of a line ([`Record`], [`Format`]), a shard's current block ([`ShardLog`]) and the queue
//! between the threads ([`channel`]). Never: a file, a lock, or a wait. A shard whose queue is full drops
//! the block and counts its lines; a slow disk must not slow requests.
//!
//! Invariant: every block is a whole number of lines, and every line is one JSON object whatever bytes a
//! client put into its request.
//!
//! Next to read: [`record`].

mod block;
mod escape;
mod number;
mod queue;
pub mod record;
pub mod redact;

pub use block::{BLOCK_BYTES, FLUSH_AFTER_NS, ShardLog};
pub use number::date_time;
pub use queue::{Inbox, Lost, Outbox, channel};
pub use record::{Durations, Format, Hop, Record};
pub use redact::Redaction;
