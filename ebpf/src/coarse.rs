//! Limits for sources that nobody knows: by network, and for all of them together.
//!
//! A limit for each source alone passes a flood of made-up sources whole. So a new connection of a source without the
//! established mark is also charged to its /24 or /48 and to one bucket of all unknown sources. Out of line: only new
//! connections of unknown sources come here.

use portcullis_abi::{Config, Rate, Reason, Word, aggregate_key, is_v4};

use crate::maps::{self, CONFORMING, LEASED, LIMITED, RETRIES, set_of, way_or_take};

/// The network is over its limit.
pub const NET: u32 = 1;
/// All unknown sources together are over theirs.
pub const UNKNOWN: u32 = 2;
/// They are, but this one has come again.
pub const RETRIED: u32 = 4;

/// A retransmission comes no sooner after the first try than this (RFC 6298 section 2.1: one second), ...
const RETRY_MIN: u32 = 200;
/// ... and no later than this: Linux tries for about two minutes, but one that is answered after half a minute is of no
/// use to anybody.
const RETRY_MAX: u32 = 40_000;
/// Shift from nanoseconds to the units above, 1.05 ms.
const UNIT_SHIFT: u32 = 20;

/// Charges a new connection of an unknown source; which limits it is over.
#[inline(never)]
pub fn charge(key: u64, flow: u32, config: &Config, now: u64) -> u32 {
    let mut over = 0;
    let net = if is_v4(key) {
        Rate { interval_ns: config.v4_net_interval_ns.read(), burst_ns: config.v4_net_burst_ns.read() }
    } else {
        Rate { interval_ns: config.v6_net_interval_ns.read(), burst_ns: config.v6_net_burst_ns.read() }
    };
    if !net.is_unlimited() && is_limited_by_net(key, config, now, net) {
        if config.shadow.read() & Reason::DropAggregateRate.drop_bit() == 0 {
            return NET;
        }
        over |= NET;
    }
    if !is_limited_by_all(config, now) {
        return over;
    }
    over | if has_come_again(key, flow, config, now) { RETRIED } else { UNKNOWN }
}

/// A CPU takes some tokens at once and spends them by itself, or a flood on all CPUs would have all of them wait for one
/// word. The gateway takes what may lie about on CPUs off the burst, so the sum keeps its bound.
#[inline(always)]
fn is_limited_by_all(config: &Config, now: u64) -> bool {
    let rate =
        Rate { interval_ns: config.unknown_interval_ns.read(), burst_ns: config.unknown_burst_ns.read() };
    if rate.is_unlimited() {
        return false;
    }
    let Some(leased) = LEASED.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own slot, and XDP programs do not preempt each other on a CPU.
    let tokens = unsafe { *leased };
    if tokens != 0 {
        // SAFETY: as above.
        unsafe { *leased = tokens - 1 };
        return false;
    }
    let more = config.unknown_lease.read();
    let cost_ns = rate.interval_ns.wrapping_mul(more + 1);
    match maps::charge(&config.shared.unknown_tat, now, rate, cost_ns, config) {
        LIMITED => return true,
        // SAFETY: as above.
        CONFORMING => unsafe { *leased = more },
        _ => {}
    }
    false
}

#[inline(always)]
fn is_limited_by_net(key: u64, config: &Config, now: u64, net: Rate) -> bool {
    let key = aggregate_key(key);
    let Some(set) = set_of(key, config) else { return false };
    let Some(way) = way_or_take(set, key, config, now) else { return false };
    maps::charge(&way.request_tat, now, net, net.interval_ns, config) == LIMITED
}

/// Real hosts send a SYN that was not answered again; whoever makes up sources does not send each of them twice, in a
/// rhythm of seconds. So the first try of each flow is only noted, in one slot that later flows may overwrite.
#[inline(always)]
fn has_come_again(key: u64, flow: u32, config: &Config, now: u64) -> bool {
    let mut h = (key ^ config.secret.a).wrapping_mul(config.secret.b | 1) ^ u64::from(flow) << 32;
    h ^= h >> 32;
    h = h.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^= h >> 29;
    let Some(slot) = RETRIES.get_ptr_mut((h & config.retries_mask.read()) as u32) else { return false };
    // Upper half who, lower half when.
    let who = h & 0xffff_ffff_0000_0000;
    let when = (now >> UNIT_SHIFT) as u32;
    // SAFETY: a value of an array map lives as long as the program. Words are read and written whole, and whichever of
    // two racing flows is noted, the other comes again once more.
    unsafe {
        let noted = slot.read_volatile();
        let age = when.wrapping_sub(noted as u32);
        if noted & 0xffff_ffff_0000_0000 != who || age > RETRY_MAX {
            slot.write_volatile(who | u64::from(when));
            return false;
        }
        age >= RETRY_MIN
    }
}
