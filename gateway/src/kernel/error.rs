//! What goes wrong between the gateway and the kernel, in words an operator can act on.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

/// Why the kernel part is not, or not wholly, on. The gateway is correct without it.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Object or maps did not load.
    #[error("cannot load the XDP program: {reason}")]
    Load {
        /// The answer, with a hint.
        reason: String,
    },
    /// The program was refused.
    #[error("the kernel refuses the XDP program {program}: {reason}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The answer, with the verifier's last lines or a hint.
        reason: String,
    },
    /// A map could not be read or written.
    #[error("BPF map {map}: {reason}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The answer.
        reason: String,
    },
    /// The object has no such map or program; a build fault.
    #[error("the embedded BPF object has no {name}")]
    Missing {
        /// What is missing.
        name: &'static str,
    },
    /// bpffs or a pin.
    #[error("{doing} {}: {source}{}", path.display(), hint_of_io(source))]
    Pin {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// Mapping a BPF map into memory.
    #[error("mapping BPF map {map} into memory: {source}")]
    Mmap {
        /// Its name.
        map: &'static str,
        /// The answer.
        source: io::Error,
    },
    /// Attaching to an interface.
    #[error("cannot attach XDP to {interface} in {mode} mode: {reason}")]
    Attach {
        /// The interface.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// The answer, with a hint.
        reason: String,
    },
    /// No such interface.
    #[error("no network interface {interface}")]
    NoInterface {
        /// The name asked for.
        interface: String,
    },
    /// More entries than the map was made for.
    #[error("{what}: {count} entries, but the map was made for {max}; raise {setting} (takes a restart)")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many fit.
        max: u32,
        /// The setting to raise.
        setting: &'static str,
    },
    /// The kernel's random source.
    #[error("reading random bytes: {0}")]
    Random(#[source] io::Error),
}

impl KernelError {
    pub(super) fn load(error: EbpfError) -> KernelError {
        let hint = hint_of(&error);
        KernelError::Load { reason: format!("{}{hint}", chain(&error)) }
    }

    pub(super) fn program(program: &'static str) -> impl FnOnce(ProgramError) -> KernelError {
        move |error| KernelError::Program { program, reason: refusal(&error) }
    }

    pub(super) fn map(map: &'static str) -> impl FnOnce(MapError) -> KernelError {
        move |error| KernelError::Map { map, reason: chain(&error) }
    }
}

/// An error with its causes, in one line: aya's outer messages leave the system's answer out.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// The verifier's log is thousands of lines; what it objects to is in the last ones.
const VERIFIER_LINES: usize = 6;

fn refusal(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return format!("{}{}", chain(error), hint_of_program(error));
    };
    let hint = hint_of_program(error);
    if !hint.is_empty() {
        return format!("{io_error}{hint}");
    }
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(VERIFIER_LINES)..].join(" / ");
    format!("{io_error}; the verifier's last words: {last}")
}

const NEEDS: &str = "; it needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root): \
    `setcap cap_bpf,cap_net_admin,cap_perfmon+ep portcullis`, or run it as a service with these \
    AmbientCapabilities";

/// What to do about an answer to attaching, in one sentence; starts with a separator.
pub(super) fn hint_of_attach(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EBUSY | libc::EEXIST) => {
            "; another XDP program is attached: `bpftool net` shows it, `ip link set dev IF xdp off` removes it \
             unless it hangs on a BPF link; a link of ours is removed by `portcullis xdp detach`"
        }
        Some(libc::ERANGE) => {
            "; the MTU is too large for the driver's native mode: lower it (3498 or less suits most drivers) or \
             allow generic mode"
        }
        Some(libc::EOPNOTSUPP) => {
            "; this interface has no native XDP (loopback, most tunnels, or a driver option such as LRO is in \
             the way): allow generic mode"
        }
        Some(libc::EINVAL) => {
            "; the driver refuses: often too few queues for the number of CPUs, or receive offloads that exclude \
             XDP (virtio: `ethtool -K IF gro-hw off rxcsum off`)"
        }
        Some(libc::EPERM | libc::EACCES) => NEEDS,
        Some(libc::ENODEV | libc::ENOLINK) => "; the interface has gone",
        Some(libc::ENOMEM) => "; the driver could not allocate its XDP queues",
        _ => "",
    }
}

fn hint_of_io(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; pins live on bpffs: `mount -t bpf bpf /sys/fs/bpf`, and give the gateway's user a directory there"
        }
        Some(libc::EROFS) => {
            "; state is pinned there, so that a restart keeps it: `mount -o remount,rw` on it, or mount a bpffs of the \
             gateway's own and set `xdp.pin_path`"
        }
        _ => "",
    }
}

fn errno_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => NEEDS,
        Some(libc::ENOSYS) => "; this kernel has no bpf() (CONFIG_BPF_SYSCALL)",
        Some(libc::EINVAL) => "; it needs Linux 5.12 or later with CONFIG_BPF_JIT",
        Some(libc::ENOMEM) => "; not enough memory: lower the number of sets, or raise the memory limit",
        _ => "",
    }
}

fn hint_of(error: &EbpfError) -> &'static str {
    match error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) => errno_hint(io_error),
        EbpfError::MapError(MapError::SyscallError(syscall)) => errno_hint(&syscall.io_error),
        EbpfError::MapError(MapError::PinError { .. }) => {
            "; pins live on bpffs and need a directory there that the gateway's user may write"
        }
        EbpfError::BtfError(_) => {
            "; the kernel's BTF could not be used: the program does not need it, say so in a report"
        }
        EbpfError::ProgramError(program) => hint_of_program(program),
        _ => "",
    }
}

fn hint_of_program(error: &ProgramError) -> &'static str {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            // Without CAP_PERFMON the verifier forbids what every packet program does.
            if verifier_log.to_string().contains("prohibited for !root") {
                NEEDS
            } else {
                errno_hint(io_error)
            }
        }
        ProgramError::SyscallError(syscall) => errno_hint(&syscall.io_error),
        _ => "",
    }
}

/// The system's error number inside aya's answer.
pub(super) fn errno_of(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::LoadError { io_error, .. } | ProgramError::IOError(io_error) => io_error.raw_os_error(),
        ProgramError::SyscallError(syscall) => syscall.io_error.raw_os_error(),
        _ => None,
    }
}
