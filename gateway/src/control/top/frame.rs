//! Rates out of two readings of all counters.
//!
//! Owns the arithmetic, pure: a counter that fell (another process has taken over) counts from zero.

use super::super::ledger::{RouteTop, ShardTop, SourceTop, Spread, TargetTop, Top};

/// What is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    pub kernel: String,
    pub generation: u64,
    pub requests_per_second: f64,
    /// Of the answers, by class from 1xx to 5xx and other.
    pub answers_per_second: [f64; 6],
    pub active: u64,
    /// 50th, 90th and 99th percentile of the time in the gateway, upper bounds in microseconds.
    pub gateway_us: [Option<u64>; 3],
    pub reasons: Vec<Reason>,
    pub sources: Vec<SourceTop>,
    pub shards: Vec<Shard>,
    pub routes: Vec<Route>,
    pub targets: Vec<TargetTop>,
}

/// A reason, of packets or of requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reason {
    pub name: String,
    pub per_second: f64,
    pub total: u64,
}

/// A shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shard {
    pub number: usize,
    pub core: usize,
    pub cpu_percent: f64,
    pub connections: u64,
    pub requests_per_second: f64,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    pub name: String,
    pub requests_per_second: f64,
    /// 99th percentile of its latency, an upper bound in microseconds.
    pub p99_us: Option<u64>,
    pub errors_percent: f64,
    pub total: u64,
}

impl Frame {
    /// What happened between two readings.
    pub fn between(before: &Top, now: &Top) -> Frame {
        let seconds = (now.at_ms.saturating_sub(before.at_ms) as f64 / 1000.0).max(0.001);
        let rate = |before: u64, now: u64| grown(before, now) as f64 / seconds;
        let answers: [f64; 6] = std::array::from_fn(|class| rate(before.answers[class], now.answers[class]));
        let gateway = now.gateway.since(&before.gateway);
        Frame {
            kernel: kernel(now),
            generation: now.generation,
            requests_per_second: answers.iter().sum(),
            answers_per_second: answers,
            active: now.active,
            gateway_us: [50, 90, 99].map(|percent| gateway.percentile(percent)),
            reasons: now
                .reasons
                .iter()
                .map(|(name, total)| Reason {
                    name: name.clone(),
                    per_second: rate(before.reasons.get(name).copied().unwrap_or(0), *total),
                    total: *total,
                })
                .collect(),
            sources: now.sources.clone(),
            shards: now.shards.iter().map(|shard| Shard::between(before, shard, seconds)).collect(),
            routes: now.routes.iter().map(|route| Route::between(before, route, seconds)).collect(),
            targets: now.targets.clone(),
        }
    }
}

fn kernel(top: &Top) -> String {
    match top.kernel_mode.as_str() {
        "off" => "off".into(),
        mode => format!("{mode} on {}, {}", top.interfaces.join(", "), top.enforcement),
    }
}

fn grown(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

impl Shard {
    fn between(before: &Top, now: &ShardTop, seconds: f64) -> Shard {
        let none = ShardTop::default();
        let before = before.shards.iter().find(|shard| shard.shard == now.shard).unwrap_or(&none);
        Shard {
            number: now.shard,
            core: now.core,
            cpu_percent: grown(before.cpu_ns, now.cpu_ns) as f64 / 1e7 / seconds,
            connections: now.connections,
            requests_per_second: grown(before.requests, now.requests) as f64 / seconds,
        }
    }
}

impl Route {
    fn between(before: &Top, now: &RouteTop, seconds: f64) -> Route {
        let none = RouteTop::default();
        let before = before.routes.iter().find(|route| route.route == now.route).unwrap_or(&none);
        let requests = grown(before.requests, now.requests);
        let errors = grown(before.errors, now.errors);
        Route {
            name: now.route.clone(),
            requests_per_second: requests as f64 / seconds,
            p99_us: now.latency.since(&before.latency).percentile(99),
            errors_percent: if requests == 0 { 0.0 } else { errors as f64 * 100.0 / requests as f64 },
            total: now.requests,
        }
    }
}

impl Spread {
    fn since(&self, before: &Spread) -> Spread {
        let counts = self.counts.iter().enumerate();
        let before = |at: usize| before.counts.get(at).copied().unwrap_or(0);
        Spread {
            bounds_us: self.bounds_us.clone(),
            counts: counts.map(|(at, now)| grown(before(at), *now)).collect(),
        }
    }

    /// The bound of the bucket that holds the given share of the counts; `None` without any, or past all bounds.
    fn percentile(&self, percent: u64) -> Option<u64> {
        let total: u64 = self.counts.iter().sum();
        let wanted = (total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (count, bound) in self.counts.iter().zip(&self.bounds_us) {
            seen += count;
            if seen >= wanted {
                return Some(*bound);
            }
        }
        None
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Two seconds apart.
    pub fn readings() -> (Top, Top) {
        let spread = |counts: [u64; 4]| Spread { bounds_us: vec![10, 100, 1000], counts: counts.to_vec() };
        let route = |requests, errors, counts| RouteTop {
            route: "api".into(),
            requests,
            errors,
            latency: spread(counts),
        };
        let before = Top {
            at_ms: 1_000,
            kernel_mode: "native".into(),
            enforcement: "enforce".into(),
            interfaces: vec!["eth0".into()],
            answers: [0, 100, 0, 10, 0, 0],
            gateway: spread([100, 10, 0, 0]),
            reasons: [("rate_limited".to_owned(), 10), ("drop_banned".to_owned(), 5)].into(),
            shards: vec![ShardTop {
                shard: 0,
                core: 3,
                cpu_ns: 1_000_000_000,
                connections: 1,
                requests: 110,
            }],
            routes: vec![route(110, 0, [0, 100, 10, 0])],
            ..Top::default()
        };
        let now = Top {
            at_ms: 3_000,
            answers: [0, 280, 0, 30, 0, 0],
            active: 2,
            gateway: spread([200, 108, 2, 0]),
            reasons: [("rate_limited".to_owned(), 30), ("drop_banned".to_owned(), 1005)].into(),
            sources: vec![SourceTop {
                source: "192.0.2.7".into(),
                requests_per_second: 90.5,
                refused_per_second: 9.5,
                error_per_second: 0.0,
            }],
            shards: vec![ShardTop {
                shard: 0,
                core: 3,
                cpu_ns: 2_500_000_000,
                connections: 7,
                requests: 310,
            }],
            routes: vec![route(310, 20, [0, 290, 20, 0])],
            targets: vec![TargetTop {
                upstream: "web".into(),
                target: "10.0.0.1:80".into(),
                condition: "ejected".into(),
            }],
            ..before.clone()
        };
        (before, now)
    }

    #[test]
    fn rates_are_of_the_time_between() {
        let (before, now) = readings();
        let frame = Frame::between(&before, &now);
        assert_eq!(frame.requests_per_second, 100.0);
        assert_eq!(frame.answers_per_second[1], 90.0);
        assert_eq!(frame.gateway_us, [Some(10), Some(100), Some(100)]);
        let reason = frame.reasons.iter().find(|reason| reason.name == "drop_banned").unwrap();
        assert_eq!((reason.per_second, reason.total), (500.0, 1005));
        assert_eq!((frame.shards[0].cpu_percent, frame.shards[0].requests_per_second), (75.0, 100.0));
        assert_eq!((frame.routes[0].errors_percent, frame.routes[0].p99_us), (10.0, Some(1000)));
        assert_eq!(frame.kernel, "native on eth0, enforce");
    }

    #[test]
    fn a_successor_counts_from_zero() {
        let (before, now) = readings();
        let frame = Frame::between(&Top { at_ms: 1_000, ..now }, &Top { at_ms: 3_000, ..before });
        assert_eq!(frame.requests_per_second, 55.0);
        let idle = Frame::between(&Top::default(), &Top::default());
        assert_eq!(idle.gateway_us, [None; 3]);
    }
}
