//! The `portcullis` binary: reads the command line and hands it to the control module.

use std::process::ExitCode;

use clap::Parser;
use portcullis::control::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(cause) => {
            eprintln!("portcullis: {cause:#}");
            ExitCode::FAILURE
        }
    }
}
