//! Which of a listener's sockets a new connection goes to: that of the shard on the core that received it.
//!
//! Runs once a connection, when its handshake begins. The gateway fills the two maps; where they say nothing (a core
//! without a shard, a socket that is gone) the kernel's own hash decides, so no connection is refused for want of an
//! entry.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, ReusePortSockArray};
use aya_ebpf::programs::SkReuseportContext;
use portcullis_abi::{ListenerKey, Protocol, STEER_CORES, STEER_GROUPS};

#[map]
static STEER_GROUP: HashMap<ListenerKey, u32> = HashMap::with_max_entries(STEER_GROUPS, 0);

#[map]
static STEER_SOCKETS: ReusePortSockArray =
    ReusePortSockArray::with_max_entries(STEER_GROUPS * STEER_CORES, 0);

/// `AF_INET` of every Linux.
const AF_INET: u32 = 2;

/// Selects a socket, or leaves it to the kernel.
#[inline(always)]
pub fn steer(ctx: &SkReuseportContext) {
    let socket = ctx.sk().sock;
    // SAFETY: the context's socket is a listener of the group and lives as long as the program runs; the verifier turns
    // each of these loads into one of the real socket's fields.
    let key = unsafe {
        let port = (&raw const (*socket).src_port).read_volatile() as u16;
        if (&raw const (*socket).family).read_volatile() == AF_INET {
            ListenerKey::v4((&raw const (*socket).src_ip4).read_volatile(), port, Protocol::Tcp)
        } else {
            let address = (&raw const (*socket).src_ip6).cast::<u32>();
            let word = |at: usize| address.add(at).read_volatile();
            ListenerKey::v6([word(0), word(1), word(2), word(3)], port, Protocol::Tcp)
        }
    };
    // SAFETY: a word, written whole.
    let Some(group) = (unsafe { STEER_GROUP.get(&key) }) else { return };
    // SAFETY: helper without arguments.
    let core = unsafe { bpf_get_smp_processor_id() };
    if core < STEER_CORES {
        // Where there is none, the kernel goes on to its hash.
        let _ = STEER_SOCKETS.select_reuseport(ctx, *group * STEER_CORES + core);
    }
}
