//! What the control thread counts about itself.
//!
//! Owns the outcome of reloads and the start time. Written by the control thread alone.

use super::cell::{Counter, Gauge};
use crate::id::Generation;

/// The counts of the control thread.
#[derive(Debug, Default)]
pub struct ControlMetrics {
    pub(super) reloads_ok: Counter,
    pub(super) reloads_failed: Counter,
    pub(super) last_reload_ok: Gauge,
    pub(super) last_reload_seconds: Gauge,
    pub(super) generation: Gauge,
    pub(super) started_seconds: Gauge,
    pub(super) certificates_ok: Counter,
    pub(super) certificates_failed: Counter,
    /// 1 when the last change of certificate files could not be used.
    pub(super) certificates_bad: Gauge,
}

impl ControlMetrics {
    /// Says when the process started, in seconds since the Unix epoch.
    pub fn set_started(&self, unix_seconds: u64) {
        self.started_seconds.set(unix_seconds);
    }

    /// Counts a configuration that was published (the first one too) and says when, in seconds since
    /// the Unix epoch.
    pub fn reload_published(&self, generation: Generation, unix_seconds: u64) {
        self.reloads_ok.inc();
        self.last_reload_ok.set(1);
        self.last_reload_seconds.set(unix_seconds);
        self.generation.set(generation.0);
    }

    /// Counts a configuration that was refused; the generation stays.
    pub fn reload_refused(&self, unix_seconds: u64) {
        self.reloads_failed.inc();
        self.last_reload_ok.set(0);
        self.last_reload_seconds.set(unix_seconds);
    }

    /// Counts a change of certificate or key files and says which generation is in force after it.
    pub fn certificates_reloaded(&self, ok: bool, generation: Generation) {
        if ok {
            self.certificates_ok.inc()
        } else {
            self.certificates_failed.inc()
        }
        self.certificates_bad.set(u64::from(!ok));
        self.generation.set(generation.0);
    }
}
