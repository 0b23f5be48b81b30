//! The kernel part: loads the XDP program, attaches it, and keeps its maps in step with the configuration.
//!
//! Owns: the embedded BPF object, pins under bpffs, the mapping of the bucket table. Never decides anything
//! about a packet (that is `ebpf/src/decide.rs`), never runs on a shard: the control thread holds the
//! [`Kernel`]; shards see the table as `&'static [Set]` and touch no `bpf()` call.
//!
//! Invariant: a restart passes no packet unfiltered. Maps are pinned and filled before the running link is
//! switched to the new program, in one step that the kernel makes atomic.
//!
//! The order of calls is [`Kernel::load`], then the `sync_*`, [`Kernel::set_limits`] and
//! [`Kernel::heartbeat`] with the whole state, then [`Kernel::attach`]; afterwards any of them again.

mod attach;
mod error;
mod listeners;
mod lists;
mod load;
mod logs;
#[allow(unsafe_code, reason = "map memory shared with the kernel")]
mod mmap;
#[allow(unsafe_code, reason = "system calls that std does not wrap")]
mod sys;
pub mod test_run;

use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use portcullis_abi::{Config, Rate, Reason, Secret, Set, flag, map};

pub use attach::{Attachment, detach, forget};
pub use error::KernelError;
pub use listeners::Listener;
pub use lists::Lists;

/// The default place for pins.
pub const PIN_ROOT: &str = "/sys/fs/bpf/portcullis";

/// How the program may be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    Off,
    /// In the driver if it can, otherwise in the stack's generic hook.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the generic hook: works on every interface, costs more, and sees packets after GRO.
    Generic,
}

/// What cannot change while the program is loaded. The control module converts its configuration to this.
#[derive(Clone, Debug)]
pub struct Settings {
    /// See [`Mode`].
    pub mode: Mode,
    /// Names of the interfaces to attach to.
    pub interfaces: Vec<String>,
    /// Directory on bpffs for maps and links; made if missing, bpffs mounted if allowed.
    pub pin_root: PathBuf,
    /// Sets of the bucket table, four sources and 128 bytes each. Rounded up to a power of two, 32 to 2^24.
    pub sets: usize,
    /// Most prefixes in all lists together, per IP version. Costs memory only as it is used.
    pub prefixes_max: u32,
    /// Most listeners on one address (wildcard listeners need no room).
    pub listeners_max: u32,
    /// Verbosity of the program's own log, 0 (off, and free) to 5 (trace).
    pub log_level: u8,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            mode: Mode::default(),
            interfaces: Vec::new(),
            pin_root: PIN_ROOT.into(),
            sets: 1 << 17,
            prefixes_max: 1 << 20,
            listeners_max: 1024,
            log_level: 0,
        }
    }
}

/// Per-source limits and safety switches; may change at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Packets to our listeners.
    pub packets: Rate,
    /// New connections; requests pay from the same word.
    pub connections: Rate,
    /// Count what would be dropped and pass it.
    pub shadow: bool,
    /// Pass everything when [`Kernel::heartbeat`] was last called longer ago than this; 0 is never.
    pub dead_after_ns: u64,
}

/// The loaded program and its maps.
pub struct Kernel {
    ebpf: Ebpf,
    settings: Settings,
    config: &'static Config,
    table: &'static [Set],
    counters: PerCpuArray<MapData, u64>,
    lists: lists::Tries,
    listeners: listeners::Ports,
    links: attach::Links,
    logs: Option<logs::Logs>,
    adopted: bool,
}

/// Runs `load` on a thread of its own, which has no ring.
///
/// The verifier gives up with EAGAIN when its thread has a signal pending, and work that io_uring defers to a thread
/// counts as one (TIF_NOTIFY_SIGNAL, Linux 5.11 and later). On a thread that drives a ring, loading, and worse the
/// library's probes of what the kernel can do, which are made once a process, fail now and then.
fn undisturbed<T: Send>(load: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(load).join() {
        Ok(loaded) => loaded,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

impl Kernel {
    /// Loads the program and its maps, taking over pinned maps of an earlier run. Attaches nothing.
    pub fn load(settings: &Settings) -> Result<Kernel, KernelError> {
        let pins = load::Pins::prepare(settings)?;
        let loaded = undisturbed(|| load::load(settings, Some(&pins)))?;
        let links = attach::Links::under(&settings.pin_root);
        Kernel::new(settings, loaded, links)
    }

    fn new(settings: &Settings, loaded: load::Loaded, links: attach::Links) -> Result<Kernel, KernelError> {
        let load::Loaded { mut ebpf, config, table, adopted } = loaded;
        let lists = lists::Tries::open(&mut ebpf, settings.prefixes_max)?;
        let listeners = listeners::Ports::open(&mut ebpf, settings.listeners_max)?;
        let counters = load::typed(&mut ebpf, map::COUNTERS)?;
        let logs = if settings.log_level > 0 { Some(logs::Logs::open(&mut ebpf)?) } else { None };
        Ok(Kernel {
            ebpf,
            settings: settings.clone(),
            config,
            table,
            counters,
            lists,
            listeners,
            links,
            logs,
            adopted,
        })
    }

    /// Attaches to every configured interface, or switches the pinned link there to this program. Each
    /// interface gets its own answer; with [`Mode::Native`] and [`Mode::Generic`] any failure is an error.
    pub fn attach(&mut self) -> Result<Vec<Attachment>, KernelError> {
        self.links.attach(&mut self.ebpf, self.settings.mode, &self.settings.interfaces)
    }

    /// The bucket table, shared with the program. Lives as long as the process.
    pub fn table(&self) -> &'static [Set] {
        self.table
    }

    /// The key of the table's hash.
    pub fn secret(&self) -> Secret {
        self.config.secret
    }

    /// Whether the maps, and so buckets, bans and counters, are those of an earlier run.
    pub fn adopted_pinned_maps(&self) -> bool {
        self.adopted
    }

    /// Replaces limits and switches.
    pub fn set_limits(&mut self, limits: &Limits) {
        let Config {
            packet_interval_ns, packet_burst_ns, connection_interval_ns, connection_burst_ns, ..
        } = self.config;
        packet_interval_ns.store(limits.packets.interval_ns, Relaxed);
        packet_burst_ns.store(limits.packets.burst_ns, Relaxed);
        connection_interval_ns.store(limits.connections.interval_ns, Relaxed);
        connection_burst_ns.store(limits.connections.burst_ns, Relaxed);
        self.config.dead_after_ns.store(limits.dead_after_ns, Relaxed);
        self.set_flag(flag::SHADOW, limits.shadow);
        let tick_ns = sys::coarse_tick_ns();
        let coarse = bears_tick(limits.packets, tick_ns) && bears_tick(limits.connections, tick_ns);
        self.set_flag(flag::COARSE_CLOCK, coarse);
    }

    /// Makes the lists in the kernel equal to these, touching only what differs.
    pub fn sync_lists(&mut self, lists: &Lists) -> Result<(), KernelError> {
        self.lists.sync(lists, self.config)
    }

    /// Makes the listeners that the program acts on equal to these, touching only what differs.
    pub fn sync_listeners(&mut self, listeners: &[Listener]) -> Result<(), KernelError> {
        self.listeners.sync(listeners, self.config)
    }

    /// The clock of the table and of [`Kernel::heartbeat`]; for those who have no clock of their own at hand.
    pub fn now() -> u64 {
        sys::monotonic_ns()
    }

    /// Says that the gateway is alive at `now` (ns of CLOCK_MONOTONIC).
    pub fn heartbeat(&self, now: u64) {
        self.config.heartbeat_ns.store(now, Relaxed);
    }

    /// Packets by reason since the maps were made, summed over CPUs. Proxy reasons are 0.
    pub fn counters(&self) -> Result<[u64; Reason::COUNT], KernelError> {
        let mut counters = [0; Reason::COUNT];
        for (index, counter) in counters.iter_mut().enumerate().take(Reason::KERNEL_COUNT) {
            let per_cpu = self.counters.get(&(index as u32), 0).map_err(KernelError::map(map::COUNTERS))?;
            *counter = per_cpu.iter().sum();
        }
        Ok(counters)
    }

    /// Hands the program's log records to `tracing`; does nothing unless `log_level` is set.
    pub fn flush_logs(&mut self) {
        if let Some(logs) = &mut self.logs {
            logs.flush();
        }
    }

    fn set_flag(&self, bit: u64, on: bool) {
        set_flag(self.config, bit, on);
    }
}

/// One process writes the flags, but its tests may share a map: so a read-modify-write, not a store.
fn set_flag(config: &Config, bit: u64, on: bool) {
    if on {
        config.flags.fetch_or(bit, Relaxed);
    } else {
        config.flags.fetch_and(!bit, Relaxed);
    }
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
    fn coarse_clock_needs_a_burst_of_four_ticks() {
        let tick = 4_000_000;
        assert!(bears_tick(Rate::UNLIMITED, tick));
        assert!(bears_tick(Rate::per_second(1_000, 17), tick));
        assert!(!bears_tick(Rate::per_second(1_000, 16), tick));
        assert!(!bears_tick(Rate::per_second(10, 1), tick), "one token saves nothing up");
        assert!(bears_tick(Rate::per_second(10, 2), tick));
    }
}
