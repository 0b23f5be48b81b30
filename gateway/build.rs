//! Embeds the prebuilt BPF object, after proving that it was made from the sources beside it. Needs no BPF
//! toolchain: it compares hashes.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

#[allow(dead_code, reason = "shared with xtask, which uses the rest")]
#[path = "../ebpf/fingerprint.rs"]
mod fingerprint;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    if let Err(reason) = verify(root) {
        // Plain text: a panic's backtrace would bury the one line that helps.
        eprintln!("\nthe prebuilt BPF object cannot be used: {reason}\n  run `cargo xtask build-ebpf`\n");
        return ExitCode::FAILURE;
    }
    println!("cargo::rustc-env=PORTCULLIS_BPF_OBJECT={}", root.join(fingerprint::OBJECT).display());
    ExitCode::SUCCESS
}

fn verify(root: &Path) -> Result<(), String> {
    let watch = |path: &Path| println!("cargo::rerun-if-changed={}", path.display());
    for file in ["ebpf/src", "ebpf/abi/src", "ebpf/fingerprint.rs", "Cargo.lock", fingerprint::OBJECT] {
        watch(&root.join(file));
    }
    for file in [fingerprint::SIDECAR, "ebpf/Cargo.toml", "ebpf/abi/Cargo.toml"] {
        watch(&root.join(file));
    }

    let sidecar = fs::read_to_string(root.join(fingerprint::SIDECAR))
        .map_err(|error| format!("{}: {error}", fingerprint::SIDECAR))?;
    let object = fs::read(root.join(fingerprint::OBJECT))
        .map_err(|error| format!("{}: {error}", fingerprint::OBJECT))?;
    let recorded = |key| fingerprint::sidecar_value(&sidecar, key).unwrap_or("nothing");

    if fingerprint::sha256(&object) != recorded("object_sha256") {
        return Err(format!(
            "{} is not the file that {} describes",
            fingerprint::OBJECT,
            fingerprint::SIDECAR
        ));
    }
    let inputs = fingerprint::inputs(root).map_err(|error| format!("reading its sources: {error}"))?;
    if inputs != recorded("inputs_sha256") {
        return Err(
            "it is stale: ebpf/ (or a package it is compiled from) has changed since it was built".into()
        );
    }
    Ok(())
}
