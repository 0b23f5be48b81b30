//! The command line.
//!
//! Owns: the words of it, and the commands that end by themselves. Never: the running gateway, which is
//! [`super::start`]. Exit codes: 0 done, 1 not (a bad configuration, a refused reload, no gateway there),
//! 2 a command line that makes no sense.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client;
use super::status::{ReloadReport, Tally};

/// An API gateway that drops abusive sources at the network card and serves everybody else from io_uring.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway in the foreground.
    Run {
        /// The configuration: a YAML file, or a folder of them.
        #[arg(long, short, env = "PORTCULLIS_CONFIG", value_name = "FILE")]
        config: PathBuf,
    },
    /// Say everything that is wrong with a configuration; exit with 1 if it cannot be used.
    Check {
        /// Each is a configuration of its own.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Warnings count as errors.
        #[arg(long)]
        strict: bool,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Let a running gateway read its configuration again; exit with 1 if it refuses it.
    Reload {
        #[command(flatten)]
        admin: AdminSocket,
    },
    /// Show what a running gateway is doing.
    Status {
        #[command(flatten)]
        admin: AdminSocket,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Print the JSON schema of the configuration.
    Schema,
    /// Look after the kernel part.
    Xdp {
        #[command(subcommand)]
        command: XdpCommand,
    },
}

#[derive(Debug, Subcommand)]
pub enum XdpCommand {
    /// Show where the program is attached and what it has counted.
    Status(XdpPlace),
    /// Take the program off all interfaces and remove its pins.
    Detach(XdpPlace),
}

#[derive(Debug, clap::Args)]
pub struct AdminSocket {
    /// The gateway's admin socket.
    #[arg(long = "admin", env = "PORTCULLIS_ADMIN", value_name = "SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct XdpPlace {
    /// Where maps and links are pinned; the configuration's `xdp.pin_path`.
    #[arg(long, value_name = "FOLDER", default_value = DEFAULT_PINS)]
    pub pins: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

fn reload(admin: &AdminSocket) -> Result<ExitCode> {
    let answer = client::ask(&admin.socket, "POST", "/reload")?;
    let report: ReloadReport = serde_json::from_str(&answer.body)
        .with_context(|| format!("not a reload report: {} {}", answer.status, answer.body))?;
    for finding in &report.findings {
        eprintln!("{}", finding.text);
    }
    if report.ok {
        print(&format!("generation {} in force after {} ms\n", report.generation, report.took_ms));
        Ok(ExitCode::SUCCESS)
    } else {
        eprintln!("refused: generation {} stays in force", report.generation);
        Ok(ExitCode::FAILURE)
    }
}

fn status(admin: &AdminSocket, format: Format) -> Result<ExitCode> {
    let answer = client::ask(&admin.socket, "GET", "/status")?;
    match format {
        Format::Json => print(&(answer.body + "\n")),
        Format::Text => print(&summary(&serde_json::from_str(&answer.body).context("not a status")?)),
    }
    Ok(ExitCode::SUCCESS)
}

/// For people, and tolerant of a gateway of another version: what is missing is not shown.
fn summary(status: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let list = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    let mut lines = vec![
        format!(
            "portcullis {} (pid {}): {}",
            text(&status["version"]),
            status["pid"],
            text(&status["state"])
        ),
        format!(
            "up {} s, generation {}, {}",
            status["uptime_seconds"],
            status["generation"],
            text(&status["config"])
        ),
        format!("control: {}", text(&status["control_driver"])),
    ];
    for listener in list("listeners") {
        let scheme = if listener["tls"] == true { "https" } else { "http" };
        lines.push(format!(
            "listener {}: {scheme}://{}",
            text(&listener["name"]),
            text(&listener["address"])
        ));
    }
    for shard in list("shards") {
        let refused = shard["refused"].as_str().map(|why| format!(" (io_uring refused: {why})"));
        let driver = text(&shard["driver"]) + &refused.unwrap_or_default();
        lines.push(format!("shard {}: {driver}, {} connections", shard["shard"], shard["connections"]));
    }
    let kernel = &status["kernel"];
    let why = kernel["why"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
    lines.push(format!("kernel part: {}{why}", text(&kernel["mode"])));
    if let Some(ok) = status["last_reload"]["ok"].as_bool() {
        let findings = status["last_reload"]["findings"].as_array().map_or(0, Vec::len);
        lines.push(format!("last reload: {}, {findings} findings", if ok { "ok" } else { "refused" }));
    }
    lines.join("\n") + "\n"
}

/// What checking one configuration found.
struct Checked<'a> {
    file: &'a Path,
    findings: Vec<portcullis_config::Diagnostic>,
}

/// Prints findings of `portcullis check`; success if there are no errors (with `strict`, no warnings either).
fn print_check(checked: &[Checked<'_>], strict: bool, format: Format) -> ExitCode {
    let fails = |tally: Tally| tally.errors > 0 || (strict && tally.warnings > 0);
    let mut text = String::new();
    let mut files = Vec::new();
    let mut failed = false;
    for Checked { file, findings } in checked {
        let tally = Tally::of(findings);
        failed |= fails(tally);
        findings.iter().for_each(|finding| text += &format!("{finding}\n\n"));
        text += &format!("{}: {tally}\n", file.display());
        files.push(json!({
            "file": file.display().to_string(),
            "ok": !fails(tally),
            "findings": super::reload::to_findings(findings),
        }));
    }
    match format {
        Format::Text => print(&text),
        Format::Json => print(&format!("{}\n", json!({ "ok": !failed, "files": files }))),
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// As `print!`, but a reader that has seen enough (`| head`) is no reason to panic.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

const DEFAULT_SOCKET: &str = "/run/portcullis/admin.sock";
const DEFAULT_PINS: &str = "/sys/fs/bpf/portcullis";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_understood() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let run = parse("portcullis run --config a.yaml").unwrap();
        assert!(matches!(run.command, Command::Run { config } if config == Path::new("a.yaml")));
        let check = parse("portcullis check a.yaml b.yaml --strict --format json").unwrap();
        let Command::Check { files, strict: true, format: Format::Json } = check.command else { panic!() };
        assert_eq!(files.len(), 2);
        assert!(parse("portcullis check").is_err());
        let reload = parse("portcullis reload --admin /tmp/x").unwrap();
        assert!(matches!(reload.command, Command::Reload { admin } if admin.socket == Path::new("/tmp/x")));
        assert!(parse("portcullis xdp detach").is_ok() && parse("portcullis xdp").is_err());
    }

    #[test]
    fn a_summary_shows_what_there_is() {
        let status = json!({
            "version": "1.2.3", "pid": 7, "state": "draining", "uptime_seconds": 5, "generation": 2,
            "config": "/etc/x.yaml", "control_driver": "io_uring",
            "listeners": [{"name": "web", "address": "0.0.0.0:80", "tls": false}],
            "shards": [{"shard": 0, "driver": "epoll", "refused": "EPERM", "connections": 3}],
            "kernel": {"mode": "off", "why": "no CAP_BPF"},
            "last_reload": {"ok": false, "findings": [{}, {}]},
        });
        let expected = "portcullis 1.2.3 (pid 7): draining\nup 5 s, generation 2, /etc/x.yaml\n\
            control: io_uring\nlistener web: http://0.0.0.0:80\n\
            shard 0: epoll (io_uring refused: EPERM), 3 connections\nkernel part: off (no CAP_BPF)\n\
            last reload: refused, 2 findings\n";
        assert_eq!(summary(&status), expected);
        assert!(summary(&json!({})).contains("portcullis null"));
    }
}
