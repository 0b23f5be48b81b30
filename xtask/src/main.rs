//! The project's own commands: `cargo xtask <command>`. One file a command; nothing happens here.

mod bench;
mod build_ebpf;
mod certs;
mod deny;
mod fuzz;
mod needs;
mod origin;
mod process;
mod run;
mod schema;
mod steps;
mod test;
mod test_kernels;
mod tidy;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, run, test, check and measure Portcullis")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure: criterion benches, load beside nginx and HAProxy, XDP per packet
    Bench(bench::Options),
    /// Build the XDP program, or check the committed object
    BuildEbpf(build_ebpf::Options),
    /// Make a demo certificate authority and certificates under target/certs
    Certs(certs::Options),
    /// Check licences, banned crates, sources and advisories of the dependency tree
    Deny,
    /// Run the fuzz targets for a short time each
    Fuzz(fuzz::Options),
    /// Build and start the gateway with an example configuration and a demo origin
    Run(run::Options),
    /// Write config/schema.json, or compare it
    Schema(schema::Options),
    /// Run every test, installing what they need
    Test(test::Options),
    /// Run the tests of the XDP object on other kernels, emulated; minutes each
    TestKernels(test_kernels::Options),
    /// Check file sizes, module order, one-home rule and the other rules of style
    Tidy,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Bench(options) => bench::run(&options),
        Command::BuildEbpf(options) => build_ebpf::run(&options),
        Command::Certs(options) => certs::run(&options),
        Command::Deny => deny::run(),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Run(options) => run::run(&options),
        Command::Schema(options) => schema::run(&options),
        Command::Test(options) => test::run(&options),
        Command::TestKernels(options) => test_kernels::run(&options),
        Command::Tidy => tidy::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
