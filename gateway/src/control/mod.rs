//! The control thread: everything that is not a request.
//!
//! Owns: start-up, reload, signals, drain, the admin interface, the gateway's own log, the writing of the
//! access log. Never: a request, or a wait that a shard could notice. Start-up is read in [`start`], top to
//! bottom; after it there is one loop, [`Control::serve`], to which signals, operators and clocks all come
//! as [`Event`]s, so that the state of the process has one owner and no lock.
//!
//! Invariant: all that can fail in a reload happens before the generation counter moves.

mod access_log;
mod admin;
mod advice;
mod aside;
mod blast;
pub mod cli;
mod client;
mod commands;
mod cores;
mod drain;
mod facts;
mod files;
mod gateway;
mod import;
mod interfaces;
mod jwt;
mod kernel;
mod ledger;
mod names;
mod operate;
mod operator;
mod pcapng;
mod plane;
mod reload;
mod routers;
mod runtime;
mod signals;
mod socket;
mod start;
mod status;
mod steering;
mod telemetry;
#[cfg(test)]
mod tests;
mod top;
mod trusted;
mod upgrade;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_config::Config;
use tokio::sync::{mpsc, oneshot};

use self::access_log::AccessLog;
use self::admin::{AdminPort, Ask};
use self::drain::{Drain, Ending, Step};
use self::files::Files;
use self::plane::Plane;
use self::reload::{Load, Loaded, Ready, Stopwatch};
use self::signals::Signal;
use self::status::{Finding, ReloadReport, State, Status};
use self::telemetry::LevelSwitch;
use self::upgrade::Handover;
use crate::id::Generation;
use crate::snapshot;

/// All that can happen to the control thread.
pub(crate) enum Event {
    Ask(Ask),
    /// The reload under way is compiled, or has failed.
    Compiled,
    Signal(Signal),
    Tick,
    /// A successor takes over.
    Upgrade(upgrade::Ask),
}

/// The state of the process.
struct Control<P: Plane> {
    plane: P,
    load: Load,
    /// What the generation in force was compiled from besides.
    files: Files,
    config_path: PathBuf,
    config: Arc<Config>,
    generation: Generation,
    started: Instant,
    last_beat: Instant,
    has_ring: bool,
    access_log: AccessLog,
    level: LevelSwitch,
    events: mpsc::Sender<Event>,
    reload: Option<Reload<P::Compiled>>,
    /// Who asked for a reload while one was under way: they get one that began after they asked.
    waiting: Vec<Option<oneshot::Sender<ReloadReport>>>,
    last_reload: Option<ReloadReport>,
    drain: Option<Drain>,
    /// The admin interface's TCP port, and who answers on it.
    admin_port: Option<AdminPort>,
    /// Whether another process has the listening sockets by now.
    handed_over: bool,
}

/// A reload under way.
struct Reload<C> {
    cause: Cause,
    watch: Stopwatch,
    result: oneshot::Receiver<Result<Ready<C>, Vec<Finding>>>,
    asked_by: Vec<Option<oneshot::Sender<ReloadReport>>>,
}

/// Why there is a reload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Somebody asked: everything is read again.
    Asked,
    /// Certificate or key files, or addresses of targets' names, have changed: they are read again, for the configuration
    /// in force.
    Files,
}

impl<P: Plane> Control<P> {
    /// The main loop: one event after the other until the process is to end.
    async fn serve(&mut self, mut events: mpsc::Receiver<Event>) -> Ending {
        while let Some(event) = events.recv().await {
            match event {
                Event::Ask(ask) => self.answer(ask),
                Event::Compiled => self.finish_reload().await,
                Event::Signal(Signal::Reload) => {
                    self.access_log.reopen().await;
                    self.start_reload(None);
                }
                Event::Signal(Signal::ReopenLogs) => self.access_log.reopen().await,
                Event::Signal(Signal::Stop) if self.drain.is_some() => return Ending::Forced,
                Event::Signal(Signal::Stop) => self.start_drain(),
                Event::Upgrade(upgrade::Ask::Offer(reply)) => drop(reply.send(self.offer())),
                Event::Upgrade(upgrade::Ask::Leave) => self.leave(),
                Event::Tick => {
                    if let Some(ending) = self.tick() {
                        return ending;
                    }
                }
            }
        }
        Ending::Forced
    }

    fn tick(&mut self) -> Option<Ending> {
        if self.last_beat.elapsed() >= BEAT {
            self.last_beat = Instant::now();
            self.plane.beat();
        }
        let idle = self.drain.is_none() && self.reload.is_none();
        let files_changed = idle && self.files.changed();
        if files_changed {
            self.files.reading();
        }
        if files_changed || idle && self.plane.is_outdated() {
            let config = Arc::clone(&self.config);
            let load = move || Ok(Loaded { config: Arc::clone(&config), remarks: Vec::new() });
            self.run_reload(Cause::Files, Arc::new(load), Vec::new());
        }
        let drain = self.drain.as_mut()?;
        match drain.step(Instant::now(), self.plane.is_drained()) {
            Step::Wait => None,
            Step::Close => {
                let limit_s = self.config.timeouts.drain.as_secs();
                tracing::info!(limit_s, "listeners close, exchanges under way are finished");
                if self.handed_over {
                    self.plane.leave()
                } else {
                    self.plane.drain()
                }
                None
            }
            Step::End(ending) => Some(ending),
        }
    }

    fn start_drain(&mut self) {
        let timeouts = &self.config.timeouts;
        tracing::info!(delay_s = timeouts.drain_delay.as_secs(), "draining: no longer ready");
        self.plane.retire();
        self.drain = Some(Drain::new(Instant::now(), timeouts.drain_delay, timeouts.drain));
        start::tick_every(DRAIN_TICK, self.events.clone());
    }

    /// What a successor gets.
    fn offer(&self) -> Result<Handover, String> {
        if self.drain.is_some() {
            return Err("this process is draining".into());
        }
        let failed = |cause: std::io::Error| format!("the sockets cannot be duplicated: {cause}");
        let mut handover = self.plane.hand_over().map_err(failed)?;
        handover.admin = self.admin_port.as_ref().map(AdminPort::socket).transpose().map_err(failed)?;
        tracing::info!("a successor asks for the listening sockets");
        Ok(handover)
    }

    /// The successor serves: this process takes nothing new from this moment on.
    fn leave(&mut self) {
        if self.drain.is_some() {
            return;
        }
        tracing::info!("a successor serves; exchanges under way are finished");
        self.handed_over = true;
        self.admin_port = None;
        self.drain = Some(Drain::new(Instant::now(), Duration::ZERO, self.config.timeouts.drain));
        start::tick_every(DRAIN_TICK, self.events.clone());
    }

    fn answer(&mut self, ask: Ask) {
        // An asker that went away is no concern of ours, so failed sends are ignored throughout.
        match ask {
            Ask::Ledger(ask) => self.plane.answer(ask),
            Ask::Config(reply) => drop(reply.send(start::masked(&self.config))),
            Ask::Metrics(reply) => drop(reply.send(self.plane.metrics())),
            Ask::Ready(reply) => drop(reply.send(self.state())),
            Ask::Reload(reply) => self.start_reload(Some(reply)),
            Ask::Status(reply) => drop(reply.send(Box::new(self.status()))),
        }
    }

    fn state(&self) -> State {
        match &self.drain {
            Some(_) => State::Draining,
            None if self.plane.is_running() => State::Serving,
            None => State::Starting,
        }
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            state: self.state(),
            uptime_seconds: self.started.elapsed().as_secs(),
            generation: self.generation.0,
            config: self.config_path.display().to_string(),
            control_driver: if self.has_ring { "io_uring" } else { "epoll" },
            plane: self.plane.status(),
            last_reload: self.last_reload.clone(),
            access_log_lines_lost: self.access_log.lost().lines,
        }
    }

    fn start_reload(&mut self, asked_by: Option<oneshot::Sender<ReloadReport>>) {
        if self.drain.is_some() {
            let findings = vec![Finding::without_place("the gateway is draining".into())];
            self.conclude(Stopwatch::start().report(false, self.generation, findings), vec![asked_by]);
            return;
        }
        self.waiting.push(asked_by);
        if self.reload.is_some() {
            return;
        }
        let asked_by = std::mem::take(&mut self.waiting);
        self.run_reload(Cause::Asked, Arc::clone(&self.load), asked_by);
    }

    fn run_reload(&mut self, cause: Cause, load: Load, asked_by: Vec<Option<oneshot::Sender<ReloadReport>>>) {
        let (sender, result) = oneshot::channel();
        self.reload = Some(Reload { cause, watch: Stopwatch::start(), result, asked_by });
        let job = reload::prepare(load, self.plane.compiler(), self.generation.next());
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            let _ = sender.send(job.await);
            let _ = events.send(Event::Compiled).await;
        });
    }

    async fn finish_reload(&mut self) {
        let Some(mut reload) = self.reload.take() else { return };
        let compiled = reload.result.try_recv().unwrap_or_else(|_| {
            Err(vec![Finding::without_place("the compiler ended without a result".into())])
        });
        let outcome = match compiled {
            // Listeners may be closed by now.
            Ok(_) if self.drain.is_some() => {
                Err(vec![Finding::without_place("the gateway is draining".into())])
            }
            Ok(ready) => {
                if matches!(reload.cause, Cause::Asked) {
                    self.plane.rearm();
                }
                self.install(ready).await
            }
            Err(findings) => Err(findings),
        };
        let report = match outcome {
            Ok(remarks) => reload.watch.report(true, self.generation, remarks),
            Err(findings) => reload.watch.report(false, self.generation, findings),
        };
        match reload.cause {
            Cause::Asked => self.conclude(report, reload.asked_by),
            Cause::Files => {
                reload::tell_of_files(&report);
                self.plane.refreshed(report.ok, self.generation);
            }
        }
        if !self.waiting.is_empty() {
            let last = self.waiting.pop().flatten();
            self.start_reload(last);
        }
    }

    /// Puts a compiled generation in force. What can still fail comes first.
    async fn install(&mut self, ready: Ready<P::Compiled>) -> Result<Vec<Finding>, Vec<Finding>> {
        let Ready { config, compiled, mut remarks } = ready;
        let destination = start::destination(&config);
        let prepared = if destination == start::destination(&self.config) {
            None
        } else {
            let opened = self.access_log.prepare(&destination, self.has_ring);
            Some(opened.map_err(|cause| vec![Finding::without_place(format!("access log: {cause}"))])?)
        };
        self.plane.install(compiled).map_err(|errors| reload::to_findings(&errors))?;
        self.generation = self.generation.next();
        if let Some(prepared) = prepared {
            self.access_log.switch(prepared).await;
        }
        self.level.set(config.telemetry.log_level.as_str());
        remarks.extend(reload::ignored_until_restart(&self.config, &config));
        self.files.set(snapshot::files(&config));
        self.config = config;
        Ok(remarks)
    }

    fn conclude(&mut self, report: ReloadReport, asked_by: Vec<Option<oneshot::Sender<ReloadReport>>>) {
        reload::tell(&report);
        self.plane.reloaded(report.ok, self.generation, report.at);
        for asker in asked_by.into_iter().flatten() {
            let _ = asker.send(report.clone());
        }
        self.last_reload = Some(report);
    }
}

/// How often the plane gives its sign of life.
const BEAT: Duration = Duration::from_secs(1);

/// How often a drain looks whether the last connection is gone.
const DRAIN_TICK: Duration = Duration::from_millis(20);
