//! The bucket of a source as the proxy uses it.
//!
//! Owns the compiled per-source limit: the rate, what each kind of behaviour costs, who is never charged,
//! and whether refusals are carried out or only reported. The words are those of the table that the XDP
//! program also charges, one token for each new connection: bad behaviour seen here closes the door there.
//! It never bans by itself and never decides about packets.
//!
//! Invariant: a trusted source is neither charged nor refused, whatever its words say.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use ipnet::IpNet;
use portcullis_abi::{self as abi, Block, Charge, Rate, Reason};

use super::cidr::CidrSet;
use super::key::source_key;
use super::table::Table;

/// What a request or a piece of bad behaviour costs, in tokens. A cost of 0 switches that charge off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// Each request, charged before it is served.
    pub request: u32,
    /// An answer of 401.
    pub unauthorized: u32,
    /// An answer of 403.
    pub forbidden: u32,
    /// An answer of 429.
    pub too_many_requests: u32,
    /// A request that is not valid HTTP.
    pub malformed: u32,
    /// A TLS handshake that failed or was given up.
    pub tls_handshake_failed: u32,
}

impl Default for Costs {
    /// Requests cost 1, and what no decent client sends costs 10. Refused credentials and 429 cost nothing
    /// until switched on: behind one address translator, one wrong password would be paid for by all.
    fn default() -> Costs {
        Costs {
            request: 1,
            unauthorized: 0,
            forbidden: 0,
            too_many_requests: 0,
            malformed: 10,
            tls_handshake_failed: 10,
        }
    }
}

/// Behaviour that costs extra, after the fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Was answered 401.
    Unauthorized,
    /// Was answered 403.
    Forbidden,
    /// Was answered 429.
    TooManyRequests,
    /// Sent what is not valid HTTP.
    Malformed,
    /// Failed a TLS handshake or gave it up.
    TlsHandshakeFailed,
}

impl Behaviour {
    const COUNT: usize = 5;

    /// The behaviour that an answer of `status` shows, if it costs at all.
    pub const fn of_status(status: u16) -> Option<Behaviour> {
        match status {
            401 => Some(Behaviour::Unauthorized),
            403 => Some(Behaviour::Forbidden),
            429 => Some(Behaviour::TooManyRequests),
            _ => None,
        }
    }
}

/// What becomes of a request over the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// It is served, and counted as one that would have been refused.
    #[default]
    Shadow,
    /// It is refused.
    Enforce,
}

/// The limit as configured.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Tokens of one source.
    pub rate: Rate,
    /// What costs how many tokens.
    pub costs: Costs,
    /// For how long penalties alone can keep a source limited, in nanoseconds: they push its bucket at most
    /// this far past empty.
    pub penalty_cap_ns: u64,
    /// Whether to refuse.
    pub enforcement: Enforcement,
    /// Sources that are never charged: proxies in front, health checkers, upstreams, administrators.
    pub trusted: Vec<IpNet>,
    /// Whether loopback addresses are trusted too.
    pub trust_loopback: bool,
    /// For how long a source counts as established after a completed handshake or request, in nanoseconds.
    pub established_ns: u64,
}

impl Default for SourceSettings {
    fn default() -> SourceSettings {
        SourceSettings {
            rate: Rate::UNLIMITED,
            costs: Costs::default(),
            penalty_cap_ns: 60_000_000_000,
            enforcement: Enforcement::default(),
            trusted: Vec::new(),
            trust_loopback: true,
            established_ns: 600_000_000_000,
        }
    }
}

/// The answer to a request's charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The source is trusted; nothing was charged.
    Trusted,
    /// Within the limit, and charged.
    Conforming {
        /// How far the bucket is from full, in nanoseconds.
        debt_ns: u64,
    },
    /// Over the limit or banned, but only watched: serve it, and count it.
    Watched {
        /// When it would have been admitted.
        retry_after_ns: u64,
    },
    /// Over the limit: refuse it. Nothing was charged.
    Limited {
        /// When the same request would be admitted.
        retry_after_ns: u64,
    },
    /// The source is banned: refuse it. Nothing was charged.
    Banned {
        /// When the ban ends.
        retry_after_ns: u64,
        /// What it is for.
        reason: Reason,
    },
}

/// The per-source limit, compiled. Holds no words: those are in the table of sources, which outlives it.
#[derive(Clone, Debug)]
pub struct SourceLimiter {
    rate: Rate,
    request_tokens: u32,
    penalties_ns: [u64; Behaviour::COUNT],
    cap_ns: u64,
    enforcement: Enforcement,
    trusted: CidrSet,
    trust_loopback: bool,
    established_ns: u64,
}

impl SourceLimiter {
    /// Compiles `settings`.
    pub fn new(settings: &SourceSettings) -> SourceLimiter {
        let rate = settings.rate;
        let costs = settings.costs;
        let mut penalties_ns = [0; Behaviour::COUNT];
        for (behaviour, tokens) in [
            (Behaviour::Unauthorized, costs.unauthorized),
            (Behaviour::Forbidden, costs.forbidden),
            (Behaviour::TooManyRequests, costs.too_many_requests),
            (Behaviour::Malformed, costs.malformed),
            (Behaviour::TlsHandshakeFailed, costs.tls_handshake_failed),
        ] {
            penalties_ns[behaviour as usize] = rate.interval_ns.saturating_mul(tokens.into());
        }
        SourceLimiter {
            rate,
            request_tokens: costs.request,
            penalties_ns,
            cap_ns: rate.burst_ns.saturating_add(settings.penalty_cap_ns),
            enforcement: settings.enforcement,
            trusted: settings.trusted.iter().copied().collect(),
            trust_loopback: settings.trust_loopback,
            established_ns: settings.established_ns,
        }
    }

    /// Whether `source` is never charged nor refused.
    #[inline]
    pub fn is_trusted(&self, source: IpAddr) -> bool {
        (self.trust_loopback && source.to_canonical().is_loopback()) || self.trusted.contains(source)
    }

    /// Charges one request of `source`: `tokens`, or what requests cost in general.
    #[inline]
    pub fn admit_request(&self, table: &Table, source: IpAddr, tokens: Option<u32>, now: u64) -> Admission {
        if self.is_trusted(source) {
            return Admission::Trusted;
        }
        let key = source_key(source);
        // One way, one cache line: the ban and the bucket are neighbours.
        let way = table.way(key, now);
        if let Block::Banned { until, reason, .. } = way.block_at(now) {
            let retry_after_ns = until - now;
            return match self.enforcement {
                Enforcement::Enforce => Admission::Banned { retry_after_ns, reason },
                Enforcement::Shadow => Admission::Watched { retry_after_ns },
            };
        }
        let tokens = tokens.unwrap_or(self.request_tokens);
        if tokens == 0 {
            // Requests are free: debt closes the door to new connections, in the kernel, and to nothing else.
            return Admission::Conforming { debt_ns: way.request_tat.load(Relaxed).saturating_sub(now) };
        }
        match abi::charge(&way.request_tat, now, self.rate, tokens.into()) {
            Charge::Conforming { debt_ns } => Admission::Conforming { debt_ns },
            Charge::Limited { retry_after_ns } => match self.enforcement {
                Enforcement::Enforce => Admission::Limited { retry_after_ns },
                Enforcement::Shadow => Admission::Watched { retry_after_ns },
            },
        }
    }

    /// Charges `source` for bad behaviour, whether or not its bucket has room.
    #[inline]
    pub fn penalize(&self, table: &Table, source: IpAddr, behaviour: Behaviour, now: u64) {
        let cost_ns = self.penalties_ns[behaviour as usize];
        if cost_ns > 0 && !self.is_trusted(source) {
            let way = table.way(source_key(source), now);
            abi::penalize(&way.request_tat, now, cost_ns, self.cap_ns);
        }
    }

    /// Marks `source` as established, after a completed handshake or request. Cheap to call often: a mark
    /// that has more than half of its time left is not renewed. A trusted source needs no mark.
    #[inline]
    pub fn mark_established(&self, table: &Table, source: IpAddr, now: u64) {
        if self.is_trusted(source) {
            return;
        }
        let key = source_key(source);
        match table.block_at(key, now) {
            Block::Established { until } if until - now > self.established_ns / 2 => {}
            Block::Banned { .. } => {}
            _ => table.mark_established(key, now, now.saturating_add(self.established_ns)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random_secret;
    use super::*;

    const MS: u64 = 1_000_000;
    const NOW: u64 = 3_600_000 * MS;

    /// A limiter with a table of its own.
    struct Bench {
        limiter: SourceLimiter,
        table: Table,
    }

    impl Bench {
        fn admit(&self, source: &str, now: u64) -> Admission {
            self.limiter.admit_request(&self.table, ip(source), None, now)
        }

        fn admitted(&self, source: &str, now: u64) -> usize {
            (0..100).filter(|_| matches!(self.admit(source, now), Admission::Conforming { .. })).count()
        }

        fn penalize(&self, source: &str, behaviour: Behaviour, now: u64) {
            self.limiter.penalize(&self.table, ip(source), behaviour, now);
        }
    }

    fn limiter(change: impl FnOnce(&mut SourceSettings)) -> Bench {
        let mut settings = SourceSettings {
            rate: Rate::per_second(1_000, 5),
            enforcement: Enforcement::Enforce,
            ..Default::default()
        };
        change(&mut settings);
        Bench {
            limiter: SourceLimiter::new(&settings),
            table: Table::new(256, random_secret()).expect("small"),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_source_has_its_burst_and_its_rate() {
        let limiter = limiter(|_| ());
        assert_eq!(limiter.admitted("192.0.2.1", NOW), 5);
        assert_eq!(limiter.admit("192.0.2.1", NOW), Admission::Limited { retry_after_ns: MS });
        assert_eq!(limiter.admitted("::ffff:192.0.2.1", NOW), 0, "the same source, spelt as IPv6");
        assert_eq!(limiter.admitted("192.0.2.2", NOW), 5);
        assert_eq!(limiter.admitted("192.0.2.1", NOW + 3 * MS), 3);
        assert_eq!(limiter.admitted("2001:db8::1", NOW), 5);
        assert_eq!(limiter.admitted("2001:db8::2", NOW), 0, "the same /64");
        assert_eq!(limiter.admitted("2001:db8:0:1::1", NOW), 5);
    }

    #[test]
    fn trusted_sources_are_never_charged() {
        let limiter =
            limiter(|settings| settings.trusted = vec!["198.51.100.0/24".parse().expect("a prefix")]);
        for source in
            ["198.51.100.7", "::ffff:198.51.100.7", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]
        {
            limiter.penalize(source, Behaviour::Malformed, NOW);
            limiter.limiter.mark_established(&limiter.table, ip(source), NOW);
            for _ in 0..10 {
                assert_eq!(limiter.admit(source, NOW), Admission::Trusted, "{source}");
            }
            assert_eq!(limiter.table.find(source_key(ip(source))).map(|_| ()), None, "{source} has a way");
        }
        let suspicious = self::limiter(|settings| settings.trust_loopback = false);
        assert_eq!(suspicious.admitted("127.0.0.1", NOW), 5);
    }

    #[test]
    fn bad_behaviour_costs_up_to_the_cap() {
        let limiter = limiter(|settings| {
            settings.costs.unauthorized = 3;
            settings.penalty_cap_ns = 20 * MS;
        });
        let source = "192.0.2.1";
        limiter.penalize(source, Behaviour::Unauthorized, NOW);
        assert_eq!(limiter.admitted(source, NOW), 2, "of five tokens");
        limiter.penalize(source, Behaviour::Forbidden, NOW);
        assert_eq!(limiter.admit(source, NOW), Admission::Limited { retry_after_ns: MS });
        for _ in 0..50 {
            limiter.penalize(source, Behaviour::Malformed, NOW);
        }
        assert_eq!(limiter.admit(source, NOW), Admission::Limited { retry_after_ns: 21 * MS });
        assert_eq!(limiter.admitted(source, NOW + 21 * MS), 1, "time has paid");
        assert_eq!(Behaviour::of_status(401), Some(Behaviour::Unauthorized));
        assert_eq!(Behaviour::of_status(404), None);
    }

    #[test]
    fn shadow_decides_the_same_and_refuses_nothing() {
        let limiter = limiter(|settings| settings.enforcement = Enforcement::Shadow);
        let source = "192.0.2.1";
        assert_eq!(limiter.admitted(source, NOW), 5);
        assert_eq!(limiter.admit(source, NOW), Admission::Watched { retry_after_ns: MS });
        limiter.table.block(source_key(ip(source)), NOW, NOW + 1_000 * MS, 0, Reason::SourceLimited);
        assert!(matches!(limiter.admit(source, NOW), Admission::Watched { .. }));
    }

    #[test]
    fn a_ban_refuses_until_it_ends() {
        let limiter = limiter(|_| ());
        let source = "192.0.2.1";
        limiter.table.block(source_key(ip(source)), NOW, NOW + 1_000 * MS, 0, Reason::SourceLimited);
        limiter.limiter.mark_established(&limiter.table, ip(source), NOW);
        match limiter.admit(source, NOW) {
            Admission::Banned { retry_after_ns, reason: Reason::SourceLimited } => {
                assert!((999 * MS..=1_000 * MS).contains(&retry_after_ns));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(limiter.admitted(source, NOW + 1_000 * MS), 5);
    }

    #[test]
    fn the_established_mark_is_renewed_in_its_second_half() {
        let limiter = limiter(|settings| settings.established_ns = 1_000 * MS);
        let source = ip("192.0.2.1");
        let until = |now| match limiter.table.block_at(source_key(source), now) {
            Block::Established { until } => until,
            other => panic!("{other:?}"),
        };
        limiter.limiter.mark_established(&limiter.table, source, NOW);
        let first = until(NOW);
        limiter.limiter.mark_established(&limiter.table, source, NOW + 400 * MS);
        assert_eq!(until(NOW), first);
        limiter.limiter.mark_established(&limiter.table, source, NOW + 600 * MS);
        assert!(until(NOW) > first + 500 * MS);
    }

    #[test]
    fn a_request_may_have_a_price_of_its_own() {
        let bench = limiter(|_| ());
        let price = |tokens| bench.limiter.admit_request(&bench.table, ip("192.0.2.1"), Some(tokens), NOW);
        assert_eq!(price(4), Admission::Conforming { debt_ns: 4 * MS });
        assert_eq!(price(2), Admission::Limited { retry_after_ns: MS });
        assert_eq!(price(0), Admission::Conforming { debt_ns: 4 * MS });
    }

    #[test]
    fn an_unlimited_rate_is_no_limit() {
        let limiter = limiter(|settings| settings.rate = Rate::UNLIMITED);
        limiter.penalize("192.0.2.1", Behaviour::Malformed, NOW);
        assert_eq!(limiter.admitted("192.0.2.1", NOW), 100);
    }
}
