//! `cargo xtask test-kernels`: the packet and namespace tests of the committed XDP object on other kernels.
//!
//! Debian's kernels of the series that people run, each in a virtual machine with a file system in memory that holds the
//! test programs and nothing else. Emulated, since the machine of a build seldom has KVM to give: minutes a kernel, so it
//! is no part of `cargo xtask test`. Owns the machine and what is in it, none of the tests. Invariant: a kernel passes
//! only when each test program said so itself.

mod archive;

use crate::{needs, process, steps::Steps};
use anyhow::{Context, Result, bail, ensure};
use archive::Archive;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Test programs that bring their own BPF programs and need nothing but a kernel.
const TESTS: [&str; 4] = ["kernel_steering", "kernel_sources", "kernel_packets", "kernel_netns"];

/// Tests that are left out: one starts the gateway, the others send millions of packets, which an emulated machine does for
/// hours.
const SKIPPED: [&str; 3] =
    ["an_upgrade_under_load_refuses_and_resets_nobody", "a_spoofed_flood", "concurrent_charges_are_exact"];

/// Programs of this machine that a guest gets, besides the tests.
const PROGRAMS: [&str; 1] = ["ip"];

/// Modules that the tests need, in the order in which they are loaded.
const MODULES: [&str; 1] = ["drivers/net/veth.ko"];

const PACKAGES: &[&str] = &["qemu-system-x86", "busybox-static", "iproute2", "xz-utils", "binutils"];

#[derive(clap::Args)]
pub struct Options {
    /// Series of Debian kernels, or whole versions
    #[arg(long, value_delimiter = ',', default_value = "6.1,6.12")]
    kernels: Vec<String>,
    /// Test programs to run
    #[arg(long, value_delimiter = ',', default_values_t = TESTS.map(ToOwned::to_owned))]
    tests: Vec<String>,
    /// Use KVM instead of emulation
    #[arg(long)]
    kvm: bool,
    /// Minutes after which a guest is ended, and has failed
    #[arg(long, default_value_t = 15)]
    minutes: u32,
    /// Passed on to the test programs, for example a filter
    #[arg(last = true)]
    args: Vec<String>,
}

pub fn run(options: &Options) -> Result<()> {
    needs::debian(PACKAGES)?;
    let folder = process::target_dir().join("kernels");
    std::fs::create_dir_all(&folder)?;
    let tests = build(&options.tests, &folder)?;
    let mut steps = Steps::default();
    for series in &options.kernels {
        steps.run(&format!("Linux {series}"), || {
            let kernel = Kernel::fetch(series, &folder)?;
            boot(&kernel, &tests, options, &folder)
        });
    }
    steps.finish()
}

/// Builds the test programs; gives them without what only a debugger reads.
fn build(names: &[String], folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut command = process::cargo();
    command.args(["test", "--locked", "--package", "portcullis-tests", "--no-run", "--message-format=json"]);
    for name in names {
        command.args(["--test", name]);
    }
    println!("$ {}", process::describe(&command));
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the test programs do not build");
    let told = String::from_utf8(output.stdout)?;
    let mut programs = Vec::new();
    for message in told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let name = message["target"]["name"].as_str().unwrap_or_default();
        let Some(program) = message["executable"].as_str().filter(|_| names.iter().any(|n| n == name)) else {
            continue;
        };
        let stripped = folder.join(name);
        process::run(Command::new("strip").args(["--strip-debug", program, "-o"]).arg(&stripped))?;
        programs.push((name.to_owned(), stripped));
    }
    ensure!(programs.len() == names.len(), "cargo built {} of {} programs", programs.len(), names.len());
    // As asked for, not as cargo came to them: the slowest is the last to be begun.
    programs.sort_by_key(|(name, _)| names.iter().position(|n| n == name));
    Ok(programs)
}

/// A kernel of Debian, unpacked.
struct Kernel {
    image: PathBuf,
    modules: Vec<PathBuf>,
}

impl Kernel {
    /// The newest of a series that apt offers. What was fetched before is not fetched again.
    fn fetch(series: &str, folder: &Path) -> Result<Kernel> {
        let package = newest(series)?;
        let unpacked = folder.join(&package);
        if !unpacked.exists() {
            let fresh = folder.join("new");
            let _ = std::fs::remove_dir_all(&fresh);
            std::fs::create_dir_all(&fresh)?;
            process::run_with_retries(|| {
                let mut command = Command::new("apt-get");
                command.args(["download", "-q", &package]).current_dir(&fresh);
                command
            })?;
            let archive = only(&fresh, |name| name.ends_with(".deb"))?;
            process::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&fresh))?;
            std::fs::remove_file(&archive)?;
            std::fs::rename(&fresh, &unpacked)?;
        }
        let image = only(&unpacked.join("boot"), |name| name.starts_with("vmlinuz-"))?;
        let release = only(&unpacked.join("lib/modules"), |_| true)?.join("kernel");
        let modules = MODULES.iter().map(|module| plain_module(&release.join(module)));
        Ok(Kernel { image, modules: modules.collect::<Result<_>>()? })
    }
}

/// The package of a series with the highest version; those for machines in the cloud are the smallest.
fn newest(series: &str) -> Result<String> {
    let pattern = format!("^linux-image-{}[.][0-9.]+.*-cloud-amd64(-unsigned)?$", series.replace('.', "[.]"));
    let listed = process::output("apt-cache", ["search", "--names-only", &pattern], Path::new("/"))?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    let newest = names.max_by_key(|name| numbers(name));
    newest
        .map(ToOwned::to_owned)
        .with_context(|| format!("apt offers no kernel of the series {series}: `apt-get update` may help"))
}

/// The numbers in a name, by which versions compare.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Newer kernels come with compressed modules, which only the real insmod can read.
fn plain_module(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path.to_owned());
    }
    let mut compressed = path.as_os_str().to_owned();
    compressed.push(".xz");
    process::run(Command::new("xz").args(["--decompress", "--keep"]).arg(&compressed))?;
    Ok(path.to_owned())
}

/// The one entry of a folder that `wanted` takes.
fn only(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut found = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(&wanted));
    let first = found.next().with_context(|| format!("nothing of use in {}", folder.display()))?;
    ensure!(found.next().is_none(), "more than one in {}", folder.display());
    Ok(first.path())
}

fn boot(kernel: &Kernel, tests: &[(String, PathBuf)], options: &Options, folder: &Path) -> Result<()> {
    let disk = folder.join("initrd");
    std::fs::write(&disk, file_system(kernel, tests, &options.args)?)?;
    let mut command = Command::new("timeout");
    command.args([&format!("{}m", options.minutes), "qemu-system-x86_64"]);
    command.args(match options.kvm {
        true => ["-accel", "kvm", "-cpu", "host"],
        false => ["-accel", "tcg,thread=multi", "-cpu", "qemu64"],
    });
    command.args(["-m", "2G", "-smp", "2", "-nographic", "-no-reboot", "-nic", "none"]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&disk);
    command.args(["-append", "console=ttyS0 quiet panic=-1"]);
    println!("$ {}", process::describe(&command));
    let (told, status) = listen(&mut command)?;
    // The firmware's last words, which clear a screen, are on the line on which the guest begins.
    let lines: Vec<&str> = told.lines().skip_while(|line| !line.contains(BOOTED)).collect();
    ensure!(!lines.is_empty(), "the kernel did not come up: {}", told.trim());
    print!("{}", table(&lines, &options.tests));
    if status.code() == Some(TIMED_OUT) {
        bail!("not done after {} minutes", options.minutes);
    }
    verdict(&lines, &options.tests)
}

/// Runs a machine to its end and prints what its guest says when it says so: it takes minutes.
fn listen(command: &mut Command) -> Result<(String, ExitStatus)> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut machine = spawned.context("cannot start qemu")?;
    let serial = machine.stdout.take().context("a pipe")?;
    let (mut told, mut booted) = (String::new(), false);
    for line in BufReader::new(serial).split(b'\n') {
        let line = line.context("the serial line")?;
        let line = String::from_utf8_lossy(&line);
        booted |= line.contains(BOOTED);
        if booted {
            println!("  {}", line.trim_end());
        }
        told.push_str(line.trim_end());
        told.push('\n');
    }
    Ok((told, machine.wait()?))
}

/// Words of the guest.
const BOOTED: &str = "guest runs Linux";
const BEGINS: &str = "guest begins ";
const PASSED: &str = "guest passed ";
const ENDED: &str = "guest ended ";

/// What timeout(1) exits with when it ended its command.
const TIMED_OUT: i32 = 124;

/// What became of each test program: tests that passed, failed, and seconds by the guest's clock.
fn table(lines: &[&str], tests: &[String]) -> String {
    let kernel = lines.first().and_then(|line| line.split(BOOTED).nth(1)).unwrap_or_default();
    let mut table =
        format!("\nLinux{kernel}\n\n| program | passed | failed | seconds |\n|---|---:|---:|---:|\n");
    for test in tests {
        let begin = format!("{BEGINS}{test} ");
        let mut own = lines.iter().skip_while(|line| !line.starts_with(&begin));
        let seconds = |line: &str| line.rsplit(' ').next().and_then(|word| word.parse::<f64>().ok());
        let Some(begun) = own.next().and_then(|line| seconds(line)) else {
            table += &format!("| {test} | not begun | | |\n");
            continue;
        };
        let (mut passed, mut failed, mut ended) = (0, 0, None);
        for line in own.take_while(|line| !line.starts_with(BEGINS)) {
            // With two threads, a test may print between its name and its result.
            passed += u32::from(line.ends_with("... ok") || *line == "ok");
            failed += u32::from(line.ends_with("... FAILED") || *line == "FAILED");
            ended = ended.or(line.strip_prefix(ENDED).and_then(seconds));
        }
        let took = ended.map_or("not ended".to_owned(), |ended| format!("{:.0}", ended - begun));
        table += &format!("| {test} | {passed} | {failed} | {took} |\n");
    }
    table
}

/// Every program has to have said that it passed.
fn verdict(lines: &[&str], tests: &[String]) -> Result<()> {
    let passed: BTreeSet<&str> = lines.iter().filter_map(|line| line.strip_prefix(PASSED)).collect();
    let without: Vec<&str> = tests.iter().map(String::as_str).filter(|test| !passed.contains(test)).collect();
    if !without.is_empty() {
        bail!("not passed: {}", without.join(", "));
    }
    Ok(())
}

fn file_system(kernel: &Kernel, tests: &[(String, PathBuf)], args: &[String]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    ["proc", "sys", "dev", "run", "tmp"].iter().for_each(|folder| archive.folder(folder));
    archive.copy("bin/busybox", Path::new("/bin/busybox"))?;
    let mut libraries = BTreeSet::new();
    for (name, path) in tests {
        archive.copy(&format!("tests/{name}"), path)?;
        libraries.extend(libraries_of(path)?);
    }
    for name in PROGRAMS {
        let path = located(name)?;
        archive.copy(&format!("programs/{name}"), &path)?;
        libraries.extend(libraries_of(&path)?);
    }
    for library in libraries {
        archive.copy(library.trim_start_matches('/'), Path::new(&library))?;
    }
    for (at, module) in kernel.modules.iter().enumerate() {
        archive.copy(&format!("modules/{at}.ko"), module)?;
    }
    let names: Vec<&str> = tests.iter().map(|(name, _)| name.as_str()).collect();
    archive.file("init", init(&names, args).as_bytes());
    Ok(archive.finish())
}

/// The first program of a guest.
fn init(tests: &[&str], args: &[String]) -> String {
    let skipped = SKIPPED.iter().flat_map(|test| ["--skip", test]);
    let words = skipped.chain(args.iter().map(String::as_str));
    let quoted = words.map(|word| format!(" '{}'", word.replace('\'', r"'\''"))).collect::<String>();
    format!(
        "#!/bin/busybox sh\n\
         /bin/busybox mkdir -p /commands\n\
         /bin/busybox --install -s /commands\n\
         export PATH=/programs:/commands PORTCULLIS_REQUIRE_ROOT_TESTS=1\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sys /sys\n\
         mount -t devtmpfs dev /dev\n\
         mount -t tmpfs run /run\n\
         mount -t tmpfs tmp /tmp\n\
         ip link set lo up\n\
         echo \"{BOOTED} $(uname -r)\"\n\
         for module in /modules/*.ko; do insmod $module; done\n\
         for test in {}; do\n\
         echo \"{BEGINS}$test $(cut -d ' ' -f 1 /proc/uptime)\"\n\
         /tests/$test --test-threads 2{quoted} && echo \"{PASSED}$test\"\n\
         echo \"{ENDED}$test $(cut -d ' ' -f 1 /proc/uptime)\"\n\
         done\n\
         poweroff -f\n",
        tests.join(" ")
    )
}

fn located(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file()).context(program.to_owned())
}

/// Shared libraries of a program, and what loads them.
fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let listed = process::output("ldd", [program], Path::new("/"))?;
    let words = listed.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(ToOwned::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_is_the_newest() {
        let names = ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64-unsigned"];
        assert_eq!(names.into_iter().max_by_key(|name| numbers(name)), Some(names[1]));
        assert!(numbers("linux-image-6.12.111+deb12-cloud-amd64") > numbers("linux-image-6.12.94-cloud"));
    }

    #[test]
    fn a_program_that_says_nothing_has_not_passed() {
        let tests = ["a".to_owned(), "b".to_owned()];
        assert!(verdict(&["guest passed a", "guest passed b"], &tests).is_ok());
        let error = verdict(&["guest passed a", "test result: ok"], &tests).unwrap_err();
        assert_eq!(error.to_string(), "not passed: b");
    }

    #[test]
    fn the_table_says_what_became_of_each_program() {
        let lines = [
            "\u{1b}[2Jguest runs Linux 6.1.0",
            "guest begins a 2.50",
            "test one ... ok",
            "test two ... FAILED",
            "guest ended a 14.25",
            "guest begins b 14.30",
            "test three ... ok",
        ];
        let tests = ["a", "b", "c"].map(str::to_owned);
        let table = table(&lines, &tests);
        assert!(table.starts_with("\nLinux 6.1.0\n"), "{table}");
        assert!(table.contains("| a | 1 | 1 | 12 |"), "{table}");
        assert!(table.contains("| b | 1 | 0 | not ended |"), "{table}");
        assert!(table.contains("| c | not begun | | |"), "{table}");
    }

    #[test]
    fn words_for_the_tests_reach_them_whole() {
        let script = init(&["a"], &["it's".to_owned()]);
        assert!(script.contains(r" 'it'\''s' && "), "{script}");
    }
}
