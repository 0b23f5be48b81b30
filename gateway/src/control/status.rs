//! What the gateway says about itself: `/status`, the report of a reload, the first lines of its log.
//!
//! Owns: the JSON shapes, which tools may rely on. Never: the facts. Invariant: fields are added, not
//! renamed; an absent optional field means that there is nothing to say.

use std::fmt;

use portcullis_config::{Diagnostic, Severity};
use serde::{Deserialize, Serialize};

/// The answer of `/status`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub version: &'static str,
    pub pid: u32,
    pub state: State,
    pub uptime_seconds: u64,
    /// The configuration in force.
    pub generation: u64,
    pub config: String,
    /// What the control thread runs on: `io_uring` or `epoll`.
    pub control_driver: &'static str,
    #[serde(flatten)]
    pub plane: PlaneStatus,
    pub last_reload: Option<ReloadReport>,
    pub access_log_lines_lost: u64,
}

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Some shard has not taken up its work yet.
    Starting,
    Serving,
    Draining,
}

/// The data plane's part of [`Status`].
#[derive(Clone, Debug, Default, Serialize)]
pub struct PlaneStatus {
    pub listeners: Vec<ListenerStatus>,
    pub shards: Vec<ShardStatus>,
    pub kernel: KernelStatus,
    pub connections: u64,
}

/// One address that clients connect to.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerStatus {
    pub name: String,
    pub address: String,
    pub tls: bool,
    /// How new connections find their shard: `core` or `hash`.
    pub steering: &'static str,
    /// What does that: `program` (of the BPF object), `filter` (a classic one), or `kernel` for its own hash.
    pub steered_by: &'static str,
}

/// One thread that carries traffic.
#[derive(Clone, Debug, Serialize)]
pub struct ShardStatus {
    pub shard: u32,
    /// `io_uring` or `epoll`.
    pub driver: &'static str,
    /// Why it is not a ring, if one was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The core it is pinned to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<usize>,
    pub generation: u64,
    pub connections: u64,
}

/// The kernel part.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KernelStatus {
    /// `off`, `generic` or `native`: what was obtained.
    pub mode: String,
    pub enforcement: String,
    pub interfaces: Vec<String>,
    /// Why it is not what was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether the program passes everything, as the gateway's last sign of life is too old for it.
    pub dead: bool,
    /// Age of the last sign of life.
    pub heartbeat_age_ms: u64,
    /// What becomes of each kind of refusal.
    pub rules: Vec<RuleStatus>,
    /// Reasons that were switched to shadow to spare known-good sources.
    pub tripped: Vec<String>,
    /// Sources that authenticated in the last hour and met a refusal.
    pub known_good: Vec<KnownGood>,
}

/// A rule of the kernel part.
#[derive(Clone, Debug, Serialize)]
pub struct RuleStatus {
    pub rule: String,
    /// `drop`, `reset`, `pass` (to the proxy) or `shadow`.
    pub mode: String,
}

/// What a reason costs the innocent.
#[derive(Clone, Debug, Serialize)]
pub struct KnownGood {
    pub reason: String,
    /// Sources that were dropped.
    pub dropped: u64,
    /// Sources that would have been, were it not for shadow mode.
    pub would_have_been: u64,
}

/// What a reload came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    pub ok: bool,
    /// The generation in force afterwards: the new one, or the old one if the reload failed.
    pub generation: u64,
    /// Seconds since 1970, UTC.
    pub at: u64,
    pub took_ms: u64,
    pub findings: Vec<Finding>,
}

/// One diagnostic, for machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `error`, `warning` or `note`.
    pub severity: String,
    pub file: String,
    /// From 1; 0 when it belongs to no line.
    pub line: u32,
    pub column: u32,
    pub path: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// The same for people, with the line it points at.
    pub text: String,
}

impl Finding {
    /// A finding of control itself, at no place in a file.
    pub fn without_place(message: String) -> Self {
        Self {
            severity: "error".into(),
            file: String::new(),
            line: 0,
            column: 0,
            path: String::new(),
            text: format!("error: {message}"),
            message,
            hint: None,
        }
    }
}

impl From<&Diagnostic> for Finding {
    fn from(diagnostic: &Diagnostic) -> Self {
        Self {
            severity: diagnostic.severity.to_string(),
            file: diagnostic.file.clone(),
            line: diagnostic.line,
            column: diagnostic.column,
            path: diagnostic.path.clone(),
            message: diagnostic.message.clone(),
            hint: diagnostic.hint.clone(),
            text: diagnostic.to_string(),
        }
    }
}

/// Counts for a last line: `2 errors, 1 warning`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub errors: usize,
    pub warnings: usize,
    pub notes: usize,
}

impl Tally {
    /// Counts findings by severity.
    pub fn of<'a>(findings: impl IntoIterator<Item = &'a Diagnostic>) -> Self {
        let mut tally = Self::default();
        for finding in findings {
            match finding.severity {
                Severity::Error => tally.errors += 1,
                Severity::Warning => tally.warnings += 1,
                Severity::Note => tally.notes += 1,
            }
        }
        tally
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.errors, "error"), (self.warnings, "warning"), (self.notes, "note")];
        let mut first = true;
        for (count, word) in parts.into_iter().filter(|(count, _)| *count > 0) {
            let separator = if std::mem::take(&mut first) { "" } else { ", " };
            let plural = if count == 1 { "" } else { "s" };
            write!(f, "{separator}{count} {word}{plural}")?;
        }
        if first { f.write_str("nothing to remark") } else { Ok(()) }
    }
}
