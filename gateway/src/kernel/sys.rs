//! System calls that std does not wrap.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `BPF_FS_MAGIC`, linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Whether `path` lies on a BPF file system.
pub(super) fn is_bpffs(path: &Path) -> io::Result<bool> {
    let path = c_path(path)?;
    // SAFETY: all-zero bytes are a valid statfs.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a C string and a statfs, both alive during the call.
    let answer = unsafe { libc::statfs(path.as_ptr(), &mut stat) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    // The field's width differs between C libraries; the magic's upper half is sign or zero.
    Ok(stat.f_type as i64 & 0xffff_ffff == BPF_FS_MAGIC)
}

/// Mounts a BPF file system.
pub(super) fn mount_bpffs(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: C strings that live during the call; no data argument.
    let answer = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            path.as_ptr(),
            c"bpf".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
            std::ptr::null(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The index of an interface in this thread's network namespace.
pub(super) fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a C string that lives during the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// The name of the interface with an index in this thread's network namespace.
pub fn interface_name(index: u32) -> Option<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: the call writes at most IF_NAMESIZE bytes, its NUL among them.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    let text = std::ffi::CStr::from_bytes_until_nul(&name).ok()?;
    (!found.is_null()).then(|| text.to_string_lossy().into_owned())
}

/// How long the kernel's coarse clock stands still. 10 ms, the longest tick Linux offers, if it won't say.
pub(super) fn coarse_tick_ns() -> u64 {
    let mut tick = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    match unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut tick) } {
        0 => (tick.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(tick.tv_nsec as u64),
        _ => 10_000_000,
    }
}

/// CPUs that are online; 1 if the system won't say.
pub(super) fn cpus() -> u64 {
    // SAFETY: no pointers.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u64::try_from(online).map_or(1, |cpus| cpus.max(1))
}

/// The time of both sides' buckets: ns of CLOCK_MONOTONIC, the same clock as `bpf_ktime_get_ns`.
pub(super) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec; this clock cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64)
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}
/// Asks for large pages behind memory that nothing was written to yet: a table of many megabytes that is read all over
/// costs a walk through the page tables for nearly every access otherwise. A wish: whoever cannot fulfil it says nothing.
pub fn prefer_large_pages<T>(memory: &mut [std::mem::MaybeUninit<T>]) {
    let (start, size) = (memory.as_mut_ptr() as usize, size_of_val(memory));
    let (first, end) = (start.next_multiple_of(PAGE), (start + size) / PAGE * PAGE);
    if first < end {
        // SAFETY: the range lies within `memory`; the advice changes neither contents nor rights of its pages.
        unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_HUGEPAGE) };
    }
}

/// The smallest page of the machines that this runs on; where pages are larger the advice is refused.
const PAGE: usize = 4096;
