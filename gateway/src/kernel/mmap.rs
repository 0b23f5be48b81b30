//! Memory that the kernel program and this process share: the only place that turns map memory into
//! references.
//!
//! The mapping is never undone. It costs address space only, a gateway loads once, and a shard may hold
//! `&'static [Set]` for as long as it runs.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use portcullis_abi::{Config, Set};

/// The bucket table; the map has exactly `sets` values.
pub(super) fn table(fd: BorrowedFd<'_>, sets: usize) -> io::Result<&'static [Set]> {
    let start = share(fd, sets * size_of::<Set>())?;
    // SAFETY: `share` returned that many bytes, page-aligned (so 128-aligned) and mapped for good. Any bytes
    // are a valid `Set`, and its words are atomics, which allows the kernel and other threads to write.
    Ok(unsafe { std::slice::from_raw_parts(start.cast(), sets) })
}

/// The configuration, words to be written through its atomics.
pub(super) fn config(fd: BorrowedFd<'_>) -> io::Result<&'static Config> {
    let start = share(fd, size_of::<Config>())?;
    // SAFETY: as above. The fields that are no atomics (layout, sets, secret) are written by `write_identity`
    // before this, and never again while a program or a process uses the map.
    Ok(unsafe { &*start.cast() })
}

/// Layout, sets and secret as bytes: what comes before [`Config::flags`] and stays for good.
pub(super) fn read_identity(fd: BorrowedFd<'_>) -> io::Result<[u8; IDENTITY_SIZE]> {
    let start = share(fd, size_of::<Config>())?;
    // SAFETY: the mapping is longer than the array, and any bytes are a valid array of bytes.
    Ok(unsafe { start.cast::<[u8; IDENTITY_SIZE]>().read_volatile() })
}

/// Writes them into a map that has none.
pub(super) fn write_identity(fd: BorrowedFd<'_>, identity: [u8; IDENTITY_SIZE]) -> io::Result<()> {
    let start = share(fd, size_of::<Config>())?;
    // SAFETY: the mapping is longer than the array. No reference to this map's Config exists in this process
    // (`config` comes after), and an empty map is used by no other.
    unsafe { start.cast::<[u8; IDENTITY_SIZE]>().write_volatile(identity) };
    Ok(())
}

/// Bytes before `Config::flags`.
pub(super) const IDENTITY_SIZE: usize = std::mem::offset_of!(Config, flags);

/// A configuration in ordinary memory, all words zero; for tests of what writes one.
#[cfg(test)]
pub(super) fn empty_config() -> Box<Config> {
    // SAFETY: `Config` is integers and atomics of integers; zero is a valid value of each.
    Box::new(unsafe { std::mem::zeroed() })
}

fn share(fd: BorrowedFd<'_>, size: usize) -> io::Result<*mut libc::c_void> {
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(start) }
}
