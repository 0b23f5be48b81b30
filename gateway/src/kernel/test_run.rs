//! The program on packets in memory (BPF_PROG_TEST_RUN), without an interface: for tests and benches.
//!
//! Loads the same object with maps of its own, unpinned. Nothing in the gateway uses it.

use std::path::Path;
use std::time::Duration;

use aya::maps::{MapData, PerCpuArray, PerCpuHashMap};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions};
use portcullis_abi::{PROGRAM, PROGRAM_FRAGS, PROGRAM_RANDOM_SOURCES, PROGRAM_SCRAMBLE_ONLY, flag, map};

use super::{Kernel, KernelError, Settings, attach, load, set_flag};

/// A program of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// What the gateway attaches.
    Product,
    /// The multi-buffer form of it.
    Frags,
    /// The product behind the scrambler of sources; see [`TestRun::random_sources`].
    RandomSources,
    /// The scrambler alone.
    ScrambleOnly,
}

impl Entry {
    const fn name(self) -> &'static str {
        match self {
            Entry::Product => PROGRAM,
            Entry::Frags => PROGRAM_FRAGS,
            Entry::RandomSources => PROGRAM_RANDOM_SOURCES,
            Entry::ScrambleOnly => PROGRAM_SCRAMBLE_ONLY,
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// XDP action of the last repetition.
    pub action: u32,
    /// Time of one repetition by the kernel's own clock, in whole ns; leaves out when it was preempted.
    pub each: Duration,
}

/// The loaded object.
pub struct TestRun {
    /// Lists, listeners, limits, table and counters, as in the gateway.
    pub kernel: Kernel,
}

impl TestRun {
    /// Loads the product alone. `settings.mode`, `interfaces` and `pin_root` do not matter.
    pub fn load(settings: &Settings) -> Result<TestRun, KernelError> {
        let mut loaded = load::load(settings, None)?;
        load::program(&mut loaded.ebpf, PROGRAM)?;
        Kernel::new(settings, loaded, attach::Links::unpinned()).map(|kernel| TestRun { kernel })
    }

    /// Loads one more program, as [`TestRun::run`] asks for any but the product. The verifier takes its time for each.
    pub fn also(&mut self, entry: Entry) -> Result<(), KernelError> {
        load::program(&mut self.kernel.ebpf, entry.name()).map(drop)
    }

    /// Runs one packet `repeat` times.
    pub fn run(&self, entry: Entry, packet: &[u8], repeat: u32) -> Result<Outcome, KernelError> {
        run(&self.kernel.ebpf, entry.name(), packet, repeat)
    }

    /// Runs one packet, and gives the action with the frame as the program left it.
    pub fn answer(&self, packet: &[u8]) -> Result<(u32, Vec<u8>), KernelError> {
        let program = program(&self.kernel.ebpf, PROGRAM)?;
        let mut out = vec![0; packet.len().max(64)];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            repeat: 1,
            ..Default::default()
        };
        let result = program.test_run(options).map_err(KernelError::program(PROGRAM))?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    /// Instructions that the verifier walked through to accept a program, of the million it allows; `None`
    /// before Linux 5.16, which does not tell.
    pub fn verified_instructions(&self, entry: Entry) -> Result<Option<u32>, KernelError> {
        let program = program(&self.kernel.ebpf, entry.name())?;
        let info = program.info().map_err(KernelError::program(entry.name()))?;
        Ok(info.verified_instruction_count())
    }

    /// Lets the scrambler give packets one of `mask + 1` sources (`mask` a row of ones), starting from `seed`.
    /// Loads the programs that do.
    pub fn random_sources(&mut self, mask: u32, seed: u64) -> Result<(), KernelError> {
        self.also(Entry::RandomSources)?;
        self.also(Entry::ScrambleOnly)?;
        let map =
            self.kernel.ebpf.map_mut(map::SCRAMBLER).ok_or(KernelError::Missing { name: map::SCRAMBLER })?;
        let mut scrambler: PerCpuArray<&mut MapData, [u64; 2]> =
            PerCpuArray::try_from(map).map_err(KernelError::map(map::SCRAMBLER))?;
        let cpus = scrambler.get(&0, 0).map_err(KernelError::map(map::SCRAMBLER))?.len() as u64;
        // Another start on each CPU, or all of them would send the same sources.
        let states: Vec<[u64; 2]> =
            (0..cpus).map(|cpu| [seed.wrapping_add(cpu << 40), mask.into()]).collect();
        let states = states.try_into().map_err(|source: std::io::Error| KernelError::Pin {
            doing: "setting",
            path: map::SCRAMBLER.into(),
            source,
        })?;
        scrambler.set(0, states, 0).map_err(KernelError::map(map::SCRAMBLER))?;
        set_flag(self.kernel.config, flag::RANDOM_SOURCES, true);
        Ok(())
    }

    /// Takes the exact clock whatever the limits allow, or the coarse one.
    pub fn coarse_clock(&self, on: bool) {
        set_flag(self.kernel.config, flag::COARSE_CLOCK, on);
    }
}

/// Another project's XDP program, to be measured beside ours.
pub struct Foreign {
    ebpf: Ebpf,
    program: &'static str,
}

impl Foreign {
    /// Loads `program` of the object at `path`. Maps that ask to be pinned are pinned in `pins`, a directory on
    /// bpffs, and unpinned at once.
    pub fn load(path: &Path, program: &'static str, pins: &Path) -> Result<Foreign, KernelError> {
        load::ensure_bpffs(pins)?;
        let loaded = EbpfLoader::new().default_map_pin_directory(pins).load_file(path);
        let removed = std::fs::remove_dir_all(pins);
        let mut ebpf = loaded.map_err(KernelError::load)?;
        removed.map_err(|source| KernelError::Pin { doing: "removing", path: pins.to_owned(), source })?;
        load::program(&mut ebpf, program)?;
        Ok(Foreign { ebpf, program })
    }

    /// Writes one entry of a per-CPU hash, the same value on every CPU.
    pub fn insert(&mut self, name: &'static str, key: u32, value: u64) -> Result<(), KernelError> {
        let map = self.ebpf.map_mut(name).ok_or(KernelError::Missing { name })?;
        let mut map: PerCpuHashMap<&mut MapData, u32, u64> =
            PerCpuHashMap::try_from(map).map_err(KernelError::map(name))?;
        let cpus = aya::util::nr_cpus().map_or(1, |cpus| cpus);
        let values = vec![value; cpus].try_into().map_err(|source: std::io::Error| KernelError::Pin {
            doing: "setting",
            path: name.into(),
            source,
        })?;
        map.insert(key, values, 0).map_err(KernelError::map(name))
    }

    /// Runs one packet `repeat` times.
    pub fn run(&self, packet: &[u8], repeat: u32) -> Result<Outcome, KernelError> {
        run(&self.ebpf, self.program, packet, repeat)
    }
}

fn program<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a Xdp, KernelError> {
    ebpf.program(name).and_then(|program| program.try_into().ok()).ok_or(KernelError::Missing { name })
}

fn run(ebpf: &Ebpf, name: &'static str, packet: &[u8], repeat: u32) -> Result<Outcome, KernelError> {
    let program = program(ebpf, name)?;
    let options = TestRunOptions { data_in: Some(packet), repeat, ..Default::default() };
    let result = program.test_run(options).map_err(KernelError::program(name))?;
    Ok(Outcome { action: result.return_value, each: result.duration })
}
