//! The admin socket as a file.
//!
//! Owns: making it so that it is never open to others, not even for a moment, and removing it at the end.
//! Never: taking a socket away from a gateway that still answers on it.
//!
//! Invariant: the path either holds no socket of ours or one with mode 0600.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A bound socket; the file goes when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode, so that a successor's socket at the same path is left alone.
    identity: (u64, u64),
}

/// Listens at `path`, creating its folder and replacing a socket that nobody answers on.
///
/// # Errors
/// A gateway answers there already, something that is no socket is in the way, or the folder is not writable.
pub fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder_of(path))?;
    make_room(path)?;
    replace(path)
}

/// As [`bind`], also over the socket of a gateway that answers: it has handed over to this process.
///
/// # Errors
/// Those of the folder.
pub fn replace(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let folder = folder_of(path);
    // bind(2) makes the file with the umask's mode and listens at once. In a folder that only we can enter
    // it gets its mode unseen, and the rename replaces what was there in one step.
    let private = folder.join(format!(".portcullis-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&private)?;
    let bound = bind_in(&private, path);
    let _ = fs::remove_dir_all(&private);
    bound
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn bind_in(private: &Path, path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let unseen = private.join("s");
    let listener = UnixListener::bind(&unseen)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&unseen, Permissions::from_mode(0o600))?;
    let meta = fs::symlink_metadata(&unseen)?;
    fs::rename(&unseen, path)?;
    Ok((listener, SocketFile { path: path.into(), identity: (meta.dev(), meta.ino()) }))
}

fn make_room(path: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is in the way"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "a gateway answers there already")),
        // Nobody listens: left behind by a process that was killed. The rename replaces it.
        Err(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(cause) => Err(cause),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).map(|meta| (meta.dev(), meta.ino()));
        if ours.is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_private_exclusive_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("made/for/it/admin.sock");
        let (listener, file) = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "the private folder is left over"
        );
        UnixStream::connect(&path).unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        // As after a kill: the file is there and nobody listens.
        let (_successor, successor_file) = bind(&path).unwrap();
        drop(file);
        assert!(path.exists(), "a predecessor removed its successor's socket");
        drop(successor_file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }
}
