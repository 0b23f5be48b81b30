//! `cargo xtask run`: the gateway with an example configuration and something to talk to.
//!
//! Owns the life of both: builds, starts the demo origin and the gateway, says when it answers, passes
//! Ctrl-C on as SIGTERM so that the gateway drains, and leaves nothing behind. It knows nothing of the
//! configuration beyond what it can see in the text: where the listeners are, which loopback addresses
//! wait for an origin, and the curl lines in the comments (`# curl …`, then after two blanks what to
//! expect; a number there is the status, 200 where none is given).

use crate::{origin, process};
use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Time in which a started gateway must accept connections; loading the XDP program takes a part of it.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Time in which a gateway told to end must have drained.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

#[derive(clap::Args)]
pub struct Options {
    /// Configuration to run
    #[arg(long, default_value = "config/examples/minimal.yaml")]
    config: PathBuf,
    /// Leave the kernel part off, as it would be without privileges
    #[arg(long)]
    no_xdp: bool,
    /// Build with less optimisation, in less time
    #[arg(long)]
    quick: bool,
    /// Try the curl lines of the configuration once, then stop
    #[arg(long)]
    check: bool,
}

impl Options {
    /// The README's first command, tried once, on the build that the end-to-end tests use.
    pub fn check() -> Self {
        let config = "config/examples/minimal.yaml".into();
        Self { config, no_xdp: false, quick: true, check: true }
    }
}

pub fn run(options: &Options) -> Result<()> {
    let path = process::root().join(&options.config);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let plan = Plan::read(&text);
    let binary = build(if options.quick { "test-release" } else { "release" })?;
    for address in &plan.origins {
        match origin::start(*address) {
            Ok(bound) => println!("demo origin on http://{bound}"),
            Err(error) => println!("no demo origin: {error:#}; is one of yours running there?"),
        }
    }
    let path = if options.no_xdp { write_without_xdp(&path, &text)? } else { path };
    let mut command = Command::new(&binary);
    command.arg("run").arg("--config").arg(&path);
    println!("$ {}", process::describe(&command));
    // A group of its own: Ctrl-C reaches this process alone, which then asks the gateway to drain.
    let mut gateway = Gateway(command.process_group(0).spawn().context("cannot start the gateway")?);
    pass_signals_on(gateway.0.id())?;
    wait_until_it_answers(&mut gateway.0, &plan.listeners)?;
    plan.print(&options.config);
    let result = if options.check {
        check_lines(&plan.curl_lines).and_then(|()| gateway.stop())
    } else {
        println!("\nCtrl-C ends it.");
        gateway.wait()
    };
    detach(&binary);
    result
}

/// The same configuration with the kernel part off, beside what cargo builds.
fn write_without_xdp(path: &Path, text: &str) -> Result<PathBuf> {
    let folder = process::target_dir().join("run");
    std::fs::create_dir_all(&folder)?;
    let copy = folder.join(path.file_name().context("the configuration has no file name")?);
    std::fs::write(&copy, without_xdp(text))?;
    Ok(copy)
}

/// The text without its top-level section `xdp`: the kernel part is off where nothing asks for it.
fn without_xdp(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.starts_with(|c: char| !c.is_whitespace() && c != '#') {
            inside = line.starts_with("xdp:");
        }
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// `xdp.pin_path` of `config/examples/minimal.yaml`: not the default, where a gateway in service may have its own.
const DEMO_PINS: &str = "/sys/fs/bpf/portcullis-demo";

/// The gateway leaves its pinned program attached for its successor; after a demo there is none.
fn detach(binary: &Path) {
    if process::is_root() {
        // Where the kernel part was never on there is nothing to detach, which is no fault.
        let args = ["xdp", "detach", "--forget", "--pins", DEMO_PINS];
        let _ = Command::new(binary).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Builds the gateway and returns its path.
pub fn build(profile: &str) -> Result<PathBuf> {
    let args = ["build", "--locked", "--package", "portcullis", "--bin", "portcullis", "--profile", profile];
    process::run(process::cargo().args(args))?;
    // The one profile whose folder has another name.
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(process::target_dir().join(folder).join("portcullis"))
}

/// Ends the gateway on every way out, also on an error.
struct Gateway(Child);

impl Gateway {
    /// Waits until it is told to end by a signal.
    fn wait(mut self) -> Result<()> {
        let status = self.0.wait()?;
        anyhow::ensure!(status.success(), "the gateway ended with {status}");
        Ok(())
    }

    fn stop(mut self) -> Result<()> {
        send(self.0.id(), "TERM");
        let start = Instant::now();
        while start.elapsed() < STOP_TIMEOUT {
            if let Some(status) = self.0.try_wait()? {
                anyhow::ensure!(status.success(), "the gateway ended with {status}");
                return Ok(());
            }
            process::pause(Duration::from_millis(20));
        }
        bail!("the gateway did not end within {} s of SIGTERM", STOP_TIMEOUT.as_secs());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            // Nothing more can be done about a process that can be neither ended nor awaited.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// What the text of a configuration says about how to try it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    listeners: Vec<SocketAddr>,
    origins: Vec<SocketAddr>,
    curl_lines: Vec<CurlLine>,
}

/// A line to paste into a shell, and what its comment says of the answer.
#[derive(Debug, PartialEq, Eq)]
struct CurlLine {
    command: String,
    says: String,
}

impl CurlLine {
    /// `curl …`, optionally two blanks and what to expect.
    fn read(comment: &str) -> Option<Self> {
        let comment = comment.trim().trim_start_matches("$ ");
        if !comment.starts_with("curl ") {
            return None;
        }
        let (command, says) = comment.split_once("  ").unwrap_or((comment, ""));
        Some(Self { command: command.trim().to_owned(), says: says.trim().to_owned() })
    }

    fn status(&self) -> &str {
        let word = self.says.split([' ', ',']).next().unwrap_or_default();
        if word.len() == 3 && word.bytes().all(|b| b.is_ascii_digit()) { word } else { "200" }
    }

    /// Runs it and compares the status.
    fn check(&self) -> Result<()> {
        let line = format!("{} -i -s -S --max-time 10", self.command);
        println!("$ {line}");
        let output = Command::new("sh").args(["-c", &line]).output().context("sh")?;
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{}", text.trim_end());
        let status = text.split(' ').nth(1).unwrap_or_default();
        let failed = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "`{}`: {}", self.command, failed.trim());
        anyhow::ensure!(status == self.status(), "`{}`: {status}, not {}", self.command, self.status());
        Ok(())
    }
}

impl Plan {
    fn read(text: &str) -> Self {
        let mut plan = Self::default();
        let mut section = "";
        for line in text.lines() {
            if let Some(comment) = line.trim_start().strip_prefix('#') {
                plan.curl_lines.extend(CurlLine::read(comment));
                continue;
            }
            if line.starts_with(|c: char| c.is_ascii_alphabetic()) {
                section = line.split(':').next().unwrap_or_default();
            }
            let Some(address) = address_in(line) else { continue };
            match section {
                "listeners" => plan.listeners.push(address),
                "services" | "upstreams" | "targets" if address.ip().is_loopback() => {
                    plan.origins.push(address);
                }
                _ => {}
            }
        }
        plan.origins.sort();
        plan.origins.dedup();
        plan
    }

    fn print(&self, config: &Path) {
        println!("\nPortcullis runs with {}:", config.display());
        for listener in &self.listeners {
            println!("  listening on {listener}");
        }
        if !self.curl_lines.is_empty() {
            println!("Try:");
        }
        for line in &self.curl_lines {
            println!("  {:60} {}", line.command, line.says);
        }
    }
}

/// The first `address:port` in a line, without a comment at its end.
fn address_in(line: &str) -> Option<SocketAddr> {
    let line = line.split(" #").next().unwrap_or_default();
    line.split(|c: char| !(c.is_ascii_hexdigit() || "[].:".contains(c)))
        .find_map(|word| word.trim_start_matches(':').parse().ok())
}

fn wait_until_it_answers(gateway: &mut Child, listeners: &[SocketAddr]) -> Result<()> {
    let start = Instant::now();
    for listener in listeners {
        let address = if listener.ip().is_unspecified() {
            SocketAddr::from(([127, 0, 0, 1], listener.port()))
        } else {
            *listener
        };
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            if let Some(status) = gateway.try_wait()? {
                bail!("the gateway ended with {status} before it answered");
            }
            if start.elapsed() > START_TIMEOUT {
                bail!("nothing answers on {address} after {} s", START_TIMEOUT.as_secs());
            }
            process::pause(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// SIGINT and SIGTERM to this process become SIGTERM to the gateway, which then drains.
fn pass_signals_on(pid: u32) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        for _ in signals.forever() {
            println!();
            send(pid, "TERM");
        }
    });
    Ok(())
}

fn send(pid: u32, signal: &str) {
    // It fails only where the process has ended, which is what was asked for.
    let _ = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
}

fn check_lines(lines: &[CurlLine]) -> Result<()> {
    anyhow::ensure!(lines.len() >= 3, "the configuration shows {} curl lines, not three", lines.len());
    for line in lines {
        line.check()?;
    }
    println!("{} answered", process::count(lines.len(), "curl line"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_how_to_try_it() {
        let text = "\
# Try it:
#   $ curl -i http://127.0.0.1:8000/hello
#   curl -H 'apikey: k' http://127.0.0.1:8000/private    401
listeners:
  - address: 0.0.0.0:8000 # or 127.0.0.1:8001
  - address: \"[::1]:8443\"
admin:
  tcp: 127.0.0.1:8900
services:
  - name: a
    url: http://127.0.0.1:9000/base
  - name: b
    url: http://10.0.0.1:9000
upstreams:
  - targets: [{ target: 127.0.0.1:9001, weight: 3 }]
";
        let plan = Plan::read(text);
        let addresses = |a: &[&str]| a.iter().map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(plan.listeners, addresses(&["0.0.0.0:8000", "[::1]:8443"]));
        assert_eq!(plan.origins, addresses(&["127.0.0.1:9000", "127.0.0.1:9001"]));
        let lines: Vec<(&str, &str)> =
            plan.curl_lines.iter().map(|l| (l.command.as_str(), l.status())).collect();
        assert_eq!(
            lines,
            [
                ("curl -i http://127.0.0.1:8000/hello", "200"),
                ("curl -H 'apikey: k' http://127.0.0.1:8000/private", "401")
            ]
        );
    }

    #[test]
    fn an_answer_is_compared_with_what_was_promised() {
        let address = origin::start("127.0.0.1:0".parse().unwrap()).unwrap();
        let line = |says: &str| CurlLine::read(&format!("curl http://{address}/  {says}")).unwrap();
        if process::is_installed("curl") {
            line("the origin's answer").check().unwrap();
            line("200").check().unwrap();
            assert!(line("401, without a key").check().is_err());
            assert!(check_lines(&[line("200")]).is_err());
        }
    }

    #[test]
    fn only_the_kernel_part_is_left_out() {
        let text = "a: 1\n# about xdp\nxdp:\n  mode: auto\n  # inside\n\nservices:\n  - xdp: 1\n";
        assert_eq!(without_xdp(text), "a: 1\n# about xdp\nservices:\n  - xdp: 1\n");
    }
}
