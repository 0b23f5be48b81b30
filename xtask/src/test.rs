//! `cargo xtask test`: every test there is, with what they need installed first.
//!
//! Owns the order and the environment of the steps, none of the tests. A step that cannot run for want of
//! a privilege or a package says so and is counted as skipped where the machine cannot have it, as failed
//! where it should. Invariant: as root on Debian nothing is skipped.

use crate::steps::Steps;
use crate::{build_ebpf, fuzz, needs, process, run, schema};
use anyhow::Result;
use std::path::PathBuf;

/// Seconds for each fuzz target in a test run; a hunt is longer and is not a gate.
const FUZZ_SECONDS: u32 = 5;

/// Quick to build, quick enough to be put under load.
const E2E_PROFILE: &str = "test-release";

/// The linker of BPF objects; the committed object was made with this very version.
const BPF_LINKER: (&str, &str) = ("bpf-linker", "0.10.3");

#[derive(clap::Args)]
pub struct Options {
    /// Only the tests of cargo, without rebuilding the XDP object and without fuzzing
    #[arg(long)]
    quick: bool,
    /// Passed on to `cargo test`, for example a filter
    #[arg(last = true)]
    args: Vec<String>,
}

pub fn run(options: &Options) -> Result<()> {
    let mut steps = Steps::default();
    steps.run("build needs", || needs::debian(needs::BUILD));
    let everything = steps.run("test needs", || needs::debian(needs::TESTS));
    let mut python = None;
    steps.run("Python clients", || {
        python = Some(needs::python()?);
        Ok(())
    });
    if !process::is_root() {
        println!("not root: tests that load BPF programs or make network namespaces say so and are skipped");
    }
    let mut binary = None;
    steps.run("build the gateway for the end-to-end tests", || {
        binary = Some(run::build(E2E_PROFILE)?);
        Ok(())
    });
    let tests = Tests { binary, python, everything: everything && process::is_root() };
    steps.run("cargo test", || tests.workspace(&options.args));
    if !options.quick {
        rebuild_ebpf(&mut steps);
        steps.run("fuzz targets, a short run each", || fuzz::run(&fuzz::Options::all(FUZZ_SECONDS)));
        steps.run("schema", || schema::run(&schema::Options { check: true, profile: E2E_PROFILE.into() }));
        steps.run("quick start", || run::run(&run::Options::check()));
    }
    steps.finish()
}

/// What the test programs are told about this machine.
struct Tests {
    binary: Option<PathBuf>,
    python: Option<PathBuf>,
    everything: bool,
}

impl Tests {
    fn workspace(&self, args: &[String]) -> Result<()> {
        let mut command = process::cargo();
        // The loom model of the bucket is one of these: it takes seconds.
        command.args(["test", "--locked", "--workspace", "--exclude", "portcullis-ebpf", "--no-fail-fast"]);
        command.args(args);
        if let Some(binary) = &self.binary {
            command.env("PORTCULLIS_BIN", binary);
        }
        if let Some(python) = &self.python {
            command.env("PORTCULLIS_TESTS_PYTHON", python);
        }
        if self.everything {
            command.env("PORTCULLIS_TESTS_REQUIRE_ALL", "1");
            command.env("PORTCULLIS_REQUIRE_ROOT_TESTS", "1");
        }
        process::run(&mut command)
    }
}

/// Builds the XDP object again and compares it with the committed one, byte for byte.
fn rebuild_ebpf(steps: &mut Steps) {
    const NAME: &str = "XDP object rebuilt and compared";
    let tools = steps.run("BPF toolchain", || {
        needs::debian(needs::EBPF)?;
        needs::cargo_tool(BPF_LINKER.0, BPF_LINKER.1)
    });
    if tools {
        steps.run(NAME, || build_ebpf::run(&build_ebpf::Options { check: true, no_install: true }));
    } else {
        steps.skip(NAME, "no BPF toolchain; the committed object was used");
    }
}
