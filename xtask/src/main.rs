//! The project's own commands; one file each.

mod build_ebpf;

use clap::Parser;

#[derive(Parser)]
enum Task {
    /// Build the XDP program, or check the committed object
    BuildEbpf(build_ebpf::Options),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::BuildEbpf(options) => build_ebpf::run(&options),
    }
}
