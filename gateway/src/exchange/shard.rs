//! What the exchanges of one shard share: the generation, the pools, the counters, and who is connected.
//!
//! Never shared with another thread; what is reachable from here and used by several shards is a table of atomics or
//! immutable.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use std::time::Duration;

use portcullis_abi::{Block, Reason};
use portcullis_config::HalfClosed;

use super::lookout::Lookout;
use super::streams::Job;
use super::tunnel::Notice;
use super::workers::Workers;
use crate::http::Head;
use crate::http::date::{DATE_LEN, imf_fixdate};
use crate::http::h2::Control;
use crate::id::ShardId;
use crate::limit::{CidrSet, Connections, Table, WallClock, random_secret, source_key};
use crate::log::{self, Outbox, ShardLog};
use crate::metrics::{Refusal, ShardMetrics};
use crate::net::clock;
use crate::net::deadline::Cutter;
use crate::snapshot::{Local, PoolTable, Snapshot};
use crate::upstream::probe::Watch;

/// What a shard's tasks share.
pub struct Shard {
    pub id: ShardId,
    pub metrics: Arc<ShardMetrics>,
    /// Buckets of sources: the mapping shared with the XDP program, or ordinary memory.
    pub table: Arc<Table>,
    /// Counters of all other limit keys, in ordinary memory.
    pub limit_table: Arc<Table>,
    wall_clock: Arc<WallClock>,
    local: RefCell<Rc<Local>>,
    pools: RefCell<PoolTable>,
    /// Probing of the upstreams that fall to this shard.
    watches: RefCell<Vec<Watch>>,
    /// Shards of the process.
    shards: u32,
    log: RefCell<Option<ShardLog>>,
    /// Answers say that their connection ends.
    retiring: Cell<bool>,
    draining: Cell<bool>,
    /// Downstream connections of the whole process, for the limits on them.
    connections: Arc<Connections>,
    /// Downstream connections of this shard, for draining.
    open: RefCell<HashMap<u64, Visible>>,
    /// Banned prefixes that are wider than one source; narrower ones are words of the table.
    banned: RefCell<Arc<CidrSet>>,
    next_connection: Cell<u64>,
    /// Tunnels among them, under numbers of their own.
    tunnels: RefCell<HashMap<u64, Rc<Notice>>>,
    next_tunnel: Cell<u64>,
    /// Tunnels end as soon as they begin.
    tunnels_end: Cell<bool>,
    date: Cell<([u8; DATE_LEN], u64)>,
    /// State of the request id generator.
    ids: Cell<[u64; 2]>,
    /// Tasks of streams that wait for the next one.
    pub(super) stream_workers: Workers<Job>,
}

/// What a shard is made of.
pub struct Parts {
    pub id: ShardId,
    pub metrics: Arc<ShardMetrics>,
    pub table: Arc<Table>,
    pub limit_table: Arc<Table>,
    pub wall_clock: Arc<WallClock>,
    pub snapshot: Arc<Snapshot>,
    pub outbox: Option<Outbox>,
    pub connections: Arc<Connections>,
    /// Shards of the process.
    pub shards: u32,
}

impl Shard {
    /// A shard with its first generation, on the thread that it belongs to.
    pub fn new(parts: Parts) -> Rc<Self> {
        parts.metrics.generation.set(parts.snapshot.generation.0);
        let mut pools = PoolTable::default();
        let log = parts.outbox.map(|outbox| ShardLog::new(parts.snapshot.log_format(), outbox));
        let local = Local::install(parts.snapshot, None, parts.id, &mut pools);
        let seed = random_secret();
        let shard = Rc::new(Self {
            id: parts.id,
            metrics: parts.metrics,
            table: parts.table,
            limit_table: parts.limit_table,
            wall_clock: parts.wall_clock,
            local: RefCell::new(Rc::new(local)),
            pools: RefCell::new(pools),
            watches: RefCell::default(),
            shards: parts.shards,
            log: RefCell::new(log),
            retiring: Cell::new(false),
            draining: Cell::new(false),
            connections: parts.connections,
            open: RefCell::default(),
            banned: RefCell::default(),
            next_connection: Cell::new(0),
            tunnels: RefCell::default(),
            next_tunnel: Cell::new(0),
            tunnels_end: Cell::new(false),
            date: Cell::new(([0; DATE_LEN], 0)),
            ids: Cell::new([seed.a, seed.b]),
            stream_workers: Workers::default(),
        });
        shard.watch();
        shard
    }

    /// Has each upstream that is probed watched by one shard: the one whose turn its place in the list is. What did not
    /// change goes on; dropping the rest ends it.
    fn watch(&self) {
        let local = self.local();
        let mut before = self.watches.take();
        let mine =
            (0..).zip(&local.snapshot.upstreams).filter(|(index, _)| index % self.shards.max(1) == self.id.0);
        let watches = mine.filter_map(|(_, spec)| {
            if spec.probe.is_none() {
                spec.health.forget_probes();
            }
            match before.iter().position(|watch| watch.is_of(spec)) {
                Some(known) => Some(before.swap_remove(known)),
                None => Watch::start(spec, |spec, target, change| {
                    super::finish::health_changed(spec, &spec.targets[target.index()], change);
                }),
            }
        });
        *self.watches.borrow_mut() = watches.collect();
    }

    /// Lets every connection end with its next answer, so that clients come back elsewhere.
    pub fn retire(&self) {
        self.retiring.set(true);
    }

    /// Whether connections end with their next answer; true from before a drain to its end.
    #[inline]
    pub fn retiring(&self) -> bool {
        self.retiring.get()
    }

    /// Lets what is in flight be the last.
    pub fn begin_drain(&self) {
        self.retire();
        self.draining.set(true);
        self.watches.borrow_mut().clear();
        for control in self.open.borrow().values().filter_map(|connection| connection.streams.as_ref()) {
            control.drain();
        }
    }

    /// Whether no connection is open.
    pub fn is_idle(&self) -> bool {
        self.open.borrow().is_empty()
    }

    /// Hands over what is left of the access log.
    pub fn flush_log(&self) {
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.flush();
        }
    }

    /// The generation that new exchanges use.
    #[inline]
    pub fn local(&self) -> Rc<Local> {
        self.local.borrow().clone()
    }

    /// Whether the shard is on its way out: no further exchange on any connection.
    #[inline]
    pub fn draining(&self) -> bool {
        self.draining.get()
    }

    /// Counts a refusal that has no exchange, nor a source.
    pub fn refused(&self, reason: Reason) {
        self.metrics.count_reason(reason);
    }

    /// Counts a refusal of `source` that has no exchange, and remembers it.
    pub fn refused_source(&self, reason: Reason, source: IpAddr) {
        self.refused(reason);
        let client = source.to_canonical();
        self.metrics.refusals.note(&Refusal {
            at_ns: clock::now_ns(),
            client,
            reason,
            status: 0,
            route: None,
        });
        self.metrics.sources.count(source_key(client), true);
    }

    /// Wall-clock time of a monotonic moment, since the Unix epoch.
    #[inline]
    pub fn wall(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(self.wall_clock.at(now_ns))
    }

    /// The value of the Date field, at most a second old.
    pub fn date(&self) -> [u8; DATE_LEN] {
        let (text, second) = self.date.get();
        let now = self.wall(clock::now_ns()).as_secs();
        if now == second {
            return text;
        }
        let text = imf_fixdate(now);
        self.date.set((text, now));
        text
    }

    /// An identifier that no other request of any node has, as 32 hex digits. Not a secret.
    pub fn next_request_id(&self) -> [u8; 32] {
        let [high, low] = self.ids.get();
        self.ids.set([high, low.wrapping_add(1)]);
        // The counter is mixed (splitmix64), so that neighbours do not look alike in logs.
        let mut mixed = low.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mut text = [0; 32];
        hex(high, &mut text[..16]);
        hex(mixed ^ (mixed >> 31), &mut text[16..]);
        text
    }

    /// Takes a place for a downstream connection of `source` until the guard is dropped; `None`, counted and with a
    /// reason, when the source is banned or the limits on connections leave none.
    pub fn open_connection(self: &Rc<Self>, source: IpAddr, cutters: Cutters) -> Option<OpenConnection> {
        self.metrics.connections_accepted.inc();
        let local = self.local.borrow();
        if self.is_banned(&local, source) {
            self.metrics.connections_refused.inc();
            self.refused_source(Reason::SourceBanned, source);
            return None;
        }
        let limits = &local.snapshot.config.limits;
        // Trusted proxies bring many clients each.
        let trusted = local.snapshot.trusted_proxies.contains(source);
        let per_source = if trusted { 0 } else { limits.connections_per_source };
        if !self.connections.open(source, limits.connections, per_source) {
            self.metrics.connections_refused.inc();
            self.refused_source(Reason::ConnectionLimit, source);
            return None;
        }
        let number = self.next_connection.get();
        self.next_connection.set(number + 1);
        let lookout = Rc::new(Lookout::new(cutters.receiving.clone(), cutters.both.clone()));
        let visible = Visible { source, cutters, lookout: lookout.clone(), streams: None };
        self.open.borrow_mut().insert(number, visible);
        self.metrics.connections_active.inc();
        Some(OpenConnection { shard: self.clone(), number, source, lookout })
    }

    /// Whether an operator has banned `source`. The kernel part, where there is one, drops its packets before.
    fn is_banned(&self, local: &Local, source: IpAddr) -> bool {
        let word = self.table.block_at(source_key(source), clock::now_ns());
        let banned = matches!(word, Block::Banned { reason: Reason::SourceBanned, .. })
            || self.banned.borrow().contains(source);
        banned && !local.snapshot.source_limiter.is_trusted(source)
    }

    /// Uses a new set of banned prefixes, those that are wider than one source.
    pub fn set_banned(&self, prefixes: Arc<CidrSet>) {
        *self.banned.borrow_mut() = prefixes;
    }

    /// Resets every connection from `sources`, whatever is under way on it, but for those of trusted addresses: such a one
    /// may share an IPv6 /64 with a banned one.
    pub fn cut_sources(&self, sources: &CidrSet) {
        let local = self.local.borrow();
        let is_trusted = |source| local.snapshot.source_limiter.is_trusted(source);
        for connection in self.open.borrow().values() {
            if sources.contains(connection.source) && !is_trusted(connection.source) {
                connection.cutters.both.reset();
                connection.cutters.receiving.cut();
            }
        }
    }

    /// Ends the connections on which nothing is under way.
    pub fn cut_idle(&self) {
        for connection in self.open.borrow().values() {
            match &connection.streams {
                Some(control) if control.is_idle() => control.close(),
                Some(_) => {}
                None => connection.lookout.cut_idle(),
            }
        }
    }

    /// Looks whether clients that wait for an answer have left. Called every second.
    pub fn sweep_clients(&self) {
        let half_closed = self.local.borrow().snapshot.config.http.half_closed == HalfClosed::Serve;
        self.open.borrow().values().for_each(|connection| connection.lookout.look(half_closed));
    }

    /// Counts a tunnel until the guard is dropped.
    pub fn open_tunnel(self: &Rc<Self>) -> OpenTunnel {
        let number = self.next_tunnel.get();
        self.next_tunnel.set(number + 1);
        let notice = Rc::new(Notice::default());
        if self.tunnels_end.get() {
            notice.give();
        }
        self.tunnels.borrow_mut().insert(number, notice.clone());
        self.metrics.tunnels.inc();
        self.metrics.tunnels_active.inc();
        OpenTunnel { shard: self.clone(), number, notice }
    }

    /// Tells every tunnel, present and to come, to end.
    pub fn end_tunnels(&self) {
        if !self.tunnels_end.replace(true) {
            self.tunnels.borrow().values().for_each(|notice| notice.give());
        }
    }

    /// Whether exchanges are logged.
    #[inline]
    pub fn logs_access(&self) -> bool {
        self.local.borrow().logs_access
    }

    /// Appends a line to the access log.
    pub fn write_log(&self, record: &log::Record<'_>) {
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.write(clock::now_ns(), record);
        }
    }

    /// The request headers that the configuration wants in each line.
    pub fn logged_headers<'h>(&self, head: &'h Head, local: &'h Local) -> Vec<(&'h str, &'h [u8])> {
        let names = &local.snapshot.config.telemetry.access_log.headers;
        names.iter().flat_map(|name| head.get_all(name).map(move |value| (name.as_str(), value))).collect()
    }

    /// Uses a new generation for all new exchanges.
    pub fn install(&self, snapshot: Arc<Snapshot>) {
        let previous = self.local();
        let generation = snapshot.generation.0;
        let local = Local::install(snapshot, Some(&previous), self.id, &mut self.pools.borrow_mut());
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.set_format(local.snapshot.log_format());
        }
        *self.local.borrow_mut() = Rc::new(local);
        self.watch();
        self.metrics.generation.set(generation);
    }

    /// What is done every so often, off the path of any request.
    pub fn tick(&self, now_ns: u64) {
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.tick(now_ns);
            self.metrics.log_records_dropped.add(log.take_lost());
        }
        self.metrics.cpu_ns.set(clock::thread_cpu_ns());
        self.metrics.sources.age(now_ns);
    }

    /// Closes idle upstream connections that are too old or were closed by their target.
    pub fn sweep_pools(&self, now_ns: u64) {
        let (mut idle, mut active) = (0, 0);
        let pools = self.pools.borrow();
        for pool in pools.values() {
            pool.sweep(now_ns);
            let (i, a) = pool.sizes();
            idle += i as u64;
            active += u64::from(a);
        }
        self.metrics.pool_idle.set(idle);
        self.metrics.pool_active.set(active);
    }
}

fn hex(value: u64, out: &mut [u8]) {
    for (i, digit) in out.iter_mut().enumerate() {
        let nibble = (value >> (60 - 4 * i)) & 15;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
}

/// How the directions of a connection are ended from elsewhere.
pub struct Cutters {
    /// Ends receiving; what is being sent is still sent.
    pub receiving: Cutter,
    /// Ends both directions.
    pub both: Cutter,
}

/// A downstream connection as a drain and a ban see it.
struct Visible {
    source: IpAddr,
    cutters: Cutters,
    lookout: Rc<Lookout>,
    /// It speaks HTTP/2.
    streams: Option<Control>,
}

/// A downstream connection that is open.
pub struct OpenConnection {
    shard: Rc<Shard>,
    number: u64,
    source: IpAddr,
    lookout: Rc<Lookout>,
}

impl OpenConnection {
    /// How it is seen from outside.
    pub fn lookout(&self) -> Rc<Lookout> {
        self.lookout.clone()
    }

    /// Says whether something is under way on it: a drain leaves it alone then.
    pub fn set_busy(&self, busy: bool) {
        self.lookout.set_busy(busy);
    }

    /// Says that it carries streams, and how they are ended.
    pub fn is_shared(&self, control: Control) {
        if self.shard.draining() {
            control.drain();
        }
        if let Some(visible) = self.shard.open.borrow_mut().get_mut(&self.number) {
            visible.streams = Some(control);
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.shard.open.borrow_mut().remove(&self.number);
        self.shard.connections.close(self.source);
        self.shard.metrics.connections_active.dec();
    }
}

/// A tunnel that is open.
pub struct OpenTunnel {
    shard: Rc<Shard>,
    number: u64,
    notice: Rc<Notice>,
}

impl OpenTunnel {
    /// By which the tunnel learns that it is to end.
    pub fn notice(&self) -> &Notice {
        &self.notice
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.shard.tunnels.borrow_mut().remove(&self.number);
        self.shard.metrics.tunnels_active.dec();
    }
}
