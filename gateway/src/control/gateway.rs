//! The real data plane: shards, their listeners, the kernel part and the counters, as one [`Plane`].
//!
//! Owns: the order in which a generation is put in force:
//!
//! ```text
//! bind what is new ─► (first time: start the shards, attach the program) ─► publish ─► hand out sockets
//!   ─► close what is gone ─► kernel lists and listeners
//! ```
//!
//! Never: the compilation, or anything about a request. Invariant: a socket that is bound but not published is
//! closed again when a later step fails, so a failed reload leaves no address open.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use portcullis_abi::Block;
use portcullis_config::{self as config, Config, Diagnostic, Severity};

use super::advice;
use super::aside::Retired;
use super::cores;
use super::interfaces::Network;
use super::kernel::KernelPart;
use super::ledger::{self, Ledger, Memory, View};
use super::names::{Book, Refresher};
use super::plane::{Compile, Plane};
use super::routers::Routers;
use super::start::shard_count;
use super::status::{ListenerStatus, PlaneStatus, ShardStatus};
use super::steering::{Steered, Steerings, steer};
use super::trusted::trusted;
use super::upgrade::Handover;
use crate::id::{Generation, ShardId};
use crate::kernel::interface_name;
use crate::limit::{Table, WallClock, random_secret, source_prefix};
use crate::log::Outbox;
use crate::metrics::{
    DEFAULT_MAX_ROUTE_SERIES, Exposition, Registry, write_breakers, write_certificates, write_ledger,
    write_steering, write_targets,
};
use crate::net::{self, Driver, DriverChoice, clock};
use crate::shard::{self, Shards};
use crate::snapshot::{self, CompileContext, Snapshot};
use crate::tls::Ticketer;

/// Everything that carries traffic.
pub struct Gateway {
    /// None until the first generation is installed.
    shards: Option<Shards>,
    snapshot: Option<Arc<Snapshot>>,
    /// The generations before, as long as exchanges use them.
    retired: Retired<Snapshot>,
    outboxes: Vec<Outbox>,
    driver: Driver,
    refused: Option<String>,
    cores: Vec<usize>,
    kernel: KernelPart,
    registry: Arc<Registry>,
    wall_clock: Arc<WallClock>,
    /// Counters of limit keys that are not source addresses.
    limit_table: Arc<Table>,
    draining: bool,
    /// Shards whose thread has ended without being told to; said once each.
    dead: BTreeSet<ShardId>,
    ticketer: Ticketer,
    book: Book,
    /// `None` until the first generation is installed.
    refresher: Option<Refresher>,
    ledger: Ledger,
    /// The shards' sockets once more, by address: for steering, and for a successor.
    sockets: BTreeMap<SocketAddr, Vec<TcpListener>>,
    /// Sockets of a predecessor, until the first generation is installed.
    inherited: BTreeMap<SocketAddr, Vec<TcpListener>>,
    steerings: Steerings,
    /// Whether the next generation arms what was switched to shadow.
    rearm: bool,
    /// Whether the kernel's lists are to be written anew.
    lists_due: bool,
    /// When a successor was last offered everything.
    offered_ns: Cell<u64>,
    /// Whether a successor owns maps, bans and samples by now.
    handed_over: bool,
    routers: Routers,
}

/// Limit keys (consumers, credentials, headers, ...) that are counted at a time; 32 bytes each. Past it the ones with the
/// least used are forgotten first.
const LIMIT_KEYS: usize = 1 << 18;

/// Samples taken in one go; what is more waits in the ring, or is lost there.
const DROPS_AT_ONCE: usize = 4096;

/// A successor serves by then, or never.
const SUCCESSOR_STARTS_NS: u64 = 120_000_000_000;

/// Sockets of an address, one a shard.
type Bound = (SocketAddr, Vec<TcpListener>);

impl Gateway {
    /// Probes what the machine offers and loads the kernel part. No thread runs and no address is open yet.
    ///
    /// # Errors
    /// What the configuration requires by name (a driver, the kernel part) cannot be had.
    pub fn begin(config: &Arc<Config>, outboxes: Vec<Outbox>) -> Result<Self> {
        let choice = match config.shards.driver {
            config::Driver::Auto => DriverChoice::Auto,
            config::Driver::IoUring => DriverChoice::IoUring,
            config::Driver::Epoll => DriverChoice::Epoll,
        };
        let (driver, refused) = net::probe(choice).context("shards.driver")?;
        let descriptors = net::raise_descriptor_limit();
        if descriptors < u64::from(config.limits.connections) * 2 {
            let connections = config.limits.connections;
            tracing::warn!(
                descriptors,
                connections,
                "too few descriptors for `limits.connections` on both sides"
            );
        }
        let count = shard_count(config);
        let registry = Arc::new(Registry::new(count, DEFAULT_MAX_ROUTE_SERIES));
        registry.control().set_started(super::reload::unix_seconds());
        let mut kernel = KernelPart::load(config)?;
        let ledger = ledger_of(config, &mut kernel);
        Ok(Self {
            shards: None,
            snapshot: None,
            retired: Retired::default(),
            outboxes,
            driver,
            refused: refused.map(|cause| cause.to_string()),
            cores: cores::of_shards(config, count),
            kernel,
            wall_clock: Arc::new(WallClock::new(clock::now_ns(), wall_ns())),
            draining: false,
            dead: BTreeSet::new(),
            limit_table: Arc::new(Table::new(LIMIT_KEYS, random_secret())?),
            ticketer: Ticketer::new(clock::now_ns()).context("ticket keys")?,
            book: Book::default(),
            refresher: None,
            ledger,
            sockets: BTreeMap::new(),
            inherited: BTreeMap::new(),
            steerings: Steerings::new(),
            rearm: false,
            lists_due: false,
            offered_ns: Cell::new(0),
            handed_over: false,
            routers: Routers::default(),
            registry,
        })
    }

    fn bind_new(&mut self, snapshot: &Snapshot) -> Result<Vec<Bound>, Vec<Diagnostic>> {
        let old = self.snapshot.as_deref().map(addresses).unwrap_or_default();
        let mut bound = Vec::new();
        let mut errors = Vec::new();
        for listener in snapshot.config.listeners.iter().filter(|listener| !old.contains(&listener.address)) {
            let mut sockets = self.inherited.remove(&listener.address).unwrap_or_default();
            let missing = self.cores.len().saturating_sub(sockets.len());
            let added = (0..missing)
                .map(|_| net::bind(listener.address, listener.backlog))
                .collect::<Result<Vec<_>, _>>();
            match added {
                Ok(added) => {
                    sockets.extend(added);
                    bound.push((listener.address, sockets));
                }
                Err(cause) => errors.push(at_listener(&snapshot.config, listener, &cause.to_string())),
            }
        }
        if errors.is_empty() { Ok(bound) } else { Err(errors) }
    }

    fn start(&mut self, snapshot: &Arc<Snapshot>) -> Result<Shards> {
        self.kernel.sync(snapshot, clock::now_ns())?;
        let shards = shard::start(shard::Start {
            driver: self.driver,
            cores: self.cores.clone(),
            snapshot: Arc::clone(snapshot),
            table: Arc::clone(self.kernel.table()),
            limit_table: Arc::clone(&self.limit_table),
            wall_clock: Arc::clone(&self.wall_clock),
            registry: Arc::clone(&self.registry),
            outboxes: std::mem::take(&mut self.outboxes),
        })?;
        Ok(shards)
    }

    /// Hands the banned prefixes to the kernel's lists.
    fn sync_bans(&mut self) {
        self.kernel.set_banned(self.ledger.book.wide().collect());
        self.sync_kernel();
    }

    /// Whether a successor may be starting, which fills the maps of the kernel part by then: this process leaves them alone.
    fn is_succeeded(&self, now_ns: u64) -> bool {
        let offered_ns = self.offered_ns.get();
        offered_ns != 0 && now_ns.saturating_sub(offered_ns) < SUCCESSOR_STARTS_NS
    }

    /// Writes the lists anew where they differ.
    fn sync_kernel(&mut self) {
        let Some(snapshot) = &self.snapshot else { return };
        if let Err(cause) = self.kernel.sync(snapshot, clock::now_ns()) {
            tracing::error!("the kernel's lists are not what they should be: {cause:#}");
        }
    }

    /// Takes the samples of dropped packets out of the program's ring.
    fn take_drops(&mut self) {
        let Some(program) = self.kernel.kernel_mut() else { return };
        let taken = program.take_drops(DROPS_AT_ONCE);
        self.ledger.drops.add(taken.into_iter().map(|one| ledger::Raw {
            at_ns: one.time_ns,
            interface:
                interface_name(one.interface_index).unwrap_or_else(|| format!("if{}", one.interface_index)),
            reason: one.reason,
            length: one.len,
            bytes: one.data,
        }));
    }

    /// Ends the connections of sources that were banned for what they did.
    fn cut_banned(&mut self) {
        let mut keys = Vec::new();
        let table = self.kernel.table();
        table.take_new_bans(&mut keys);
        // One that was taken back meanwhile is to close nothing that was opened since.
        let now = clock::now_ns();
        keys.retain(|key| matches!(table.block_at(*key, now), Block::Banned { .. }));
        let prefixes = keys.into_iter().filter_map(source_prefix).collect::<Vec<_>>();
        let Some(shards) = self.shards.as_ref().filter(|_| !prefixes.is_empty()) else { return };
        if self.snapshot.as_ref().is_some_and(|snapshot| snapshot.config.xdp.watches_bans()) {
            return;
        }
        if let Err(cause) = shards.cut(&Arc::new(prefixes.into_iter().collect())) {
            tracing::error!(%cause, "not every connection of a banned source is ended");
        }
    }

    /// What the ledger may see; `None` until something is in force.
    fn view(&self, with_trusted: bool) -> Option<View<'_>> {
        let snapshot = self.snapshot.as_deref()?;
        let config = &*snapshot.config;
        let trusted =
            if with_trusted { trusted(config, &targets(snapshot), &Network::read()) } else { Vec::new() };
        Some(View {
            config,
            snapshot,
            registry: &self.registry,
            table: self.kernel.table(),
            shards: self.shards.as_ref()?,
            cores: &self.cores,
            kernel: self.kernel.status(),
            program: self.kernel.kernel(),
            packets: self.kernel.packets(),
            trusted,
            now_ns: clock::now_ns(),
            now_unix: super::reload::unix_seconds(),
        })
    }

    fn publish(&mut self, snapshot: &Arc<Snapshot>, bound: Vec<Bound>) -> Result<()> {
        let Some(shards) = &self.shards else { return Ok(()) };
        if self.snapshot.is_some() {
            shards.publish(snapshot)?;
        }
        for (address, sockets) in bound {
            let wanted = snapshot.config.shards.steering;
            let steered = steer(wanted, address, &sockets, &self.cores, self.kernel.kernel_mut());
            tracing::debug!(%address, ?steered, "new connections");
            self.steerings.insert(address, steered);
            let kept = sockets.iter().map(TcpListener::try_clone).collect::<Result<Vec<_>, _>>()?;
            self.sockets.insert(address, kept);
            shards.listen(address, sockets)?;
        }
        let old = self.snapshot.as_deref().map(addresses).unwrap_or_default();
        for &address in old.difference(&addresses(snapshot)) {
            self.steerings.remove(&address);
            self.kernel.steer_no_more(address);
            self.sockets.remove(&address);
            shards.close(address)?;
        }
        if self.snapshot.is_some() {
            if std::mem::take(&mut self.rearm) {
                self.kernel.rearm();
            }
            self.kernel.sync(snapshot, clock::now_ns())?;
        }
        Ok(())
    }
}

impl Plane for Gateway {
    type Compiled = Arc<Snapshot>;

    fn compiler(&self) -> Compile<Self::Compiled> {
        let (registry, ticketer) = (Arc::clone(&self.registry), self.ticketer.clone());
        let (previous, book) = (self.snapshot.clone(), self.book.clone());
        self.routers.settle();
        Box::new(move |config, generation| {
            book.prepare(&config);
            let (previous, names) = (previous.as_deref(), book.names());
            let cx = CompileContext { generation, previous, names, registry: &registry, ticketer: &ticketer };
            snapshot::compile(config, &cx).map(|(snapshot, mut warnings)| {
                warnings.extend(advice::of_config(&snapshot.config, &targets(&snapshot), &Network::read()));
                warnings.extend(advice::of_machine(&snapshot.config));
                (Arc::new(snapshot), warnings)
            })
        })
    }

    fn install(&mut self, snapshot: Self::Compiled) -> Result<(), Vec<Diagnostic>> {
        let bound = self.bind_new(&snapshot)?;
        if self.shards.is_none() {
            let started = self.start(&snapshot);
            self.shards = Some(started.map_err(|cause| vec![without_place(&format!("{cause:#}"))])?);
        }
        if let Err(cause) = self.publish(&snapshot, bound) {
            // A shard that does not take orders is stuck; the others have the new generation by now, and going
            // back would meet the same shard again.
            tracing::error!("the new configuration is not everywhere in force: {cause:#}");
        }
        if let Err(cause) = self.ticketer.set(snapshot.ticket_keys.as_ref(), clock::now_ns()) {
            tracing::error!(%cause, "the keys of session tickets stay what they were");
        }
        self.refresher = Some(self.book.refresh(&snapshot.config));
        let is_first = self.snapshot.is_none();
        let tripped = self.kernel.beat(clock::now_ns());
        if let Some(old) = self.snapshot.replace(snapshot) {
            self.retired.push(old);
        }
        if tripped {
            self.sync_kernel();
        }
        // Listeners that this configuration no longer has.
        self.inherited.clear();
        if let Some(view) = self.view(false).filter(|_| is_first) {
            self.ledger.book.tell_shards(&view);
        }
        Ok(())
    }

    fn rearm(&mut self) {
        self.rearm = true;
    }

    fn is_outdated(&self) -> bool {
        !self.is_succeeded(clock::now_ns()) && (self.book.has_changed() || self.routers.have_changed())
    }

    fn beat(&mut self) {
        let now_ns = clock::now_ns();
        self.lists_due |= self.kernel.beat(now_ns);
        if let Some(snapshot) = &self.snapshot {
            self.ticketer.rotate(snapshot.config.tickets.rotation, now_ns);
        }
        let dead = self.shards.as_ref().filter(|_| !self.draining).map(Shards::ended).unwrap_or_default();
        for shard in dead {
            if self.dead.insert(shard) {
                tracing::error!(%shard, "the shard's thread has ended; its connections are lost, the others go on");
            }
        }
        if let Some(moved_ns) = self.wall_clock.observe(now_ns, wall_ns()) {
            tracing::info!(moved_ms = moved_ns / 1_000_000, "the wall clock was set");
        }
        if let Some(snapshot) = &self.snapshot {
            self.routers.look(&snapshot.gateways, now_ns);
        }
        self.retired.sweep();
        self.cut_banned();
        if self.handed_over {
            return;
        }
        self.take_drops();
        if self.ledger.beat(now_ns) {
            self.lists_due = true;
            if let Some(view) = self.view(false) {
                self.ledger.book.tell_shards(&view);
            }
        }
        if self.lists_due && !self.is_succeeded(now_ns) {
            self.lists_due = false;
            self.sync_bans();
        }
    }

    fn is_running(&self) -> bool {
        self.shards.as_ref().is_some_and(Shards::are_running)
    }

    fn retire(&mut self) {
        let retired = self.shards.as_ref().map(Shards::retire);
        if let Some(Err(cause)) = retired {
            tracing::error!(%cause, "not every shard tells its clients of the drain");
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        self.sockets.clear();
        let drained = self.shards.as_ref().map(Shards::drain);
        if let Some(Err(cause)) = drained {
            tracing::error!(%cause, "not every shard drains");
        }
    }

    fn hand_over(&self) -> io::Result<Handover> {
        let clones = |sockets: &Vec<TcpListener>| {
            sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()
        };
        let listeners = self.sockets.iter().map(|(address, sockets)| Ok((*address, clones(sockets)?)));
        self.offered_ns.set(clock::now_ns());
        Ok(Handover {
            listeners: listeners.collect::<io::Result<_>>()?,
            admin: None,
            bans: self.ledger.book.orders(),
            tickets: self.ticketer.hand_over(),
        })
    }

    fn take_over(&mut self, handover: Handover) {
        self.inherited = handover.listeners.into_iter().collect();
        self.ticketer.take_over(&handover.tickets);
        self.ledger.book.adopt(handover.bans, self.kernel.table(), clock::now_ns());
        self.kernel.set_banned(self.ledger.book.wide().collect());
    }

    fn leave(&mut self) {
        self.draining = true;
        self.handed_over = true;
        self.kernel.hand_over();
        self.sockets.clear();
        if let Some(Err(cause)) = self.shards.as_ref().map(Shards::leave) {
            tracing::error!(%cause, "not every shard leaves");
        }
    }

    fn is_drained(&self) -> bool {
        self.shards.as_ref().is_none_or(Shards::all_ended)
    }

    fn stop(&mut self) {
        let Some(shards) = &self.shards else { return };
        if let Err(cause) = shards.stop() {
            tracing::error!(%cause, "not every shard stops");
        }
    }

    fn reloaded(&self, ok: bool, generation: Generation, at: u64) {
        if ok {
            self.registry.control().reload_published(generation, at);
        } else {
            self.registry.control().reload_refused(at);
        }
    }

    fn refreshed(&self, ok: bool, generation: Generation) {
        self.registry.control().certificates_reloaded(ok, generation);
    }

    fn answer(&mut self, ask: ledger::Ask) {
        if matches!(ask, ledger::Ask::Drops(..) | ledger::Ask::Why(..)) {
            self.take_drops();
        }
        let mut ledger = std::mem::take(&mut self.ledger);
        let with_trusted = matches!(ask, ledger::Ask::Ban(..) | ledger::Ask::Why(..));
        // Without a view the question is dropped, which its asker sees.
        let prefixes_changed = self.view(with_trusted).is_some_and(|view| ledger.answer(ask, &view));
        self.ledger = ledger;
        if prefixes_changed {
            self.sync_bans();
        }
    }

    fn status(&self) -> PlaneStatus {
        let listeners = self.snapshot.iter().flat_map(|snapshot| &snapshot.listeners);
        let shards = self.cores.iter().enumerate().filter_map(|(index, &core)| {
            let shard = ShardId(index as u32);
            let metrics = self.registry.shard(shard)?;
            Some(ShardStatus {
                shard: shard.0,
                driver: name(self.driver),
                refused: self.refused.clone(),
                core: Some(core),
                generation: metrics.generation.get(),
                connections: metrics.connections_active.get(),
            })
        });
        let shards = shards.collect::<Vec<_>>();
        PlaneStatus {
            listeners: listeners
                .map(|listener| ListenerStatus {
                    name: listener.name.to_string(),
                    address: listener.address.to_string(),
                    tls: listener.tls.is_some(),
                    steering: self.steerings.get(&listener.address).map_or("hash", Steered::as_str),
                    steered_by: self.steerings.get(&listener.address).map_or("kernel", Steered::by),
                })
                .collect(),
            connections: shards.iter().map(|shard| shard.connections).sum(),
            shards,
            kernel: self.kernel.status(),
        }
    }

    fn metrics(&self) -> String {
        let mut out = Exposition::new();
        self.registry.render(&mut out);
        let expiries = self.snapshot.iter().flat_map(|snapshot| &snapshot.expiries);
        write_certificates(&mut out, expiries.map(|(id, not_after)| (id.as_str(), *not_after)));
        let upstreams = || self.snapshot.iter().flat_map(|snapshot| &snapshot.upstreams);
        write_targets(&mut out, upstreams().flat_map(|upstream| upstream.conditions()));
        write_breakers(&mut out, upstreams().flat_map(|upstream| upstream.broken()));
        self.kernel.write_metrics(&mut out);
        let listeners = self.snapshot.iter().flat_map(|snapshot| &snapshot.listeners);
        let steered = listeners
            .filter_map(|listener| Some((&*listener.name, self.steerings.get(&listener.address)?.as_str())));
        write_steering(&mut out, steered);
        write_ledger(&mut out, &self.ledger.counts(self.kernel.table(), clock::now_ns()));
        out.finish()
    }
}

/// With the orders of the processes before this one, put in force again.
fn ledger_of(config: &Config, kernel: &mut KernelPart) -> Ledger {
    let memory = Memory::beside(config.admin.socket.as_deref());
    let mut ledger = Ledger { memory, ..Ledger::default() };
    let (table, now_ns) = (Arc::clone(kernel.table()), clock::now_ns());
    ledger.book.adopt(ledger.memory.recall(), &table, now_ns);
    ledger.book.expire(now_ns);
    kernel.set_banned(ledger.book.wide().collect());
    ledger
}

fn addresses(snapshot: &Snapshot) -> BTreeSet<SocketAddr> {
    snapshot.listeners.iter().map(|listener| listener.address).collect()
}

/// Addresses of all upstreams.
pub(super) fn targets(snapshot: &Snapshot) -> Vec<IpAddr> {
    let targets = snapshot.upstreams.iter().flat_map(|upstream| &upstream.targets);
    targets.filter_map(|target| Some(target.address?.ip())).collect()
}

fn name(driver: Driver) -> &'static str {
    match driver {
        Driver::IoUring => "io_uring",
        Driver::Epoll => "epoll",
    }
}

fn at_listener(config: &Config, listener: &config::Listener, cause: &str) -> Diagnostic {
    let span = listener.origin.span;
    Diagnostic {
        file: config.sources.name(span.file).to_owned(),
        line: span.line,
        column: span.column,
        path: listener.origin.path.clone(),
        ..without_place(&format!("cannot listen on {}: {cause}", listener.address))
    }
}

fn without_place(message: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        file: String::new(),
        line: 0,
        column: 0,
        path: String::new(),
        message: message.to_owned(),
        hint: None,
        source_line: None,
        caret: (0, 1),
    }
}

fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
