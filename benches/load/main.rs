//! Side-by-side load runs: the same job on Portcullis, nginx and HAProxy, on one core each, round by round.
//!
//! The method, in short. Every proxy is pinned to core 0, the load generator (wrk) and the origin to
//! core 1, all over loopback. A round measures each proxy once for a second or two, in an order that
//! rotates and reverses, because a virtual machine drifts by tens of percent within minutes; what is
//! quoted is the median over rounds of the ratio *within* a round. The main figure is CPU seconds per
//! million requests (which is also microseconds per request) over all threads of a proxy: unlike
//! requests per second it does not depend on which side saturates first.
//!
//! Owns the processes it starts and ends each by its id; listens on loopback only. `cargo xtask bench`
//! builds what it needs and calls it. Next to read: `scenario` (the jobs), then `rounds` (the measuring).

mod account;
mod certs;
mod chain;
mod chart;
mod check;
mod child;
mod h2load;
mod idle;
mod origin;
mod own;
mod pace;
mod packets;
mod proxies;
mod reload;
mod report;
mod rounds;
mod scenario;
mod tokens;
mod wrk;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Parser)]
#[command(name = "load", about = "Side-by-side load runs of Portcullis, nginx and HAProxy")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, and write the results
    Run(rounds::Options),
    /// Make a certificate authority, a certificate and keys
    Certs {
        /// Folder to write to
        out: PathBuf,
        /// Server names of the certificate
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Answer requests on an address (started by `run`)
    Origin { address: SocketAddr },
    /// Open connections, send one request on each, and hold them (started by `run`)
    Hold { address: SocketAddr, connections: usize },
    /// Send requests with API keys at a steady rate until standard input ends (started by `run`)
    Pace { address: SocketAddr },
    /// Make table and chart of what the XDP bench printed
    Packets {
        /// Its JSON lines
        input: PathBuf,
        #[arg(default_value = "benches/results")]
        results: PathBuf,
    },
    /// Make the tables and charts again from the last results
    Report {
        #[arg(default_value = "benches/results")]
        results: PathBuf,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(options) => rounds::run(&options),
        Command::Certs { out, names } => certs::make(&out, &names).map(drop),
        Command::Origin { address } => origin::run(address),
        Command::Hold { address, connections } => idle::hold(address, connections),
        Command::Pace { address } => pace::run(address),
        Command::Packets { input, results } => packets::write(&input, &results),
        Command::Report { results } => {
            let path = results.join("load.json");
            let text = std::fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
            report::write(&results, &serde_json::from_str(&text)?)
        }
    }
}
