//! Two network namespaces joined by a veth pair, and a sender of raw frames: real traffic that never leaves
//! the machine and touches no interface of it.
//!
//! Namespaces are entered with setns(2) by threads that end there. `ip netns exec` would not do: it mounts a
//! fresh /sys, in which pins on bpffs are not to be seen.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::{Context as _, Result, bail};

/// Why privileged tests cannot run here, if they cannot. With `PORTCULLIS_REQUIRE_ROOT_TESTS` set, that is a
/// failure instead of a skip.
pub fn cannot_run() -> Option<String> {
    // SAFETY: no arguments, no failure.
    let reason = if unsafe { libc::geteuid() } != 0 {
        "needs root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)".to_owned()
    } else if let Err(error) = ip(&["-V"]) {
        format!("needs the `ip` command (Debian: iproute2): {error}")
    } else {
        return None;
    };
    assert!(std::env::var_os("PORTCULLIS_REQUIRE_ROOT_TESTS").is_none(), "cannot run: {reason}");
    Some(reason)
}

/// Returns from a test, saying why, where it cannot run.
#[macro_export]
macro_rules! privileged {
    () => {
        if let Some(reason) = $crate::netns::cannot_run() {
            eprintln!("SKIPPED: {reason}");
            return;
        }
    };
}

/// A client's and a server's namespace; the interface on each side is called `veth0`.
///
/// | | client | server |
/// |---|---|---|
/// | IPv4 | 10.77.0.1/16 | 10.77.0.2/16 |
/// | IPv6 | fd77::1/64 | fd77::2/64 |
/// | MAC | 02:..:01 | 02:..:02 |
pub struct Lab {
    client: String,
    server: String,
}

/// Interface name on both sides.
pub const VETH: &str = "veth0";

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// Makes both; they go with the value.
    pub fn new() -> Result<Lab> {
        let unique = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let lab = Lab { client: format!("ptc-{unique}-c"), server: format!("ptc-{unique}-s") };
        let Lab { client, server } = &lab;
        ip(&["netns", "add", client])?;
        ip(&["netns", "add", server])?;
        ip(&["-n", client, "link", "add", VETH, "type", "veth", "peer", "name", VETH, "netns", server])?;
        for (namespace, number) in [(client, 1), (server, 2)] {
            let mac = format!("02:00:00:00:00:0{number}");
            ip(&["-n", namespace, "link", "set", VETH, "address", &mac])?;
            ip(&["-n", namespace, "addr", "add", &format!("10.77.0.{number}/16"), "dev", VETH])?;
            ip(&["-n", namespace, "addr", "add", &format!("fd77::{number}/64"), "dev", VETH, "nodad"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
            ip(&["-n", namespace, "link", "set", VETH, "up"])?;
        }
        Ok(lab)
    }

    /// Runs `f` in the client's namespace, on a thread of its own.
    pub fn in_client<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        inside(&self.client, f)
    }

    /// Runs `f` in the server's namespace, on a thread of its own. Threads it spawns are there too.
    pub fn in_server<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        inside(&self.server, f)
    }

    /// `ip` on the client's side.
    pub fn client_ip(&self, arguments: &[&str]) -> Result<String> {
        ip(&[&["-n", &self.client], arguments].concat())
    }

    /// `ip` on the server's side.
    pub fn server_ip(&self, arguments: &[&str]) -> Result<String> {
        ip(&[&["-n", &self.server], arguments].concat())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.client, &self.server] {
            if let Err(error) = ip(&["netns", "del", namespace]) {
                eprintln!("leaving network namespace {namespace} behind: {error}");
            }
        }
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(arguments).output().context("running ip")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn inside<T: Send>(namespace: &str, f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(namespace).expect("entering a namespace of this test");
            f()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn enter(namespace: &str) -> io::Result<()> {
    let file = File::open(format!("/run/netns/{namespace}"))?;
    // SAFETY: a valid descriptor; only this thread's namespace changes, and the thread ends in it.
    match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends whole frames out of an interface of this thread's namespace, past the stack.
pub struct RawSender {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
}

impl RawSender {
    /// Opens it on [`VETH`].
    pub fn open() -> io::Result<RawSender> {
        let name = std::ffi::CString::new(VETH)?;
        // SAFETY: a C string that lives during the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        // SAFETY: plain system call; protocol 0 receives nothing.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if index == 0 || socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = index as i32;
        // SAFETY: just opened, owned by nobody else.
        Ok(RawSender { socket: unsafe { OwnedFd::from_raw_fd(socket) }, address })
    }

    /// Sends one frame; `false` if the queue had no room.
    pub fn send(&self, frame: &[u8]) -> io::Result<bool> {
        // SAFETY: the frame and the address outlive the call, lengths are theirs.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const self.address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent >= 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENOBUFS) { Ok(false) } else { Err(error) }
    }
}
