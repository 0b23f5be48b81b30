//! What user space is told beyond the counters: samples of dropped packets, and known-good sources among them.

use aya_ebpf::bindings::{BPF_RB_NO_WAKEUP, xdp_md};
use portcullis_abi::{Config, DropEvent, GoodHit, GoodKey, SAMPLE_BYTES, Tally, Word};

use crate::maps::{DROPS, KNOWN_GOOD};

/// Whether a reason has a sample left on this CPU, which is then taken. Apart from [`take`], so that a flood of drops makes
/// no call for what it is seldom given.
#[inline(always)]
pub fn is_due(config: &Config, tally: *mut Tally, now: u64) -> bool {
    let interval = config.sample_interval_ns.read();
    if interval == 0 {
        return false;
    }
    // SAFETY: this CPU's own slot of COUNTERS.
    let tat = unsafe { (*tally).sampled_tat };
    let next = (if tat > now { tat } else { now }).wrapping_add(interval);
    if next.wrapping_sub(now) > config.sample_burst_ns.read() {
        return false;
    }
    // SAFETY: as above.
    unsafe { (*tally).sampled_tat = next };
    true
}

/// Copies the packet into the ring. The ring being full is no loss worth counting: counters are exact, samples are
/// examples.
#[inline(never)]
pub fn take(ctx: *mut xdp_md, index: u32, now: u64) -> u32 {
    let Some(mut entry) = DROPS.reserve::<DropEvent>(0) else { return 0 };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is as large as an event and aligned to 8; the packet is read within its bounds, with the
    // alignment of `parse::Cursor::peek`.
    unsafe {
        let data = (*ctx).data as usize;
        let end = (*ctx).data_end as usize;
        (&raw mut (*event).time_ns).write(now);
        (&raw mut (*event).interface).write((*ctx).ingress_ifindex);
        (&raw mut (*event).length).write((end - data) as u32);
        (&raw mut (*event).reason).write(index);
        let whole = if end - data < SAMPLE_BYTES { (end - data) & !7 } else { SAMPLE_BYTES };
        (&raw mut (*event).captured).write(whole as u32);
        // The first word that does not fit ends it: one way out, so that the verifier has one way to follow.
        for i in 0..SAMPLE_BYTES / 8 {
            let at = data + i * 8;
            if at + 8 > end {
                break;
            }
            (&raw mut (*event).data).cast::<u64>().add(i).write_volatile((at as *const u64).read_volatile());
        }
    }
    // Whoever reads does so by the clock.
    entry.submit(BPF_RB_NO_WAKEUP.into());
    1
}

/// Notes that a source which authenticated lately is dropped, or would be. Rare unless a limit is wrong, which is what
/// it is for.
#[inline(never)]
pub fn known_good(source: u64, reason: u32, number: u32, last_ns: u64) -> u32 {
    let key = GoodKey { source, reason, number };
    if let Some(hit) = KNOWN_GOOD.get_ptr_mut(&key) {
        // SAFETY: a value of a hash map stays valid for the program's run. Two CPUs may lose a count to each other.
        unsafe {
            (*hit).packets += 1;
            (*hit).last_ns = last_ns;
        }
        return 0;
    }
    // A full map evicts the oldest; no other failure matters here.
    let _ = KNOWN_GOOD.insert(&key, &GoodHit { packets: 1, last_ns }, 0);
    0
}
