//! One shared 64-bit word: the three operations the bucket algorithm needs, on each target.
//!
//! A trait and not `AtomicU64` alone, because the BPF target has no compare-exchange in `core` and
//! because the loom model (`tests/loom.rs`) runs the very same algorithm over loom's word.

use core::sync::atomic::AtomicU64;

/// A word that several CPUs and both sides of the kernel boundary change concurrently.
pub trait Word {
    /// The value now. No ordering with other words is implied.
    fn read(&self) -> u64;

    /// Writes `next` if the word still holds `seen`. `Err` carries the value found instead. Fully ordered
    /// where it succeeds.
    fn swap_if(&self, seen: u64, next: u64) -> Result<(), u64>;

    /// Orders every earlier `swap_if` before every later `read`, on all words.
    fn fence();
}

#[cfg(not(target_arch = "bpf"))]
impl Word for AtomicU64 {
    #[inline(always)]
    fn read(&self) -> u64 {
        AtomicU64::load(self, core::sync::atomic::Ordering::Relaxed)
    }

    #[inline(always)]
    fn swap_if(&self, seen: u64, next: u64) -> Result<(), u64> {
        use core::sync::atomic::Ordering::{Relaxed, SeqCst};
        self.compare_exchange(seen, next, SeqCst, Relaxed).map(|_| ())
    }

    #[inline(always)]
    fn fence() {
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(target_arch = "bpf")]
impl Word for AtomicU64 {
    /// LLVM 22's BPF back end cannot select even a relaxed atomic load at CPU v3, so this is a volatile
    /// read: one aligned 8-byte load instruction, which the kernel's JITs do not split.
    #[inline(always)]
    fn read(&self) -> u64 {
        // SAFETY: `as_ptr` of a reference is valid and aligned; concurrent writers use whole-word
        // instructions only, and the volatile read is one such instruction.
        unsafe { core::ptr::read_volatile(self.as_ptr()) }
    }

    /// rustc's BPF target says `atomic-cas: false`; the instruction exists since CPU v3 (Linux 5.12).
    #[inline(always)]
    fn swap_if(&self, seen: u64, next: u64) -> Result<(), u64> {
        use core::intrinsics::{AtomicOrdering, atomic_cxchg};
        // SAFETY: as for `read`; the intrinsic is BPF_CMPXCHG on a pointer into a map value.
        let (found, _) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                self.as_ptr(),
                seen,
                next,
            )
        };
        // LLVM 22 would take this for the flag that it makes of the outcome, with five instructions instead of one.
        let mut found = found;
        // SAFETY: no instruction; a register is said to be changed.
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) found, options(pure, nomem, nostack, preserves_flags))
        };
        if found == seen { Ok(()) } else { Err(found) }
    }

    /// Nothing to emit: BPF_CMPXCHG is fully ordered (kernel, Documentation/bpf/standardization).
    #[inline(always)]
    fn fence() {}
}
