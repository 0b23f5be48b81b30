//! The project's own commands: `cargo xtask <command>`. One file a command; nothing happens here.

mod deny;
mod needs;
mod process;
mod steps;
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
    /// Check licences, banned crates, sources and advisories of the dependency tree
    Deny,
    /// Check file sizes, module order, one-home rule and the other rules of style
    Tidy,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Deny => deny::run(),
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
