//! What an operator may ask the kernel part.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use ipnet::IpNet;
use portcullis_abi::{Reason, Rule};

use super::{Drop, Hit, Kernel, KernelError, Part};

/// The prefix that decides about an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The prefix.
    pub net: IpNet,
    /// What becomes of its sources.
    pub rule: Rule,
    /// The name of the list it is on; `None` for those written inline, and for the addresses trusted by themselves.
    pub list: Option<String>,
    /// Only counted.
    pub shadow: bool,
    /// TCP is answered with a reset.
    pub reset: bool,
    /// Names of the limits for it, the first of which that fits the port holds.
    pub limits: Vec<String>,
}

/// How the kernel part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Age of the last sign of life.
    pub heartbeat_age_ns: u64,
    /// Whether it is so old that the program passes everything.
    pub dead: bool,
    /// How far the unknown sources together are in debt.
    pub unknown_debt_ns: u64,
    /// Resets sent.
    pub resets_sent: u64,
    /// [`Reason::drop_bit`]s of the reasons that were switched to shadow, wholly or in part, to spare known-good sources.
    pub tripped: u64,
}

impl Kernel {
    /// What the lists say of an address; `None` if no prefix holds it.
    pub fn rule_of(&self, address: IpAddr) -> Option<Match> {
        let (net, word) = self.lists.lookup(address)?;
        let (rule, bits) = (word.rule()?, word.bits());
        let list = self.list_name(word.list()).filter(|_| rule != Rule::Banned).map(ToOwned::to_owned);
        Some(Match {
            net,
            rule,
            list,
            shadow: bits & portcullis_abi::rule_bit::SHADOW != 0,
            reset: bits & portcullis_abi::rule_bit::RESET != 0,
            limits: self.rules.of_class(word.class()).map(|limit| limit.name.clone()).collect(),
        })
    }

    /// The name of the limit with a number, as in [`Hit::number`] under [`Reason::DropRuleRate`].
    pub fn limit_name(&self, number: u32) -> Option<&str> {
        self.rules.limit(number).map(|limit| &*limit.name)
    }

    /// The name of the list with a number, as in [`Hit::number`] under [`Reason::DropDenied`].
    pub fn list_name(&self, number: u32) -> Option<&str> {
        self.names.get((number as usize).checked_sub(1)?).map(String::as_str)
    }

    /// What was switched to shadow, in words: a list, a rule, or a reason.
    pub fn tripped_names(&self) -> Vec<String> {
        let name =
            |part: &Part| match (part.reason, self.list_name(part.number), self.limit_name(part.number)) {
                (Reason::DropDenied, Some(list), _) => format!("list {list}"),
                (Reason::DropRuleRate, _, Some(rule)) => format!("rule {rule}"),
                (reason, ..) => reason.as_str().to_owned(),
            };
        self.tripped.iter().map(name).collect()
    }

    /// How the kernel part is at `now`.
    pub fn facts(&self, now: u64) -> Facts {
        let config = self.config;
        let heartbeat_age_ns = now.saturating_sub(config.heartbeat_ns.load(Relaxed));
        let dead_after = config.dead_after_ns.load(Relaxed);
        Facts {
            heartbeat_age_ns,
            dead: dead_after != 0 && heartbeat_age_ns > dead_after,
            unknown_debt_ns: config.shared.unknown_tat.load(Relaxed).saturating_sub(now),
            resets_sent: self.counted(Reason::KERNEL_COUNT as u32).unwrap_or(0),
            tripped: self.tripped.iter().fold(0, |bits, part| bits | part.reason.drop_bit()),
        }
    }

    /// Takes up to `max` samples of dropped packets, oldest first.
    pub fn take_drops(&mut self, max: usize) -> Vec<Drop> {
        self.reports.take(max)
    }

    /// The sources that authenticated lately and were dropped, or would have been: what a limit costs the innocent.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn known_good_hits(&self) -> Result<Vec<Hit>, KernelError> {
        self.reports.hits()
    }

    /// Forgets hits older than `before` (ns of CLOCK_MONOTONIC).
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn forget_hits(&mut self, before: u64) -> Result<(), KernelError> {
        self.reports.forget(|hit| hit.last_ns < before)
    }
}
