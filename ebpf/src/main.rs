//! The kernel programs of Portcullis: entry points only. One packet is read top to bottom in `decide.rs`; maps
//! and verdicts are tables in `ebpf/README.md`. `steer.rs` is for new connections, after all that.
//!
//! Built for the BPF target alone (`cargo xtask build-ebpf`).
//!
//! Invariant: whatever is not provably addressed to one of our listeners passes untouched, and whatever
//! fails inside the program passes too.
#![no_std]
#![no_main]

mod coarse;
mod count;
mod decide;
mod maps;
mod parse;
mod random_sources;
mod reset;
mod sample;
mod steer;

use aya_ebpf::{
    macros::{sk_reuseport, xdp},
    programs::{SkReuseportContext, XdpContext},
};

/// What the gateway attaches.
#[xdp]
pub fn portcullis(ctx: XdpContext) -> u32 {
    decide::decide(&ctx)
}

/// The same for interfaces whose packets may span several buffers (MTU above about 3.5 KB). Apart, because
/// kernels before 5.18 refuse to load a program of this kind.
#[xdp(frags)]
pub fn portcullis_frags(ctx: XdpContext) -> u32 {
    decide::decide(&ctx)
}

/// Attached to the sockets of each listener: which of them a new connection goes to.
#[sk_reuseport]
pub fn portcullis_steer(ctx: SkReuseportContext) -> u32 {
    steer::steer(&ctx);
    // SK_PASS: what was selected, or what the kernel's hash says.
    1
}

/// FOR TESTS AND BENCHES ONLY, never loaded by the gateway: decides on the packet after giving it a random
/// IPv4 source, so that one test-run is a flood from a whole address space.
#[xdp]
pub fn portcullis_random_sources(ctx: XdpContext) -> u32 {
    random_sources::scramble(&ctx);
    decide::decide(&ctx)
}

/// FOR BENCHES ONLY: the scrambler alone, to be subtracted.
#[xdp]
pub fn portcullis_scramble_only(ctx: XdpContext) -> u32 {
    random_sources::scramble(&ctx);
    aya_ebpf::bindings::xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

// The helpers used are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
