//! `cargo xtask bench`: criterion benches of the pure parts, side-by-side load runs, and the XDP program.
//!
//! Owns what is installed and built before, not the measuring: that is in `benches/`. Results go to
//! `benches/results/`. Invariant: everything compared is measured in one run on one machine.

use crate::certs::load_program;
use crate::{needs, process, run};
use anyhow::Result;

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
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Criterion: head parsing, routing, the bucket, tokens
    Micro,
    /// The same job on Portcullis, nginx and HAProxy
    Load,
    /// Nanoseconds per packet of the XDP program
    Xdp,
}

pub fn run(options: &Options) -> Result<()> {
    let wants = |part| options.parts.is_empty() || options.parts.contains(&part);
    if wants(Part::Micro) {
        process::run(process::cargo().args(["bench", "--locked", "--package", "portcullis-benches"]))?;
    }
    if wants(Part::Load) {
        load(options)?;
    }
    if wants(Part::Xdp) {
        xdp()?;
    }
    Ok(())
}

fn load(options: &Options) -> Result<()> {
    needs::debian(needs::BENCH)?;
    let mut command = load_program("release")?;
    command.arg("run").arg("--proxies").arg(options.proxies.join(","));
    command.args(["--seconds", &options.seconds.to_string(), "--rounds", &options.rounds.to_string()]);
    if !options.scenarios.is_empty() {
        command.arg("--scenarios").arg(options.scenarios.join(","));
    }
    if options.proxies.iter().any(|p| p == "portcullis") {
        command.arg("--portcullis").arg(run::build("release")?);
    }
    command.arg("--work").arg(process::target_dir().join("load"));
    process::run(&mut command)
}

/// The kernel's own test-run of the program on packets, beside xdp-filter; needs root.
fn xdp() -> Result<()> {
    anyhow::ensure!(process::is_root(), "measuring the XDP program needs root (it is loaded and test-run)");
    let args = ["bench", "--locked", "--package", "portcullis-benches", "--bench", "xdp"];
    process::run(process::cargo().args(args))
}
