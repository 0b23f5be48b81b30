//! One run of nghttp2's h2load and what it found.
//!
//! Counts come from its summary, times from its log of every request, as the summary has no percentiles.

use crate::child;
use crate::wrk::{CORE, Found};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

pub const CONNECTIONS: u32 = 16;
/// Requests under way at once on one connection.
pub const STREAMS: u32 = 8;

pub fn run(folder: &Path, url: &str, seconds: u32) -> Result<Found> {
    let log = folder.join("h2load.log");
    // h2load appends.
    match std::fs::remove_file(&log) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut command = Command::new("h2load");
    command.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-m{STREAMS}"), &format!("-D{seconds}s")]);
    command.arg(format!("--log-file={}", log.display()));
    let output = child::pinned(CORE, command.arg(url)).output().context("cannot start h2load")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("h2load ended with {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let times = std::fs::read_to_string(&log).context("no log of h2load")?;
    parse(&text, &times, seconds).with_context(|| format!("no summary from h2load: {text}"))
}

/// `text` has a line `requests: 9 total, 9 started, 9 done, 9 succeeded, 0 failed, 0 errored, 0 timeout`; a line of
/// `times` is start, status and microseconds of one request.
fn parse(text: &str, times: &str, seconds: u32) -> Option<Found> {
    let line = text.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let count = |word: &str| -> Option<f64> {
        let part = line.split(", ").find(|part| part.ends_with(word))?;
        part.split(' ').next()?.parse().ok()
    };
    let mut each: Vec<f64> =
        times.lines().filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse().ok()).collect();
    each.sort_by(f64::total_cmp);
    let at = |share: f64| each.get((each.len() as f64 * share) as usize).map_or(0.0, |us| us / 1e3);
    let errors = count(" failed")? + count(" errored")? + count(" timeout")?;
    Some(Found {
        requests: count(" succeeded")?,
        seconds: seconds.into(),
        p50: at(0.50),
        p99: at(0.99),
        errors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_and_the_log_are_read() {
        let text = "finished in 2.00s, 10.00 req/s\nrequests: 22 total, 21 started, 20 done, 20 succeeded, 1 failed, \
                    1 errored, 0 timeout\nstatus codes: 20 2xx\n";
        let times = "1\t200\t1500\n2\t200\t900\n3\t200\t9000\n";
        let found = parse(text, times, 2).unwrap();
        assert_eq!(found, Found { requests: 20.0, seconds: 2.0, p50: 1.5, p99: 9.0, errors: 2.0 });
        assert_eq!(parse("nothing", times, 2), None);
    }
}
