//! What operators have ordered, on disk: a killed process takes no words and no prefix with it.
//!
//! Owns one small file beside the admin socket, written anew after each order. The words of the table survive in pinned
//! maps; this is what has no room there. Moments are those of a clock that starts with the machine, so what was written
//! under an earlier boot is not read. Never: a reason not to carry out an order.
//!
//! Invariant: the file is whole or the one before it is.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bans::Given;

/// Where orders are kept; nowhere by default.
#[derive(Debug, Default)]
pub struct Memory {
    path: Option<PathBuf>,
    failing: bool,
}

#[derive(Deserialize, Serialize)]
struct Kept {
    boot: String,
    bans: Vec<(String, Given)>,
}

impl Memory {
    /// In `ADMIN_SOCKET.bans`.
    pub fn beside(admin_socket: Option<&Path>) -> Self {
        let path = admin_socket.map(|socket| {
            let mut name = socket.as_os_str().to_owned();
            name.push(".bans");
            PathBuf::from(name)
        });
        Self { path, failing: false }
    }

    /// The orders of the processes before this one.
    pub fn recall(&self) -> Vec<(String, Given)> {
        let Some(path) = &self.path else { return Vec::new() };
        let read = fs::read(path).and_then(|text| Ok(serde_json::from_slice::<Kept>(&text)?));
        match read {
            Ok(kept) if kept.boot == boot() => kept.bans,
            Ok(_) => Vec::new(),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(cause) => {
                tracing::warn!(%cause, "{}: the reasons of earlier bans are lost", path.display());
                Vec::new()
            }
        }
    }

    /// Writes all orders that are in force.
    pub fn keep(&mut self, bans: Vec<(String, Given)>) {
        let Some(path) = &self.path else { return };
        let written = write(path, &Kept { boot: boot(), bans });
        if let (false, Err(cause)) = (self.failing, &written) {
            tracing::warn!(%cause, "{}: bans hold, but their reasons end with this process", path.display());
        }
        self.failing = written.is_err();
    }
}

fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let text = serde_json::to_vec(kept)?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh);
    let written = file.and_then(|mut file| file.write_all(&text)).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// Another one for each start of the machine (random(4)); empty where nobody says.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn orders() -> Vec<(String, Given)> {
        vec![("192.0.2.0/24".into(), Given { reason: "a \"b\"".into(), since: 1, until_ns: 2 })]
    }

    #[test]
    fn what_is_kept_is_recalled_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        assert_eq!(Memory::beside(Some(&socket)).recall(), []);
        Memory::beside(Some(&socket)).keep(orders());
        assert_eq!(Memory::beside(Some(&socket)).recall(), orders());
        let path = folder.path().join("admin.sock.bans");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        Memory::beside(Some(&socket)).keep(Vec::new());
        assert_eq!(Memory::beside(Some(&socket)).recall(), []);
    }

    #[test]
    fn another_boot_and_a_broken_file_are_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::beside(Some(&folder.path().join("admin.sock")));
        let path = folder.path().join("admin.sock.bans");
        let old = Kept { boot: "another".into(), bans: orders() };
        fs::write(&path, serde_json::to_vec(&old).unwrap()).unwrap();
        assert_eq!(memory.recall(), []);
        fs::write(&path, "{\"boot\"").unwrap();
        assert_eq!(memory.recall(), []);
        // A folder that is gone is said once, and nothing else happens.
        let mut lost = Memory::beside(Some(Path::new("/nonexistent/admin.sock")));
        lost.keep(orders());
        assert!(lost.failing);
        Memory::beside(None).keep(orders());
    }
}
