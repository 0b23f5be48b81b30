//! The root file system of a guest, as the kernel unpacks it: a cpio archive of the format `newc`.
//!
//! Owns the format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst). Invariant: a folder comes before
//! what is in it, each once.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::Path;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
/// The name that ends an archive.
const END: &str = "TRAILER!!!";

/// An archive being written.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// An empty folder; `path` without a leading slash.
    pub fn folder(&mut self, path: &str) {
        if path.is_empty() || self.folders.contains(path) {
            return;
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent);
        }
        self.folders.insert(path.to_owned());
        self.entry(path, FOLDER, &[]);
    }

    /// A file that may be run.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent);
        }
        self.entry(path, PROGRAM, content);
    }

    /// A copy of a file of this machine.
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.file(path, &content);
        Ok(())
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(END, 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let links = 1;
        let fields = [
            self.entries,
            mode,
            0, // user
            0, // group
            links,
            0, // time
            content.len() as u32,
            0, // device, major and minor
            0,
            0, // that of a device file
            0,
            name.len() as u32 + 1,
            0, // checksum, of another format
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_first_and_everything_is_aligned() {
        let mut archive = Archive::default();
        archive.file("a/b/c", b"text!");
        archive.folder("a/b");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let at = |name: &str| text.find(name).unwrap_or_else(|| panic!("no {name:?}"));
        assert!(at("a\0") < at("a/b\0") && at("a/b\0") < at("a/b/c\0") && at("text!") < at(END));
        assert_eq!(text.matches("a/b\0").count(), 1);
        assert_eq!(text.matches("070701").count(), 4);
        // The size of the only file with content, seventh of the fields.
        let head = at("a/b/c\0") - 13 * 8;
        assert_eq!(&text[head + 48..head + 56], "00000005");
    }
}
