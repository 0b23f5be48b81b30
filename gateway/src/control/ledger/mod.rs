//! The ledger: what kernel and proxy know of a source, in one answer, and what an operator orders about it.
//!
//! Owns the questions behind `portcullis ban`, `bans`, `why`, `top` and `drops`, the shapes of their answers, which
//! tools may rely on (fields are added, not renamed), and what only these need to remember: the reasons of bans, and
//! the samples of dropped packets. Never: a verdict about a packet or a request. A ban is a word in the table of
//! sources; kernel and shards read it there.
//!
//! Invariant: everything remembered is bounded, whatever clients do.

mod bans;
mod drops;
mod memory;
mod top;
mod why;

use ipnet::IpNet;
use portcullis_abi::{Block, Reason};
use portcullis_config::Config;
use tokio::sync::oneshot;

pub use bans::{Ban, BanBook, BanOrder, Bans, Given, Refusal};
pub use drops::{DropLog, Drops, Raw, Sample};
pub use memory::Memory;
pub use top::{RouteTop, ShardTop, SourceTop, Spread, TargetTop, Top};
pub use why::Why;

use super::status::KernelStatus;
use super::trusted::{self, Trusted};
use crate::kernel::Kernel;
use crate::limit::Table;
use crate::metrics::{LedgerCounts, Registry};
use crate::shard::Shards;
use crate::snapshot::Snapshot;

/// A question to the ledger, with the way back for its answer.
pub enum Ask {
    Ban(BanOrder, oneshot::Sender<Result<Ban, Refusal>>),
    Unban(IpNet, oneshot::Sender<Result<(), Refusal>>),
    Bans(oneshot::Sender<Bans>),
    Why(std::net::IpAddr, oneshot::Sender<Box<Why>>),
    Top(oneshot::Sender<Box<Top>>),
    /// Samples after this number, at most so many.
    Drops(u64, usize, oneshot::Sender<Drops>),
}

/// The data plane as the ledger sees it.
pub struct View<'a> {
    pub config: &'a Config,
    pub snapshot: &'a Snapshot,
    pub registry: &'a Registry,
    pub table: &'a Table,
    pub shards: &'a Shards,
    pub cores: &'a [usize],
    pub kernel: KernelStatus,
    /// The loaded program, for questions.
    pub program: Option<&'a Kernel>,
    /// Packets by reason; empty without the kernel part.
    pub packets: Vec<u64>,
    pub trusted: Vec<Trusted>,
    pub now_ns: u64,
    /// Seconds since 1970.
    pub now_unix: u64,
}

impl View<'_> {
    /// The wall-clock second of a monotonic moment.
    pub fn unix(&self, at_ns: u64) -> u64 {
        let seconds = |ns: u64| ns / 1_000_000_000;
        match at_ns.checked_sub(self.now_ns) {
            Some(ahead) => self.now_unix + seconds(ahead + 500_000_000),
            None => self.now_unix.saturating_sub(seconds(self.now_ns - at_ns)),
        }
    }

    /// Why `prefix`, or a part of it, is not to be banned.
    pub fn trusted_at(&self, prefix: IpNet) -> Option<Trusted> {
        let listed = || trusted::listed(&self.snapshot.kernel_lists.named, prefix);
        trusted::overlapping(&self.trusted, prefix).cloned().or_else(listed)
    }

    /// Whether the kernel part drops anything but what an operator has banned.
    pub fn kernel_drops(&self) -> bool {
        self.kernel.mode != "off" && self.kernel.enforcement == "enforce" && !self.kernel.dead
    }
}

/// What the ledger remembers.
#[derive(Default)]
pub struct Ledger {
    pub book: BanBook,
    pub drops: DropLog,
    pub memory: Memory,
}

impl Ledger {
    /// Answers. True: the banned prefixes are others now, and the kernel's lists are to follow.
    pub fn answer(&mut self, ask: Ask, view: &View<'_>) -> bool {
        // An asker that went away is no concern of ours.
        match ask {
            Ask::Ban(order, reply) => {
                let given = self.book.ban(&order, view);
                let wide = given.as_ref().is_ok_and(|ban| ban.wide);
                if given.is_ok() {
                    self.memory.keep(self.book.orders());
                }
                drop(reply.send(given));
                return wide;
            }
            Ask::Unban(source, reply) => {
                let wide = self.book.is_wide(source);
                let ended = self.book.unban(source, view);
                if ended.is_ok() {
                    self.memory.keep(self.book.orders());
                }
                drop(reply.send(ended));
                return wide;
            }
            Ask::Bans(reply) => drop(reply.send(self.book.list(view))),
            Ask::Why(address, reply) => drop(reply.send(Box::new(why::why(address, self, view)))),
            Ask::Top(reply) => drop(reply.send(Box::new(top::top(view)))),
            Ask::Drops(after, max, reply) => drop(reply.send(self.drops.after(after, max, view))),
        }
        false
    }

    /// What is counted here. Reads the whole table of sources: for a scrape.
    pub fn counts(&self, table: &Table, now_ns: u64) -> LedgerCounts {
        let words = table.banned(now_ns, usize::MAX);
        let by_operator =
            |word: &&(u64, Block)| matches!(word.1, Block::Banned { reason: Reason::SourceBanned, .. });
        let singles = words.iter().filter(by_operator).count();
        LedgerCounts {
            banned_by_operator: (singles + self.book.wide().count()) as u64,
            banned_by_behaviour: (words.len() - singles) as u64,
            operator_bans: self.book.ordered(),
            samples_taken: self.drops.taken(),
        }
    }

    /// Forgets bans that have ended. True: a prefix was among them.
    pub fn beat(&mut self, now_ns: u64) -> bool {
        let before = self.book.given();
        let wide = self.book.expire(now_ns);
        if self.book.given() != before {
            self.memory.keep(self.book.orders());
        }
        wide
    }
}
