//! Honest clients under a flood: what is left of their requests, and how long they take.
//!
//! Two network namespaces joined by a veth pair. One holds the gateway and an origin, the other honest clients, each
//! on an address of its own with a new connection for each request, and `trafgen`, which floods the gateway's port
//! with SYNs from 64 other sources at one rate after the other. The same is done with the kernel part on, with it off,
//! and with it off behind an nftables meter of the same limit by source: round by round, so that a noisy minute hits
//! all of them. Needs root. Leaves no namespace behind.
//!
//! Owns the run and the comparison. The results say what this machine does, sender and receiver sharing its cores.

mod abuse;
mod chart;
mod client;
mod lab;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum as _};
use serde_json::json;

use crate::client::Tally;
use crate::lab::{Guard, Lab};

#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure all and write the results
    Run(RunOptions),
    /// Honest clients beside abuse of HTTP
    Abuse(RunOptions),
    /// Attack; started by `abuse` in a namespace
    Attack { attack: abuse::Attack, seconds: u64 },
    /// Answer requests; started by `run` in a namespace
    Origin { address: std::net::SocketAddr },
    /// Be honest clients; started by `run` in a namespace
    Client { seconds: u64 },
}

#[derive(clap::Args)]
struct RunOptions {
    /// The gateway's binary
    #[arg(long)]
    portcullis: PathBuf,
    /// A folder for configurations and logs
    #[arg(long)]
    work: PathBuf,
    /// Where results go
    #[arg(long)]
    results: PathBuf,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Rounds; each measures everything once
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Packets a second
    #[arg(long, value_delimiter = ',', default_value = "0,10000,50000,100000,200000,400000")]
    rates: Vec<u64>,
    /// What `abuse` does; with less than everything no table is written
    #[arg(long, value_delimiter = ',')]
    attacks: Vec<abuse::Attack>,
}

/// One curve.
struct Curve {
    guard: Guard,
    /// By rate, a tally for each round.
    tallies: Vec<Vec<Tally>>,
}

fn main() -> Result<()> {
    match Options::parse().command {
        Command::Run(options) => run(&options),
        Command::Abuse(options) => {
            std::fs::create_dir_all(&options.work)?;
            let lab = Lab::new(&options.work, &options.portcullis).context("the namespaces")?;
            let all = options.attacks.is_empty();
            let attacks = if all { abuse::Attack::value_variants() } else { &options.attacks };
            let text = abuse::run(&lab, attacks, options.seconds, options.rounds)?;
            if all {
                std::fs::write(options.results.join("abuse.md"), &text)?;
            }
            print!("{text}");
            Ok(())
        }
        Command::Attack { attack, seconds } => {
            println!("{}", abuse::attack(attack, seconds).to_json());
            Ok(())
        }
        Command::Origin { address } => client::origin(address),
        Command::Client { seconds } => {
            println!("{}", client::honest(seconds)?.to_json());
            Ok(())
        }
    }
}

fn run(options: &RunOptions) -> Result<()> {
    std::fs::create_dir_all(&options.work)?;
    let lab = Lab::new(&options.work, &options.portcullis).context("the namespaces")?;
    let empty = || vec![Vec::new(); options.rates.len()];
    let guards = [Guard::Kernel, Guard::None, Guard::Meter];
    let mut curves: Vec<_> = guards.into_iter().map(|guard| Curve { guard, tallies: empty() }).collect();
    for round in 0..options.rounds {
        for curve in &mut curves {
            let _gateway = lab.gateway(curve.guard)?;
            for (at, &rate) in options.rates.iter().enumerate() {
                let tally = lab.measure(rate, options.seconds)?;
                let (guard, seen, refused) = (curve.guard.as_str(), tally.summary(), lab.refusals()?);
                println!("round {round}, {guard}, {rate} packets/s: {seen}; {refused}");
                curve.tallies[at].push(tally);
            }
        }
    }
    report(options, &curves)
}

/// The middle one of an odd number, the upper middle one of an even number.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn report(options: &RunOptions, curves: &[Curve]) -> Result<()> {
    let mut csv = String::from("guard,flood_packets_per_second,goodput_per_second,p50_ms,p99_ms,failed\n");
    let mut rows = String::new();
    let mut goodput = Vec::new();
    let mut p99 = Vec::new();
    for curve in curves {
        let (mut good, mut slow) = (Vec::new(), Vec::new());
        for (&rate, tallies) in options.rates.iter().zip(&curve.tallies) {
            let of = |value: fn(&Tally) -> f64| median(tallies.iter().map(value).collect());
            let (per_second, p50_ms, p99_ms) =
                (of(Tally::per_second), of(|t| t.percentile(50)), of(|t| t.percentile(99)));
            let failed: u64 = tallies.iter().map(|tally| tally.failed).sum();
            let name = curve.guard.as_str();
            let _ = writeln!(csv, "{name},{rate},{per_second:.1},{p50_ms:.3},{p99_ms:.3},{failed}");
            let _ = writeln!(
                rows,
                "| {} | {rate} | {per_second:.0} | {p50_ms:.2} | {p99_ms:.2} | {failed} |",
                curve.guard.title()
            );
            good.push((rate as f64, per_second));
            slow.push((rate as f64, p99_ms));
        }
        goodput.push((curve.guard.title(), good));
        p99.push((curve.guard.title(), slow));
    }
    let text = format!(
        "# Honest clients under a SYN flood\n\n{} honest addresses ask for a page again and again, each time on a new \
         connection, while {} others flood the port with SYNs. Median of {} rounds of {} s each; sender and receiver \
         share {} cores. The limit is the same everywhere: {} new connections a second and source. `cargo xtask bench \
         flood` makes this table.\n\n\
         | guard | flood, packets/s | served, requests/s | half within, ms | 99 % within, ms | failed |\n\
         |---|---:|---:|---:|---:|---:|\n{rows}\n![goodput](flood-goodput.svg)\n\n![p99](flood-p99.svg)\n",
        lab::HONEST,
        lab::ATTACKERS,
        options.rounds,
        options.seconds,
        std::thread::available_parallelism().map_or(0, usize::from),
        lab::LIMIT,
    );
    let write = |name: &str, text: &str| -> Result<()> {
        let path: &Path = &options.results.join(name);
        std::fs::write(path, text).with_context(|| path.display().to_string())
    };
    write("flood.csv", &csv)?;
    write("flood.md", &text)?;
    let unit = "flood, packets/s";
    write(
        "flood-goodput.svg",
        &chart::draw("Requests/s of honest clients that are served", unit, false, &goodput),
    )?;
    write("flood-p99.svg", &chart::draw("99 % of their requests within, ms", unit, true, &p99))?;
    println!("{}", json!({ "written": options.results.join("flood.md") }));
    print!("{text}");
    Ok(())
}
