//! What the commands need on the machine, and how it gets there.
//!
//! Installs Debian packages when it may (root and apt-get), cargo tools into cargo's own folder, Python
//! packages into a virtual environment under `target/`. Never touches anything else, and installs only
//! what is missing. Invariant: where it may not install, the error says the exact command to type.

use crate::process;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// Compilers: aws-lc-rs is C, the fuzzing engine is C++.
pub const BUILD: &[&str] = &["gcc", "g++", "libc6-dev"];
/// Clients, origins and network tools of the end-to-end tests.
pub const TESTS: &[&str] = &[
    "curl",
    "python3",
    "python3-venv",
    "nodejs",
    "openssl",
    "iproute2",
    "netsniff-ng",
    "nghttp2-client",
    "ethtool",
    "strace",
    "procps",
    "redis-server",
    "nghttp2-client",
];
/// A compiler with the sources of its core library, for the BPF target that has no prebuilt one.
pub const EBPF: &[&str] = &["rustc-web", "rust-web-src"];
/// The other proxies and the load generator of the side-by-side runs.
pub const BENCH: &[&str] = &["nginx", "haproxy", "wrk", "nghttp2-client", "util-linux"];

/// What the XDP program is measured beside.
pub const XDP_BENCH: &[&str] = &["xdp-tools"];

/// Namespaces, the flood, and the meter that it is measured beside.
pub const FLOOD_BENCH: &[&str] = &["iproute2", "netsniff-ng", "nftables", "util-linux"];

/// Packages of the Python clients.
const PYTHON: &[&str] = &[
    "requests",
    "httpx[http2]",
    "h2",
    "websockets",
    "grpcio",
    "grpcio-health-checking",
    "grpcio-reflection",
    "sslyze",
];

/// Package lists are fetched once a run, and only when something is missing.
static LISTS_FETCHED: AtomicBool = AtomicBool::new(false);

/// Installs those of `packages` that are missing.
pub fn debian(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|p| !has_package(p)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get update && apt-get install -y {}", missing.join(" "));
    if !process::is_installed("apt-get") {
        bail!("missing here: {} (names of Debian's packages); this is no Debian", missing.join(", "));
    }
    if !process::is_root() {
        bail!("missing here: {}. Installing needs root: sudo sh -c '{by_hand}'", missing.join(", "));
    }
    if !LISTS_FETCHED.swap(true, Ordering::Relaxed) {
        process::run_with_retries(|| apt_get(&["update", "-q"]))?;
    }
    let mut args = vec!["install", "-y", "-q", "--no-install-recommends"];
    args.extend(&missing);
    process::run_with_retries(|| apt_get(&args)).with_context(|| format!("by hand: {by_hand}"))
}

/// A tool from the Rust registry at one version, kept in cargo's own folder between runs.
pub fn cargo_tool(name: &str, version: &str) -> Result<()> {
    if installed_tools()?.contains(&(name.to_owned(), version.to_owned())) {
        return Ok(());
    }
    println!("{name} {version} is not installed: building it once, which takes some minutes");
    process::run_with_retries(|| {
        let mut command = process::cargo();
        // Not into the workspace's target folder, and not with the workspace's own settings.
        command.args(["install", name, "--version", version, "--locked"]).current_dir("/");
        command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTC").env_remove("RUSTC_BOOTSTRAP");
        command
    })
}

/// A Python with the HTTP clients of the tests; the folder is made again when the list changes.
pub fn python() -> Result<PathBuf> {
    let folder = process::target_dir().join("venv");
    let (python, stamp) = (folder.join("bin/python3"), folder.join("portcullis-packages"));
    let wanted = PYTHON.join("\n");
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(python);
    }
    process::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))
        .context("the Python of the tests needs the package python3-venv")?;
    process::run_with_retries(|| {
        let mut command = Command::new(&python);
        command.args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]).args(PYTHON);
        command
    })?;
    std::fs::write(&stamp, wanted)?;
    Ok(python)
}

fn apt_get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    // Installing a proxy to compare with must not also start it on port 80.
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command
}

fn has_package(name: &str) -> bool {
    let args = ["-W", "-f=${Status}", name];
    let query = Command::new("dpkg-query").args(args).output();
    query.is_ok_and(|o| o.stdout.ends_with(b" installed"))
}

fn installed_tools() -> Result<Vec<(String, String)>> {
    let listed = process::output("cargo", ["install", "--list"], Path::new("/"))?;
    Ok(parse_tools(&listed))
}

/// Lines of `name v1.2.3:` or `name v1.2.3 (path):`, each followed by its indented binaries.
fn parse_tools(listed: &str) -> Vec<(String, String)> {
    let heads = listed.lines().filter(|l| !l.starts_with(' '));
    heads
        .filter_map(|line| {
            let mut words = line.trim_end_matches(':').split(' ');
            let name = words.next()?.to_owned();
            let version = words.next()?.trim_start_matches('v').to_owned();
            Some((name, version))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_tools_are_read() {
        let tools = parse_tools("bpf-linker v0.10.3:\n    bpf-linker\ncargo-deny v0.20.2:\n    cargo-deny\n");
        let want = [("bpf-linker", "0.10.3"), ("cargo-deny", "0.20.2")];
        assert_eq!(tools, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_is_there_is_not_installed_again() {
        // Every Debian has dpkg; on another system the query itself is missing.
        if process::is_installed("dpkg-query") {
            debian(&["dpkg"]).unwrap();
            assert!(!has_package("no-such-package-of-any-name"));
        }
    }
}
