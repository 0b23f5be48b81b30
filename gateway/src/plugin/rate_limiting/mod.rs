//! `rate-limiting`: how many requests somebody may make in a second, minute, hour, day, month or year.
//!
//! Owns the choice of what is counted together, the headers that tell the client, and the answer to who is over the
//! limit. Never counts by itself: that is [`WindowLimiter`], whose windows are Kong's and exact across shards.
//!
//! | `limit_by` | counted together | where |
//! |---|---|---|
//! | `ip` | a client address, IPv6 by its /64 | the table of sources |
//! | others | a consumer, a credential, a header's value, ... | the table of limit keys |
//!
//! A request that lacks what it is to be counted by (no consumer, no such header, another path) is counted by its
//! client address, as in Kong. Counts belong to the plugin instance, so they survive a reload and are not shared by
//! two instances.
//!
//! **Invariant.** A request that is let through allocates nothing but room in the warm arena of its response fields.

mod settings;

use std::any::Any;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;

use super::{Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::head::decimal;
use crate::http::{FieldName, Head, RequestHead};
use crate::limit::{Decision, LimiterId, Table, WindowLimiter, limit_key, source_key};
use crate::metrics::LimiterDecision;

/// Kong's plugin of this name.
pub static REGISTRATION: Registration = Registration {
    name: "rate-limiting",
    priority: 910,
    section: &settings::RATE_LIMITING,
    compile: settings::compile,
};

/// What requests are counted by.
#[derive(Debug)]
enum LimitBy {
    Consumer,
    Credential,
    Ip,
    Service,
    Header(FieldName),
    /// Requests for this path together; all others by address.
    Path(Box<[u8]>),
}

/// The compiled plugin; one for all shards, as it has no state.
struct RateLimiting {
    id: LimiterId,
    limiter: WindowLimiter,
    limit_by: LimitBy,
    /// `None` where the client is not to be told.
    fields: Option<LimitFields>,
    status: u16,
    message: Cow<'static, str>,
}

impl PluginSpec for RateLimiting {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(Instance(self))
    }
}

struct Instance(Arc<RateLimiting>);

impl Plugin for Instance {
    fn on_request(&self, cx: &mut Cx<'_>, head: &mut RequestHead) -> Flow {
        let plugin = &*self.0;
        let (table, key) = plugin.place(cx, head);
        // Since 1970, so it fits until 2554.
        let wall = cx.wall.as_nanos() as u64;
        let decision = plugin.limiter.check(table, key, cx.now_ns, wall, 1);
        if let Some(fields) = &plugin.fields {
            fields.tell(&decision, &mut cx.response_fields);
        }
        if decision.allowed() {
            cx.limiter = Some(LimiterDecision::Conforming);
            return Flow::Continue;
        }
        cx.limiter = Some(LimiterDecision::Limited);
        Flow::Respond(Response::new(plugin.status, Reason::RateLimited, plugin.message.clone()))
    }
}

impl RateLimiting {
    /// Where the request is counted. The kind is part of the key, so that no header's value can be somebody's name.
    fn place<'a>(&self, cx: &Cx<'a>, head: &RequestHead) -> (&'a Table, u64) {
        let consumers = cx.consumers;
        let key = |kind: &[u8], identity: &[u8]| limit_key(self.id, &[kind, identity]);
        let credential = || {
            let credential = consumers.credential(cx.identity.credential?);
            let consumer = &consumers.consumer(credential.consumer).id;
            Some(limit_key(self.id, &[b"credential", consumer.as_bytes(), credential.identifier.as_bytes()]))
        };
        let key = match &self.limit_by {
            LimitBy::Ip => None,
            LimitBy::Consumer => match cx.identity.consumer {
                Some(consumer) => Some(key(b"consumer", consumers.consumer(consumer).id.as_bytes())),
                None => credential(),
            },
            LimitBy::Credential => credential(),
            LimitBy::Service => cx.service_name.map(|name| key(b"service", name.as_bytes())),
            LimitBy::Header(name) => head.head.get_field(name).map(|value| key(b"header", value)),
            LimitBy::Path(path) => (head.path() == &**path).then(|| key(b"path", path)),
        };
        match key {
            Some(key) => (cx.limit_table, key),
            None => (cx.table, limit_key(self.id, &[b"ip", &source_key(cx.client).to_ne_bytes()])),
        }
    }
}

/// The header fields that tell a client how it stands: Kong's own, one pair for each window, and those of the older
/// IETF draft for the tightest.
struct LimitFields {
    /// Those that say the same to everybody: `X-RateLimit-Limit-Minute: 60`, ...
    constant: Head,
    /// `X-RateLimit-Remaining-Minute`, ... in the order of the limiter's windows.
    remaining: Box<[FieldName]>,
    tightest_limit: FieldName,
    tightest_remaining: FieldName,
    tightest_reset: FieldName,
    retry_after: FieldName,
}

impl LimitFields {
    fn tell(&self, decision: &Decision, out: &mut Head) {
        let mut digits = [0; 20];
        let mut number = |name: &FieldName, value: u64, out: &mut Head| {
            out.append_field(name, decimal(value, &mut digits));
        };
        out.append_head(&self.constant);
        for (name, window) in self.remaining.iter().zip(decision.windows()) {
            number(name, window.remaining, out);
        }
        let tightest = decision.tightest();
        number(&self.tightest_limit, tightest.limit, out);
        number(&self.tightest_remaining, tightest.remaining, out);
        number(&self.tightest_reset, tightest.reset_seconds, out);
        if let Some(stopped) = decision.stopped_by() {
            number(&self.retry_after, stopped.reset_seconds, out);
        }
    }
}

#[cfg(test)]
mod tests;
