//! The bucket of a source as the proxy uses it.
//!
//! Owns the compiled per-source limit: the rate, who is never charged, what marks of the proxy a source gets, and
//! whether refusals are carried out or only reported. The words are those of the table that the XDP program also
//! charges, one token for each new connection: bad behaviour seen here closes the door there (`offence` has the
//! prices). It never decides about packets.
//!
//! Invariant: a trusted source is neither charged, nor banned, nor refused, whatever its words say.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use ipnet::IpNet;
use portcullis_abi::{self as abi, Block, Charge, Rate, Reason};

use super::cidr::CidrSet;
use super::key::source_key;
use super::offence::{Ban, BanSettings, Behaviour, Costs, Offences};
use super::table::{Table, Word};

/// What becomes of a request over the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// It is served, and counted as one that would have been refused.
    #[default]
    Shadow,
    /// It is refused.
    Enforce,
}

/// For how long a source counts as known to be good after its last valid credential.
pub const KNOWN_GOOD_NS: u64 = 3_600_000_000_000;

/// Why an address cannot be banned.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0} is trusted (loopback, a trusted proxy, an upstream target, a gateway of this host, or in `xdp.trusted` or `xdp.allow`) and is never banned"
)]
pub struct Trusted(pub IpAddr);

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
    /// Most tokens that penalties take from a source in a second.
    pub penalties_per_second: u32,
    /// Bans for behaviour.
    pub bans: BanSettings,
    /// What a valid credential is worth: its source pays this part of what others pay. 1 promotes nobody.
    pub promotion_factor: u32,
    /// For how long after the last valid credential, in nanoseconds, at most [`KNOWN_GOOD_NS`].
    pub promotion_ns: u64,
    /// How many addresses a credential makes known to be good in the long run; twice as many for an hour.
    pub promoted_addresses: u32,
    /// Whether to refuse requests over the limit.
    pub enforcement: Enforcement,
    /// Whether to refuse requests of banned sources. An operator's ban is carried out in any case.
    pub ban_enforcement: Enforcement,
    /// Whether a source in debt is refused also where requests cost nothing: the kernel leaves it to the proxy then.
    pub debt_refuses: bool,
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
            penalties_per_second: 1_000,
            bans: BanSettings::default(),
            promotion_factor: 1,
            promotion_ns: 600_000_000_000,
            promoted_addresses: 4,
            enforcement: Enforcement::default(),
            ban_enforcement: Enforcement::default(),
            debt_refuses: false,
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
    promoted_ns: u64,
    promoted_above_ns: u64,
    promotion_ns: u64,
    promoted_addresses: u64,
    offences: Offences,
    enforcement: Enforcement,
    ban_enforcement: Enforcement,
    debt_refuses: bool,
    trusted: CidrSet,
    trust_loopback: bool,
    established_ns: u64,
}

impl SourceLimiter {
    /// Compiles `settings`.
    pub fn new(settings: &SourceSettings) -> SourceLimiter {
        let rate = settings.rate;
        let costs = settings.costs;
        let cap_ns = rate.burst_ns.saturating_add(settings.penalty_cap_ns);
        let promotion_ns = settings.promotion_ns.min(KNOWN_GOOD_NS);
        SourceLimiter {
            rate,
            request_tokens: costs.request,
            promoted_ns: rate.interval_ns / u64::from(settings.promotion_factor.max(1)),
            promoted_above_ns: KNOWN_GOOD_NS - promotion_ns,
            promotion_ns,
            promoted_addresses: settings.promoted_addresses.max(1).into(),
            offences: Offences::new(&costs, rate, cap_ns, settings.penalties_per_second, settings.bans),
            enforcement: settings.enforcement,
            ban_enforcement: settings.ban_enforcement,
            debt_refuses: settings.debt_refuses,
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
        let block = way.block.load(Relaxed);
        if let Block::Banned { until, reason, .. } = Block::from_word(block, now) {
            let retry_after_ns = until - now;
            return match self.ban_enforcement {
                Enforcement::Shadow if reason != Reason::SourceBanned => {
                    Admission::Watched { retry_after_ns }
                }
                _ => Admission::Banned { retry_after_ns, reason },
            };
        }
        let tokens = tokens.unwrap_or(self.request_tokens);
        if tokens == 0 && !self.debt_refuses {
            // Requests are free: debt closes the door to new connections, in the kernel, and to nothing else.
            return Admission::Conforming { debt_ns: way.request_tat.load(Relaxed).saturating_sub(now) };
        }
        let promoted = abi::is_promoted(block, now, self.promoted_above_ns);
        let each_ns = if promoted { self.promoted_ns } else { self.rate.interval_ns };
        let cost_ns = each_ns.saturating_mul(tokens.into());
        match abi::charge_ns(&way.request_tat, now, self.rate, cost_ns) {
            Charge::Conforming { debt_ns } => Admission::Conforming { debt_ns },
            Charge::Limited { retry_after_ns } => match self.enforcement {
                Enforcement::Enforce => Admission::Limited { retry_after_ns },
                Enforcement::Shadow => Admission::Watched { retry_after_ns },
            },
        }
    }

    /// Charges `source` for bad behaviour, whether or not its bucket has room. Gives the ban that comes of it.
    #[inline]
    pub fn penalize(&self, table: &Table, source: IpAddr, behaviour: Behaviour, now: u64) -> Option<Ban> {
        self.penalize_by(table, source, behaviour, 1, now)
    }

    /// As [`SourceLimiter::penalize`], for what `reason` tells of; a ban is for that then. A reason that tells of nothing
    /// else is taken for a break of the rules of HTTP/2.
    pub fn penalize_http2(&self, table: &Table, source: IpAddr, reason: Reason, now: u64) -> Option<Ban> {
        if self.is_trusted(source) {
            return None;
        }
        let behaviour = Behaviour::of_reason(reason).unwrap_or(Behaviour::MalformedHttp2);
        self.offences.charge_for(table, source_key(source), (behaviour, reason), 1, now)
    }

    /// As [`SourceLimiter::penalize`], for `points` of it at once.
    pub fn penalize_by(
        &self,
        table: &Table,
        source: IpAddr,
        behaviour: Behaviour,
        points: u32,
        now: u64,
    ) -> Option<Ban> {
        if self.is_trusted(source) {
            return None;
        }
        self.offences.charge(table, source_key(source), behaviour, points, now)
    }

    /// Bans `source`, for `for_ns`, or for as long as its history asks for. A source that is banned already gets the new
    /// ban in place of the old.
    ///
    /// # Errors
    /// The source is trusted.
    pub fn ban(
        &self,
        table: &Table,
        source: IpAddr,
        now: u64,
        reason: Reason,
        for_ns: Option<u64>,
    ) -> Result<Ban, Trusted> {
        if self.is_trusted(source) {
            return Err(Trusted(source));
        }
        let key = source_key(source);
        let Some(for_ns) = for_ns else { return Ok(self.offences.ban_anew(table, key, now, reason)) };
        let until = now.saturating_add(for_ns);
        table.block(key, now, until, 0, reason);
        Ok(Ban { key, until, level: 0, reason })
    }

    /// Ends the ban of `source`; whether there was one.
    pub fn unban(&self, table: &Table, source: IpAddr, now: u64) -> bool {
        table.unblock_ban(source_key(source), now)
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
            Block::Banned { .. } | Block::Authenticated { .. } => {}
            _ => table.mark_established(key, now, now.saturating_add(self.established_ns)),
        }
    }

    /// Marks `source` as authenticated, after a request with a valid credential, whose number is `credential`: it is known
    /// to be good for an hour, and promoted for a part of it. As cheap to call often.
    ///
    /// A credential that is used from more addresses than it may marks the others as established only: one that was
    /// stolen shields no flood, neither by promotion nor by being the innocent that limits are switched off for.
    #[inline]
    pub fn mark_authenticated(&self, table: &Table, source: IpAddr, credential: u64, now: u64) {
        if self.is_trusted(source) {
            return;
        }
        let key = source_key(source);
        match table.block_at(key, now) {
            Block::Authenticated { until } if until - now > KNOWN_GOOD_NS - self.promotion_ns / 2 => {}
            Block::Banned { .. } => {}
            Block::Authenticated { until } => {
                if self.may_vouch(table, credential, KNOWN_GOOD_NS - (until - now), now) {
                    table.mark_authenticated(key, now, now.saturating_add(KNOWN_GOOD_NS));
                }
            }
            _ if self.may_vouch(table, credential, KNOWN_GOOD_NS, now) => {
                table.mark_authenticated(key, now, now.saturating_add(KNOWN_GOOD_NS));
            }
            _ => self.mark_established(table, source, now),
        }
    }

    /// Charges a credential for the time by which it lengthens a mark. Its bucket holds what makes its addresses known for
    /// an hour each, and fills as fast as their marks run out.
    fn may_vouch(&self, table: &Table, credential: u64, longer_ns: u64, now: u64) -> bool {
        let key = abi::offence_key(credential, VOUCHING, table.secret());
        let rate = Rate { interval_ns: 1, burst_ns: KNOWN_GOOD_NS };
        table.charge(key, Word::Request, now, rate, longer_ns / self.promoted_addresses).conforms()
    }
}

/// The meter of a credential, beside those of offences.
const VOUCHING: u32 = 0x100;

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
            ban_enforcement: Enforcement::Enforce,
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
        let limiter = limiter(|settings| {
            settings.enforcement = Enforcement::Shadow;
            settings.ban_enforcement = Enforcement::Shadow;
        });
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

    #[test]
    fn a_credential_vouches_for_few_addresses() {
        const MINUTE: u64 = 60_000 * MS;
        let bench = limiter(|settings| settings.promoted_addresses = 4);
        let source = |number: u64| ip(&format!("192.0.2.{number}"));
        let use_key = |number: u64, credential: u64, now: u64| {
            bench.limiter.mark_authenticated(&bench.table, source(number), credential, now);
            matches!(bench.table.block_at(source_key(source(number)), now), Block::Authenticated { .. })
        };
        assert_eq!((0..20).filter(|number| use_key(*number, 1, NOW)).count(), 4);
        let known = bench.table.block_at(source_key(source(19)), NOW);
        assert!(matches!(known, Block::Established { .. }), "{known:?}");
        assert!(use_key(19, 2, NOW), "another credential has its own");

        // Used from twenty all day long, it never makes more than twice four known, and keeps its first ones so.
        let mut most = 0;
        for minute in 1..=1_440 {
            let now = NOW + minute * MINUTE;
            for number in 0..20 {
                use_key(number, 1, now);
            }
            most = most.max(bench.table.known_good(now));
        }
        assert!((4..=8 + 1).contains(&most), "{most}, one of them by the other credential");

        // Four that go on stay known.
        let bench = limiter(|settings| settings.promoted_addresses = 4);
        for minute in 0..600 {
            let now = NOW + minute * MINUTE;
            for number in 0..4 {
                bench.limiter.mark_authenticated(&bench.table, source(number), 1, now);
            }
            assert_eq!(bench.table.known_good(now), 4, "minute {minute}");
        }
    }
}
