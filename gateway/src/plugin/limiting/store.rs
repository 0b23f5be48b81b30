//! Counts that several gateways share: in Redis.
//!
//! Owns when Redis is asked, and what holds while it does not answer. Never waits for it longer than its time limit.
//!
//! | `sync_rate` | a request |
//! |---|---|
//! | -1: strict | waits for one call of the script, which decides |
//! | n: asynchronous | is decided in memory; every n seconds what was counted is added in Redis, and what all have counted comes back |
//!
//! While Redis is away each gateway keeps to its part of every limit, in memory, from the counts that were known last; or
//! refuses with 500, where `fault_tolerant: false` asks for that.
//!
//! **Invariant.** At most [`PENDING_MAX`] keys of a shard wait to be added, and their counts are not lost while Redis is
//! away for less than their windows.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Limits;
use super::script::{self, Call, Mode};
use crate::limit::{Limiter, Moment, Raw};
use crate::net::{self, clock};
use crate::plugin::redis::{Away, Client, Script, Server};

/// Keys of a shard that wait to be added. More are counted in memory alone.
const PENDING_MAX: usize = 1 << 16;

/// A compiled store; one for all shards.
pub struct StoreSpec {
    pub server: Arc<Server>,
    pub script: Script,
    pub namespace: String,
    /// Between two exchanges; `None` for one at each request.
    pub sync: Option<Duration>,
    /// Whether requests pass while Redis is away.
    pub fault_tolerant: bool,
    /// How many gateways share the limits.
    pub gateways: u64,
}

/// A store as one shard uses it.
pub struct Store {
    pub spec: Arc<StoreSpec>,
    client: Rc<Client>,
    pending: RefCell<HashMap<Pending, u64>>,
    known: RefCell<Vec<Known>>,
    /// A task exchanges counts.
    syncing: Cell<bool>,
    /// Additions under way.
    adding: Cell<usize>,
}

/// What is to be added: in which tier, to whom, in memory and by name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pending {
    pub tier: usize,
    pub key: u64,
    pub by_address: bool,
    pub name: Box<str>,
}

/// What came back of an addition, at the moment of it.
struct Known {
    of: Pending,
    raws: Vec<Raw>,
    moment: Moment,
}

impl Store {
    pub fn new(spec: Arc<StoreSpec>) -> Rc<Self> {
        let client = Client::of(&spec.server);
        Rc::new(Self {
            spec,
            client,
            pending: RefCell::default(),
            known: RefCell::default(),
            syncing: Cell::new(false),
            adding: Cell::new(0),
        })
    }

    /// Whether Redis is known to be away.
    pub fn is_away(&self, name: &str) -> bool {
        self.client.is_away(format!("{{{}:{name}}}", self.spec.namespace).as_bytes())
    }

    /// Checks and charges there.
    ///
    /// # Errors
    /// [`Away`] where it does not answer.
    pub async fn check(
        &self,
        limiter: &Limiter,
        name: &str,
        moment: Moment,
        cost: u64,
        mode: Mode,
    ) -> Result<(bool, Vec<Raw>), Away> {
        let call = Call::new(limiter, &self.spec.namespace, name, moment, cost, mode);
        let keys: Vec<&[u8]> = call.keys.iter().map(Vec::as_slice).collect();
        let arguments: Vec<&[u8]> = call.arguments.iter().map(Vec::as_slice).collect();
        script::read(limiter, moment, &self.client.run(&self.spec.script, &keys, &arguments).await?)
    }

    /// Notes that `cost` was counted in memory, to be added after a while. `offset` is how far the wall clock is ahead of
    /// the monotonic one.
    pub fn note(self: &Rc<Self>, limits: &Arc<Limits>, pending: Pending, cost: u64, offset: u64) {
        let mut all = self.pending.borrow_mut();
        if all.len() < PENDING_MAX || all.contains_key(&pending) {
            *all.entry(pending).or_default() += cost;
        }
        drop(all);
        if let Some(pause) = self.spec.sync.filter(|_| !self.syncing.replace(true)) {
            net::spawn(self.clone().exchange(limits.clone(), pause, offset));
        }
    }

    /// Adds what waits, after a pause, for as long as there is anything.
    async fn exchange(self: Rc<Self>, limits: Arc<Limits>, pause: Duration, offset: u64) {
        loop {
            net::sleep(pause).await;
            let all = self.pending.take();
            if all.is_empty() && self.adding.get() == 0 {
                break;
            }
            // Side by side: they go out in one batch.
            self.adding.set(self.adding.get() + all.len());
            for (of, cost) in all {
                net::spawn(self.clone().add(limits.clone(), of, cost, offset));
            }
        }
        self.syncing.set(false);
    }

    async fn add(self: Rc<Self>, limits: Arc<Limits>, of: Pending, cost: u64, offset: u64) {
        let now = clock::now_ns();
        let moment = Moment { now, wall: now.wrapping_add(offset) };
        let limiter = &limits.tiers[of.tier].limiter;
        match self.check(limiter, &of.name, moment, cost, Mode::Add).await {
            Ok((_, raws)) => self.known.borrow_mut().push(Known { of, raws, moment }),
            // Perhaps it was added: too much is counted then, and never too little.
            Err(Away) => *self.pending.borrow_mut().entry(of).or_default() += cost,
        }
        self.adding.set(self.adding.get() - 1);
    }

    /// Takes over what came back since the last time: `adopt` raises the counts in memory.
    pub fn learn(&self, limits: &Limits, adopt: impl Fn(&Pending, Moment, &[Raw])) {
        if self.known.borrow().is_empty() {
            return;
        }
        for Known { of, mut raws, moment } in self.known.take() {
            // Counted here since, and not there yet.
            let since = self.pending.borrow().get(&of).copied().unwrap_or(0);
            let limiter = &limits.tiers[of.tier].limiter;
            for (raw, quota) in raws.iter_mut().zip(limiter.quotas()) {
                match raw {
                    Raw::Count(count) => *count += since,
                    Raw::Counts(counts) => counts.current += since,
                    Raw::Debt(debt) => *debt += since.saturating_mul(limiter.rate(quota).interval_ns),
                    Raw::Log(_) => {}
                }
            }
            adopt(&of, moment, &raws);
        }
    }
}
