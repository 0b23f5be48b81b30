//! The `portcullis` binary: reads the command line and hands it to the control module.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use portcullis::control::cli::{self, Cli};

/// Tasks and streams come and go with every request, many of them on cache lines of their own, which the C library's
/// allocator is slow at.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(cause) => {
            eprintln!("portcullis: {cause:#}");
            ExitCode::FAILURE
        }
    }
}
