//! Two network namespaces joined by a veth pair, and a sender of forged packets: real traffic that never
//! leaves the machine and touches no interface of it.
//!
//! Namespaces are entered with setns(2) by threads that end there. `ip netns exec` would not do: it mounts a
//! fresh /sys, in which pins on bpffs are not to be seen.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};

/// Why privileged tests cannot run here, if they cannot. With `PORTCULLIS_REQUIRE_ROOT_TESTS` set, that is a
/// failure instead of a skip.
pub fn cannot_run() -> Option<String> {
    // The owner of a process's folder is its effective user.
    let root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let reason = if !root {
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

    /// The server's namespace as a file, for programs that are started in it.
    pub fn server_namespace(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.server)
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
    Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Sends IPv4 packets whose source is whatever they say. The frames of [`crate::packet`], less their link
/// layer.
pub struct Forger(Socket);

const LINK_HEADER: usize = 14;

impl Forger {
    /// In this thread's namespace.
    pub fn open() -> io::Result<Forger> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        socket.set_header_included_v4(true)?;
        Ok(Forger(socket))
    }

    /// Sends one; `false` if a queue had no room.
    pub fn send(&self, frame: &[u8], to: IpAddr) -> io::Result<bool> {
        match self.0.send_to(&frame[LINK_HEADER..], &SocketAddr::new(to, 0).into()) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
