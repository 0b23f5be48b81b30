//! `cargo xtask build-ebpf`: builds the XDP program reproducibly, or checks that the committed object is
//! what these sources give.
//!
//! The BPF target is tier 3: `core` is compiled from source, by the compiler that the source belongs to. Two
//! toolchains are known to have both: Debian's rustc-web with rust-web-src, and rustup's nightly with
//! rust-src. The bytes depend on the compiler, so the sidecar names it, and `--check` insists on it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

#[path = "../../ebpf/fingerprint.rs"]
mod fingerprint;

/// Links the bitcode of all crates into one BPF object. Its version is part of the bytes.
const LINKER_VERSION: &str = "0.10.3";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// Options of the subcommand.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Build into a temporary folder and compare with the committed object; change nothing
    #[arg(long)]
    pub check: bool,
    /// Install nothing; fail and say what is missing
    #[arg(long)]
    pub no_install: bool,
}

/// Builds, then writes the object and its sidecar, or compares.
pub fn run(options: &Options) -> Result<()> {
    let root = root()?;
    let tools = Tools::find(!options.no_install)?;
    let object = build(&root, &tools)?;
    if options.check { compare(&root, &tools, &object) } else { write(&root, &tools, &object) }
}

fn root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(Path::to_owned).context("xtask lies inside the repository")
}

fn write(root: &Path, tools: &Tools, object: &[u8]) -> Result<()> {
    fs::write(root.join(fingerprint::OBJECT), object)?;
    fs::write(root.join(fingerprint::SIDECAR), sidecar(root, tools, object)?)?;
    println!("{}: {} bytes, sha256 {}", fingerprint::OBJECT, object.len(), fingerprint::sha256(object));
    Ok(())
}

/// Equal bytes prove it, by whatever tools. Different bytes prove something only by the tools of the sidecar:
/// with others nothing has been checked, and that is a failure too.
fn compare(root: &Path, tools: &Tools, object: &[u8]) -> Result<()> {
    let read = |path: &str| {
        fs::read(root.join(path))
            .with_context(|| format!("no {path}: run `cargo xtask build-ebpf` and commit it"))
    };
    let committed = read(fingerprint::OBJECT)?;
    let sidecar = String::from_utf8(read(fingerprint::SIDECAR)?)?;
    if committed != object {
        tools.must_equal(&sidecar)?;
        bail!(
            "{} differs from what these sources give ({} bytes, sha256 {}; built: {} bytes, sha256 {}): \
             run `cargo xtask build-ebpf` and commit the result",
            fingerprint::OBJECT,
            committed.len(),
            fingerprint::sha256(&committed),
            object.len(),
            fingerprint::sha256(object),
        );
    }
    let current =
        [("object_sha256", fingerprint::sha256(object)), ("inputs_sha256", fingerprint::inputs(root)?)];
    if current.iter().any(|(key, hash)| fingerprint::sidecar_value(&sidecar, key) != Some(hash)) {
        bail!("{} is out of date: run `cargo xtask build-ebpf` and commit the result", fingerprint::SIDECAR);
    }
    println!("{} is exactly what these sources give", fingerprint::OBJECT);
    Ok(())
}

fn sidecar(root: &Path, tools: &Tools, object: &[u8]) -> Result<String> {
    let mut text = String::from(
        "# Written by `cargo xtask build-ebpf`; gateway/build.rs refuses an object that does not match.\n",
    );
    let hashes =
        [("object_sha256", fingerprint::sha256(object)), ("inputs_sha256", fingerprint::inputs(root)?)];
    for (key, value) in hashes.iter().map(|(key, value)| (*key, value.as_str())).chain(tools.versions()) {
        text.push_str(&format!("{key} = \"{value}\"\n"));
    }
    Ok(text)
}

/// What makes the object, found and asked for its versions.
struct Tools {
    rustc: PathBuf,
    linker: PathBuf,
    objcopy: PathBuf,
    library_source: PathBuf,
    /// Where the linker finds the LLVM it was built for.
    llvm_library: Option<PathBuf>,
    rustc_version: String,
    cargo_version: String,
    linker_version: String,
    llvm_version: String,
    objcopy_version: String,
}

impl Tools {
    fn find(may_install: bool) -> Result<Tools> {
        let (rustc, library_source) = compiler(may_install)?;
        let llvm_library = rustup_sysroot("stable").map(|sysroot| sysroot.join("lib"));
        let linker = linker(may_install, llvm_library.as_deref())?;
        let (objcopy, objcopy_version) = objcopy(llvm_library.as_deref())?;
        let verbose = text_of(Command::new(&rustc).arg("-vV"))?;
        let line = |start: &str| {
            verbose.lines().find_map(|line| line.strip_prefix(start)).unwrap_or("unknown").trim().to_owned()
        };
        Ok(Tools {
            rustc_version: verbose.lines().next().unwrap_or("unknown").to_owned(),
            llvm_version: line("LLVM version:"),
            cargo_version: text_of(Command::new(cargo()).arg("--version"))?,
            linker_version: linker_version(&linker, llvm_library.as_deref())?,
            objcopy_version,
            rustc,
            linker,
            objcopy,
            library_source,
            llvm_library,
        })
    }

    fn versions(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("rustc", self.rustc_version.as_str()),
            ("llvm", &self.llvm_version),
            ("cargo", &self.cargo_version),
            ("bpf_linker", &self.linker_version),
            ("objcopy", &self.objcopy_version),
        ]
        .into_iter()
    }

    /// Other versions give other bytes, so comparing would prove nothing: that is a failure, not a pass.
    fn must_equal(&self, sidecar: &str) -> Result<()> {
        let mut other = String::new();
        for (key, found) in self.versions() {
            let pinned = fingerprint::sidecar_value(sidecar, key).unwrap_or("nothing");
            if pinned != found {
                other.push_str(&format!("\n  {key}: the object was built by `{pinned}`, here is `{found}`"));
            }
        }
        if other.is_empty() {
            return Ok(());
        }
        bail!(
            "NOT CHECKED: the committed BPF object cannot be compared with other tools than it was built by.{other}\n\
             Install those versions, or rebuild the object with `cargo xtask build-ebpf` and commit it."
        )
    }
}

/// A compiler that has the source of its own library.
fn compiler(may_install: bool) -> Result<(PathBuf, PathBuf)> {
    if let Some(found) = debian_compiler() {
        return Ok(found);
    }
    if let Some(found) = nightly_compiler() {
        return Ok(found);
    }
    let packages = DEBIAN_PACKAGES.join(" ");
    if may_install && is_root() && Path::new("/usr/bin/apt-get").exists() {
        println!("installing {packages}");
        let install = |arguments: &[&str]| {
            Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status()
        };
        install(&["update", "-q"])?;
        let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
        arguments.extend(DEBIAN_PACKAGES);
        if install(&arguments)?.success()
            && let Some(found) = debian_compiler()
        {
            return Ok(found);
        }
    }
    if may_install && rustup().is_some() {
        println!("installing rustup's nightly with rust-src");
        let mut install = Command::new("rustup");
        install.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
        if install.status()?.success()
            && let Some(found) = nightly_compiler()
        {
            return Ok(found);
        }
    }
    bail!(
        "no Rust compiler with its library source for the BPF target. Either (Debian, as root)\n  \
         apt-get install {packages}\nor (anywhere)\n  \
         rustup toolchain install nightly --component rust-src"
    )
}

fn debian_compiler() -> Option<(PathBuf, PathBuf)> {
    let rustc = Path::new(DEBIAN_RUSTC);
    let source = library_source(&sysroot(rustc)?)?;
    Some((rustc.to_owned(), source))
}

fn nightly_compiler() -> Option<(PathBuf, PathBuf)> {
    let sysroot = rustup_sysroot("nightly")?;
    let source = library_source(&sysroot)?;
    Some((sysroot.join("bin/rustc"), source))
}

fn library_source(sysroot: &Path) -> Option<PathBuf> {
    let source = sysroot.join("lib/rustlib/src/rust");
    source.join("library/core/Cargo.toml").exists().then_some(source)
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    text_of(Command::new(rustc).args(["--print", "sysroot"])).ok().map(PathBuf::from)
}

fn rustup() -> Option<String> {
    text_of(Command::new("rustup").arg("--version")).ok()
}

fn rustup_sysroot(toolchain: &str) -> Option<PathBuf> {
    text_of(Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]))
        .ok()
        .map(PathBuf::from)
}

fn linker(may_install: bool, llvm_library: Option<&Path>) -> Result<PathBuf> {
    let bin = cargo_home()?.join("bin/bpf-linker");
    let candidates = [bin.clone(), PathBuf::from("bpf-linker")];
    let wanted = format!("bpf-linker {LINKER_VERSION}");
    for candidate in &candidates {
        if linker_version(candidate, llvm_library).is_ok_and(|version| version == wanted) {
            return Ok(candidate.clone());
        }
    }
    let command = format!("cargo install bpf-linker --version {LINKER_VERSION} --locked");
    if may_install {
        println!("running `{command}` (about two minutes)");
        let mut install = Command::new(cargo());
        clean(&mut install);
        install.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"]);
        if install.status()?.success() {
            return Ok(bin);
        }
    }
    bail!("{wanted} is needed, with rustup's stable toolchain for its LLVM:\n  {command}")
}

fn linker_version(linker: &Path, llvm_library: Option<&Path>) -> Result<String> {
    text_of(library_path(&mut Command::new(linker), llvm_library).arg("--version"))
}

fn library_path<'a>(command: &'a mut Command, directory: Option<&Path>) -> &'a mut Command {
    if let Some(directory) = directory {
        let mut paths: Vec<PathBuf> = vec![directory.to_owned()];
        if let Some(existing) = env::var_os("LD_LIBRARY_PATH") {
            paths.extend(env::split_paths(&existing));
        }
        if let Ok(joined) = env::join_paths(paths) {
            command.env("LD_LIBRARY_PATH", joined);
        }
    }
    command
}

/// rustup ships LLVM's objcopy with every toolchain; distributions have it in their LLVM package.
fn objcopy(llvm_library: Option<&Path>) -> Result<(PathBuf, String)> {
    let bundled = rustup_sysroot("stable")
        .and_then(|sysroot| fs::read_dir(sysroot.join("lib/rustlib")).ok())
        .into_iter()
        .flatten()
        .flatten()
        .map(|target| target.path().join("bin/rust-objcopy"))
        .filter(|path| path.exists());
    for path in bundled.chain([PathBuf::from("llvm-objcopy")]) {
        let Ok(text) = text_of(library_path(&mut Command::new(&path), llvm_library).arg("--version")) else {
            continue;
        };
        // "LLVM version 22.1.2-rust-1.95.0-stable" among other lines.
        let version =
            text.lines().find_map(|line| line.trim().strip_prefix("LLVM version ")).unwrap_or("unknown");
        return Ok((path, version.to_owned()));
    }
    bail!("no LLVM objcopy: rustup's stable toolchain has one, or `apt-get install llvm`")
}

fn build(root: &Path, tools: &Tools) -> Result<Vec<u8>> {
    let target = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())).join("bpf");
    let mut command = Command::new(cargo());
    clean(&mut command);
    library_path(&mut command, tools.llvm_library.as_deref());
    command
        .current_dir(root)
        .env("RUSTC", &tools.rustc)
        // -Zbuild-std and the compare-exchange intrinsic, on a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, tools)?)
        .args(["build", "--quiet", "--locked", "--package", fingerprint::PACKAGE, "--profile", "bpf"])
        .args(["--target", "bpfel-unknown-none", "-Zbuild-std=core"])
        .arg("--target-dir")
        .arg(&target);
    for setting in fingerprint::PROFILE {
        command.args(["--config", setting]);
    }
    if !command.status().context("running cargo")?.success() {
        bail!("the XDP program does not build");
    }

    let linked = target.join("bpfel-unknown-none/bpf").join(fingerprint::PACKAGE);
    let stripped = target.join("portcullis.bpf.o");
    let mut strip = Command::new(&tools.objcopy);
    library_path(&mut strip, tools.llvm_library.as_deref());
    strip.args(fingerprint::STRIP).arg(&linked).arg(&stripped);
    if !strip.status()?.success() {
        bail!("{} failed", tools.objcopy.display());
    }
    fs::read(&stripped).with_context(|| format!("reading {}", stripped.display()))
}

/// No path of this machine may reach the object: symbol hashes and BTF lines would differ elsewhere.
fn rustflags(root: &Path, tools: &Tools) -> Result<OsString> {
    let mut flags: Vec<OsString> = fingerprint::RUSTFLAGS.iter().map(OsString::from).collect();
    if let Some(flag) = flags.iter_mut().find(|flag| *flag == "-Clinker=bpf-linker") {
        *flag = format!("-Clinker={}", tools.linker.display()).into();
    }
    let mut remap = |from: &Path, to: &str| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    };
    remap(root, ".");
    if let Ok(registries) = fs::read_dir(cargo_home()?.join("registry/src")) {
        for registry in registries.flatten() {
            remap(&registry.path(), "crates");
        }
    }
    remap(&tools.library_source, "rust");
    if let Ok(resolved) = fs::canonicalize(&tools.library_source) {
        remap(&resolved, "rust");
    }
    Ok(flags.join(&OsString::from("\u{1f}")))
}

/// Drops what an outer cargo or rustup set for itself and what a developer may have set for host builds.
fn clean(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_"];
        let inherited = text.starts_with("CARGO") || text.starts_with("RUST");
        if inherited && !ours.iter().any(|kept| text.starts_with(kept)) && text != "RUSTUP_HOME" {
            command.env_remove(&name);
        }
    }
    command.env("RUSTUP_TOOLCHAIN", "stable");
}

fn cargo() -> PathBuf {
    PathBuf::from("cargo")
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    env::home_dir().map(|home| home.join(".cargo")).context("no home directory")
}

fn is_root() -> bool {
    text_of(Command::new("id").arg("-u")).is_ok_and(|id| id == "0")
}

fn text_of(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
