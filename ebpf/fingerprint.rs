//! What the bytes of the BPF object depend on, hashed: included by `gateway/build.rs`, which refuses a
//! stale object, and by `cargo xtask build-ebpf`, which makes a fresh one.
//!
//! Not the whole lock file: only the packages that are compiled into the object, so that a bump of anything
//! else leaves it fresh. Not the root manifest either: the build sets its own profile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Where the object and its sidecar lie, from the root of the repository.
pub const OBJECT: &str = "ebpf/prebuilt/portcullis.bpf.o";
/// See [`OBJECT`].
pub const SIDECAR: &str = "ebpf/prebuilt/portcullis.bpf.toml";

/// The package that is built.
pub const PACKAGE: &str = "portcullis-ebpf";

/// Files and folders compiled into the object. Manifests count for their dependencies and features.
const SOURCES: [&str; 4] = ["ebpf/src", "ebpf/Cargo.toml", "ebpf/abi/src", "ebpf/abi/Cargo.toml"];

/// Code generation. CPU v3 has compare-exchange (Linux 5.12). aya-ebpf wants to be told the architecture
/// whose register layout it should know; nothing here reads registers, so one object serves all
/// little-endian machines.
pub const RUSTFLAGS: [&str; 5] = [
    "--cfg=bpf_target_arch=\"x86_64\"",
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Ctarget-cpu=v3",
    "-Clinker=bpf-linker",
];

/// The profile, in full, so that nothing in the root manifest reaches the object.
pub const PROFILE: [&str; 9] = [
    "profile.bpf.inherits=\"release\"",
    "profile.bpf.opt-level=3",
    "profile.bpf.lto=true",
    "profile.bpf.codegen-units=1",
    "profile.bpf.panic=\"abort\"",
    "profile.bpf.debug=2",
    "profile.bpf.strip=\"none\"",
    "profile.bpf.debug-assertions=false",
    "profile.bpf.overflow-checks=false",
];

/// What objcopy takes out. DWARF is ten times the program, and line numbers (.BTF.ext) are twice it; types
/// (.BTF), by which bpftool shows map values, stay.
pub const STRIP: [&str; 3] = ["--strip-debug", "--remove-section=.BTF.ext", "--remove-section=.rel.BTF.ext"];

/// SHA-256 of everything the object is made from, in hex.
pub fn inputs(root: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut add = |name: &str, content: &[u8]| {
        for part in [name.as_bytes(), content] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    };
    for path in sources(root)? {
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        add(&name, &fs::read(&path)?);
    }
    add("Cargo.lock", locked(&fs::read_to_string(root.join("Cargo.lock"))?).join("\n").as_bytes());
    add("rustflags", RUSTFLAGS.join("\n").as_bytes());
    add("profile", PROFILE.join("\n").as_bytes());
    add("strip", STRIP.join("\n").as_bytes());
    Ok(hex(hasher))
}

/// SHA-256 of a file's bytes, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(bytes);
    hex(hasher)
}

/// The files of [`SOURCES`], sorted.
pub fn sources(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut pending: Vec<PathBuf> = SOURCES.iter().map(|source| root.join(source)).collect();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// One `key = "value"` of the sidecar.
pub fn sidecar_value<'a>(sidecar: &'a str, key: &str) -> Option<&'a str> {
    sidecar.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches('"'))
    })
}

/// Name, version and checksum of each package that [`PACKAGE`] is compiled from, sorted. The abi package is a
/// leaf: what the lock file lists below it is for its tests and for the gateway.
fn locked(lock: &str) -> Vec<String> {
    let mut packages: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    for block in lock.split("[[package]]").skip(1) {
        let field = |key: &str| sidecar_value(block, key).unwrap_or_default().to_owned();
        let dependencies = match block.split_once("dependencies = [") {
            Some((_, list)) => list
                .split(']')
                .next()
                .unwrap_or_default()
                .lines()
                .map(|line| line.trim().trim_end_matches(',').trim_matches('"').to_owned())
                .filter(|line| !line.is_empty())
                .collect(),
            None => Vec::new(),
        };
        let (name, version) = (field("name"), field("version"));
        let line = format!("{name} {version} {}", field("checksum"));
        // A dependency is named alone, or with its version where the lock file has several.
        packages.insert(format!("{name} {version}"), (line.clone(), dependencies.clone()));
        packages.entry(name).or_insert((line, dependencies));
    }
    let mut found = BTreeSet::new();
    let mut pending = vec![PACKAGE.to_owned()];
    while let Some(name) = pending.pop() {
        let Some((line, dependencies)) = packages.get(&name) else { continue };
        if found.insert(line.clone()) && !name.starts_with("portcullis-abi") {
            pending.extend(dependencies.iter().cloned());
        }
    }
    found.into_iter().collect()
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
