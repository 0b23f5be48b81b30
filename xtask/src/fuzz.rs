//! `cargo xtask fuzz`: short runs of every fuzz target, on stable Rust.
//!
//! The targets are ordinary cargo-fuzz ones, and `cargo fuzz run NAME` works for long hunts. Here they are
//! built with the coverage flags directly, which needs neither nightly nor another tool: the code under
//! test has no `unsafe`, so a sanitizer would add nothing but time. Invariant: a crash leaves its input
//! under `target/fuzz/artifacts` and its path in the output.

use crate::{needs, process};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What cargo-fuzz passes, but for the sanitizer: edge counters, their table, and compared values.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1";

/// Memory at which a target counts as leaking, in MiB.
const MEMORY_MAX: u32 = 2048;

#[derive(clap::Args)]
pub struct Options {
    /// Targets to run; all where none is named
    targets: Vec<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 10)]
    seconds: u32,
}

impl Options {
    /// Every target for so many seconds.
    pub fn all(seconds: u32) -> Self {
        Self { targets: Vec::new(), seconds }
    }
}

pub fn run(options: &Options) -> Result<()> {
    needs::debian(needs::BUILD)?;
    let folder = process::root().join("tests/fuzz");
    let known = targets(&folder)?;
    let chosen = if options.targets.is_empty() { known.clone() } else { options.targets.clone() };
    if let Some(unknown) = chosen.iter().find(|t| !known.contains(t)) {
        bail!("no fuzz target `{unknown}`; there are {}", known.join(", "));
    }
    let binaries = build(&folder)?;
    let mut failed = Vec::new();
    for target in &chosen {
        println!("fuzz {target}: {} s", options.seconds);
        if let Err(error) = hunt(&folder, &binaries, target, options.seconds) {
            println!("{error:#}");
            failed.push(target.as_str());
        }
    }
    println!("fuzz: {} passed, {} failed", chosen.len() - failed.len(), failed.len());
    if !failed.is_empty() {
        bail!("fuzzing found something in {}", failed.join(", "));
    }
    Ok(())
}

fn targets(folder: &Path) -> Result<Vec<String>> {
    let listed = folder.join("fuzz_targets");
    let entries = std::fs::read_dir(&listed).with_context(|| format!("no {}", listed.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs") {
            names.extend(path.file_stem().map(|s| s.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    anyhow::ensure!(!names.is_empty(), "no fuzz target in {}", listed.display());
    Ok(names)
}

/// Builds all targets and returns the folder of their binaries.
fn build(folder: &Path) -> Result<PathBuf> {
    let host = host_triple()?;
    let target_dir = process::target_dir().join("fuzz/build");
    let mut command = process::cargo();
    // Naming the target keeps build scripts and macros free of the coverage flags.
    command.args(["build", "--release", "--bins", "--target", &host, "--manifest-path"]);
    command.arg(folder.join("Cargo.toml")).arg("--target-dir").arg(&target_dir);
    command.env("RUSTFLAGS", COVERAGE).env_remove("CARGO_ENCODED_RUSTFLAGS");
    process::run(&mut command)?;
    Ok(target_dir.join(host).join("release"))
}

fn host_triple() -> Result<String> {
    let verbose = process::output("rustc", ["-vV"], &process::root())?;
    let host = verbose.lines().find_map(|l| l.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

fn hunt(folder: &Path, binaries: &Path, target: &str, seconds: u32) -> Result<()> {
    let corpus = process::target_dir().join("fuzz/corpus").join(target);
    let artifacts = process::target_dir().join("fuzz/artifacts").join(target);
    std::fs::create_dir_all(&corpus)?;
    std::fs::create_dir_all(&artifacts)?;
    let mut command = Command::new(binaries.join(target));
    command.arg(&corpus);
    // Inputs kept in the repository: test vectors and whatever once crashed.
    let seeds = folder.join("seeds").join(target);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-rss_limit_mb={MEMORY_MAX}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(["-timeout=10", "-print_final_stats=1", "-verbosity=0"]);
    process::run(&mut command).with_context(|| format!("inputs are in {}", artifacts.display()))
}
