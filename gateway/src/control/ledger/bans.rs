//! Bans: who, why, by whom, until when.
//!
//! Owns what a word of the table has no room for: the operator's words, and prefixes wider than one source. The ban of
//! a single source is its word alone, tested against kernel time by the program and by the shards, so it ends by
//! itself; a prefix is kept here and taken off the lists by the beat. Never bans a trusted source.
//!
//! Invariant: at most [`GIVEN_MAX`] orders are remembered.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};
use portcullis_abi::{Block, Reason};
use portcullis_config::units::canonical;
use serde::{Deserialize, Serialize};

use super::View;
use crate::limit::{CidrSet, Table, source_key, source_text};

/// An operator's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanOrder {
    pub source: IpNet,
    /// For how long.
    pub seconds: u64,
    pub reason: String,
}

/// A ban in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// An address, an IPv6 /64, or a prefix.
    pub source: String,
    /// `operator` or `behaviour`.
    pub by: String,
    /// The operator's words, or the name of the behaviour.
    pub reason: String,
    /// Seconds since 1970; unknown for a ban by behaviour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Seconds since 1970.
    pub until: u64,
    pub seconds_left: u64,
    /// How often it escalated, 0 to 3.
    pub level: u8,
    /// Who refuses: `kernel and proxy`, or `proxy`, with why not the kernel.
    pub enforced_by: String,
    /// Whether it is a prefix wider than one source.
    #[serde(skip)]
    pub wide: bool,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bans {
    pub bans: Vec<Ban>,
    /// Whether there are more than are listed.
    pub more: bool,
}

/// Why an order is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of the answer.
    pub status: u16,
    pub message: String,
}

impl Refusal {
    fn new(status: u16, message: String) -> Self {
        Self { status, message }
    }
}

/// What was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    pub reason: String,
    /// Seconds since 1970.
    pub since: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`, which every process of a boot shares.
    pub until_ns: u64,
}

/// The orders that have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BanBook {
    given: BTreeMap<IpNet, Given>,
    ordered: u64,
}

/// Orders remembered at a time. More are refused: a list of that size belongs into `xdp.deny`.
const GIVEN_MAX: usize = 4096;
/// Bans listed at a time.
const LISTED_MAX: usize = 10_000;
/// Longest ban. What is to last longer belongs into the configuration.
const LONGEST_S: u64 = 30 * 24 * 3600;
/// Of the operator's words, in bytes.
const REASON_MAX: usize = 500;

/// The prefix that a ban of `source` covers: an IPv6 source is its /64, a v4-mapped or NAT64 address its IPv4 one.
pub fn covered(source: IpNet) -> IpNet {
    match canonical(source) {
        IpNet::V6(v6) if NAT64.contains(&v6) => match v6.prefix_len() {
            128 => IpNet::from(IpAddr::from(Ipv4Addr::from_bits(v6.addr().to_bits() as u32))),
            _ => IpNet::V6(v6.trunc()),
        },
        IpNet::V6(v6) if v6.prefix_len() > 64 => {
            let network = v6.addr().to_bits() >> 64 << 64;
            Ipv6Net::new(Ipv6Addr::from_bits(network), 64).map_or(source, IpNet::V6)
        }
        other => other.trunc(),
    }
}

/// The network in which IPv4 sources appear behind a stateless translator (RFC 6052), each a source of its own.
const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Whether `prefix`, as [`covered`] gives it, is one source of the table.
fn is_one_source(prefix: IpNet) -> bool {
    match prefix {
        IpNet::V4(v4) => v4.prefix_len() == 32,
        IpNet::V6(v6) => v6.prefix_len() == 64 && !v6.contains(&NAT64),
    }
}

fn shown(prefix: IpNet) -> String {
    match prefix {
        IpNet::V4(v4) if v4.prefix_len() == 32 => v4.addr().to_string(),
        other => other.to_string(),
    }
}

impl BanBook {
    /// Carries out an order: writes the word or keeps the prefix, and ends the connections that are open.
    pub fn ban(&mut self, order: &BanOrder, view: &View<'_>) -> Result<Ban, Refusal> {
        let prefix = covered(order.source);
        if order.seconds == 0 || order.seconds > LONGEST_S {
            let message =
                format!("a ban lasts 1 s to 30 days, not {} s; for longer there is xdp.deny", order.seconds);
            return Err(Refusal::new(400, message));
        }
        if order.reason.len() > REASON_MAX {
            return Err(Refusal::new(400, format!("the reason is longer than {REASON_MAX} bytes")));
        }
        let trusted = [prefix, order.source].into_iter().find_map(|net| view.trusted_at(net));
        if let Some(one) = trusted {
            let message = format!("{} is trusted: {} ({})", shown(prefix), one.because, shown(one.prefix));
            return Err(Refusal::new(409, message));
        }
        if self.given.len() >= GIVEN_MAX && !self.given.contains_key(&prefix) {
            let message = format!("{GIVEN_MAX} bans are in force; a list of that size belongs into xdp.deny");
            return Err(Refusal::new(507, message));
        }
        let until_ns = view.now_ns.saturating_add(order.seconds.saturating_mul(1_000_000_000));
        let given = Given { reason: order.reason.clone(), since: view.now_unix, until_ns };
        self.given.insert(prefix, given);
        self.ordered += 1;
        if is_one_source(prefix) {
            let key = source_key(prefix.addr());
            view.table.block(key, view.now_ns, until_ns, 0, Reason::SourceBanned);
        } else {
            self.tell_shards(view);
        }
        let sources = Arc::new(CidrSet::new([prefix, order.source]));
        if let Err(cause) = view.shards.cut(&sources) {
            tracing::error!(%cause, "not every connection of a banned source is ended");
        }
        let ban = self.described(prefix, view).ok_or_else(|| Refusal::new(500, "the ban was lost".into()))?;
        tracing::info!(
            source = ban.source,
            seconds = order.seconds,
            reason = order.reason,
            "banned by an operator"
        );
        Ok(ban)
    }

    /// Ends a ban, whoever gave it.
    pub fn unban(&mut self, source: IpNet, view: &View<'_>) -> Result<(), Refusal> {
        let prefix = covered(source);
        let was_given = self.given.remove(&prefix).is_some_and(|given| given.until_ns > view.now_ns);
        let key = source_key(prefix.addr());
        let is_word =
            is_one_source(prefix) && matches!(view.table.block_at(key, view.now_ns), Block::Banned { .. });
        if is_word {
            view.table.unblock_ban(key, view.now_ns);
        } else if was_given {
            self.tell_shards(view);
        }
        if let Some(wider) = self.holding(prefix, view.now_ns) {
            let message = format!("{} is banned as part of {wider}: unban that", shown(prefix));
            return Err(Refusal::new(409, message));
        }
        if !(is_word || was_given) {
            return Err(Refusal::new(404, format!("{} is not banned", shown(prefix))));
        }
        tracing::info!(source = shown(prefix), "unbanned by an operator");
        Ok(())
    }

    /// Every ban in force, those that end first first.
    pub fn list(&self, view: &View<'_>) -> Bans {
        let words = view.table.banned(view.now_ns, LISTED_MAX + 1);
        let more = words.len() > LISTED_MAX;
        let mut bans: Vec<_> =
            words.iter().take(LISTED_MAX).filter_map(|&(key, word)| self.of_word(key, word, view)).collect();
        let wide = self.given.keys().filter(|prefix| !is_one_source(**prefix));
        bans.extend(wide.filter_map(|&prefix| self.described(prefix, view)));
        bans.sort_by(|a, b| a.until.cmp(&b.until).then_with(|| a.source.cmp(&b.source)));
        Bans { bans, more }
    }

    /// The ban that `address` is under: its own, or that of a prefix.
    pub fn of(&self, address: IpAddr, view: &View<'_>) -> Option<Ban> {
        let own = covered(IpNet::from(address));
        let wider = || self.holding(own, view.now_ns).and_then(|prefix| self.described(prefix, view));
        self.described(own, view).or_else(wider)
    }

    /// Whether `source` is a banned prefix wider than one source.
    pub fn is_wide(&self, source: IpNet) -> bool {
        let prefix = covered(source);
        !is_one_source(prefix) && self.given.contains_key(&prefix)
    }

    /// Banned prefixes wider than one source, and until when (ns of CLOCK_MONOTONIC).
    pub fn wide(&self) -> impl Iterator<Item = (IpNet, u64)> + '_ {
        let wide = self.given.iter().filter(|(prefix, _)| !is_one_source(**prefix));
        wide.map(|(prefix, given)| (*prefix, given.until_ns))
    }

    fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.wide().map(|(prefix, _)| prefix)
    }

    /// Orders so far.
    pub fn ordered(&self) -> u64 {
        self.ordered
    }

    /// Orders remembered.
    pub fn given(&self) -> usize {
        self.given.len()
    }

    /// Forgets what has ended. True: a prefix wider than one source was among it.
    pub fn expire(&mut self, now_ns: u64) -> bool {
        let wide = self.prefixes().count();
        self.given.retain(|_, given| given.until_ns > now_ns);
        self.prefixes().count() != wide
    }

    /// All orders, for the process that comes after.
    pub fn orders(&self) -> Vec<(String, Given)> {
        self.given.iter().map(|(prefix, given)| (prefix.to_string(), given.clone())).collect()
    }

    /// Takes over the orders of another process. Its table may be gone with it, so words are written anew.
    pub fn adopt(&mut self, orders: Vec<(String, Given)>, table: &Table, now_ns: u64) {
        let read = |(prefix, given): (String, Given)| Some((prefix.parse::<IpNet>().ok()?, given));
        for (prefix, given) in orders.into_iter().filter_map(read).take(GIVEN_MAX) {
            if is_one_source(prefix) && given.until_ns > now_ns {
                table.block(source_key(prefix.addr()), now_ns, given.until_ns, 0, Reason::SourceBanned);
            }
            self.given.insert(prefix, given);
        }
    }

    /// Hands the shards the prefixes.
    pub fn tell_shards(&self, view: &View<'_>) {
        let prefixes = Arc::new(self.prefixes().collect::<CidrSet>());
        if let Err(cause) = view.shards.ban(&prefixes) {
            tracing::error!(%cause, "not every shard knows the banned prefixes");
        }
    }

    fn holding(&self, prefix: IpNet, now_ns: u64) -> Option<IpNet> {
        let holding = |(wide, given): &(&IpNet, &Given)| {
            **wide != prefix && wide.contains(&prefix) && given.until_ns > now_ns && !is_one_source(**wide)
        };
        self.given.iter().find(holding).map(|(wide, _)| *wide)
    }

    fn described(&self, prefix: IpNet, view: &View<'_>) -> Option<Ban> {
        if is_one_source(prefix) {
            let key = source_key(prefix.addr());
            return self.of_word(key, view.table.block_at(key, view.now_ns), view);
        }
        let given = self.given.get(&prefix).filter(|given| given.until_ns > view.now_ns)?;
        let since = Some(given.since);
        Some(Ban { since, ..ban(shown(prefix), given.reason.clone(), given.until_ns, 0, true, view) })
    }

    fn of_word(&self, key: u64, word: Block, view: &View<'_>) -> Option<Ban> {
        let Block::Banned { until, level, reason, .. } = word else { return None };
        let source = source_text(key);
        if reason != Reason::SourceBanned {
            let told = ban(source, reason.as_str().to_owned(), until, level, false, view);
            let watched = view.config.xdp.watches_bans();
            let enforced_by = if watched { "nobody (shadow mode)".into() } else { told.enforced_by.clone() };
            return Some(Ban { by: "behaviour".into(), enforced_by, ..told });
        }
        let prefix = source.parse::<IpNet>().or_else(|_| source.parse::<IpAddr>().map(IpNet::from));
        let given = prefix.ok().and_then(|prefix| self.given.get(&prefix));
        // A ban of an earlier process may have lost its words: that of a gateway without an admin socket.
        let words = given.map(|given| given.reason.clone()).unwrap_or_default();
        let told = ban(source, words, until, level, false, view);
        Some(Ban { since: given.map(|given| given.since), ..told })
    }
}

fn ban(source: String, reason: String, until_ns: u64, level: u8, wide: bool, view: &View<'_>) -> Ban {
    Ban {
        source,
        by: "operator".into(),
        reason,
        since: None,
        until: view.unix(until_ns),
        seconds_left: until_ns.saturating_sub(view.now_ns).div_ceil(1_000_000_000),
        level,
        enforced_by: enforced_by(wide, view),
        wide,
    }
}

fn enforced_by(wide: bool, view: &View<'_>) -> String {
    match (view.kernel.mode.as_str(), &view.kernel.why) {
        ("off", Some(why)) => format!("proxy (kernel part off: {why})"),
        ("off", None) => "proxy (kernel part off)".into(),
        _ if view.kernel.dead => "proxy (kernel part passes everything: no sign of life)".into(),
        _ if wide && view.kernel.enforcement != "enforce" => "proxy (kernel part in shadow mode)".into(),
        // The ban of one source is dropped in shadow mode too: an order is no guess.
        _ => "kernel and proxy".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::random_secret;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn what_a_ban_covers() {
        for (source, expected, one) in [
            ("192.0.2.1/32", "192.0.2.1/32", true),
            ("192.0.2.1/24", "192.0.2.0/24", false),
            ("::ffff:192.0.2.1/128", "192.0.2.1/32", true),
            ("2001:db8::7/128", "2001:db8::/64", true),
            ("2001:db8:1:2:3::/64", "2001:db8:1:2::/64", true),
            ("2001:db8::/48", "2001:db8::/48", false),
            ("64:ff9b::192.0.2.1/128", "192.0.2.1/32", true),
            ("64:ff9b::192.0.2.1/120", "64:ff9b::c000:200/120", false),
            ("64:ff9b::/64", "64:ff9b::/64", false),
        ] {
            let prefix = covered(net(source));
            assert_eq!((prefix, is_one_source(prefix)), (net(expected), one), "{source}");
        }
        assert_eq!(shown(net("192.0.2.1/32")), "192.0.2.1");
        assert_eq!(shown(net("2001:db8::/64")), "2001:db8::/64");
    }

    #[test]
    fn orders_end_and_are_handed_on() {
        let given = |until_ns| Given { reason: "because".into(), since: 1, until_ns };
        let table = Table::new(64, random_secret()).unwrap();
        let mut book = BanBook::default();
        let orders = vec![("192.0.2.1/32".into(), given(1 << 20)), ("10.0.0.0/8".into(), given(1 << 21))];
        book.adopt(orders, &table, 0);
        assert_eq!(table.banned(0, 9).len(), 1);
        assert!(book.is_wide(net("10.0.0.0/8")) && !book.is_wide(net("192.0.2.1/32")));
        assert_eq!(book.holding(net("10.1.2.3/32"), 0), Some(net("10.0.0.0/8")));
        assert_eq!(book.holding(net("10.1.2.3/32"), 1 << 21), None, "it has ended");
        assert!(!book.expire(3 << 19), "no prefix was among it");
        let mut next = BanBook::default();
        next.adopt(book.orders(), &table, 3 << 19);
        assert_eq!(next.prefixes().collect::<Vec<_>>(), [net("10.0.0.0/8")]);
        assert!(next.expire(1 << 21));
        assert_eq!(next.orders(), []);
    }
}
