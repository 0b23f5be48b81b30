//! `cargo xtask bench`: criterion benches of the pure parts, side-by-side load runs, and the XDP program.
//!
//! Owns what is installed and built before, not the measuring: that is in `benches/`. Results go to
//! `benches/results/`. Invariant: everything compared is measured in one run on one machine.

use crate::certs::load_program;
use crate::{needs, process, run};
use anyhow::Result;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

#[derive(clap::Args)]
pub struct Options {
    /// Parts to run; all where none is named
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Seconds of one load measurement
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Rounds; each measures every proxy once
    #[arg(long, default_value_t = 8)]
    rounds: u32,
    /// Load scenarios to run; all where none is named
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Proxies to compare
    #[arg(long, value_delimiter = ',', default_value = "portcullis,nginx,haproxy")]
    proxies: Vec<String>,
    /// Load: nginx and HAProxy add X-Forwarded-For alone to messages, not all that Portcullis adds
    #[arg(long)]
    bare: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Criterion: head parsing, routing, the bucket, tokens
    Micro,
    /// The same job on Portcullis, nginx and HAProxy
    Load,
    /// Nanoseconds per packet of the XDP program
    Xdp,
    /// Honest clients under a SYN flood, with the kernel part on and off, and beside nftables
    Flood,
    /// Honest clients beside floods of HTTP/2, credential stuffing and slow connections
    Abuse,
}

pub fn run(options: &Options) -> Result<()> {
    let wants = |part| options.parts.is_empty() || options.parts.contains(&part);
    if wants(Part::Micro) {
        micro()?;
    }
    if wants(Part::Load) {
        load(options)?;
    }
    if wants(Part::Xdp) {
        xdp()?;
    }
    if wants(Part::Flood) {
        flood(options, "run")?;
    }
    if wants(Part::Abuse) {
        flood(options, "abuse")?;
    }
    Ok(())
}

/// The criterion benches; `xdp` is one of cargo's bench targets too, but needs root.
const MICRO: [&str; 6] = ["bucket", "jwt", "keys", "metrics", "parse", "route"];

/// Where results are kept.
const RESULTS: &str = "benches/results";

fn micro() -> Result<()> {
    let start = SystemTime::now();
    let mut command = process::cargo();
    command.args(["bench", "--locked", "--package", "portcullis-benches"]);
    for name in MICRO {
        command.args(["--bench", name]);
    }
    process::run(&mut command)?;
    let mut found = Vec::new();
    estimates(&process::target_dir().join("criterion"), start, &mut found)?;
    anyhow::ensure!(!found.is_empty(), "criterion left no estimates");
    found.sort();
    let mut table = String::from(
        "# Criterion benches\n\nMedian time of one call, on one core. `cargo xtask bench micro` makes this table.\n\n\
         | what | median | 95 % interval |\n|---|---:|---:|\n",
    );
    for (name, row) in found {
        table.push_str(&format!("| {name} | {row} |\n"));
    }
    let folder = process::root().join(RESULTS);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("micro.md"), &table)?;
    print!("\n{table}");
    Ok(())
}

/// Reads what criterion keeps of each bench: `FOLDER/…/new/{benchmark,estimates}.json`.
/// Those of earlier runs, also of benches that are gone, stay on disk and are left out.
fn estimates(folder: &Path, start: SystemTime, found: &mut Vec<(String, String)>) -> Result<()> {
    let read = |file: &str| -> Result<Value> {
        Ok(serde_json::from_str(&std::fs::read_to_string(folder.join(file))?)?)
    };
    if folder.file_name().is_some_and(|n| n == "new") && folder.join("estimates.json").exists() {
        if folder.join("estimates.json").metadata()?.modified()? < start {
            return Ok(());
        }
        let median = &read("estimates.json")?["median"];
        let nanoseconds = |value: &Value| time(value.as_f64().unwrap_or(f64::NAN));
        let interval = &median["confidence_interval"];
        let row = format!(
            "{} | {} to {}",
            nanoseconds(&median["point_estimate"]),
            nanoseconds(&interval["lower_bound"]),
            nanoseconds(&interval["upper_bound"])
        );
        let name = read("benchmark.json")?["full_id"].as_str().unwrap_or("unnamed").to_owned();
        found.push((name, row));
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            estimates(&path, start, found)?;
        }
    }
    Ok(())
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n < 1e3 => format!("{n:.1} ns"),
        n if n < 1e6 => format!("{:.2} us", n / 1e3),
        n => format!("{:.2} ms", n / 1e6),
    }
}

fn load(options: &Options) -> Result<()> {
    needs::debian(needs::BENCH)?;
    let mut command = load_program("release")?;
    command.arg("run").arg("--proxies").arg(options.proxies.join(","));
    command.args(["--seconds", &options.seconds.to_string(), "--rounds", &options.rounds.to_string()]);
    if options.bare {
        command.arg("--bare");
    }
    if !options.scenarios.is_empty() {
        command.arg("--scenarios").arg(options.scenarios.join(","));
    }
    if options.proxies.iter().any(|p| p == "portcullis") {
        command.arg("--portcullis").arg(run::build("release")?);
    }
    command.arg("--work").arg(process::target_dir().join("load"));
    process::run(&mut command)
}

/// Namespaces, honest clients in one of them, and a flood out of trafgen or an attacker beside them; needs root.
fn flood(options: &Options, job: &str) -> Result<()> {
    anyhow::ensure!(process::is_root(), "the flood needs root (network namespaces, XDP, nftables)");
    needs::debian(needs::FLOOD_BENCH)?;
    let args = ["build", "--locked", "--package", "portcullis-benches", "--bin", "flood", "--release"];
    process::run(process::cargo().args(args))?;
    let mut command = Command::new(process::target_dir().join("release/flood"));
    command.arg(job).arg("--portcullis").arg(run::build("release")?);
    command.arg("--work").arg(process::target_dir().join("flood"));
    command.arg("--results").arg(process::root().join(RESULTS));
    command.args(["--seconds", &options.seconds.to_string()]);
    command.args(["--rounds", &options.rounds.min(FLOOD_ROUNDS).to_string()]);
    process::run(&mut command)
}

/// A round takes two or three minutes.
const FLOOD_ROUNDS: u32 = 3;

/// The kernel's own test-run of the program on packets, beside xdp-filter; needs root.
fn xdp() -> Result<()> {
    anyhow::ensure!(process::is_root(), "measuring the XDP program needs root (it is loaded and test-run)");
    needs::debian(needs::XDP_BENCH)?;
    let root = process::root();
    let args = ["bench", "--locked", "--package", "portcullis-benches", "--bench", "xdp"];
    let printed = process::output("cargo", args, &root)?;
    let lines = process::target_dir().join("xdp.jsonl");
    std::fs::write(&lines, printed)?;
    process::run(load_program("release")?.arg("packets").arg(&lines).arg(root.join(RESULTS)))
}
