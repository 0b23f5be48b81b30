//! What the plugins that limit requests have in common: how a check of a compiled limit becomes an answer.
//!
//! Owns who is exempt, which tier somebody is of, what a request costs, dry runs, delays and refusals. Never counts by
//! itself: that is [`crate::limit::Limiter`].
//!
//! | file | what |
//! |---|---|
//! | `key` | what requests are counted by |
//! | `told` | what the client is told |
//! | `settings` | the keys that several plugins have |
//! | `store`, `script` | counts that several gateways share, in Redis |
//!
//! **Invariant.** A request that is let through by a limit in memory allocates nothing but room in the warm arena of its
//! response fields, a sliding log aside.

pub mod key;
mod script;
pub mod settings;
pub mod store;
pub mod told;

use std::any::Any;
use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_abi::Reason;

use self::script::Mode;
use self::store::{Pending, Store, StoreSpec};
use super::redis::Away;
use super::{Cx, Flow, Plugin, PluginSpec, Response, Resume, Wants};
use crate::http::RequestHead;
use crate::id::ConsumerId;
use crate::limit::{CidrSet, Decision, Limiter, LimiterId, Logs, Moment, Place, Raw};
use crate::metrics::LimiterDecision;
use crate::net;
pub use key::LimitKey;
pub use told::LimitFields;

/// A compiled limit; one for all shards.
pub struct Limits {
    pub id: LimiterId,
    /// The first is everybody's who is of no other.
    pub tiers: Vec<Tier>,
    pub key: LimitKey,
    pub exempt: Exempt,
    pub cost: Cost,
    pub dry_run: bool,
    pub status: u16,
    pub message: Cow<'static, str>,
    /// Most seconds that are added to `Retry-After` at random.
    pub jitter: u64,
    /// The logs of each tier.
    pub logs: Arc<Vec<Vec<Logs>>>,
    /// Where counts are kept; in memory if there is none.
    pub store: Option<Arc<StoreSpec>>,
}

/// What some may do.
pub struct Tier {
    pub members: Members,
    pub limiter: Limiter,
    /// The part of it that this gateway keeps to by itself.
    pub alone: Limiter,
    /// `None` where the client is not to be told.
    pub fields: Option<LimitFields>,
}

/// Consumers, by name or by group.
#[derive(Default)]
pub struct Members {
    pub consumers: Vec<ConsumerId>,
    pub groups: Vec<String>,
}

/// Whom a limit does not concern.
#[derive(Default)]
pub struct Exempt {
    pub members: Members,
    pub addresses: CidrSet,
}

/// What a request counts for.
pub struct Cost {
    pub base: u64,
    /// By name, where a route has a cost of its own.
    pub routes: Vec<(String, u64)>,
}

impl Members {
    fn include(&self, cx: &Cx<'_>) -> bool {
        let Some(consumer) = cx.identity.consumer else { return false };
        let groups = || &cx.consumers.consumer(consumer).groups;
        self.consumers.contains(&consumer)
            || (!self.groups.is_empty() && groups().iter().any(|group| self.groups.contains(group)))
    }
}

impl Exempt {
    /// Whether the request is from one of them.
    pub fn includes(&self, cx: &Cx<'_>) -> bool {
        self.members.include(cx) || self.addresses.contains(cx.client)
    }
}

impl Cost {
    /// What the request counts for.
    pub fn of(&self, cx: &Cx<'_>) -> u64 {
        let own = self.routes.iter().find(|(route, _)| route == cx.route_name);
        own.map_or(self.base, |(_, cost)| *cost)
    }
}

impl PluginSpec for Limits {
    /// The logs of the generation before go on where the limit is the same.
    fn instantiate(self: Arc<Self>, previous: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        let kept = previous.and_then(|state| state.downcast::<Memory>().ok());
        let logs = kept
            .filter(|kept| self.fits(&kept.logs))
            .map_or_else(|| self.logs.clone(), |kept| kept.logs.clone());
        let store = self.store.clone().map(Store::new);
        Rc::new(OnShard { limits: self, memory: Rc::new(Memory { logs }), store })
    }

    fn wants(&self) -> Wants {
        Wants { claims: self.key.wants_claims(), ..Wants::default() }
    }
}

/// What goes on across reloads.
struct Memory {
    logs: Arc<Vec<Vec<Logs>>>,
}

#[derive(Clone)]
struct OnShard {
    limits: Arc<Limits>,
    memory: Rc<Memory>,
    store: Option<Rc<Store>>,
}

/// One check.
#[derive(Clone, Copy)]
struct Case {
    tier: usize,
    cost: u64,
    moment: Moment,
}

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, head: &mut RequestHead) -> Flow {
        let limits = &*self.limits;
        let cost = limits.cost.of(cx);
        if limits.exempt.includes(cx) || cost == 0 {
            return Flow::Continue;
        }
        let tier =
            limits.tiers.iter().skip(1).position(|tier| tier.members.include(cx)).map_or(0, |at| at + 1);
        let case = Case { tier, cost, moment: moment(cx) };
        match &self.store {
            None => {
                let decision = self.in_memory(&limits.tiers[tier].limiter, case, cx, head);
                limits.conclude(tier, &decision, cx)
            }
            Some(store) if store.spec.sync.is_some() => self.asynchronous(store, case, cx, head),
            Some(store) => self.strict(store, case, cx, head),
        }
    }

    fn state(&self) -> Option<Rc<dyn Any>> {
        Some(self.memory.clone())
    }
}

impl OnShard {
    fn in_memory(&self, limiter: &Limiter, case: Case, cx: &Cx<'_>, head: &RequestHead) -> Decision {
        let (table, key) = self.limits.key.place(self.limits.id, cx, head);
        let place = Place { table, logs: &self.memory.logs[case.tier], key };
        limiter.check(place, case.moment, case.cost)
    }

    /// The store decides, and the request waits for it.
    fn strict(&self, store: &Rc<Store>, case: Case, cx: &mut Cx<'_>, head: &RequestHead) -> Flow {
        let name = self.limits.key.name(cx, head);
        let name = String::from_utf8_lossy(&name).into_owned();
        if store.is_away(&name) {
            return self.alone(store, case, cx, head);
        }
        let (this, store) = (self.clone(), store.clone());
        Flow::Wait(Box::pin(async move {
            let limiter = &this.limits.tiers[case.tier].limiter;
            let outcome = store.check(limiter, &name, case.moment, case.cost, Mode::Check).await;
            let resume: Resume = Box::new(move |cx, head| match outcome {
                Ok((charged, raws)) => this.shared(case, charged, &raws, cx, head),
                Err(Away) => this.alone(&store, case, cx, head),
            });
            resume
        }))
    }

    /// The store has decided. What it knows goes into memory too, for the time when it is away.
    fn shared(&self, case: Case, charged: bool, raws: &[Raw], cx: &mut Cx<'_>, head: &RequestHead) -> Flow {
        let limiter = &self.limits.tiers[case.tier].limiter;
        let (table, key) = self.limits.key.place(self.limits.id, cx, head);
        limiter.adopt(Place { table, logs: &[], key }, case.moment, raws);
        self.limits.conclude(case.tier, &limiter.tell(raws, charged, case.moment, case.cost), cx)
    }

    /// The store does not answer: this gateway keeps to its part.
    fn alone(&self, store: &Store, case: Case, cx: &mut Cx<'_>, head: &RequestHead) -> Flow {
        cx.limited_alone = true;
        if !store.spec.fault_tolerant && !self.limits.dry_run {
            let message = "An unexpected error occurred";
            return Flow::Respond(Response::new(500, Reason::LimiterUnavailable, message));
        }
        let decision = self.in_memory(&self.limits.tiers[case.tier].alone, case, cx, head);
        self.limits.conclude(case.tier, &decision, cx)
    }

    /// Memory decides, from what the store knew a moment ago.
    fn asynchronous(&self, store: &Rc<Store>, case: Case, cx: &mut Cx<'_>, head: &RequestHead) -> Flow {
        let limits = &self.limits;
        store.learn(limits, |of, moment, raws| {
            let table = if of.by_address { cx.table } else { cx.limit_table };
            let place = Place { table, logs: &[], key: of.key };
            limits.tiers[of.tier].limiter.adopt(place, moment, raws);
        });
        let name = limits.key.name(cx, head);
        let name: Box<str> = String::from_utf8_lossy(&name).into();
        if store.is_away(&name) {
            return self.alone(store, case, cx, head);
        }
        let tier = &limits.tiers[case.tier];
        let decision = self.in_memory(&tier.limiter, case, cx, head);
        if decision.allowed() || tier.limiter.penalty() {
            let (table, key) = limits.key.place(limits.id, cx, head);
            let by_address = std::ptr::eq(table, cx.table);
            let offset = case.moment.wall.wrapping_sub(case.moment.now);
            store.note(limits, Pending { tier: case.tier, key, by_address, name }, case.cost, offset);
        }
        limits.conclude(case.tier, &decision, cx)
    }
}

/// When the request came.
fn moment(cx: &Cx<'_>) -> Moment {
    // Since 1970, so it fits until 2554.
    Moment { now: cx.now_ns, wall: cx.wall.as_nanos() as u64 }
}

impl Limits {
    /// Whether logs are of the same limits.
    fn fits(&self, logs: &[Vec<Logs>]) -> bool {
        let fits = |(tier, logs): (&Tier, &Vec<Logs>)| {
            let quotas = tier.limiter.quotas();
            let same =
                quotas.iter().zip(logs).all(|(quota, logs)| logs.fits(quota.span.shortest_ns(), quota.limit));
            logs.is_empty() || (logs.len() == quotas.len() && same)
        };
        logs.len() == self.tiers.len() && self.tiers.iter().zip(logs).all(fits)
    }

    /// Tells the client, and lets the request pass, wait or end.
    fn conclude(&self, tier: usize, decision: &Decision, cx: &mut Cx<'_>) -> Flow {
        let allowed = decision.allowed();
        if let Some(fields) = self.tiers[tier].fields.as_ref().filter(|_| allowed || !self.dry_run) {
            let jitter = if allowed || self.jitter == 0 { 0 } else { random() % (self.jitter + 1) };
            fields.tell(decision, jitter, &mut cx.response_fields);
        }
        if !allowed && !self.dry_run {
            cx.limiter = Some(LimiterDecision::Limited);
            return Flow::Respond(Response::new(self.status, Reason::RateLimited, self.message.clone()));
        }
        cx.limiter = Some(if allowed { LimiterDecision::Conforming } else { LimiterDecision::DryRun });
        if decision.delay_ns == 0 || self.dry_run {
            return Flow::Continue;
        }
        let delay = Duration::from_nanos(decision.delay_ns);
        Flow::Wait(Box::pin(async move {
            net::sleep(delay).await;
            let resume: Resume = Box::new(|_, _| Flow::Continue);
            resume
        }))
    }
}

/// A number that nobody can foresee.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod differential_tests;
