//! From a file to a generation: load, validate, compile, on a thread of its own.
//!
//! Owns: the order of the steps and the report of how they went. Never: publication; the control loop
//! installs what comes back ([`super::Plane::install`]). The control thread goes on meanwhile: it has a sign
//! of life to give each second and log blocks to write, and a large configuration compiles for longer. The thread
//! gives way to the shards ([`aside`]).
//!
//! Invariant: whatever fails in here, a panic of a plugin's parser included, leaves the old generation in
//! force and comes back as findings.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portcullis_config::{Config, Diagnostic, Severity};

use super::aside;
use super::plane::Compile;
use super::status::{Finding, ReloadReport};
use crate::id::Generation;

/// A validated configuration and the remarks that did not make it an error.
pub struct Loaded {
    pub config: Arc<Config>,
    pub remarks: Vec<Diagnostic>,
}

/// Reads and validates the configuration; the same files at every call.
pub type Load = Arc<dyn Fn() -> Result<Loaded, Vec<Diagnostic>> + Send + Sync>;

/// A generation that only waits to be installed.
pub struct Ready<C> {
    pub config: Arc<Config>,
    pub compiled: C,
    pub remarks: Vec<Finding>,
}

/// Loads and compiles on a thread of its own. Inside the runtime.
pub async fn prepare<C: Send + 'static>(
    load: Load,
    compile: Compile<C>,
    generation: Generation,
) -> Result<Ready<C>, Vec<Finding>> {
    let job = aside::run("reload", move || run(&load, compile, generation));
    job.await
        .unwrap_or_else(|cause| Err(vec![Finding::without_place(format!("the compiler gave up: {cause}"))]))
}

fn run<C>(load: &Load, compile: Compile<C>, generation: Generation) -> Result<Ready<C>, Vec<Finding>> {
    let loaded = load().map_err(|findings| to_findings(&findings))?;
    let mut remarks = to_findings(&loaded.remarks);
    match compile(Arc::clone(&loaded.config), generation) {
        Ok((compiled, warnings)) => {
            remarks.extend(to_findings(&warnings));
            loaded.config.sources.forget_texts();
            Ok(Ready { config: loaded.config, compiled, remarks })
        }
        // The remarks may well explain the errors.
        Err(errors) => Err(to_findings(&errors).into_iter().chain(remarks).collect()),
    }
}

/// Diagnostics in the shape of a report. Notes are left out: they say where Kong's default differs, at every start the
/// same, and `portcullis check` prints them.
pub fn to_findings(diagnostics: &[Diagnostic]) -> Vec<Finding> {
    diagnostics.iter().filter(|found| found.severity != Severity::Note).map(Finding::from).collect()
}

/// What changed but is read only at the start.
pub fn ignored_until_restart(old: &Config, new: &Config) -> Vec<Finding> {
    let changed = [
        ("admin", old.admin != new.admin),
        ("shards", old.shards != new.shards),
        ("telemetry.log_format", old.telemetry.log_format != new.telemetry.log_format),
        ("xdp.mode", old.xdp.mode != new.xdp.mode),
        ("xdp.interfaces", old.xdp.interfaces != new.xdp.interfaces),
        ("xdp.pin_path", old.xdp.pin_path != new.xdp.pin_path),
        ("xdp.table_entries", old.xdp.table_entries != new.xdp.table_entries),
    ];
    let remark = |key: &str| {
        let message = format!("{key} has changed, which takes effect at the next start");
        Finding { severity: "warning".into(), path: key.into(), ..Finding::without_place(message) }
    };
    changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| remark(key)).collect()
}

/// A report being written.
pub struct Stopwatch {
    started: Instant,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// The finished report. `generation` is the one in force now.
    pub fn report(&self, ok: bool, generation: Generation, findings: Vec<Finding>) -> ReloadReport {
        let took_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        ReloadReport { ok, generation: generation.0, at: unix_seconds(), took_ms, findings }
    }
}

/// As [`tell`], of a change outside of the configuration: files that it names, addresses of names, routers.
pub fn tell_of_files(report: &ReloadReport) {
    let (generation, took_ms) = (report.generation, report.took_ms);
    if report.ok {
        tracing::info!(
            generation,
            took_ms,
            "files, names or routes that the configuration rests on have changed: the new state is in force"
        );
        return;
    }
    for finding in report.findings.iter().filter(|finding| finding.severity == "error") {
        tracing::error!("{}", finding.text);
    }
    tracing::error!(
        generation,
        took_ms,
        "files or names that the configuration rests on have changed and cannot be used: those before stay in force"
    );
}

/// Seconds since 1970, UTC.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Puts a report into the gateway's own log: every finding, not the first only.
pub fn tell(report: &ReloadReport) {
    for finding in &report.findings {
        match finding.severity.as_str() {
            "error" => tracing::error!("{}", finding.text),
            "warning" => tracing::warn!("{}", finding.text),
            _ => tracing::info!("{}", finding.text),
        }
    }
    let (generation, took_ms) = (report.generation, report.took_ms);
    if report.ok {
        tracing::info!(generation, took_ms, "configuration in force");
    } else {
        tracing::error!(generation, took_ms, "reload failed: the old configuration stays in force");
    }
}
