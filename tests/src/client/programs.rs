//! Real clients as child processes: curl, Python (requests, httpx), Node's fetch, openssl.
//!
//! A program that is absent makes the test print why and return, unless
//! `PORTCULLIS_TESTS_REQUIRE_ALL=1`, which turns the absence into a failure. Scripts live in
//! `tests/clients/`; each takes its arguments on the command line, prints one JSON object and
//! exits 0, or prints what went wrong and exits 1.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::gateway::target_dirs;

/// Whether a test may be skipped for want of a program.
fn must_run_all() -> bool {
    std::env::var("PORTCULLIS_TESTS_REQUIRE_ALL").is_ok_and(|value| value == "1")
}

/// Prints why a test does not run.
///
/// # Panics
/// When everything is required to run.
pub fn skip(reason: &str) {
    assert!(!must_run_all(), "PORTCULLIS_TESTS_REQUIRE_ALL=1, but {reason}");
    eprintln!("skipped: {reason}");
}

fn runs(program: &Path, args: &[&str]) -> bool {
    let quiet = Command::new(program).args(args).stdin(Stdio::null()).output();
    quiet.is_ok_and(|output| output.status.success())
}

/// curl, or `None` after saying why not.
pub fn curl() -> Option<Command> {
    found(Path::new("curl"), &["--version"], "curl is not installed").map(|mut command| {
        command.args(["--silent", "--show-error", "--max-time", "30", "--noproxy", "*"]);
        command
    })
}

/// openssl, or `None` after saying why not.
pub fn openssl() -> Option<Command> {
    found(Path::new("openssl"), &["version"], "openssl is not installed")
}

/// Any Python 3 running a script of `tests/clients/`, or `None` after saying why not.
pub fn python(script: &str) -> Option<Command> {
    let python = interpreter().unwrap_or_else(|| PathBuf::from("python3"));
    with_script(found(&python, &["--version"], "python3 is not installed"), script)
}

/// A Python that can import `module`, running a script of `tests/clients/`.
pub fn python_with(module: &str, script: &str) -> Option<Command> {
    let Some(python) = interpreter() else {
        skip(&format!("no Python with {module}: run `cargo xtask test`, which makes one under target/"));
        return None;
    };
    let import = format!("import {module}");
    with_script(found(&python, &["-c", &import], &format!("{} lacks {module}", python.display())), script)
}

/// Node with fetch, running a script of `tests/clients/`, or `None` after saying why not.
pub fn node(script: &str) -> Option<Command> {
    with_script(found(Path::new("node"), &["-e", "fetch"], "node 18 or newer is not installed"), script)
}

/// The interpreter of the tests' virtual environment: `PORTCULLIS_TESTS_PYTHON`, or the one that
/// `cargo xtask test` makes under the target directory.
fn interpreter() -> Option<PathBuf> {
    if let Ok(given) = std::env::var("PORTCULLIS_TESTS_PYTHON") {
        return Some(PathBuf::from(given));
    }
    let mut candidates = target_dirs().into_iter().map(|dir| dir.join("venv").join("bin").join("python3"));
    candidates.find(|path| path.exists())
}

fn found(program: &Path, probe: &[&str], absent: &str) -> Option<Command> {
    if runs(program, probe) {
        return Some(Command::new(program));
    }
    skip(absent);
    None
}

fn with_script(command: Option<Command>, script: &str) -> Option<Command> {
    command.map(|mut command| {
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script));
        command
    })
}

/// Runs a command to its end and asserts that it succeeded.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs a script of `tests/clients/` and parses the JSON object that it prints.
#[track_caller]
pub fn run_json(command: &mut Command) -> serde_json::Value {
    let output = run(command);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

/// Runs a command with `input` on its standard input, whatever its exit code.
#[track_caller]
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that exits early closes its input; what it printed says more than the error.
    drop(stdin.write_all(input));
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}
