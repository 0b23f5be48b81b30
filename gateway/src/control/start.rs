//! Start-up, in order, and the end.
//!
//! ```text
//! configuration ─► own log ─► runtime ─► admin listeners ─► access log ─► plane ─► generation 1 ─► loop ─► exit
//! ```
//!
//! The admin socket is bound before anything that clients can see: it is exclusive, so a second gateway on the
//! same socket ends here and takes no connection from the first. Signals are watched before the listeners
//! open, so that a stop during start-up is a drain as well.
//!
//! Owns: that order, and the words that say what was obtained. Never: a decision that a reload would have to
//! make again. Invariant: a failed start exits with 1 and every finding, and has changed nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portcullis_config::{AccessLogDestination, Admin, Config, LogFormat, ShardCount};
use tokio::sync::mpsc;

use super::access_log::{AccessLog, Destination};
use super::admin::AdminPort;
use super::drain::Ending;
use super::files::Files;
use super::plane::Plane;
use super::reload::{self, Load, Loaded, Stopwatch};
use super::runtime::Runtime;
use super::socket::SocketFile;
use super::status::{Finding, PlaneStatus};
use super::telemetry::{self, LevelSwitch, Shape};
use super::upgrade::{self, Handover, Predecessor};
use super::{BEAT, Control, Event, admin, signals, socket};
use crate::id::Generation;
use crate::log::{Outbox, channel};

/// Starts the shards' threads without any configuration to serve: `config` says how many and on what, the
/// outboxes are for their access log, one a shard.
pub type Begin<P> = Box<dyn FnOnce(&Arc<Config>, Vec<Outbox>) -> Result<P>>;

/// What a start needs to know.
pub struct Inputs<P> {
    pub config_path: PathBuf,
    pub load: Load,
    pub begin: Begin<P>,
    /// Take over from the gateway that runs, if one does.
    pub upgrade: bool,
}

/// A process that is ready to serve.
pub struct Running<P: Plane> {
    pub control: Control<P>,
    /// Removed when dropped.
    pub sockets: Vec<SocketFile>,
}

/// Why there is nothing to serve.
pub enum Failure {
    /// The configuration: all that is wrong with it.
    Findings(Vec<Finding>),
    /// The machine.
    Machine(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(cause: anyhow::Error) -> Self {
        Self::Machine(cause)
    }
}

/// Runs the gateway until it is told to stop. The exit code is 0 after a drain, 1 after a failed start or a
/// forced end.
pub fn run<P: Plane + 'static>(inputs: Inputs<P>) -> Result<ExitCode> {
    let loaded = match (inputs.load)() {
        Ok(loaded) => loaded,
        Err(findings) => {
            findings.iter().for_each(|finding| eprintln!("{finding}"));
            return Ok(ExitCode::FAILURE);
        }
    };
    let telemetry = &loaded.config.telemetry;
    let shape = match telemetry.log_format {
        LogFormat::Text => Shape::Text,
        LogFormat::Json => Shape::Json,
    };
    let level = telemetry::install(telemetry.log_level.as_str(), shape);
    let runtime = Runtime::new().context("no runtime for the control thread")?;
    if let Some(cause) = runtime.refused() {
        tracing::warn!(%cause, "control thread without io_uring: log files are written by threads");
    }
    let has_ring = runtime.refused().is_none();
    runtime.block_on(async {
        let (sender, events) = mpsc::channel(EVENTS);
        watch_signals(sender.clone())?;
        let mut running = match assemble(inputs, loaded, level, has_ring, sender).await {
            Ok(running) => running,
            Err(Failure::Findings(findings)) => {
                findings.iter().for_each(|finding| tracing::error!("{}", finding.text));
                return Ok(ExitCode::FAILURE);
            }
            Err(Failure::Machine(cause)) => return Err(cause),
        };
        let ending = running.control.serve(events).await;
        Ok(end(running.control, running.sockets, ending).await)
    })
}

/// Everything of a start after the configuration is read.
pub async fn assemble<P: Plane>(
    inputs: Inputs<P>,
    loaded: Loaded,
    level: LevelSwitch,
    has_ring: bool,
    sender: mpsc::Sender<Event>,
) -> Result<Running<P>, Failure> {
    let watch = Stopwatch::start();
    let config = loaded.config;
    let mut admin = AdminSockets::default();
    let mut predecessor = None;
    let mut handover = Handover::default();
    match meet(inputs.upgrade, &config.admin)? {
        Some((met, given)) => (predecessor, handover) = (Some(met), given),
        // Exclusive: a second gateway on the same socket ends here.
        None => admin.open(&config.admin, None, false, &sender)?,
    }
    let count = shard_count(&config);
    let (inbox, outboxes, wake) = channel(count).context("the access log's queue")?;
    let access_log =
        AccessLog::start(inbox, wake, destination(&config), has_ring).context("the access log")?;
    let mut plane = (inputs.begin)(&config, outboxes)?;
    let admin_port = handover.admin.take();
    if predecessor.is_some() {
        plane.take_over(handover);
    }
    let compiled = plane.compiler()(Arc::clone(&config), Generation(1));
    let installed = compiled.and_then(|(compiled, warnings)| plane.install(compiled).map(|()| warnings));
    let remarks = match installed {
        Ok(warnings) => reload::to_findings(&[loaded.remarks, warnings].concat()),
        Err(errors) => {
            plane.stop();
            return Err(Failure::Findings(reload::to_findings(&errors)));
        }
    };
    config.sources.forget_texts();
    if let Some(predecessor) = predecessor {
        // Only now, as everything that can fail has not: until here the predecessor is the gateway.
        admin.open(&config.admin, admin_port, true, &sender)?;
        predecessor.dismiss().context("the predecessor")?;
    }
    let report = watch.report(true, Generation(1), remarks);
    plane.reloaded(true, Generation(1), report.at);
    say(&config, &inputs.config_path, &plane.status());
    reload::tell(&report);
    tick_every(BEAT, sender.clone());
    let control = Control {
        plane,
        load: inputs.load,
        files: Files::new(crate::snapshot::files(&config)),
        config_path: inputs.config_path,
        config,
        generation: Generation(1),
        started: Instant::now(),
        last_beat: Instant::now(),
        has_ring,
        access_log,
        level,
        events: sender,
        reload: None,
        waiting: Vec::new(),
        last_reload: Some(report),
        drain: None,
        admin_port: admin.port,
        handed_over: false,
    };
    Ok(Running { control, sockets: admin.files })
}

// Apart from `assemble` because signals are the process's, and tests share one.
fn watch_signals(events: mpsc::Sender<Event>) -> Result<()> {
    signals::watch(async move |signal| events.send(Event::Signal(signal)).await.is_ok()).context("signals")
}

fn meet(upgrade: bool, admin: &Admin) -> Result<Option<(Predecessor, Handover)>> {
    let Some(socket) = admin.socket.as_deref().filter(|_| upgrade) else { return Ok(None) };
    let met = Predecessor::meet(socket).context("taking over from the gateway that runs")?;
    if met.is_none() {
        tracing::warn!("no gateway runs at {}: there is nothing to take over", socket.display());
    }
    Ok(met)
}

/// The admin interface's ways in.
#[derive(Default)]
struct AdminSockets {
    port: Option<AdminPort>,
    files: Vec<SocketFile>,
}

impl AdminSockets {
    /// Opens them: on `port` if a predecessor passed one on for the same address, and over its socket with `replace`.
    fn open(
        &mut self,
        admin: &Admin,
        port: Option<std::net::TcpListener>,
        replace: bool,
        events: &mpsc::Sender<Event>,
    ) -> Result<()> {
        if let Some(address) = admin.address {
            let passed = port.filter(|port| port.local_addr().is_ok_and(|own| own == address));
            let bound = passed.map_or_else(|| std::net::TcpListener::bind(address), Ok);
            let opened = bound.and_then(|socket| AdminPort::open(socket, events.clone()));
            self.port = Some(opened.with_context(|| format!("admin address {address}"))?);
        }
        let Some(path) = &admin.socket else { return Ok(()) };
        let place = || format!("admin socket {}", path.display());
        let (listener, file) =
            if replace { socket::replace(path) } else { socket::bind(path) }.with_context(place)?;
        let listener = tokio::net::UnixListener::from_std(listener).context("admin socket")?;
        admin::serve_socket(listener, events.clone());
        self.files.push(file);
        self.files.push(upgrade::listen(path, replace, events.clone()).with_context(place)?);
        Ok(())
    }
}

/// The configuration in force with its secrets masked, for people.
pub fn masked(config: &Config) -> String {
    // Values mask themselves when shown, but the texts they were written in do not.
    let shown = Config { sources: Arc::default(), ..config.clone() };
    format!("{shown:#?}\n")
}

/// Sends a tick in each `period` for as long as somebody listens.
pub fn tick_every(period: Duration, events: mpsc::Sender<Event>) {
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(period).await;
            if events.send(Event::Tick).await.is_err() {
                break;
            }
        }
    });
}

/// Stops the plane and writes out the log, unless the operator would not wait.
pub async fn end<P: Plane>(mut control: Control<P>, sockets: Vec<SocketFile>, ending: Ending) -> ExitCode {
    drop(sockets);
    match ending {
        Ending::Drained => tracing::info!("drained: every exchange was finished"),
        Ending::TimeUp => tracing::warn!("the drain took too long: what was left is cut"),
        Ending::Forced => {
            tracing::warn!("ended by a second signal: what was left is cut");
            // The threads end with the process; waiting for them is what the operator did not want.
            std::mem::forget(control);
            return ExitCode::FAILURE;
        }
    }
    control.plane.stop();
    let patience = Instant::now() + STOP_PATIENCE;
    while !control.plane.is_drained() && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    control.access_log.finish().await;
    ExitCode::SUCCESS
}

/// How many shards the configuration asks for on this machine.
pub fn shard_count(config: &Config) -> usize {
    match config.shards.count {
        ShardCount::Fixed(count) => usize::from(count),
        ShardCount::Auto if !config.shards.cores.is_empty() => config.shards.cores.len(),
        ShardCount::Auto => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// Where the access log goes.
pub fn destination(config: &Config) -> Destination {
    match &config.telemetry.access_log.destination {
        AccessLogDestination::Off => Destination::Off,
        AccessLogDestination::Stdout => Destination::Stdout,
        AccessLogDestination::File(path) => Destination::File(path.clone()),
    }
}

/// The first lines of the log: what was asked for and what was obtained.
fn say(config: &Config, path: &Path, plane: &PlaneStatus) {
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(pid = std::process::id(), config = %path.display(), "portcullis {version}");
    for shard in &plane.shards {
        let (number, driver) = (shard.shard, shard.driver);
        let core = shard.core.map_or("any core".into(), |core| format!("core {core}"));
        match &shard.refused {
            None => tracing::info!("shard {number}: {driver} on {core}"),
            Some(why) => tracing::warn!("shard {number}: {driver} on {core}, as io_uring is refused: {why}"),
        }
    }
    let kernel = &plane.kernel;
    let interfaces = kernel.interfaces.join(", ");
    match (&kernel.why, kernel.mode.as_str()) {
        (Some(why), mode) => tracing::warn!("kernel part: {mode}: {why}"),
        (None, "off") => tracing::info!("kernel part: off, as configured"),
        (None, mode) => tracing::info!("kernel part: {mode} on {interfaces}, {}", kernel.enforcement),
    }
    for listener in &plane.listeners {
        let scheme = if listener.tls { "https" } else { "http" };
        tracing::info!("listener {}: {scheme}://{}", listener.name, listener.address);
    }
    if let Some(socket) = &config.admin.socket {
        tracing::info!("admin socket {}", socket.display());
    }
    if let Some(address) = config.admin.address {
        tracing::info!("metrics at http://{address}/metrics");
    }
}

/// How long shards may take to end once they are told to.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Events that may wait for the loop; senders wait beyond that.
pub const EVENTS: usize = 64;
