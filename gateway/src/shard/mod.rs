//! A shard: one pinned thread, one ring, and everything that only it touches.
//!
//! Owns the thread's life: start, accept, orders, drain. Never decides anything about a request: that is `exchange`.
//!
//! **Invariant.** A shard shares nothing mutable with another but tables of atomics. Orders come in through a bounded
//! mailbox; counts go out through cells that the shard alone writes.
//!
//! Read next: `exchange`.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use portcullis_abi::Reason;

use crate::exchange::{self, Cutters, Parts, Shard};
use crate::id::ShardId;
use crate::limit::{CidrSet, Connections, Table, WallClock};
use crate::log::Outbox;
use crate::metrics::{self, Registry};
use crate::net::{self, Driver, Listener, MailReceiver, MailSender, clock, deadline};
use crate::snapshot::Snapshot;

/// Orders that may wait for a shard: reloads faster than shards install them are refused, not queued for ever.
const ORDERS_MAX: usize = 64;
/// How often the access log block is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How often clients that wait for an answer are looked at, in ticks: a client that has left is noticed within two looks.
const LOOK_TICKS: u32 = 20;
/// How often idle upstream connections are looked at, in ticks.
const SWEEP_TICKS: u32 = 40;
/// How often a draining shard looks whether it is done.
const DRAIN_TICK: Duration = Duration::from_millis(20);
/// How long a draining shard leaves idle connections open: long enough for a request that is on its way.
const DRAIN_IDLE_GRACE: Duration = Duration::from_secs(1);
/// The same where a successor serves already: nobody waits for this process to end, so a client that connected a moment
/// ago has the time to send its request.
const LEAVE_IDLE_GRACE: Duration = Duration::from_secs(5);
/// How long a listener that is about to close waits for handshakes under way: a long round trip.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(300);

/// An order to a shard.
enum Order {
    /// Use this generation for all new exchanges.
    Install(Arc<Snapshot>),
    /// Accept connections on this socket too.
    Listen(SocketAddr, TcpListener),
    /// Stop accepting on the sockets of this address.
    Close(SocketAddr),
    /// Tell clients that their connections end, and go on.
    Retire,
    /// As `Drain`, but the sockets are another process's by now and stay open.
    Leave,
    /// Refuse connections from these prefixes.
    Ban(Arc<CidrSet>),
    /// End the connections from these prefixes.
    Cut(Arc<CidrSet>),
    /// Stop accepting everywhere, finish what is in flight, end when nothing is left.
    Drain,
    /// End now.
    Stop,
}

/// What is needed to start the shards.
pub struct Start {
    pub driver: Driver,
    /// A core for each shard.
    pub cores: Vec<usize>,
    pub snapshot: Arc<Snapshot>,
    /// Buckets of sources.
    pub table: Arc<Table>,
    /// Counters of all other limit keys.
    pub limit_table: Arc<Table>,
    pub wall_clock: Arc<WallClock>,
    pub registry: Arc<Registry>,
    /// One for each shard; empty when nothing is logged.
    pub outboxes: Vec<Outbox>,
}

/// Why the shards could not be started or reached.
#[derive(Debug, thiserror::Error)]
pub enum ShardsError {
    #[error("cannot start the thread of shard {shard}: {cause}")]
    Thread { shard: u32, cause: io::Error },
    #[error("shard {shard} does not take orders: {ORDERS_MAX} are waiting")]
    Busy { shard: u32 },
}

/// The running shards, as the control thread holds them.
pub struct Shards {
    threads: Vec<(MailSender<Order>, JoinHandle<()>)>,
    /// Shards that have carried out their first order.
    running: Arc<AtomicUsize>,
    connections: Arc<Connections>,
}

/// Starts a thread for each core. They accept nothing until they are given sockets.
///
/// # Errors
/// A thread could not be started; those that were end by themselves.
pub fn start(start: Start) -> Result<Shards, ShardsError> {
    let connections = Arc::new(Connections::default());
    let running = Arc::new(AtomicUsize::new(0));
    let mut outboxes = start.outboxes.into_iter();
    let mut threads = Vec::with_capacity(start.cores.len());
    for (number, core) in start.cores.iter().copied().enumerate() {
        let id = ShardId(number as u32);
        let failed = |cause| ShardsError::Thread { shard: id.0, cause };
        let (sender, receiver) = net::mailbox(ORDERS_MAX).map_err(failed)?;
        let seed = Seed {
            id,
            core,
            driver: start.driver,
            snapshot: start.snapshot.clone(),
            table: start.table.clone(),
            limit_table: start.limit_table.clone(),
            wall_clock: start.wall_clock.clone(),
            registry: start.registry.clone(),
            outbox: outboxes.next(),
            own: sender.try_clone().map_err(failed)?,
            connections: connections.clone(),
            running: running.clone(),
            shards: start.cores.len() as u32,
        };
        let thread = std::thread::Builder::new()
            .name(format!("shard-{number}"))
            .spawn(move || run(seed, receiver))
            .map_err(failed)?;
        threads.push((sender, thread));
    }
    Ok(Shards { threads, running, connections })
}

impl Shards {
    /// Number of shards.
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// Gives every shard the new generation.
    ///
    /// # Errors
    /// A shard is stuck; those before it have the generation already.
    pub fn publish(&self, snapshot: &Arc<Snapshot>) -> Result<(), ShardsError> {
        self.tell_all(|| Order::Install(snapshot.clone()))
    }

    /// Gives each shard its socket of an address. Sockets beyond the number of shards, which only an earlier process
    /// with more of them leaves behind, go round.
    ///
    /// # Errors
    /// A shard is stuck.
    pub fn listen(&self, address: SocketAddr, sockets: Vec<TcpListener>) -> Result<(), ShardsError> {
        for (number, socket) in sockets.into_iter().enumerate() {
            self.tell(number % self.threads.len(), Order::Listen(address, socket))?;
        }
        Ok(())
    }

    /// Lets every shard finish what is in flight, and leaves the listening sockets to whoever has them too.
    ///
    /// # Errors
    /// A shard is stuck.
    pub fn leave(&self) -> Result<(), ShardsError> {
        self.tell_all(|| Order::Leave)
    }

    /// Replaces the prefixes whose connections are refused.
    ///
    /// # Errors
    /// A shard is stuck.
    pub fn ban(&self, prefixes: &Arc<CidrSet>) -> Result<(), ShardsError> {
        self.tell_all(|| Order::Ban(prefixes.clone()))
    }

    /// Ends the connections that these sources have open.
    ///
    /// # Errors
    /// A shard is stuck.
    pub fn cut(&self, sources: &Arc<CidrSet>) -> Result<(), ShardsError> {
        self.tell_all(|| Order::Cut(sources.clone()))
    }

    /// Open downstream connections of `source` on all shards; see [`Connections`] for how exact.
    pub fn connections_of(&self, source: IpAddr) -> u32 {
        self.connections.of(source)
    }

    /// Stops accepting on an address.
    ///
    /// # Errors
    /// A shard is stuck.
    pub fn close(&self, address: SocketAddr) -> Result<(), ShardsError> {
        self.tell_all(|| Order::Close(address))
    }

    /// Whether every shard obeys: its first order, a socket to listen on, is carried out.
    pub fn are_running(&self) -> bool {
        self.running.load(Ordering::Acquire) >= self.threads.len()
    }

    /// Lets every shard tell its clients that their connections end.
    ///
    /// # Errors
    /// A shard is stuck.
    pub fn retire(&self) -> Result<(), ShardsError> {
        self.tell_all(|| Order::Retire)
    }

    /// Lets every shard finish what is in flight.
    ///
    /// # Errors
    /// A shard is stuck.
    pub fn drain(&self) -> Result<(), ShardsError> {
        self.tell_all(|| Order::Drain)
    }

    /// Ends every shard at once.
    ///
    /// # Errors
    /// A shard is stuck.
    pub fn stop(&self) -> Result<(), ShardsError> {
        self.tell_all(|| Order::Stop)
    }

    /// Shards whose thread has ended, which none should before a drain.
    pub fn ended(&self) -> Vec<ShardId> {
        let ended = self.threads.iter().enumerate().filter(|(_, (_, thread))| thread.is_finished());
        ended.map(|(number, _)| ShardId(number as u32)).collect()
    }

    /// Whether every thread has ended.
    pub fn all_ended(&self) -> bool {
        self.threads.iter().all(|(_, thread)| thread.is_finished())
    }

    fn tell_all(&self, order: impl Fn() -> Order) -> Result<(), ShardsError> {
        (0..self.threads.len()).try_for_each(|shard| self.tell(shard, order()))
    }

    fn tell(&self, shard: usize, order: Order) -> Result<(), ShardsError> {
        let sent = self.threads[shard].0.send(order);
        sent.map_err(|_| ShardsError::Busy { shard: shard as u32 })
    }
}

/// What crosses into the new thread.
struct Seed {
    id: ShardId,
    core: usize,
    driver: Driver,
    snapshot: Arc<Snapshot>,
    table: Arc<Table>,
    limit_table: Arc<Table>,
    wall_clock: Arc<WallClock>,
    registry: Arc<Registry>,
    outbox: Option<Outbox>,
    /// Into its own mailbox.
    own: MailSender<Order>,
    connections: Arc<Connections>,
    running: Arc<AtomicUsize>,
    /// How many there are in all.
    shards: u32,
}

fn run(seed: Seed, receiver: MailReceiver<Order>) {
    let (id, core, driver) = (seed.id, seed.core, seed.driver);
    if !net::pin_to_core(core) {
        tracing::warn!(shard = id.0, core, "cannot pin the shard to its core; it runs unpinned");
    }
    match net::block_on(driver, live(seed, receiver)) {
        Ok(()) => tracing::debug!(shard = id.0, "shard ended"),
        Err(error) => tracing::error!(shard = id.0, %error, "the shard's driver failed"),
    }
}

async fn live(seed: Seed, receiver: MailReceiver<Order>) {
    let Some(metrics) = seed.registry.shard(seed.id) else { return };
    metrics.set_driver(match seed.driver {
        Driver::IoUring => metrics::Driver::IoUring,
        Driver::Epoll => metrics::Driver::Epoll,
    });
    let running = seed.running;
    let shard = Shard::new(Parts {
        id: seed.id,
        metrics,
        table: seed.table,
        limit_table: seed.limit_table,
        wall_clock: seed.wall_clock,
        snapshot: seed.snapshot,
        outbox: seed.outbox,
        connections: seed.connections,
        shards: seed.shards,
    });
    net::spawn(async { deadline::turn_wheel().await });
    net::spawn(keep_house(shard.clone()));
    obey(shard, receiver, seed.own, &running).await;
}

async fn keep_house(shard: Rc<Shard>) {
    let mut ticks = 0;
    loop {
        net::sleep(TICK).await;
        let now_ns = clock::now_ns();
        shard.tick(now_ns);
        ticks += 1;
        if ticks % LOOK_TICKS == 0 {
            shard.sweep_clients();
        }
        if ticks % SWEEP_TICKS == 0 {
            shard.sweep_pools(now_ns);
        }
    }
}

/// Carries out orders until the last one.
async fn obey(
    shard: Rc<Shard>,
    receiver: MailReceiver<Order>,
    own: MailSender<Order>,
    running: &AtomicUsize,
) {
    let mut first = true;
    let mut own = Some(own);
    let mut mailbox = match receiver.attach() {
        Ok(mailbox) => mailbox,
        Err(error) => return tracing::error!(%error, "the shard has no mailbox"),
    };
    let mut listeners: HashMap<SocketAddr, Vec<Rc<Listener>>> = HashMap::new();
    while let Some(order) = mailbox.next().await {
        match order {
            Order::Install(snapshot) => shard.install(snapshot),
            Order::Listen(address, socket) => match Listener::new(socket) {
                Ok(listener) => {
                    let listener = Rc::new(listener);
                    listeners.entry(address).or_default().push(listener.clone());
                    net::spawn(accept(shard.clone(), listener, address));
                }
                Err(error) => tracing::error!(%address, %error, "cannot listen"),
            },
            Order::Close(address) => {
                let closing = listeners.remove(&address).unwrap_or_default();
                let closing = closing.into_iter().map(|listener| (address, listener)).collect();
                net::spawn(close(shard.clone(), closing));
            }
            Order::Retire => shard.retire(),
            Order::Leave => {
                shard.begin_drain();
                listeners.values().flatten().for_each(|listener| listener.leave());
                listeners.clear();
                let closing = net::sleep(HANDSHAKE_GRACE);
                net::spawn(end_when_idle(shard.clone(), closing, LEAVE_IDLE_GRACE, own.take()));
            }
            Order::Ban(prefixes) => shard.set_banned(prefixes),
            Order::Cut(sources) => shard.cut_sources(&sources),
            Order::Drain => {
                shard.begin_drain();
                let closing = close(shard.clone(), flat(listeners.drain()));
                net::spawn(end_when_idle(shard.clone(), closing, DRAIN_IDLE_GRACE, own.take()));
            }
            Order::Stop => break,
        }
        if std::mem::take(&mut first) {
            running.fetch_add(1, Ordering::Release);
        }
    }
    shard.flush_log();
}

fn flat(listeners: impl Iterator<Item = (SocketAddr, Vec<Rc<Listener>>)>) -> Vec<(SocketAddr, Rc<Listener>)> {
    listeners.flat_map(|(address, all)| all.into_iter().map(move |listener| (address, listener))).collect()
}

/// Stops listening so that no connection is lost: begins no handshake, serves those that end in time.
async fn close(shard: Rc<Shard>, listeners: Vec<(SocketAddr, Rc<Listener>)>) {
    for (_, listener) in &listeners {
        listener.turn_away();
    }
    net::sleep(HANDSHAKE_GRACE).await;
    for (address, listener) in listeners {
        for (stream, source) in listener.accept_queued() {
            admit(&shard, stream, source, address);
        }
        listener.close();
    }
}

async fn accept(shard: Rc<Shard>, listener: Rc<Listener>, address: SocketAddr) {
    net::spawn(remind(Rc::downgrade(&listener)));
    while let Some((stream, source)) = listener.accept().await {
        admit(&shard, stream, source, address);
    }
}

/// Keeps a connection from waiting for the next one: see [`Listener::look_again`].
async fn remind(listener: Weak<Listener>) {
    loop {
        net::sleep(TICK * LOOK_TICKS).await;
        if !listener.upgrade().is_some_and(|listener| listener.look_again()) {
            return;
        }
    }
}

fn admit(shard: &Rc<Shard>, stream: net::Stream, source: SocketAddr, listener: SocketAddr) {
    let cutters = Cutters { receiving: stream.rx.deadline.cutter(), both: stream.tx.deadline.cutter() };
    let Some(open) = shard.open_connection(source.ip(), cutters) else {
        return; // dropping the stream closes it
    };
    let task = Box::pin(exchange::serve(shard.clone(), stream, source, listener, open));
    let shard = shard.clone();
    let panicked = move || {
        shard.refused(Reason::InternalError);
        tracing::error!(shard = shard.id.0, "a connection ended in a panic, which is a bug");
    };
    net::spawn_isolated(task, panicked);
}

/// Ends the thread of a draining shard once its last connection is gone. The control thread bounds the time that this
/// takes with `Order::Stop`.
async fn end_when_idle(
    shard: Rc<Shard>,
    closing: impl Future<Output = ()>,
    idle_grace: Duration,
    own: Option<MailSender<Order>>,
) {
    closing.await;
    let mut waited = Duration::ZERO;
    while !shard.is_idle() {
        // A client that has just sent a request must not be cut off: it is told `Connection: close` with its answer.
        if waited >= idle_grace {
            shard.cut_idle();
            shard.end_tunnels();
        }
        net::sleep(DRAIN_TICK).await;
        waited += DRAIN_TICK;
    }
    if let Some(own) = own {
        // A full box holds an order that ends the thread, or the control thread is about to send one.
        let _ = own.send(Order::Stop);
    }
}
