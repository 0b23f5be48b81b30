//! Counting verdicts: exactly one reason a packet, so that packets seen = sum over all reasons.

use portcullis_abi::{Reason, Tally};

use crate::maps::COUNTERS;

/// Adds one to a reason, by index; the index after the last is the number of resets sent. Per CPU, so a plain addition.
/// Gives this CPU's slot.
#[inline(always)]
pub fn count(index: u32) -> Option<*mut Tally> {
    debug_assert!((index as usize) <= Reason::KERNEL_COUNT);
    let tally = COUNTERS.get_ptr_mut(index)?;
    // SAFETY: this CPU's own slot, and XDP programs do not preempt each other on a CPU.
    unsafe { (*tally).packets += 1 };
    Some(tally)
}
