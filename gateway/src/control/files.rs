//! Looks whether files that a generation was compiled from have changed: certificates, keys, authorities, lists of
//! revoked certificates, OCSP responses, ticket keys, and what plugins name (users, lists of addresses). The configuration itself is read again only when told to: a file
//! that an editor is half through must not get in force.
//!
//! Owns: what the files looked like when they were last read. Never: their content. Invariant: a change is reported once,
//! and only after the files have looked the same at two looks, so that a certificate is not taken without its key.
//!
//! Looks, and does not watch (inotify): renewal tools replace files, folders and symbolic links in every way there is, and
//! a look costs a microsecond a file.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What tells one content of a file from another without reading it; `None` for a file that is not there.
type Stamp = Option<(u64, i64, i64, u64)>;

/// The files of the generation in force.
pub struct Files {
    /// As they were when they were last read.
    read: BTreeMap<PathBuf, Stamp>,
    /// As they were at the last look.
    seen: BTreeMap<PathBuf, Stamp>,
    last_look: Instant,
}

impl Files {
    /// These files, as they are now.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let read = stamps(files.iter().map(PathBuf::as_path));
        Self { seen: read.clone(), read, last_look: Instant::now() }
    }

    /// The files of another generation. What is known of a file stays: it may have changed while it was read.
    pub fn set(&mut self, files: Vec<PathBuf>) {
        let known = std::mem::take(&mut self.read);
        self.read = stamps(files.iter().map(PathBuf::as_path));
        for (path, stamp) in known {
            if let Some(entry) = self.read.get_mut(&path) {
                *entry = stamp;
            }
        }
    }

    /// Whether files have changed since they were last read, and have stopped changing. Looks at most once in
    /// [`INTERVAL`].
    pub fn changed(&mut self) -> bool {
        if self.last_look.elapsed() < INTERVAL {
            return false;
        }
        self.last_look = Instant::now();
        self.look()
    }

    fn look(&mut self) -> bool {
        let now = stamps(self.read.keys().map(PathBuf::as_path));
        let settled = now == self.seen;
        self.seen = now;
        settled && self.seen != self.read
    }

    /// The files are being read as they are.
    pub fn reading(&mut self) {
        self.read = self.seen.clone();
    }
}

fn stamps<'a>(files: impl Iterator<Item = &'a Path>) -> BTreeMap<PathBuf, Stamp> {
    let stamp = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    };
    files.map(|path| (path.to_owned(), stamp(path))).collect()
}

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_and_when_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
        std::fs::write(&cert, "1").unwrap();
        std::fs::write(&key, "1").unwrap();
        let mut files = Files::new(vec![cert.clone(), key.clone()]);
        assert!(!files.look());
        std::fs::write(&cert, "22").unwrap();
        assert!(!files.look(), "it may be changing still");
        std::fs::write(&key, "22").unwrap();
        assert!(!files.look());
        assert!(files.look());
        assert!(files.look(), "nobody has read it yet");
        files.reading();
        assert!(!files.look());
        // Gone is a change too, and so is another file under the name.
        std::fs::remove_file(&key).unwrap();
        files.look();
        assert!(files.look());
        files.reading();
        let other = folder.path().join("other");
        std::fs::write(&other, "22").unwrap();
        std::fs::rename(&other, &key).unwrap();
        files.look();
        assert!(files.look());
        files.reading();
        // Another generation knows other files; one that changed meanwhile is not forgotten.
        std::fs::write(&cert, "333").unwrap();
        files.set(vec![cert.clone()]);
        files.look();
        assert!(files.look());
        files.set(Vec::new());
        files.look();
        assert!(!files.look());
        assert!(!files.changed(), "it was looked a moment ago");
    }
}
