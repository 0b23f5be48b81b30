//! From what an operator writes to what the tries hold.
//!
//! The program asks one LPM trie once, and the longest prefix answers. So everything that is not "longest prefix wins" is
//! settled here: a prefix inside a trusted one is trusted, of two equal prefixes the more permissive wins, and a prefix
//! that only a limit names has the list and the limits of the prefixes around it as well. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use portcullis_abi::{PREFIX_CLASSES, RULES, Rate, Reason, Rule, RuleWord, ban_end, rule_bit};

use super::{KernelError, Part};

/// What an operator configures, in any order and overlap. The longest prefix decides between allow and
/// deny; nothing overrides trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Never dropped: proxies in front, health checkers, upstream targets, administrators.
    pub trusted: Vec<IpNet>,
    /// Exempt from limits and bans.
    pub allow: Vec<IpNet>,
    /// Dropped.
    pub deny: Vec<IpNet>,
    /// Those are only counted.
    pub deny_shadow: bool,
    /// Dropped, and counted as banned, until then (ns of CLOCK_MONOTONIC).
    pub banned: Vec<(IpNet, u64)>,
    /// Lists with names, long ones among them; at most 65,535.
    pub named: Vec<NamedList>,
    /// Limits for some ports or prefixes, the first that fits holds; at most 63.
    pub limits: Vec<LimitSpec>,
}

/// A list with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedList {
    /// Its name.
    pub name: String,
    /// Its prefixes.
    pub prefixes: Arc<[IpNet]>,
    /// Whether they are allowed; else denied.
    pub allows: bool,
    /// Only counted.
    pub shadow: bool,
    /// TCP is answered with a reset.
    pub reset: bool,
}

/// A limit for some ports, some prefixes, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSpec {
    /// Its name.
    pub name: String,
    /// Ports of listeners; empty: all.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Sources; empty: all.
    pub prefixes: Vec<IpNet>,
    /// New connections of each source; [`Rate::UNLIMITED`] leaves the general limit in force.
    pub connections: Rate,
    /// Packets of each source; likewise.
    pub packets: Rate,
    /// Only counted.
    pub shadow: bool,
    /// TCP is answered with a reset.
    pub reset: bool,
}

/// A refusal that was not written, because it names a trusted source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overruled {
    /// The prefix that was to be denied or banned.
    pub refused: IpNet,
    /// The trusted one that it is in.
    pub trusted: IpNet,
}

/// Network address (IPv4 in the low 32 bits) and prefix length: sorts a prefix right before its parts.
pub(super) type Prefix = (u128, u8);

/// What both tries are to hold.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) v4: BTreeMap<Prefix, RuleWord>,
    pub(super) v6: BTreeMap<Prefix, RuleWord>,
    /// By class of prefixes, the limits that name them, a bit each; class 0 is in none.
    pub(super) classes: Vec<u64>,
    /// The first few refusals that trust overrules.
    pub(super) overruled: Vec<Overruled>,
}

/// More than this of one kind of finding helps nobody.
const FINDINGS_MAX: usize = 16;

/// Prefixes between two signs of life: some milliseconds' worth.
const ALIVE_EVERY: usize = 1 << 14;

/// One prefix while it is looked at: what its own lists say, and the limits that name it.
#[derive(Clone, Copy, Default)]
struct Entry {
    own: Option<(Rule, u32, u16)>,
    limits: u64,
}

type Entries = BTreeMap<Prefix, Entry>;

/// Settles everything: see the module. `alive` is called now and then: a million prefixes take a second.
pub(super) fn resolve(lists: &Lists, alive: &dyn Fn()) -> Result<Resolved, KernelError> {
    let too_many = |what, count, max, setting| Err(KernelError::TooMany { what, count, max, setting });
    if lists.limits.len() >= RULES {
        return too_many("limits by port or prefix", lists.limits.len(), RULES as u32 - 1, "nothing");
    }
    let (mut v4, mut v6) = (Entries::new(), Entries::new());
    let mut at = |net: &IpNet, change: &mut dyn FnMut(&mut Entry)| match net.network() {
        IpAddr::V4(addr) => change(v4.entry((u32::from(addr).into(), net.prefix_len())).or_default()),
        IpAddr::V6(addr) => change(v6.entry((u128::from(addr), net.prefix_len())).or_default()),
    };
    let mut say = |net: &IpNet, rule: Rule, bits: u32, list: u16| {
        at(net, &mut |entry| {
            // The more permissive wins, and of two equals the one that is carried out.
            let better = entry.own.is_none_or(|(old, old_bits, _)| {
                (rule, bits & rule_bit::SHADOW == 0) > (old, old_bits & rule_bit::SHADOW == 0)
            });
            if better {
                entry.own = Some((rule, bits, list));
            }
        });
    };
    let inline = bits(lists.deny_shadow, false);
    lists.deny.iter().for_each(|net| say(net, Rule::Deny, inline, 0));
    lists.banned.iter().for_each(|(net, until)| say(net, Rule::Banned, 0, ban_end(*until)));
    for (list, number) in lists.named.iter().zip(1..) {
        let rule = if list.allows { Rule::Allow } else { Rule::Deny };
        let bits = bits(list.shadow, list.reset);
        for part in list.prefixes.chunks(ALIVE_EVERY) {
            alive();
            part.iter().for_each(|net| say(net, rule, bits, number));
        }
    }
    lists.allow.iter().for_each(|net| say(net, Rule::Allow, 0, 0));
    lists.trusted.iter().for_each(|net| say(net, Rule::Trusted, 0, 0));
    for (number, limit) in lists.limits.iter().enumerate() {
        for net in &limit.prefixes {
            at(net, &mut |entry| entry.limits |= 1 << number);
        }
    }

    let mut resolved = Resolved { classes: vec![0], ..Resolved::default() };
    resolved.v4 = settle(&v4, 32, &mut resolved, alive)?;
    resolved.v6 = settle(&v6, 128, &mut resolved, alive)?;
    Ok(resolved)
}

/// The lists with what is tripped in shadow.
pub(super) fn spared<'a>(lists: &'a Lists, tripped: &BTreeSet<Part>) -> Cow<'a, Lists> {
    let mut spared = Cow::Borrowed(lists);
    for Part { reason, number } in tripped {
        let at = (*number as usize).checked_sub(1);
        match (reason, at) {
            (Reason::DropDenied, None) => spared.to_mut().deny_shadow = true,
            (Reason::DropDenied, Some(at)) if at < lists.named.len() => {
                spared.to_mut().named[at].shadow = true;
            }
            (Reason::DropRuleRate, Some(at)) if at < lists.limits.len() => {
                spared.to_mut().limits[at].shadow = true;
            }
            _ => {}
        }
    }
    spared
}

/// [`rule_bit`]s.
pub(super) const fn bits(shadow: bool, reset: bool) -> u32 {
    (if shadow { rule_bit::SHADOW } else { 0 }) | (if reset { rule_bit::RESET } else { 0 })
}

/// Prefixes come sorted, a prefix before its parts, so those around the next one are a stack.
fn settle(
    entries: &Entries,
    width: u8,
    resolved: &mut Resolved,
    alive: &dyn Fn(),
) -> Result<BTreeMap<Prefix, RuleWord>, KernelError> {
    let mut around: Vec<(Prefix, Entry)> = Vec::new();
    let mut words = BTreeMap::new();
    for (number, (&prefix, &entry)) in entries.iter().enumerate() {
        if number % ALIVE_EVERY == 0 {
            alive();
        }
        while around.last().is_some_and(|(outer, _)| !holds(*outer, prefix, width)) {
            around.pop();
        }
        let mut settled = entry;
        if let Some((outer, outside)) = around.last() {
            settled.limits |= outside.limits;
            settled.own = settled.own.or(outside.own);
            if outside.own.is_some_and(|(rule, ..)| rule == Rule::Trusted) {
                settled.own = outside.own;
                if matches!(entry.own, Some((Rule::Deny | Rule::Banned, ..)))
                    && resolved.overruled.len() < FINDINGS_MAX
                {
                    let (refused, trusted) = (net(prefix, width), net(*outer, width));
                    resolved.overruled.extend(
                        refused.zip(trusted).map(|(refused, trusted)| Overruled { refused, trusted }),
                    );
                }
            }
        }
        around.push((prefix, settled));
        let (rule, bits, list) = settled.own.unwrap_or((Rule::Limit, 0, 0));
        words.insert(prefix, RuleWord::new(rule, bits, class(settled.limits, &mut resolved.classes)?, list));
    }
    Ok(words)
}

fn holds((network, length): Prefix, (bits, inner): Prefix, width: u8) -> bool {
    length == 0 || (length <= inner && bits >> (width - length) == network >> (width - length))
}

fn net((bits, length): Prefix, width: u8) -> Option<IpNet> {
    let addr = if width == 32 {
        IpAddr::from((bits as u32).to_be_bytes())
    } else {
        IpAddr::from(bits.to_be_bytes())
    };
    IpNet::new(addr, length).ok()
}

/// The number of a set of limits among the classes.
fn class(limits: u64, classes: &mut Vec<u64>) -> Result<u8, KernelError> {
    if let Some(class) = classes.iter().position(|known| *known == limits) {
        return Ok(class as u8);
    }
    if classes.len() == PREFIX_CLASSES {
        return Err(KernelError::TooMany {
            what: "kinds of prefixes that limits tell apart",
            count: PREFIX_CLASSES,
            max: PREFIX_CLASSES as u32 - 1,
            setting: "nothing; let fewer prefixes of limits overlap",
        });
    }
    classes.push(limits);
    Ok(classes.len() as u8 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a prefix")).collect()
    }

    #[track_caller]
    fn check(trusted: &[&str], allow: &[&str], deny: &[&str], expected: &[(&str, Rule)]) {
        let lists =
            Lists { trusted: nets(trusted), allow: nets(allow), deny: nets(deny), ..Lists::default() };
        let Resolved { v4, v6, .. } = resolve(&lists, &|| ()).expect("few prefixes");
        let mut written: Vec<(IpNet, Rule)> = v4
            .into_iter()
            .map(|(prefix, word)| (net(prefix, 32).expect("net"), word.rule().expect("known")))
            .chain(
                v6.into_iter()
                    .map(|(prefix, word)| (net(prefix, 128).expect("net"), word.rule().expect("known"))),
            )
            .collect();
        let mut expected: Vec<(IpNet, Rule)> =
            expected.iter().map(|(text, rule)| (text.parse().expect("a prefix"), *rule)).collect();
        written.sort();
        expected.sort();
        assert_eq!(written, expected);
    }

    #[test]
    fn the_longest_prefix_decides_between_allow_and_deny() {
        check(
            &[],
            &["10.1.0.0/16"],
            &["10.0.0.0/8", "10.1.2.0/24"],
            &[("10.0.0.0/8", Rule::Deny), ("10.1.0.0/16", Rule::Allow), ("10.1.2.0/24", Rule::Deny)],
        );
    }

    #[test]
    fn nothing_inside_a_trusted_prefix_is_denied() {
        check(
            &["10.1.0.0/16", "2001:db8::/32"],
            &[],
            &["10.0.0.0/8", "10.1.2.3/32", "10.2.0.0/16", "2001:db8:1::/48", "2001:db9::/32"],
            &[
                ("10.0.0.0/8", Rule::Deny),
                ("10.1.0.0/16", Rule::Trusted),
                ("10.1.2.3/32", Rule::Trusted),
                ("10.2.0.0/16", Rule::Deny),
                ("2001:db8::/32", Rule::Trusted),
                ("2001:db8:1::/48", Rule::Trusted),
                ("2001:db9::/32", Rule::Deny),
            ],
        );
    }

    #[test]
    fn of_equal_prefixes_the_more_permissive_wins() {
        check(&[], &["192.0.2.0/24"], &["192.0.2.0/24"], &[("192.0.2.0/24", Rule::Allow)]);
        check(&["192.0.2.7/24"], &[], &["192.0.2.9/24"], &[("192.0.2.0/24", Rule::Trusted)]);
    }

    #[test]
    fn trust_in_everything_covers_everything() {
        check(
            &["0.0.0.0/0"],
            &[],
            &["255.255.255.255/32"],
            &[("0.0.0.0/0", Rule::Trusted), ("255.255.255.255/32", Rule::Trusted)],
        );
    }

    fn limit(name: &str, prefixes: &[&str]) -> LimitSpec {
        LimitSpec {
            name: name.into(),
            ports: Vec::new(),
            prefixes: nets(prefixes),
            connections: Rate::per_second(1, 1),
            packets: Rate::UNLIMITED,
            shadow: false,
            reset: false,
        }
    }

    #[test]
    fn a_prefix_of_a_limit_keeps_what_is_around_it() {
        let lists = Lists {
            deny: nets(&["10.0.0.0/8"]),
            limits: vec![limit("wide", &["10.0.0.0/7"]), limit("narrow", &["10.1.0.0/16", "192.0.2.0/24"])],
            ..Lists::default()
        };
        let resolved = resolve(&lists, &|| ()).expect("few prefixes");
        let at = |text: &str| {
            let net: IpNet = text.parse().expect("a prefix");
            let IpAddr::V4(addr) = net.network() else { panic!("IPv4 only") };
            let word = resolved.v4[&(u32::from(addr).into(), net.prefix_len())];
            (word.rule().expect("known"), resolved.classes[word.class() as usize])
        };
        assert_eq!(at("10.0.0.0/7"), (Rule::Limit, 0b01));
        assert_eq!(at("10.0.0.0/8"), (Rule::Deny, 0b01));
        assert_eq!(at("10.1.0.0/16"), (Rule::Deny, 0b11), "denied and limited as those around it");
        assert_eq!(at("192.0.2.0/24"), (Rule::Limit, 0b10));
    }

    #[test]
    fn what_is_tripped_is_in_shadow_and_nothing_else() {
        let named = |name: &str| NamedList {
            name: name.into(),
            prefixes: nets(&["192.0.2.0/24"]).into(),
            allows: false,
            shadow: false,
            reset: false,
        };
        let lists = Lists {
            deny: nets(&["10.0.0.0/8"]),
            named: vec![named("a"), named("b")],
            limits: vec![limit("c", &["10.0.0.0/7"]), limit("d", &[])],
            ..Lists::default()
        };
        let shadows = |tripped: &[(Reason, u32)]| {
            let tripped = tripped.iter().map(|(reason, number)| Part { reason: *reason, number: *number });
            let spared = spared(&lists, &tripped.collect()).into_owned();
            let named = spared.named.iter().map(|list| list.shadow);
            let limits = spared.limits.iter().map(|limit| limit.shadow);
            [spared.deny_shadow].into_iter().chain(named).chain(limits).collect::<Vec<_>>()
        };
        assert_eq!(shadows(&[]), [false; 5]);
        assert_eq!(shadows(&[(Reason::DropDenied, 0)]), [true, false, false, false, false]);
        assert_eq!(shadows(&[(Reason::DropDenied, 2)]), [false, false, true, false, false]);
        assert_eq!(shadows(&[(Reason::DropRuleRate, 1)]), [false, false, false, true, false]);
        let gone = [(Reason::DropDenied, 3), (Reason::DropRuleRate, 9), (Reason::DropBanned, 0)];
        assert_eq!(shadows(&gone), [false; 5]);
    }

    #[test]
    fn a_refusal_of_a_trusted_source_is_told() {
        let lists = Lists {
            trusted: nets(&["10.1.0.0/16"]),
            deny: nets(&["10.1.2.3/32", "10.0.0.0/8"]),
            ..Lists::default()
        };
        let overruled = resolve(&lists, &|| ()).expect("few prefixes").overruled;
        let net = |text: &str| text.parse().expect("a prefix");
        assert_eq!(
            overruled,
            [Overruled { refused: net("10.1.2.3/32"), trusted: net("10.1.0.0/16") }],
            "one inside; the one around it only loses a part"
        );
    }
}
