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
mod drops;
mod error;
mod facts;
mod limits;
mod listeners;
mod lists;
mod load;
mod logs;
#[allow(unsafe_code, reason = "map memory shared with the kernel")]
mod mmap;
mod netlink;
mod resolve;
mod routes;
mod rules;
mod steer;
#[allow(unsafe_code, reason = "system calls that std does not wrap")]
mod sys;
pub mod test_run;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use portcullis_abi::{Config, Reason, Secret, Set, Tally, map};

pub use attach::{Attachment, Pinned, detach, forget, pinned};
pub use drops::{Drop, Hit};
pub use error::KernelError;
pub use facts::{Facts, Match};
pub use limits::{Limits, Part, Promotion};
pub use listeners::Listener;
pub use resolve::{LimitSpec, Lists, NamedList, Overruled};
pub use routes::gateways;
pub use sys::{interface_name, prefer_large_pages};

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

/// The loaded program and its maps.
pub struct Kernel {
    ebpf: Ebpf,
    settings: Settings,
    config: &'static Config,
    table: &'static [Set],
    counters: PerCpuArray<MapData, Tally>,
    lists: lists::Tries,
    rules: rules::Rules,
    /// Names of the lists, by number.
    names: Vec<String>,
    listeners: listeners::Ports,
    steer: steer::Steer,
    reports: drops::Reports,
    /// The limits in force, and what was switched to shadow since.
    limits: Limits,
    tripped: BTreeSet<Part>,
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
        let loaded = undisturbed(|| {
            let mut loaded = load::load(settings, Some(&pins))?;
            // The verifier takes a while, some seconds on a busy machine. An earlier run's program goes on meanwhile, and
            // must not take the silence for a death.
            loaded.config.heartbeat_ns.store(sys::monotonic_ns(), Relaxed);
            load::program(&mut loaded.ebpf, portcullis_abi::PROGRAM)?;
            Ok(loaded)
        })?;
        let links = attach::Links::under(&settings.pin_root);
        Kernel::new(settings, loaded, links)
    }

    fn new(settings: &Settings, loaded: load::Loaded, links: attach::Links) -> Result<Kernel, KernelError> {
        let load::Loaded { mut ebpf, config, table, adopted } = loaded;
        let lists = lists::Tries::open(&mut ebpf, settings.prefixes_max)?;
        let listeners = listeners::Ports::open(&mut ebpf, settings.listeners_max)?;
        let steer = steer::Steer::open(&mut ebpf)?;
        let reports = drops::Reports::open(&mut ebpf)?;
        config.retries_mask.store(u64::from(load::retries(settings)) - 1, Relaxed);
        let counters = load::typed(&mut ebpf, map::COUNTERS)?;
        let logs = if settings.log_level > 0 { Some(logs::Logs::open(&mut ebpf)?) } else { None };
        Ok(Kernel {
            ebpf,
            settings: settings.clone(),
            config,
            table,
            counters,
            lists,
            rules: rules::Rules::default(),
            names: Vec::new(),
            listeners,
            steer,
            reports,
            limits: Limits::default(),
            tripped: BTreeSet::new(),
            links,
            logs,
            adopted,
        })
    }

    /// Attaches to every configured interface, or switches the pinned link there to this program. Each
    /// interface gets its own answer; with [`Mode::Native`] and [`Mode::Generic`] any failure is an error.
    pub fn attach(&mut self) -> Result<Vec<Attachment>, KernelError> {
        let attachments = self.links.attach(&mut self.ebpf, self.settings.mode, &self.settings.interfaces);
        // It may have verified another program on the way.
        self.heartbeat(sys::monotonic_ns());
        attachments
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

    /// Makes the lists in the kernel equal to these, touching only what differs, and puts their limits in force. Gives
    /// the refusals that were left out because they name a trusted source.
    pub fn sync_lists(&mut self, lists: &Lists) -> Result<Vec<Overruled>, KernelError> {
        let config = self.config;
        // A million prefixes take longer than a gateway may be silent.
        let alive = || config.heartbeat_ns.store(sys::monotonic_ns(), Relaxed);
        let lists = &resolve::spared(lists, &self.tripped);
        let resolved = resolve::resolve(lists, &alive)?;
        let begun = sys::monotonic_ns();
        let prefixes = self.lists.sync(&resolved, config, &alive)?;
        if prefixes > 0 {
            let took_us = (sys::monotonic_ns() - begun) / 1_000;
            tracing::info!(prefixes, took_us, "lists edited in the kernel");
        }
        self.rules.replace(&lists.limits, resolved.classes);
        self.names = lists.named.iter().map(|list| list.name.clone()).collect();
        self.listeners.again(&self.rules, config)?;
        Ok(resolved.overruled)
    }

    /// Makes the listeners that the program acts on equal to these, touching only what differs.
    pub fn sync_listeners(&mut self, listeners: &[Listener]) -> Result<(), KernelError> {
        self.listeners.sync(listeners, &self.rules, self.config)
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
            *counter = self.counted(index as u32)?;
        }
        Ok(counters)
    }

    fn counted(&self, index: u32) -> Result<u64, KernelError> {
        let per_cpu = self.counters.get(&index, 0).map_err(KernelError::map(map::COUNTERS))?;
        Ok(per_cpu.iter().map(|tally| tally.packets).sum())
    }

    /// Hands the program's log records to `tracing`; does nothing unless `log_level` is set.
    pub fn flush_logs(&mut self) {
        if let Some(logs) = &mut self.logs {
            logs.flush();
        }
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
