//! Limits and switches: from rates to the words that the program reads.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use portcullis_abi::{Config, Rate, Reason, flag};

use super::{Kernel, set_flag, sys};

/// Limits and safety switches; may change at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Packets of a source to our listeners.
    pub packets: Rate,
    /// New connections of a source; requests pay from the same word.
    pub connections: Rate,
    /// New connections from the unknown sources of one IPv4 /24.
    pub v4_net: Rate,
    /// New connections from the unknown sources of one IPv6 /48.
    pub v6_net: Rate,
    /// New connections from all unknown sources together.
    pub unknown: Rate,
    /// What a source that authenticated is worth.
    pub promotion: Promotion,
    /// Count what would be dropped and pass it, whatever the reason.
    pub shadow: bool,
    /// [`portcullis_abi::Reason::drop_bit`]s of reasons that are only counted.
    pub shadow_reasons: u64,
    /// [`portcullis_abi::Reason::drop_bit`]s of reasons for which TCP is answered with a reset.
    pub reset_reasons: u64,
    /// Resets that are sent, all together.
    pub resets: Rate,
    /// Samples of dropped packets, for each reason on each CPU. Unlike elsewhere, [`Rate::UNLIMITED`] is none.
    pub samples: Rate,
    /// Pass everything when [`Kernel::heartbeat`] was last called longer ago than this; 0 is never.
    pub dead_after_ns: u64,
}

/// What can be switched to shadow by itself: a reason to drop, or one list or rule that gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The reason to drop.
    pub reason: Reason,
    /// As in [`super::Hit::number`].
    pub number: u32,
}

impl Part {
    /// Whether it is told apart by what the tries and the rules say.
    fn is_of_lists(self) -> bool {
        matches!(self.reason, Reason::DropDenied | Reason::DropRuleRate)
    }
}

/// What a source that authenticated is worth. Its debts weigh the same, so a stolen key shields no flood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promotion {
    /// Times the limits of an unknown source. 0 and 1 promote nobody.
    pub factor: u32,
    /// A source is promoted while its mark as authenticated has more time left than this.
    pub above_ns: u64,
}

impl Promotion {
    /// What a token costs a promoted source.
    fn cost_ns(self, rate: Rate) -> u64 {
        rate.interval_ns / u64::from(self.factor.max(1))
    }
}

impl Kernel {
    /// Replaces limits and switches.
    pub fn set_limits(&mut self, limits: &Limits) {
        self.limits = *limits;
        let config = self.config;
        let Limits { packets, connections, v4_net, v6_net, promotion, samples, resets, .. } = limits;
        let (unknown, lease) = leased(limits.unknown, sys::cpus());
        for (word, value) in [
            (&config.packet_interval_ns, packets.interval_ns),
            (&config.packet_burst_ns, packets.burst_ns),
            (&config.connection_interval_ns, connections.interval_ns),
            (&config.connection_burst_ns, connections.burst_ns),
            (&config.promoted_packet_interval_ns, promotion.cost_ns(*packets)),
            (&config.promoted_connection_interval_ns, promotion.cost_ns(*connections)),
            (&config.promoted_above_ns, promotion.above_ns),
            (&config.v4_net_interval_ns, v4_net.interval_ns),
            (&config.v4_net_burst_ns, v4_net.burst_ns),
            (&config.v6_net_interval_ns, v6_net.interval_ns),
            (&config.v6_net_burst_ns, v6_net.burst_ns),
            (&config.unknown_interval_ns, unknown.interval_ns),
            (&config.unknown_burst_ns, unknown.burst_ns),
            (&config.unknown_lease, lease),
            (&config.sample_interval_ns, samples.interval_ns),
            (&config.sample_burst_ns, samples.burst_ns),
            (&config.reset_interval_ns, resets.interval_ns),
            (&config.reset_burst_ns, resets.burst_ns),
            (&config.reset, limits.reset_reasons),
            (&config.dead_after_ns, limits.dead_after_ns),
        ] {
            word.store(value, Relaxed);
        }
        let tick_ns = sys::coarse_tick_ns();
        let rates = [*packets, *connections, *v4_net, *v6_net, unknown];
        let coarse = rates.iter().all(|rate| bears_tick(*rate, tick_ns));
        set_flag(config, flag::COARSE_CLOCK, coarse);
        write_shadow(config, limits, self.whole_tripped());
    }

    /// Switches a reason to drop to shadow until [`Kernel::rearm`]: of a list or a rule, that one alone. True: the next
    /// [`Kernel::sync_lists`] puts it in force.
    pub fn trip(&mut self, part: Part) -> bool {
        self.tripped.insert(part);
        write_shadow(self.config, &self.limits, self.whole_tripped());
        part.is_of_lists()
    }

    /// [`Reason::drop_bit`]s of what has no parts and is tripped.
    fn whole_tripped(&self) -> u64 {
        let whole = self.tripped.iter().filter(|part| !part.is_of_lists());
        whole.fold(0, |bits, part| bits | part.reason.drop_bit())
    }

    /// Takes back every [`Kernel::trip`].
    pub fn rearm(&mut self) {
        self.tripped.clear();
        write_shadow(self.config, &self.limits, 0);
    }

    /// What was switched to shadow since.
    pub fn tripped(&self) -> &BTreeSet<Part> {
        &self.tripped
    }
}

fn write_shadow(config: &Config, limits: &Limits, tripped: u64) {
    let shadow = if limits.shadow { u64::MAX } else { limits.shadow_reasons | tripped };
    config.shadow.store(shadow, Relaxed);
}

/// Most tokens of the common limit that a CPU takes beyond the one it needs: then it writes the word that all CPUs share
/// once in 32 new connections.
const LEASE_MAX: u64 = 31;

/// How many tokens each CPU may take beyond the one it needs, and what is left of the burst when all of them have done so:
/// seven eighths or more. So what gets in stays below the limit, and a small burst is given out token by token.
fn leased(rate: Rate, cpus: u64) -> (Rate, u64) {
    let tokens = rate.burst_ns.checked_div(rate.interval_ns).unwrap_or(0);
    let lease = (tokens / cpus.max(1) / 8).min(LEASE_MAX);
    let in_hand_ns = rate.interval_ns.saturating_mul(lease * cpus);
    (Rate { burst_ns: rate.burst_ns - in_hand_ns, ..rate }, lease)
}

/// Whether a limit stays exact on a clock that stands still for a tick: what a source may save up beyond
/// the token at hand must cover the tokens of the ticks it cannot see. Four, as ticks come late under load.
fn bears_tick(rate: Rate, tick_ns: u64) -> bool {
    rate.is_unlimited() || rate.burst_ns.saturating_sub(rate.interval_ns) >= tick_ns.saturating_mul(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_within_the_burst() {
        for (burst, cpus) in [(1, 2), (4, 2), (15, 2), (16, 2), (4_000, 2), (4_000, 64), (1 << 40, 512)] {
            let rate = Rate::per_second(1_000, burst);
            let (left, lease) = leased(rate, cpus);
            assert!(left.burst_ns + lease * cpus * left.interval_ns <= rate.burst_ns, "{burst} on {cpus}");
            assert!(left.burst_ns >= rate.burst_ns / 8 * 7 && lease <= LEASE_MAX);
            // What a CPU takes at once has to fit.
            assert!((lease + 1) * left.interval_ns <= left.burst_ns);
        }
        assert_eq!(leased(Rate::per_second(1_000, 15), 2).1, 0, "too small to be shared out");
        assert_eq!(leased(Rate::per_second(1_000, 4_000), 2).1, 31);
        assert_eq!(leased(Rate::per_second(1_000, 4_000), 64).1, 7);
        assert_eq!(leased(Rate::UNLIMITED, 2), (Rate::UNLIMITED, 0));
    }

    #[test]
    fn coarse_clock_needs_a_burst_of_four_ticks() {
        let tick = 4_000_000;
        assert!(bears_tick(Rate::UNLIMITED, tick));
        assert!(bears_tick(Rate::per_second(1_000, 17), tick));
        assert!(!bears_tick(Rate::per_second(1_000, 16), tick));
        assert!(!bears_tick(Rate::per_second(10, 1), tick), "one token saves nothing up");
        assert!(bears_tick(Rate::per_second(10, 2), tick));
    }
}
