//! One run of wrk and what it found.
//!
//! The numbers come from wrk's own summary through a Lua `done` function, which costs nothing while it
//! measures; the human-readable output rounds.

use crate::child;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The core of the load generator and the origin.
pub const CORE: usize = 1;

/// Requests on the way at once.
pub const CONNECTIONS: u32 = 64;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    pub requests: f64,
    pub seconds: f64,
    /// Milliseconds.
    pub p50: f64,
    pub p99: f64,
    /// Failed connections, reads, writes, timeouts, and responses of 400 or above.
    pub errors: f64,
}

/// Prints one line that `parse` reads. wrk counts microseconds.
const DONE: &str = r#"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("FOUND %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

/// Writes a script: what to send, if it is not one plain GET, and the summary.
pub fn script(folder: &Path, name: &str, request: &str) -> Result<PathBuf> {
    let path = folder.join(format!("{name}.lua"));
    std::fs::write(&path, format!("{request}{DONE}"))?;
    Ok(path)
}

pub fn run(script: &Path, url: &str, seconds: u32, headers: &[&str]) -> Result<Found> {
    let mut command = Command::new("wrk");
    command.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s"), "--timeout", "5s"]);
    command.arg("-s").arg(script);
    for header in headers {
        command.args(["-H", header]);
    }
    let output = child::pinned(CORE, command.arg(url)).output().context("cannot start wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("wrk ended with {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    parse(&text).with_context(|| format!("no summary from wrk: {text}"))
}

fn parse(text: &str) -> Option<Found> {
    let line = text.lines().find_map(|l| l.strip_prefix("FOUND "))?;
    let n: Vec<f64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
    let [requests, microseconds, p50, p99, errors] = n[..] else { return None };
    Some(Found { requests, seconds: microseconds / 1e6, p50: p50 / 1e3, p99: p99 / 1e3, errors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_read() {
        let found = parse("Running 1s test\nFOUND 1000 2000000 1500 9000 3\n").unwrap();
        assert_eq!(found, Found { requests: 1000.0, seconds: 2.0, p50: 1.5, p99: 9.0, errors: 3.0 });
        assert_eq!(parse("FOUND 1 2\n"), None);
        assert_eq!(parse("nothing"), None);
    }
}
