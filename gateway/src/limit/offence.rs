//! What sources do wrong: what it costs them, and when it bans them.
//!
//! Owns the kinds of offences, their prices, the meter that bounds what a source can lose in a second, the buckets that
//! count offences, and the length of bans. A bucket of offences is a word like any other, in the table of sources under a
//! key of its own, so it survives a restart as bans do. Never reads a clock.
//!
//! Invariant: penalties and bans are for what a source completed a handshake for; nobody can earn them in another's name.

use portcullis_abi::{self as abi, Charge, Rate, Reason};

use super::table::{Table, Word};

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
    /// Broke the rules of HTTP/2.
    MalformedHttp2,
    /// Failed a TLS handshake.
    TlsHandshakeFailed,
    /// Began a TLS handshake and did not go on with it.
    TlsHandshakeAbandoned,
    /// Sent or read so slowly that its connection was ended.
    SlowClient,
    /// Did what a plugin takes points for.
    Plugin,
    /// Flooded a connection of HTTP/2.
    Http2Flood,
}

impl Behaviour {
    /// How many kinds there are.
    pub const COUNT: usize = 10;

    /// The behaviour that an answer of `status` shows, if it costs at all.
    pub const fn of_status(status: u16) -> Option<Behaviour> {
        match status {
            401 => Some(Behaviour::Unauthorized),
            403 => Some(Behaviour::Forbidden),
            429 => Some(Behaviour::TooManyRequests),
            _ => None,
        }
    }

    /// The behaviour of a client whose connection ends for `reason`, beyond what the status of an answer shows.
    pub const fn of_reason(reason: Reason) -> Option<Behaviour> {
        match reason {
            Reason::SlowRequest
            | Reason::SlowReader
            | Reason::RequestTimeout
            | Reason::BodyTimeout
            | Reason::H2StalledWindow => Some(Behaviour::SlowClient),
            Reason::TlsHandshakeTimeout => Some(Behaviour::TlsHandshakeAbandoned),
            Reason::TlsHandshakeFailed
            | Reason::PlainHttpOnTls
            | Reason::UnknownSni
            | Reason::ClientCertificateMissing
            | Reason::ClientCertificateInvalid => Some(Behaviour::TlsHandshakeFailed),
            Reason::H2ProtocolError | Reason::H2Preface => Some(Behaviour::MalformedHttp2),
            Reason::H2RapidReset
            | Reason::H2MadeYouReset
            | Reason::H2ContinuationFlood
            | Reason::H2SettingsFlood
            | Reason::H2PingFlood
            | Reason::H2PriorityFlood
            | Reason::H2EmptyDataFlood
            | Reason::H2WindowUpdateFlood => Some(Behaviour::Http2Flood),
            _ => None,
        }
    }

    /// What a ban for it is said to be for, where nothing more exact is known.
    const fn reason(self) -> Reason {
        match self {
            Behaviour::Unauthorized => Reason::UnauthorizedInvalid,
            Behaviour::Forbidden => Reason::Forbidden,
            Behaviour::TooManyRequests => Reason::RateLimited,
            Behaviour::Malformed => Reason::BadRequestLine,
            Behaviour::MalformedHttp2 => Reason::H2ProtocolError,
            Behaviour::TlsHandshakeFailed => Reason::TlsHandshakeFailed,
            Behaviour::TlsHandshakeAbandoned => Reason::TlsHandshakeTimeout,
            Behaviour::SlowClient => Reason::SlowRequest,
            Behaviour::Plugin => Reason::BotDetected,
            Behaviour::Http2Flood => Reason::H2RapidReset,
        }
    }
}

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
    /// A connection that broke the rules of HTTP/2.
    pub malformed_http2: u32,
    /// A TLS handshake that failed.
    pub tls_handshake_failed: u32,
    /// A TLS handshake that was given up.
    pub tls_handshake_abandoned: u32,
    /// A connection ended because its client was too slow.
    pub slow_client: u32,
    /// Each point that a plugin takes.
    pub plugin: u32,
    /// A connection of HTTP/2 that ended for a flood.
    pub http2_flood: u32,
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
            malformed_http2: 10,
            tls_handshake_failed: 10,
            tls_handshake_abandoned: 10,
            slow_client: 10,
            plugin: 1,
            http2_flood: 25,
        }
    }
}

impl Costs {
    pub(super) const fn by_behaviour(&self) -> [u32; Behaviour::COUNT] {
        [
            self.unauthorized,
            self.forbidden,
            self.too_many_requests,
            self.malformed,
            self.malformed_http2,
            self.tls_handshake_failed,
            self.tls_handshake_abandoned,
            self.slow_client,
            self.plugin,
            self.http2_flood,
        ]
    }
}

/// Bans for behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanSettings {
    /// Offences by [`Behaviour`] that a source may commit; [`Rate::UNLIMITED`] never bans.
    pub triggers: [Rate; Behaviour::COUNT],
    /// How long the first ban lasts, the second, and so on, in nanoseconds.
    pub steps_ns: [u64; 4],
    /// For each of these since the end of the last ban, the next one is a step shorter.
    pub decay_ns: u64,
}

impl Default for BanSettings {
    fn default() -> BanSettings {
        const SECOND: u64 = 1_000_000_000;
        BanSettings {
            triggers: [Rate::UNLIMITED; Behaviour::COUNT],
            steps_ns: [10 * SECOND, 60 * SECOND, 600 * SECOND, 3_600 * SECOND],
            decay_ns: 1_800 * SECOND,
        }
    }
}

/// A ban that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The source.
    pub key: u64,
    /// When it ends, nanoseconds of the monotonic clock.
    pub until: u64,
    /// How often it escalated, 0 to 3.
    pub level: u8,
    /// What for.
    pub reason: Reason,
}

/// Prices and bans, compiled.
#[derive(Clone, Debug)]
pub(super) struct Offences {
    tokens: [u32; Behaviour::COUNT],
    interval_ns: u64,
    cap_ns: u64,
    per_second: Rate,
    bans: BanSettings,
}

/// The kind under which the meter of a source's losses is kept, beside the behaviours.
const METER: u32 = Behaviour::COUNT as u32;

impl Offences {
    /// `rate` is that of the sources' buckets, `cap_ns` the debt that penalties stop at, `per_second` the most tokens that
    /// they take from a source in a second.
    pub(super) fn new(
        costs: &Costs,
        rate: Rate,
        cap_ns: u64,
        per_second: u32,
        bans: BanSettings,
    ) -> Offences {
        Offences {
            tokens: costs.by_behaviour(),
            interval_ns: rate.interval_ns,
            cap_ns,
            per_second: Rate::per_second(per_second.into(), per_second.into()),
            bans,
        }
    }

    /// Charges the source under `key` for `points` of a behaviour, and bans it if that was one too many.
    #[inline]
    pub(super) fn charge(
        &self,
        table: &Table,
        key: u64,
        what: Behaviour,
        points: u32,
        now: u64,
    ) -> Option<Ban> {
        self.charge_for(table, key, (what, what.reason()), points, now)
    }

    /// As [`Offences::charge`]; a ban is said to be for the reason given.
    #[inline]
    pub(super) fn charge_for(
        &self,
        table: &Table,
        key: u64,
        (what, reason): (Behaviour, Reason),
        points: u32,
        now: u64,
    ) -> Option<Ban> {
        let tokens = self.tokens[what as usize].saturating_mul(points);
        if tokens > 0 && self.interval_ns > 0 {
            self.penalize(table, key, tokens, now);
        }
        let trigger = self.bans.triggers[what as usize];
        if trigger.is_unlimited() {
            return None;
        }
        let counted = abi::offence_key(key, what as u32, table.secret());
        match table.charge(counted, Word::Request, now, trigger, points.into()) {
            Charge::Conforming { .. } => None,
            Charge::Limited { .. } => self.ban(table, key, now, reason),
        }
    }

    fn penalize(&self, table: &Table, key: u64, tokens: u32, now: u64) {
        let tokens = u64::from(tokens).min(self.per_second.burst_ns / self.per_second.interval_ns.max(1));
        let meter = abi::offence_key(key, METER, table.secret());
        if table.charge(meter, Word::Request, now, self.per_second, tokens).conforms() {
            let cost_ns = self.interval_ns.saturating_mul(tokens);
            table.penalize(key, Word::Request, now, cost_ns, self.cap_ns);
        }
    }

    /// As [`Offences::ban_anew`], unless the source is banned already.
    fn ban(&self, table: &Table, key: u64, now: u64, reason: Reason) -> Option<Ban> {
        if abi::bans(table.block_word(key), now) {
            None
        } else {
            Some(self.ban_anew(table, key, now, reason))
        }
    }

    /// Bans for the time that the source's history asks for.
    pub(super) fn ban_anew(&self, table: &Table, key: u64, now: u64, reason: Reason) -> Ban {
        let level = abi::next_level(table.block_word(key), now, self.bans.decay_ns);
        let until = now.saturating_add(self.bans.steps_ns[usize::from(level)]);
        table.block(key, now, until, level, reason);
        Ban { key, until, level, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random_secret;
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 3_600 * SECOND;
    const KEY: u64 = 1 << 48 | 7;

    fn offences(change: impl FnOnce(&mut Costs, &mut BanSettings)) -> (Offences, Table) {
        let (mut costs, mut bans) = (Costs::default(), BanSettings::default());
        change(&mut costs, &mut bans);
        let rate = Rate::per_second(1_000, 5);
        let table = Table::new(1 << 10, random_secret()).expect("a small table");
        (Offences::new(&costs, rate, 60 * SECOND, 100, bans), table)
    }

    #[test]
    fn a_second_costs_no_more_than_it_may() {
        let (offences, table) = offences(|costs, _| costs.malformed = 30);
        for _ in 0..50 {
            offences.charge(&table, KEY, Behaviour::Malformed, 1, NOW);
        }
        // Three times 30 fit into 100 tokens of a millisecond each.
        assert_eq!(table.debt(KEY, Word::Request, NOW), 90_000_000);
        offences.charge(&table, KEY, Behaviour::Malformed, 1, NOW + SECOND);
        assert_eq!(table.debt(KEY, Word::Request, NOW + SECOND), 30_000_000, "the next second has its own");
    }

    #[test]
    fn one_offence_too_many_bans_and_bans_escalate_and_decay() {
        let (offences, table) = offences(|costs, bans| {
            costs.unauthorized = 0;
            bans.triggers[Behaviour::Unauthorized as usize] = Rate::new(3, 60 * SECOND, 3);
        });
        let offend = |now| {
            (0..)
                .find_map(|i| offences.charge(&table, KEY, Behaviour::Unauthorized, 1, now + i))
                .expect("a ban in the end")
        };
        let mut now = NOW;
        for (level, seconds) in [(0, 10), (1, 60), (2, 600), (3, 3_600), (3, 3_600)] {
            let ban = offend(now);
            assert_eq!((ban.level, ban.until - now), (level, seconds * SECOND + (ban.until - now) % SECOND));
            assert_eq!(ban.reason, Reason::UnauthorizedInvalid);
            let again = offences.charge(&table, KEY, Behaviour::Unauthorized, 9, ban.until - SECOND);
            assert_eq!(again, None, "banned already");
            now = ban.until + 100 * SECOND;
        }
        // Two steps down after twice the decay, and a clean slate in the end.
        assert_eq!(offend(now + 2 * 1_800 * SECOND).level, 2);
        assert_eq!(offend(now + 40 * 1_800 * SECOND).level, 0);
    }

    #[test]
    fn other_sources_and_other_offences_are_counted_apart() {
        let (offences, table) = offences(|_, bans| {
            bans.triggers = [Rate::new(2, 60 * SECOND, 2); Behaviour::COUNT];
        });
        for what in [Behaviour::Unauthorized, Behaviour::Forbidden] {
            for key in [KEY, KEY + 1] {
                for _ in 0..2 {
                    assert_eq!(offences.charge(&table, key, what, 1, NOW), None);
                }
            }
        }
        assert!(offences.charge(&table, KEY, Behaviour::Forbidden, 1, NOW).is_some());
        assert!(
            offences.charge(&table, KEY + 1, Behaviour::Plugin, 3, NOW).is_some(),
            "three points at once"
        );
    }

    #[test]
    fn every_reason_of_a_connections_end_has_its_price() {
        assert_eq!(Behaviour::of_reason(Reason::H2RapidReset), Some(Behaviour::Http2Flood));
        assert_eq!(Behaviour::of_reason(Reason::SlowReader), Some(Behaviour::SlowClient));
        assert_eq!(Behaviour::of_reason(Reason::TlsHandshakeTimeout), Some(Behaviour::TlsHandshakeAbandoned));
        assert_eq!(Behaviour::of_reason(Reason::NoRoute), None);
        assert_eq!(Behaviour::of_status(401), Some(Behaviour::Unauthorized));
        assert_eq!(Behaviour::of_status(404), None);
    }
}
