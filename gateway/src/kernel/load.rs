//! From the embedded object to a loaded program: pins, map sizes, the per-boot secret.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData, MapError, MapInfo};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use portcullis_abi::{
    Config, GOOD_HITS, GoodHit, GoodKey, LAYOUT_VERSION, ListenerKey, PortTable, Reason, STEER_CORES,
    STEER_GROUPS, Set, TOP_WORDS, Tally, map,
};

use super::{KernelError, Settings, mmap, sys};

/// ELF reads need alignment; `include_bytes!` alone promises none.
#[repr(C, align(32))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("PORTCULLIS_BPF_OBJECT")));

/// Sets of the table: at least one page of the map, at most 2 GiB.
const SETS_MIN: usize = 32;
const SETS_MAX: usize = 1 << 24;

/// What a map must look like to be taken over from an earlier run.
struct Shape {
    name: &'static str,
    key: usize,
    value: usize,
    entries: u32,
}

fn shapes(settings: &Settings) -> [Shape; 11] {
    let shape = |name, key, value, entries| Shape { name, key, value, entries };
    [
        shape(map::CONFIG, 4, size_of::<Config>(), 1),
        shape(map::BUCKETS, 4, size_of::<Set>(), sets(settings) as u32),
        shape(map::COUNTERS, 4, size_of::<Tally>(), Reason::KERNEL_COUNT as u32 + 1),
        shape(map::KNOWN_GOOD, size_of::<GoodKey>(), size_of::<GoodHit>(), GOOD_HITS),
        shape(map::PORTS, 4, size_of::<PortTable>(), 2),
        shape(map::LISTENERS, size_of::<ListenerKey>(), 4, settings.listeners_max),
        shape(map::RULES_V4, 8, 4, settings.prefixes_max),
        shape(map::RULES_V6, 20, 4, settings.prefixes_max),
        shape(map::TOP_V4, 4, 8, TOP_WORDS),
        shape(map::STEER_GROUP, size_of::<ListenerKey>(), 4, STEER_GROUPS),
        shape(map::STEER_SOCKETS, 4, 4, STEER_GROUPS * STEER_CORES),
    ]
}

pub(super) fn sets(settings: &Settings) -> usize {
    settings.sets.clamp(SETS_MIN, SETS_MAX).next_power_of_two()
}

/// Slots for SYNs of unknown sources: four for each source that the table can hold, 8 to 32 MiB. A flood overwrites them
/// at random; with 32 MiB and a million SYNs a second, four of five are there when the first retransmission comes after
/// a second.
pub(super) fn retries(settings: &Settings) -> u32 {
    ((sets(settings) * portcullis_abi::WAYS * 4) as u32).clamp(1 << 20, 1 << 22)
}

/// Where maps are pinned.
pub(super) struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// Makes the directory, and clears it if what is pinned there does not fit: another layout, other sizes.
    pub(super) fn prepare(settings: &Settings) -> Result<Pins, KernelError> {
        let root = &settings.pin_root;
        ensure_bpffs(root)?;
        let directory = root.join(format!("v{LAYOUT_VERSION}"));
        make_directory(&directory)?;
        clear_other_layouts(root, &directory);
        if let Some(misfit) = misfit(&directory, settings) {
            tracing::warn!(
                directory = %directory.display(),
                "pinned BPF maps do not fit and are replaced; buckets, bans and counters start anew: {misfit}"
            );
            unpin_all(&directory)?;
        }
        Ok(Pins { directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// A file system for pins at or above `root`, mounted if there is none and it may be.
pub(super) fn ensure_bpffs(root: &Path) -> Result<(), KernelError> {
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let fail = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| KernelError::Pin { doing, path, source }
    };
    if !sys::is_bpffs(existing).map_err(fail("looking at", existing))? {
        // Only the usual place is mounted on: anything else may be a mistyped path.
        let usual = Path::new("/sys/fs/bpf");
        if !root.starts_with(usual) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not on a BPF file system");
            return Err(fail("pinning under", root)(source));
        }
        sys::mount_bpffs(usual).map_err(fail("mounting bpffs on", usual))?;
        tracing::info!("mounted bpffs on /sys/fs/bpf");
    }
    make_directory(root)
}

pub(super) fn make_directory(path: &Path) -> Result<(), KernelError> {
    fs::create_dir_all(path).map_err(|source| KernelError::Pin { doing: "making", path: path.into(), source })
}

/// Maps of another layout version are of no use to this program, and of none to an older one either: its
/// counters and buckets have stopped. They go once their directory is found.
fn clear_other_layouts(root: &Path, ours: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_layout = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.strip_prefix('v').is_some_and(|version| version.parse::<u32>().is_ok()));
        if is_layout && path != ours && unpin_all(&path).is_ok() && fs::remove_dir(&path).is_ok() {
            tracing::warn!(directory = %path.display(), "removed pinned BPF maps of another layout version");
        }
    }
}

/// Why the pinned maps cannot be used, if they cannot. A missing map is fine only if all are missing: half a
/// set would mix old buckets with a new secret.
fn misfit(directory: &Path, settings: &Settings) -> Option<String> {
    let shapes = shapes(settings);
    let found = shapes.iter().filter(|shape| directory.join(shape.name).exists()).count();
    if found == 0 {
        return None;
    }
    if found < shapes.len() {
        return Some(format!("only {found} of {} maps are there", shapes.len()));
    }
    for Shape { name, key, value, entries } in shapes {
        let info = match MapInfo::from_pin(directory.join(name)) {
            Ok(info) => info,
            Err(error) => return Some(format!("{name}: {error}")),
        };
        let seen = (info.key_size() as usize, info.value_size() as usize, info.max_entries());
        if seen != (key, value, entries) {
            return Some(format!(
                "{name} has (key, value, entries) {seen:?}, wanted {:?}",
                (key, value, entries)
            ));
        }
    }
    let config = MapData::from_pin(directory.join(map::CONFIG)).ok()?;
    match mmap::read_identity(config.fd().as_fd()).map(|identity| layout_of(&identity)) {
        Err(error) => Some(format!("{}: {error}", map::CONFIG)),
        // Layout 0 is a map whose maker died before it wrote its identity: `load` will.
        Ok(0 | LAYOUT_VERSION) => None,
        Ok(layout) => Some(format!("they say layout {layout} instead of {LAYOUT_VERSION}")),
    }
}

fn unpin_all(directory: &Path) -> Result<(), KernelError> {
    let fail = |source| KernelError::Pin { doing: "removing pins in", path: directory.into(), source };
    for entry in fs::read_dir(directory).map_err(fail)? {
        fs::remove_file(entry.map_err(fail)?.path()).map_err(fail)?;
    }
    Ok(())
}

/// The loaded object.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) config: &'static Config,
    pub(super) table: &'static [Set],
    /// Whether the maps were there before.
    pub(super) adopted: bool,
}

/// Loads maps (no program yet). Without `pins` they live as long as the process.
pub(super) fn load(settings: &Settings, pins: Option<&Pins>) -> Result<Loaded, KernelError> {
    let shapes = shapes(settings);
    let mut loader = EbpfLoader::new();
    loader.override_global(aya_log::LEVEL, &settings.log_level, false);
    for shape in &shapes {
        loader.map_max_entries(shape.name, shape.entries);
        if let Some(pins) = pins {
            loader.map_pin_path(shape.name, pins.path(shape.name));
        }
    }
    loader.map_max_entries(map::RETRIES, retries(settings));
    if settings.log_level == 0 {
        // Nobody reads it then; one page is the least the kernel takes.
        loader.map_max_entries(map::LOGS, 4096);
    }
    let ebpf = loader.load(&OBJECT.0).map_err(KernelError::load)?;

    let sets = sets(settings);
    let fd_of = |name: &'static str| match ebpf.map(name) {
        Some(Map::Array(data)) => Ok(data.fd().as_fd()),
        _ => Err(KernelError::Missing { name }),
    };
    let fail = |map| move |source| KernelError::Mmap { map, source };
    let config_fd = fd_of(map::CONFIG)?;
    let identity = mmap::read_identity(config_fd).map_err(fail(map::CONFIG))?;
    let adopted = layout_of(&identity) == LAYOUT_VERSION;
    if !adopted {
        mmap::write_identity(config_fd, new_identity(sets)?).map_err(fail(map::CONFIG))?;
    }
    let config = mmap::config(config_fd).map_err(fail(map::CONFIG))?;
    let table = mmap::table(fd_of(map::BUCKETS)?, sets).map_err(fail(map::BUCKETS))?;
    Ok(Loaded { ebpf, config, table, adopted })
}

fn layout_of(identity: &[u8; mmap::IDENTITY_SIZE]) -> u32 {
    let [a, b, c, d, ..] = *identity;
    u32::from_ne_bytes([a, b, c, d])
}

/// Layout, sets and a fresh secret, as the leading bytes of a `Config`.
fn new_identity(sets: usize) -> Result<[u8; mmap::IDENTITY_SIZE], KernelError> {
    let mut identity = [0; mmap::IDENTITY_SIZE];
    let (head, secret) = identity.split_at_mut(8);
    head[..4].copy_from_slice(&LAYOUT_VERSION.to_ne_bytes());
    head[4..].copy_from_slice(&(sets as u32).to_ne_bytes());
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(secret))
        .map_err(KernelError::Random)?;
    Ok(identity)
}

/// Loads one program of the object into the kernel.
pub(super) fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, KernelError> {
    let program: &mut Xdp = ebpf
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(KernelError::Missing { name })?;
    // Loading twice is a caller's convenience (attach after a failed attach), not an error.
    if program.fd().is_err() {
        program.load().map_err(KernelError::program(name))?;
    }
    Ok(program)
}

/// A map by its type.
pub(super) fn typed<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, KernelError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(KernelError::Missing { name })?;
    M::try_from(map).map_err(KernelError::map(name))
}
