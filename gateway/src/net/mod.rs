//! The driver behind one small surface: everything above this module sees [`Stream`] (receive into an owned
//! buffer, send one), [`Listener`], [`connect`], [`spawn`], [`sleep`] and [`deadline`], and never names the
//! runtime.
//!
//! Owns: the io_uring or epoll runtime of a shard, sockets, clocks, and the time limits of operations.
//! Never does: parse, encrypt or decide anything about the bytes it moves.
//!
//! **Invariant.** A future that owns a kernel buffer is never dropped in flight. A time limit does not drop the
//! operation; it shuts the socket down (`deadline`), the operation then completes by itself and is awaited.
//!
//! Read next: `stream.rs`, then `deadline.rs`.

pub mod clock;
pub mod deadline;
mod descriptors;
mod driver;
mod isolate;
mod listener;
mod mailbox;
mod pass;
mod stream;
mod thread;

pub use descriptors::raise_limit as raise_descriptor_limit;
pub use driver::{Driver, DriverChoice, ProbeError, block_on, pin_to_core, probe, sleep, spawn};
pub use isolate::spawn_isolated;
pub use listener::{Listener, bind, steer_by_core, steer_by_hash};
pub use mailbox::{MailReceiver, MailSender, mailbox};
pub use pass::{receive_descriptors, send_descriptors};
pub use stream::{ConnectError, Rx, Stream, Tx, connect};
pub use thread::give_way;
