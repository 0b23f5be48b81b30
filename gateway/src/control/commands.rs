//! Commands that do one thing and end.
//!
//! Owns: what they print, and their exit codes. Never: a runtime. Results go to standard output, complaints to
//! standard error, and a reader that closes early (`| head`) is no error.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use portcullis_config::Diagnostic;
use serde_json::{Value, json};

use super::cli::Format;
use super::interfaces::Network;
use super::names::Book;
use super::reload::{Load, Loaded};
use super::status::{ReloadReport, Tally};
use super::{advice, client, gateway};
use crate::id::Generation;
use crate::kernel;
use crate::metrics::{DEFAULT_MAX_ROUTE_SERIES, Registry};
use crate::snapshot::{self, CompileContext, GatewayCatalog};
use crate::tls::Ticketer;

/// Reads and validates the configuration at `path`, which is read anew at each call.
pub fn loader(path: PathBuf) -> Load {
    Arc::new(move || {
        let loaded = portcullis_config::load(&path, &GatewayCatalog)?;
        Ok(Loaded { config: Arc::new(loaded.config), remarks: loaded.warnings })
    })
}

/// Says everything that is wrong with each configuration: in the text, and in what only compiling shows (a
/// plugin's settings, a certificate's key).
pub fn check(files: &[PathBuf], strict: bool, format: Format) -> Result<ExitCode> {
    let checked = files.iter().map(|file| {
        let findings = match loader(file.clone())() {
            Err(errors) => errors,
            Ok(Loaded { config, mut remarks }) => {
                remarks.extend(compile_findings(config));
                remarks
            }
        };
        Checked { file, findings }
    });
    Ok(print_check(&checked.collect::<Vec<_>>(), strict, format))
}

/// What only compiling shows.
pub(super) fn compile_findings(config: Arc<portcullis_config::Config>) -> Vec<Diagnostic> {
    let book = Book::default();
    book.prepare(&config);
    let cx = CompileContext {
        generation: Generation(1),
        previous: None,
        names: book.names(),
        registry: &Registry::new(1, DEFAULT_MAX_ROUTE_SERIES),
        ticketer: &Ticketer::off(),
    };
    match snapshot::compile(config, &cx) {
        Ok((snapshot, mut warnings)) => {
            let targets = gateway::targets(&snapshot);
            warnings.extend(advice::of_config(&snapshot.config, &targets, &Network::read()));
            warnings
        }
        Err(errors) => errors,
    }
}

/// Prints the JSON schema, for editors.
pub fn schema() -> Result<ExitCode> {
    print(&format!("{:#}\n", portcullis_config::json_schema(&GatewayCatalog)));
    Ok(ExitCode::SUCCESS)
}

/// Shows the links that are pinned, whether or not a gateway runs.
pub fn xdp_status(pins: &Path) -> Result<ExitCode> {
    let links = kernel::pinned(pins)?;
    if links.is_empty() {
        print(&format!("nothing is attached by way of {}\n", pins.display()));
    }
    for link in links {
        print(&format!("{link}\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes the program off every interface.
pub fn xdp_detach(pins: &Path, forget: bool) -> Result<ExitCode> {
    let removed = kernel::detach(pins)?;
    if forget {
        print(&format!("removed {} pinned maps\n", kernel::forget(pins)?));
    }
    for link in &removed {
        print(&format!("detached: {link}\n"));
    }
    if removed.is_empty() {
        print("nothing was attached\n");
    }
    Ok(ExitCode::SUCCESS)
}

/// Lets the gateway behind `socket` read its configuration again.
pub fn reload(socket: &Path) -> Result<ExitCode> {
    let answer = client::ask(socket, "POST", "/reload")?;
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

/// Shows what the gateway behind `socket` says about itself.
pub fn status(socket: &Path, format: Format) -> Result<ExitCode> {
    let answer = client::ask(socket, "GET", "/status")?;
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
    let interfaces = kernel["interfaces"].as_array().cloned().unwrap_or_default();
    let mut part = format!("kernel part: {}", text(&kernel["mode"]));
    if !interfaces.is_empty() {
        let names = interfaces.iter().map(text).collect::<Vec<_>>().join(", ");
        part += &format!(" on {names}, {}", text(&kernel["enforcement"]));
    }
    if let Some(why) = kernel["why"].as_str() {
        part += &format!(" ({why})");
    }
    lines.push(part);
    lines.extend(kernel_lines(kernel));
    if let Some(ok) = status["last_reload"]["ok"].as_bool() {
        let findings = status["last_reload"]["findings"].as_array().map_or(0, Vec::len);
        lines.push(format!("last reload: {}, {findings} findings", if ok { "ok" } else { "refused" }));
    }
    lines.join("\n") + "\n"
}

/// What the kernel part does with what it refuses, and what is unusual about it.
fn kernel_lines(kernel: &Value) -> Vec<String> {
    let list = |key: &str| kernel[key].as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut lines = Vec::new();
    if kernel["dead"] == true {
        let age = kernel["heartbeat_age_ms"].as_u64().unwrap_or(0) / 1000;
        lines.push(format!("kernel part passes everything: no sign of life for {age} s"));
    }
    for rule in list("rules") {
        lines.push(format!("kernel rule {}: {}", word(&rule["rule"]), word(&rule["mode"])));
    }
    for reason in list("tripped") {
        lines.push(format!("kernel rule tripped, only counting now: {}", word(&reason)));
    }
    for hit in list("known_good") {
        lines.push(format!(
            "known-good sources under {}: {} dropped, {} would have been",
            word(&hit["reason"]),
            hit["dropped"],
            hit["would_have_been"]
        ));
    }
    lines
}

/// What checking one configuration found.
struct Checked<'a> {
    file: &'a Path,
    findings: Vec<Diagnostic>,
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
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let native = json!({"kernel": {"mode": "native", "enforcement": "shadow", "interfaces": ["eth0"]}});
        assert!(summary(&native).ends_with("kernel part: native on eth0, shadow\n"));
        let busy = json!({"kernel": {
            "mode": "native", "dead": true, "heartbeat_age_ms": 7000, "tripped": ["drop_banned"],
            "rules": [{"rule": "connections", "mode": "drop"}],
            "known_good": [{"reason": "drop_banned", "dropped": 3, "would_have_been": 1}],
        }});
        let told = summary(&busy);
        for line in [
            "kernel part passes everything: no sign of life for 7 s",
            "kernel rule connections: drop",
            "kernel rule tripped, only counting now: drop_banned",
            "known-good sources under drop_banned: 3 dropped, 1 would have been",
        ] {
            assert!(told.contains(line), "{line} is missing:\n{told}");
        }
    }

    #[test]
    fn detaching_nothing_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(xdp_detach(&folder.path().join("none"), true).is_ok());
        assert!(xdp_status(&folder.path().join("none")).is_ok());
    }
}
