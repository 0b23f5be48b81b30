//! `cargo xtask certs`: a demo certificate authority and what the TLS examples need, under `target/certs`.
//!
//! The work is done by the `load` program of the benches, which needs the same files: making keys takes a
//! cryptography library, and xtask stays without one so that it builds in seconds.

use crate::process;
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;

#[derive(clap::Args)]
pub struct Options {
    /// Folder to write to; `target/certs` where none is given
    #[arg(long)]
    out: Option<PathBuf>,
    /// Server names of the certificate
    #[arg(default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned(), "*.example.com".to_owned()])]
    names: Vec<String>,
}

pub fn run(options: &Options) -> Result<()> {
    let out = options.out.clone().unwrap_or_else(|| process::target_dir().join("certs"));
    let mut command = load_program("dev")?;
    process::run(command.arg("certs").arg(&out).args(&options.names))?;
    println!("a client that trusts it: curl --cacert {}/ca.pem https://localhost:8443/", out.display());
    Ok(())
}

/// The built `load` program, ready for its arguments.
pub fn load_program(profile: &str) -> Result<Command> {
    let args =
        ["build", "--locked", "--package", "portcullis-benches", "--bin", "load", "--profile", profile];
    process::run(process::cargo().args(args))?;
    let folder = if profile == "dev" { "debug" } else { profile };
    let mut command = Command::new(process::target_dir().join(folder).join("load"));
    command.current_dir(process::root());
    Ok(command)
}
