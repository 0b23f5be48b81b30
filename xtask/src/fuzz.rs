//! `cargo xtask fuzz`: short runs of every fuzz target, on stable Rust.
//!
//! The folder of the targets says how they are built (its `.cargo/config.toml`); here they are found, built
//! and run, each from its seeds with a growing corpus under `target/`. Invariant: a crash leaves its input
//! under `target/fuzz/artifacts` and its path in the output.

use crate::{needs, process};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

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
    // Flags of the caller would replace those of the folder.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.args(["build", "--locked", "--release", "--bins", "--target", &host, "--target-dir"]);
    command.arg(&target_dir).current_dir(folder);
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
