//! Running other programs: the one place that spawns, so that every command is printed before it runs
//! and every failure names it.
//!
//! Owns paths of the checkout too. Never swallows an exit code. Invariant: what `run` prints can be
//! pasted into a shell.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Tries a download gets before it counts as failed; registries and mirrors hiccup.
const DOWNLOAD_TRIES: u32 = 4;

/// The root of the checkout.
pub fn root() -> PathBuf {
    // Cargo sets the variable for the program that it runs; the compiled-in path serves a direct start.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let manifest = manifest.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    manifest.parent().map(Path::to_path_buf).unwrap_or(manifest)
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// cargo, in the root of the checkout; rustup picks the toolchain that runs this.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root());
    command
}

/// Runs to the end with the terminal's own output; an exit code other than 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    println!("$ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Runs something that downloads: a few tries, with growing pauses.
pub fn run_with_retries(mut make: impl FnMut() -> Command) -> Result<()> {
    let mut tried = 1;
    loop {
        match run(&mut make()) {
            Ok(()) => return Ok(()),
            Err(error) if tried >= DOWNLOAD_TRIES => return Err(error),
            Err(error) => println!("{error:#}; trying again ({tried} of {})", DOWNLOAD_TRIES - 1),
        }
        pause(Duration::from_secs(5 * u64::from(tried)));
        tried += 1;
    }
}

/// What a program prints on standard output.
pub fn output<A: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = A>,
    dir: &Path,
) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).stderr(Stdio::inherit());
    let line = describe(&command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` ended with {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed something that is not UTF-8"))
}

/// True where a program of this name is on the path.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// True for the user who may install packages and load BPF programs.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_uid(&status) == Some(0)
}

/// Waits; the commands here have a thread to spare.
#[allow(clippy::disallowed_methods, reason = "a development command has no shard to stop")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// `1 finding`, `2 findings`.
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// The command as one would type it in a shell.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quote).collect::<Vec<_>>().join(" ")
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The second number of the `Uid:` line (proc(5): real, effective, saved, file system).
fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|l| l.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_can_be_pasted() {
        let mut command = Command::new("curl");
        command.args(["-H", "apikey: it's", "", "http://127.0.0.1:80/"]);
        assert_eq!(describe(&command), r"curl -H 'apikey: it'\''s' '' http://127.0.0.1:80/");
    }

    #[test]
    fn the_effective_user_counts() {
        assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some(0));
        assert_eq!(effective_uid("Name:\tx\n"), None);
    }

    #[test]
    fn a_failing_command_is_named() {
        let error = run(Command::new("false").arg("x")).unwrap_err().to_string();
        assert!(error.starts_with("`false x` ended with"), "{error}");
    }

    #[test]
    fn nouns_agree() {
        assert_eq!([count(1, "file"), count(0, "file")], ["1 file", "0 files"]);
    }
}
