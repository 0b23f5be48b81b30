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
use portcullis_config::{self as config, Diagnostics, Key, Kind, Section, units::Bare};

use super::limiting::key::{self, COMPOUND, LIMIT_BY};
use super::limiting::{Cost, Exempt, LimitKey, settings};
use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration, Response, Wants};
use crate::http::RequestHead;
use crate::limit::{LimiterId, Word};
use crate::metrics::LimiterDecision;

/// The plugin's line of the registry: beside `rate-limiting`.
pub static REGISTRATION: Registration =
    Registration { name: "token-bucket", priority: 909, section: &SECTION, compile };

static SECTION: Section =
    Section::new("token-bucket", "Limits requests to an average rate, with room for bursts.", KEYS);

const KEYS: &[Key] = &[
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
    Key::new(
        "burst",
        Kind::integer(0, u32::MAX as i64),
        "Requests at once after a pause; 0 lets none through.",
    )
    .default("1"),
    LIMIT_BY,
    COMPOUND,
    key::KEYS[0],
    key::KEYS[1],
    key::KEYS[2],
    key::KEYS[3],
    settings::COST,
    settings::ROUTE_COSTS,
    settings::EXEMPT,
    settings::DRY_RUN,
    Key::new("status", Kind::integer(400, 599), "Status of a refusal.").default("429"),
    Key::new("message", Kind::STRING, "Message of a refusal.").default("Too Many Requests"),
];

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let average: u64 = fields.optional_integer("average")?;
    let burst: u64 = fields.integer("burst");
    let period = u64::try_from(fields.duration("period").as_nanos()).unwrap_or(u64::MAX);
    Some(Arc::new(TokenBucket {
        id: LimiterId::from_number(cx.instance),
        rate: (burst > 0).then(|| Rate::new(average, period, burst)),
        key: LimitKey::read_by(&fields)?,
        cost: settings::cost(&fields, cx),
        exempt: settings::exempt(&fields, cx),
        dry_run: fields.bool("dry_run"),
        status: fields.integer("status"),
        message: fields.string("message"),
    }))
}

struct TokenBucket {
    id: LimiterId,
    /// `None` lets nothing through.
    rate: Option<Rate>,
    key: LimitKey,
    cost: Cost,
    exempt: Exempt,
    dry_run: bool,
    status: u16,
    message: String,
}

impl PluginSpec for TokenBucket {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }

    fn wants(&self) -> Wants {
        Wants { claims: self.key.wants_claims(), ..Wants::default() }
    }
}

struct OnShard(Arc<TokenBucket>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, head: &mut RequestHead) -> Flow {
        let plugin = &*self.0;
        let cost = plugin.cost.of(cx);
        if plugin.exempt.includes(cx) || cost == 0 {
            return Flow::Continue;
        }
        let wait_ns = match plugin.rate {
            None => u64::MAX,
            Some(rate) => {
                let (table, key) = plugin.key.place(plugin.id, cx, head);
                match table.charge(key, Word::Request, cx.now_ns, rate, cost) {
                    Charge::Conforming { .. } => {
                        cx.limiter = Some(LimiterDecision::Conforming);
                        return Flow::Continue;
                    }
                    Charge::Limited { retry_after_ns } => retry_after_ns,
                }
            }
        };
        if plugin.dry_run {
            cx.limiter = Some(LimiterDecision::DryRun);
            return Flow::Continue;
        }
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
