//! `cargo xtask deny`: licences, banned crates, sources, and known vulnerabilities where the advisory
//! database can be had.
//!
//! The first three need no network beyond the registry and always count. The database is a git
//! repository elsewhere: where it cannot be fetched this says so and does not fail.

use crate::{needs, process};
use anyhow::{Result, bail};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The version the settings in deny.toml were written for.
const VERSION: &str = "0.20.2";

/// A fetch that hangs is a database that cannot be had.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

pub fn run() -> Result<()> {
    needs::cargo_tool("cargo-deny", VERSION)?;
    process::run(deny().args([
        "check",
        "--hide-inclusion-graph",
        "--allow",
        "unused-wrapper",
        "bans",
        "licenses",
        "sources",
    ]))?;
    if fetch_database()? {
        process::run(deny().args(["check", "--disable-fetch", "advisories"]))?;
        println!("deny: bans, licences, sources and advisories checked");
    } else {
        println!(
            "deny: bans, licences and sources checked; advisories not: their database cannot be fetched"
        );
    }
    Ok(())
}

fn deny() -> Command {
    let mut command = process::cargo();
    command.args(["deny", "--locked", "--log-level", "warn"]);
    command
}

fn fetch_database() -> Result<bool> {
    let mut child = deny()
        .args(["fetch", "db"])
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let start = Instant::now();
    while start.elapsed() < FETCH_TIMEOUT {
        match child.try_wait()? {
            Some(status) => return Ok(status.success()),
            None => process::pause(Duration::from_millis(100)),
        }
    }
    if let Err(error) = child.kill() {
        bail!("cannot end `cargo deny fetch`: {error}");
    }
    child.wait()?;
    Ok(false)
}
