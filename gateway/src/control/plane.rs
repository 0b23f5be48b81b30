//! What control needs of the data plane, and nothing more.
//!
//! Owns: the seam between the control thread and the shards. Never: how a shard works. The reload, drain and
//! admin code is written against [`Plane`], so that it is tested with a plane that only pretends.
//!
//! Invariant: [`Plane::install`] either puts the whole generation in force or changes nothing.

use std::io;
use std::sync::Arc;

use portcullis_config::{Config, Diagnostic};

use super::ledger;
use super::status::PlaneStatus;
use super::upgrade::Handover;
use crate::id::Generation;

/// The step from a validated configuration to a generation that can be installed. Slow (regular expressions,
/// certificates, names to resolve), so it runs on a thread of its own. Warnings come beside the generation.
pub type Compile<C> = Box<dyn FnOnce(Arc<Config>, Generation) -> Compiled<C> + Send>;

/// A generation with warnings, or all that is wrong with it.
pub type Compiled<C> = Result<(C, Vec<Diagnostic>), Vec<Diagnostic>>;

/// The shards with their listeners, tables and counters, as the control thread sees them.
pub trait Plane {
    /// A compiled generation.
    type Compiled: Send + 'static;

    /// A compiler for the next generation, made on the control thread and run elsewhere.
    fn compiler(&self) -> Compile<Self::Compiled>;

    /// Binds what is new, then publishes to every shard, then closes what is no longer listened on and brings
    /// the kernel tables in line.
    ///
    /// # Errors
    /// A socket cannot be bound. Nothing has changed then.
    fn install(&mut self, compiled: Self::Compiled) -> Result<(), Vec<Diagnostic>>;

    /// An operator has asked for the generation that is installed next: limits that were switched off by themselves are armed
    /// again with it.
    fn rearm(&mut self) {}

    /// Whether what the generation was compiled from has changed outside of the configuration: the addresses of names, and
    /// the routers of this host.
    fn is_outdated(&self) -> bool {
        false
    }

    /// Once a second: the sign of life that the kernel program waits for, health words, and what else is due.
    fn beat(&mut self);

    /// Whether every shard has taken up its work.
    fn is_running(&self) -> bool;

    /// Answers say from now on that their connection ends; new ones are still accepted.
    fn retire(&mut self);

    /// Stops accepting; shards end idle connections now and busy ones after their exchange.
    fn drain(&mut self);

    /// What a successor gets: the listening sockets once more, and the orders of operators.
    ///
    /// # Errors
    /// There are no descriptors left.
    fn hand_over(&self) -> io::Result<Handover>;

    /// Takes what a predecessor hands over; before the first generation is installed.
    fn take_over(&mut self, handover: Handover);

    /// As [`Plane::drain`], after the sockets were handed over: they stay open.
    fn leave(&mut self);

    /// Whether no connection is open any more and the shards' threads have ended.
    fn is_drained(&self) -> bool;

    /// Tells the shards' threads to end now, cutting what is open; [`Plane::is_drained`] says when they have.
    /// Their last log lines are in the queue then.
    fn stop(&mut self);

    /// Counts a reload: whether it went well, the generation now in force, and when (seconds since 1970).
    fn reloaded(&self, ok: bool, generation: Generation, at: u64);

    /// Counts a change of certificate or key files: whether they could be used, and the generation now in force.
    fn refreshed(&self, ok: bool, generation: Generation);

    /// Answers a question to the ledger; drops it when nothing is in force yet.
    fn answer(&mut self, ask: ledger::Ask);

    /// What is to be told about it now.
    fn status(&self) -> PlaneStatus;

    /// Every metric in the Prometheus text format, version 0.0.4.
    fn metrics(&self) -> String;
}
