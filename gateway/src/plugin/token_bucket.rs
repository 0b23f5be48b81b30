//! `token-bucket`: requests at a steady rate with room for bursts (Traefik's `rateLimit`).
//!
//! Owns the choice of whose requests are counted together, and what a client over the limit is told. The bucket is the
//! one of `portcullis_abi`: one word a key, exact across shards. Unlike Traefik it makes no request wait.
//!
//! **Invariant.** In any time t at most `t * average / period + burst` requests of one key pass.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_abi::{Charge, Rate, Reason};
use portcullis_config::{self as config, Diagnostics, Fields, Key, Kind, Section, schema::text, units::Bare};

use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::{FieldName, RequestHead};
use crate::limit::{LimiterId, Table, Word, limit_key, source_key};
use crate::metrics::LimiterDecision;

/// The plugin's line of the registry: beside `rate-limiting`.
pub static REGISTRATION: Registration =
    Registration { name: "token-bucket", priority: 909, section: &SECTION, compile };

/// `limit_by` and what it needs, for this plugin and `in-flight-limit`.
pub(super) const HEADER_NAME: Key =
    Key::new("header_name", Kind::Text(&text::HEADER_NAME), "The header for `limit_by: header`.");
pub(super) const WORDS: &[&str] = &["ip", "host", "header", "consumer", "route", "service"];

static SECTION: Section = Section::new(
    "token-bucket",
    "Limits requests to an average rate, with room for bursts.",
    &[
        Key::new("average", Kind::integer(1, u32::MAX as i64), "Requests in a `period`.").required(),
        Key::new(
            "period",
            Kind::Duration {
                bare: Bare::Seconds,
                min: Duration::from_millis(1),
                max: Duration::from_secs(86_400 * 366),
            },
            "The time that `average` is for; a bare number is seconds.",
        )
        .default("1s"),
        Key::new("burst", Kind::integer(0, u32::MAX as i64), "Requests at once after a pause; 0 lets none through.")
            .default("1"),
        Key::new(
            "limit_by",
            Kind::Word(WORDS),
            "Whose requests are counted together. A request that lacks it is counted by its client address; an IPv6 \
             address by its /64.",
        )
        .default("ip"),
        HEADER_NAME,
        Key::new("status", Kind::integer(400, 599), "Status of a refusal.").default("429"),
        Key::new("message", Kind::STRING, "Message of a refusal.").default("Too Many Requests"),
    ],
);

/// Whose requests are counted together.
pub(super) enum LimitBy {
    Ip,
    Host,
    Header(FieldName),
    Consumer,
    Route,
    Service,
}

impl LimitBy {
    /// From `limit_by` and `header_name`.
    pub(super) fn read(fields: &Fields<'_>) -> Option<LimitBy> {
        Some(match fields.word("limit_by") {
            "host" => LimitBy::Host,
            "header" => {
                let name = fields.optional_string("header_name").and_then(FieldName::new);
                if name.is_none() && !fields.has_unknown_keys() {
                    fields.error("limit_by", "`limit_by: header` needs `header_name`");
                }
                LimitBy::Header(name?)
            }
            "consumer" => LimitBy::Consumer,
            "route" => LimitBy::Route,
            "service" => LimitBy::Service,
            _ => LimitBy::Ip,
        })
    }

    /// Where and under which key the request is counted. The kind is part of the key.
    pub(super) fn place<'a>(&self, id: LimiterId, cx: &Cx<'a>, head: &RequestHead) -> (&'a Table, u64) {
        let key = |kind: &[u8], value: &[u8]| limit_key(id, &[kind, value]);
        let found = match self {
            LimitBy::Ip => None,
            LimitBy::Host => Some(key(b"host", head.host())),
            LimitBy::Header(name) => head.head.get_field(name).map(|value| key(b"header", value)),
            LimitBy::Consumer => cx
                .identity
                .consumer
                .map(|consumer| key(b"consumer", cx.consumers.consumer(consumer).id.as_bytes())),
            LimitBy::Route => Some(key(b"route", cx.route_name.as_bytes())),
            LimitBy::Service => cx.service_name.map(|name| key(b"service", name.as_bytes())),
        };
        match found {
            Some(key) => (cx.limit_table, key),
            None => (cx.table, key(b"ip", &source_key(cx.client).to_ne_bytes())),
        }
    }
}

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let average: u64 = fields.optional_integer("average")?;
    let burst: u64 = fields.integer("burst");
    let period = u64::try_from(fields.duration("period").as_nanos()).unwrap_or(u64::MAX);
    Some(Arc::new(TokenBucket {
        id: LimiterId::from_number(cx.instance),
        rate: (burst > 0).then(|| Rate::new(average, period, burst)),
        limit_by: LimitBy::read(&fields)?,
        status: fields.integer("status"),
        message: fields.string("message"),
    }))
}

struct TokenBucket {
    id: LimiterId,
    /// `None` lets nothing through.
    rate: Option<Rate>,
    limit_by: LimitBy,
    status: u16,
    message: String,
}

impl PluginSpec for TokenBucket {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }
}

struct OnShard(Arc<TokenBucket>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, head: &mut RequestHead) -> Flow {
        let plugin = &*self.0;
        let wait_ns = match plugin.rate {
            None => u64::MAX,
            Some(rate) => {
                let (table, key) = plugin.limit_by.place(plugin.id, cx, head);
                match table.charge(key, Word::Request, cx.now_ns, rate, 1) {
                    Charge::Conforming { .. } => {
                        cx.limiter = Some(LimiterDecision::Conforming);
                        return Flow::Continue;
                    }
                    Charge::Limited { retry_after_ns } => retry_after_ns,
                }
            }
        };
        cx.limiter = Some(LimiterDecision::Limited);
        let mut answer = Response::new(plugin.status, Reason::RateLimited, plugin.message.clone());
        if wait_ns < u64::MAX {
            let wait = Duration::from_nanos(wait_ns);
            answer = answer
                .with_field("Retry-After", wait_ns.div_ceil(1_000_000_000).max(1).to_string())
                .with_field("X-Retry-In", format!("{wait:?}"));
        }
        Flow::Respond(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, answer, request_with};

    #[test]
    fn the_average_is_per_period_and_the_burst_is_at_once() {
        let mut fixture = Fixture::default();
        let plugin = fixture.accepted("token-bucket", "{average: 60, period: 1m, burst: 3}");
        let mut passed = 0;
        for tenth in 0..101 {
            fixture.elapsed = Duration::from_millis(100 * tenth);
            if answer(plugin.on_request(&mut fixture.cx(), &mut request_with("/", &[]))).is_none() {
                passed += 1;
            }
        }
        // Ten seconds at one a second, and the burst.
        assert_eq!(passed, 13);
    }

    #[test]
    fn who_is_over_the_limit_is_told_when_to_come_back() {
        let fixture = Fixture::default();
        let plugin = fixture.accepted("token-bucket", "{average: 2, period: 10s}");
        let send = || answer(plugin.on_request(&mut fixture.cx(), &mut request_with("/", &[])));
        assert!(send().is_none());
        let refused = send().expect("one too many");
        assert_eq!(refused.status, 429);
        let fields: Vec<_> = refused.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(fields, ["Retry-After: 5", "X-Retry-In: 5s"]);
    }

    #[test]
    fn keys_are_told_apart() {
        let fixture = Fixture::default();
        let by = |settings: &str| {
            fixture.compile("token-bucket", settings.len() as u64, settings).expect("good").0
        };
        let passes = |plugin: &Rc<dyn Plugin>, client: &str, host: &str, key: &str| {
            let mut head = request_with("/", &[&format!("X-Key: {key}")]);
            if host != "example.com" {
                head =
                    crate::plugin::fixture::request(&format!("GET / HTTP/1.1\nHost: {host}\nX-Key: {key}"));
            }
            answer(plugin.on_request(&mut fixture.cx_from(client), &mut head)).is_none()
        };
        let ip = by("{average: 1}");
        assert!(passes(&ip, "192.0.2.1", "a", "k") && !passes(&ip, "192.0.2.1", "b", "l"));
        assert!(passes(&ip, "192.0.2.2", "a", "k"));
        let host = by("{average: 1, limit_by: host}");
        assert!(passes(&host, "192.0.2.1", "a", "k") && !passes(&host, "192.0.2.2", "a", "l"));
        assert!(passes(&host, "192.0.2.1", "b", "k"));
        let header = by("{average: 1, limit_by: header, header_name: X-Key}");
        assert!(passes(&header, "192.0.2.1", "a", "k") && !passes(&header, "192.0.2.2", "b", "k"));
        assert!(passes(&header, "192.0.2.1", "a", "l"));
    }

    #[test]
    fn settings_at_their_ends() {
        let fixture = Fixture::default();
        let none = fixture.accepted("token-bucket", "{average: 5, burst: 0}");
        let refused =
            answer(none.on_request(&mut fixture.cx(), &mut request_with("/", &[]))).expect("refused");
        assert!(refused.fields.is_empty());
        assert!(fixture.refused("token-bucket", "{}").contains("`average` is missing"));
        assert!(
            fixture.refused("token-bucket", "{average: 1, limit_by: header}").contains("needs `header_name`")
        );
    }
}
