//! The gateway's own log: text for people or JSON for machines, on standard error.
//!
//! Owns: the process-wide subscriber, and changing its level when a reload asks for another. Never: the
//! access log ([`super::access_log`]). Invariant: shards log nothing per request at the default level.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Changes the level of a running process.
pub struct LevelSwitch(reload::Handle<EnvFilter, Registry>);

/// Shape of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Text,
    Json,
}

/// Installs the subscriber. Once per process: a second call leaves the first one in place.
///
/// `PORTCULLIS_LOG` (directives as in `warn,portcullis::exchange=trace`) wins over `level`, so that an
/// operator can look closer without touching the configuration.
pub fn install(level: &str, shape: Shape) -> LevelSwitch {
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match shape {
        Shape::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Shape::Json => lines.json().flatten_event(true).boxed(),
    };
    // Fails only if a subscriber is there already, as in tests.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    LevelSwitch(handle)
}

impl LevelSwitch {
    /// Takes the level of a new configuration.
    pub fn set(&self, level: &str) {
        // Fails only if the subscriber is gone, and then there is no log to complain in.
        let _ = self.0.reload(filter(level));
    }
}

fn filter(level: &str) -> EnvFilter {
    if let Ok(directives) = std::env::var(VARIABLE)
        && let Ok(filter) = EnvFilter::try_new(&directives)
    {
        return filter;
    }
    EnvFilter::new(directives(level))
}

/// Other crates speak up from `warn` on, or at the gateway's level if that is more severe.
fn directives(level: &str) -> String {
    let others = if level == "error" { "error" } else { "warn" };
    format!("{others},portcullis={level},portcullis_config={level}")
}

const VARIABLE: &str = "PORTCULLIS_LOG";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_makes_a_filter() {
        for level in ["error", "warn", "info", "debug", "trace"] {
            let filter = EnvFilter::try_new(directives(level)).unwrap().to_string();
            assert!(filter.contains(&format!("portcullis={level}")), "{filter}");
        }
    }
}
