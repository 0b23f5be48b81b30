//! A reload of a million API keys while requests arrive at a steady rate: which fail, and which wait.
//!
//! The whole gateway has one core, so that what reads and compiles the file shares it with the shard, which is the
//! worst that can be. Every request is looked at: its window is the quarter of a second in which it was due.

use crate::child::{self, Child, free_address};
use crate::pace::{self, Answer};
use crate::proxies::{self, Lab, portcullis};
use crate::report::median;
use crate::rounds::Options;
use crate::scenario::Scenario;
use crate::{account, wrk};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds of a window.
pub const WINDOW_MS: u64 = 250;
/// Longest time in all, in milliseconds, for which the 99th percentile may be more than twice that of before.
pub const TARGET_MS: u64 = 1000;
/// Requests are sent so long before and after the reload.
const BEFORE: Duration = Duration::from_secs(4);
const AFTER: Duration = Duration::from_secs(4);
const CONSUMERS: u64 = 10_000;

pub fn measure(options: &Options, lab: &Lab) -> Result<Value> {
    println!("{}: {}", Scenario::Reload.name(), Scenario::Reload.title());
    let address = free_address()?;
    let (config, socket) = (lab.folder.join("reload.yaml"), lab.folder.join("reload.sock"));
    write_config(lab, address, &config, &socket, 0)?;
    let mut child = Child::start("reload", proxies::CORE, &portcullis::command(lab, &config)?, &lab.folder)?;
    child.wait_for(address)?;
    let resident = account::resident(child.pid());
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        write_config(lab, address, &config, &socket, round)?;
        let found = one(lab, address, &socket, &mut child).with_context(|| format!("round {round}"))?;
        println!("  {round:2} {}", line(&found));
        rounds.push(found);
    }
    Ok(json!({ "title": Scenario::Reload.title(), "resident_bytes": resident, "rounds": rounds }))
}

/// One key and one consumer's name differ from round to round.
fn write_config(lab: &Lab, address: SocketAddr, path: &Path, socket: &Path, round: u32) -> Result<()> {
    let mut rest = String::from(
        "      - name: keys
        hosts: [keys.test]
        paths: [/]
        strip_path: false
        plugins:
          - name: key-auth
consumers:
",
    );
    for consumer in 0..CONSUMERS {
        writeln!(rest, "  - username: consumer-{consumer}\n    keyauth_credentials:")?;
        let each = pace::KEYS / CONSUMERS;
        for number in consumer * each..(consumer + 1) * each {
            writeln!(rest, "      - key: {}", pace::key(number))?;
        }
    }
    writeln!(rest, "  - username: round-{round}\n    keyauth_credentials: [{{ key: round-{round} }}]")?;
    Ok(fs::write(path, portcullis::alone(lab, address, socket, &rest))?)
}

fn one(lab: &Lab, address: SocketAddr, socket: &Path, child: &mut Child) -> Result<Value> {
    let pace = Pace::start(address)?;
    thread::sleep(BEFORE);
    child.alive()?;
    let (start, before) = (unix_us(), account::cpu(child.pid())?);
    let mut command = Command::new(lab.portcullis.as_ref().context("the gateway's binary")?);
    let output = child::pinned(wrk::CORE, command.arg("reload").arg("--admin").arg(socket)).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let end = unix_us();
    thread::sleep(AFTER);
    let after = account::cpu(child.pid())?;
    let resident = account::resident(child.pid());
    let answers = pace.end()?;
    let windows = windows(&answers, start);
    let (times, own) = windows.iter().partition::<Vec<_>, _>(|w| w.start_ms < 0);
    let usual = median(times.iter().map(|w| w.p99).collect()).context("no request before the reload")?;
    let slow = |all: &[&Window]| all.iter().filter(|w| w.p99 > 2.0 * usual).count() as u64 * WINDOW_MS;
    Ok(json!({
        "requests": answers.len(),
        "failed": answers.iter().filter(|answer| answer.took.is_none()).count(),
        "reload_ms": (end - start) / 1000,
        // Ticks: the threads that a reload starts have ended, and the scheduler's count with them.
        "cpu_s": (after.user - before.user) + (after.system - before.system),
        "resident_bytes": resident,
        "p99_before_ms": usual,
        "p99_worst_ms": own.iter().map(|w| w.p99).fold(0.0, f64::max),
        "slowest_ms": own.iter().map(|w| w.slowest).fold(0.0, f64::max),
        "doubled_ms": slow(&own),
        "doubled_before_ms": slow(&times),
        "windows": windows.iter().map(|w| json!([w.start_ms, w.p99, w.slowest])).collect::<Vec<_>>(),
    }))
}

fn line(found: &Value) -> String {
    let of = |key: &str| found[key].as_f64().unwrap_or(f64::NAN);
    format!(
        "reload {:.0} ms  failed {} of {}  p99 {:.2} ms, worst window {:.2} ms, doubled for {} ms (before: {} ms)",
        of("reload_ms"),
        found["failed"],
        found["requests"],
        of("p99_before_ms"),
        of("p99_worst_ms"),
        found["doubled_ms"],
        found["doubled_before_ms"],
    )
}

/// The requests that were due within a quarter of a second.
#[derive(Clone, Debug, PartialEq)]
struct Window {
    /// From the beginning of the reload.
    start_ms: i64,
    /// Milliseconds.
    p99: f64,
    slowest: f64,
}

/// Whole windows only, by time. A failed request counts as the slowest.
fn windows(answers: &[Answer], reload_us: u64) -> Vec<Window> {
    let mut by_window = std::collections::BTreeMap::<i64, Vec<f64>>::new();
    for answer in answers {
        let window = (answer.due as i64 - reload_us as i64).div_euclid(WINDOW_MS as i64 * 1000);
        let ms = answer.took.map_or(f64::INFINITY, |us| us as f64 / 1000.0);
        by_window.entry(window).or_default().push(ms);
    }
    // What was sent first found cold tables and no connections, and the last window ends early.
    let (first, last) = (by_window.keys().next().copied(), by_window.keys().last().copied());
    let whole = by_window.into_iter().filter(|(n, _)| Some(*n) > first.map(|n| n + 3) && Some(*n) < last);
    let window = |(number, mut times): (i64, Vec<f64>)| {
        times.sort_by(f64::total_cmp);
        let slowest = *times.last()?;
        let p99 = times[(times.len() * 99 / 100).min(times.len() - 1)];
        Some(Window { start_ms: number * WINDOW_MS as i64, p99, slowest })
    };
    whole.filter_map(window).collect()
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_micros() as u64)
}

/// The client, a process of its own on the core of the load generator.
struct Pace(std::process::Child);

impl Pace {
    fn start(address: SocketAddr) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["pace", &address.to_string()]);
        let mut pinned = child::pinned(wrk::CORE, &command);
        Ok(Self(pinned.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
    }

    fn end(mut self) -> Result<Vec<Answer>> {
        drop(self.0.stdin.take());
        let mut text = String::new();
        self.0.stdout.take().context("piped")?.read_to_string(&mut text)?;
        ensure!(self.0.wait()?.success(), "the client failed");
        Ok(pace::parse(&text))
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        // Who has ended has been waited for; whoever has not would wait for its lines to be read.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_counted_from_the_reload() {
        let answer = |due_ms: u64, took| Answer { due: due_ms * 1000, took };
        let mut answers: Vec<Answer> = (0..4000).map(|n| answer(n, Some(100))).collect();
        answers[2100].took = Some(9000);
        answers[2600].took = None;
        let found = windows(&answers, 2_000_000);
        assert_eq!(found.first().map(|w| w.start_ms), Some(-1000));
        assert_eq!(found.last().map(|w| w.start_ms), Some(1500));
        let at = |ms: i64| found.iter().find(|w| w.start_ms == ms).unwrap();
        assert_eq!((at(0).p99, at(0).slowest), (0.1, 9.0));
        assert_eq!(at(500).slowest, f64::INFINITY);
    }
}
