//! What limits cost the innocent, and the cap on it.
//!
//! The program notes each source that authenticated in the last hour and is dropped, or in shadow mode would be. Here
//! they are counted by reason: in shadow that is the estimate of false positives, and once a reason in force, or one list
//! or rule that gives it, hits more of them than allowed, it is switched to shadow, aloud, until the next reload.
//!
//! Invariant: nothing is switched but towards passing.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_abi::Reason;
use portcullis_config as config;

use crate::kernel::{Hit, Kernel, Part};
use crate::limit::{KNOWN_GOOD_NS, Table};

/// The cap, and what was found.
pub struct BlastRadius {
    cap: config::BlastRadius,
    hits: Vec<Hit>,
}

impl Default for BlastRadius {
    fn default() -> Self {
        Self { cap: config::BlastRadius { percent: 0, sources: u32::MAX }, hits: Vec::new() }
    }
}

impl BlastRadius {
    /// Takes the cap of a new configuration.
    pub fn configure(&mut self, cap: config::BlastRadius) {
        self.cap = cap;
    }

    /// Known-good sources by reason: those that were dropped, and those that would have been.
    pub fn counts(&self) -> Vec<(Reason, u64, u64)> {
        let mut counts: BTreeMap<Reason, (u64, u64)> = BTreeMap::new();
        for hit in &self.hits {
            let (dropped, shadow) = counts.entry(hit.reason).or_default();
            *(if hit.dropped { dropped } else { shadow }) += 1;
        }
        counts.into_iter().map(|(reason, (dropped, shadow))| (reason, dropped, shadow)).collect()
    }

    /// Looks at what the program has noted, and switches what does too much harm to shadow. True: a list or a rule was
    /// among it, and the kernel's lists are to be written anew.
    #[must_use]
    pub fn look(&mut self, kernel: &mut Kernel, table: &Table, now_ns: u64) -> bool {
        let oldest = now_ns.saturating_sub(KNOWN_GOOD_NS);
        match kernel.known_good_hits() {
            Ok(hits) => self.hits = hits,
            Err(cause) => {
                tracing::warn!(%cause, "the known-good sources that were dropped cannot be read");
                return false;
            }
        }
        if self.hits.iter().any(|hit| hit.last_ns < oldest) {
            self.hits.retain(|hit| hit.last_ns >= oldest);
            if let Err(cause) = kernel.forget_hits(oldest) {
                tracing::warn!(%cause, "old known-good sources cannot be forgotten");
            }
        }
        let suspects = self.suspects(kernel.tripped());
        if suspects.is_empty() {
            return false;
        }
        // Only now: it reads the whole table.
        let known = table.known_good(now_ns) as u64;
        let mut lists_change = false;
        for (part, dropped) in suspects {
            if !is_too_many(dropped, known, self.cap.percent) {
                continue;
            }
            lists_change |= kernel.trip(part);
            tracing::error!(
                reason = part.reason.as_str(),
                list = kernel.list_name(part.number).filter(|_| part.reason == Reason::DropDenied),
                rule = kernel.limit_name(part.number).filter(|_| part.reason == Reason::DropRuleRate),
                dropped,
                known,
                "switched to shadow: it drops too many sources that authenticated in the last hour; a reload arms it again"
            );
        }
        lists_change
    }

    /// What is in force and has dropped enough sources to be worth a question.
    fn suspects(&self, tripped: &BTreeSet<Part>) -> Vec<(Part, u64)> {
        if self.cap.percent == 0 {
            return Vec::new();
        }
        let mut counts: BTreeMap<Part, u64> = BTreeMap::new();
        for hit in self.hits.iter().filter(|hit| hit.dropped) {
            *counts.entry(Part { reason: hit.reason, number: hit.number }).or_default() += 1;
        }
        let enough = u64::from(self.cap.sources);
        counts.into_iter().filter(|(part, dropped)| *dropped >= enough && !tripped.contains(part)).collect()
    }
}

fn is_too_many(dropped: u64, known: u64, percent: u32) -> bool {
    dropped.saturating_mul(100) > known.saturating_mul(percent.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(reason: Reason, key: u64, dropped: bool) -> Hit {
        Hit { key, reason, number: 0, packets: 3, last_ns: 1, dropped }
    }

    #[test]
    fn few_sources_and_tripped_reasons_are_no_suspects() {
        let mut blast = BlastRadius::default();
        blast.configure(config::BlastRadius { percent: 5, sources: 2 });
        blast.hits = vec![
            hit(Reason::DropBanned, 1, true),
            hit(Reason::DropConnectionRate, 1, true),
            hit(Reason::DropConnectionRate, 2, true),
            hit(Reason::DropUnknownRate, 1, false),
            hit(Reason::DropUnknownRate, 2, false),
        ];
        let part = |reason, number| Part { reason, number };
        let connections = part(Reason::DropConnectionRate, 0);
        assert_eq!(blast.suspects(&BTreeSet::new()), [(connections, 2)]);
        assert_eq!(blast.suspects(&BTreeSet::from([connections])), []);
        assert!(blast.counts().contains(&(Reason::DropUnknownRate, 0, 2)));
        // Lists are counted apart.
        blast.hits = [1, 1, 2].map(|number| Hit { number, ..hit(Reason::DropDenied, 1, true) }).to_vec();
        assert_eq!(blast.suspects(&BTreeSet::new()), [(part(Reason::DropDenied, 1), 2)]);
        blast.configure(config::BlastRadius { percent: 0, sources: 1 });
        assert_eq!(blast.suspects(&BTreeSet::new()), []);
    }

    #[test]
    fn the_share_decides() {
        assert!(is_too_many(6, 100, 5));
        assert!(!is_too_many(5, 100, 5));
        assert!(is_too_many(1, 0, 5));
    }
}
