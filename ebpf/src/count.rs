//! Counting verdicts: exactly one reason a packet, so that packets seen = sum over all reasons.

use portcullis_abi::Reason;

use crate::maps::COUNTERS;

/// Adds one to a reason, by index; the index after the last is the number of resets sent. Per CPU, so a plain addition.
#[inline(always)]
pub fn count(index: u32) {
    debug_assert!((index as usize) <= Reason::KERNEL_COUNT);
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: this CPU's own slot, and XDP programs do not preempt each other on a CPU.
        unsafe { *counter += 1 }
    }
}
