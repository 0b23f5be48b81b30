//! FOR TESTS AND BENCHES: a new random IPv4 source for every run of a test-run's single packet. Does
//! nothing unless the fixture has set `flag::RANDOM_SOURCES`, which the gateway never does.

use aya_ebpf::{macros::map, maps::PerCpuArray, programs::XdpContext};
use portcullis_abi::{Word, flag};

use crate::maps::config;

/// Where an untagged IPv4 packet has its source.
const SOURCE: usize = 14 + 12;

/// State and mask: sources are `11.0.0.0 | (random & mask)`, so `mask` says how many there are. A mask of
/// `u32::MAX` stands for the whole address space.
#[map]
static SCRAMBLER: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
pub fn scramble(ctx: &XdpContext) {
    if config().is_none_or(|config| config.flags.read() & flag::RANDOM_SOURCES == 0) {
        return;
    }
    let Some(state) = SCRAMBLER.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own slot.
    let [mut x, mask] = unsafe { *state };
    // xorshift64 (Marsaglia 2003); zero is its fixed point.
    x = if x == 0 { 0x9e37_79b9_7f4a_7c15 } else { x };
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    // SAFETY: as above.
    unsafe { (*state)[0] = x };
    let source = 0x0b00_0000 | (x >> 20) as u32 & mask as u32;
    let at = ctx.data() + SOURCE;
    if at + size_of::<u32>() <= ctx.data_end() {
        // SAFETY: in bounds; alignment as in `parse::Cursor::peek`.
        unsafe { (at as *mut u32).write_volatile(source.to_be()) }
    }
}
