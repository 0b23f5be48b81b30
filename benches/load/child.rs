//! Started processes: pinned to a core, with room for descriptors, ended by their id on every way out.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child as Process, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Open files of a started process; the idle run needs 3000 connections and a few.
const DESCRIPTORS: u32 = 8192;
/// Time in which a started process must accept connections; a million keys on a busy machine take a while.
const START: Duration = Duration::from_secs(60);
/// Time in which a process told to end must be gone.
const STOP: Duration = Duration::from_secs(5);

pub struct Child {
    name: String,
    process: Process,
}

impl Child {
    /// Starts `command` on one core; what it prints goes to a file beside its configuration.
    pub fn start(name: &str, core: usize, command: &Command, folder: &Path) -> Result<Self> {
        let log = File::create(folder.join(format!("{name}.log")))?;
        let mut pinned = pinned(core, command);
        pinned.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = pinned.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), process })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// An error where the process has ended.
    pub fn alive(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            Some(status) => bail!("{} has ended with {status}; see its log", self.name),
            None => Ok(()),
        }
    }

    /// Waits until something accepts on `address`.
    pub fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_err() {
            self.alive()?;
            if start.elapsed() > START {
                bail!("{} does not answer on {address}", self.name);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SIGTERM first: a master process then ends its workers.
        let _ = Command::new("kill").arg(self.process.id().to_string()).stderr(Stdio::null()).status();
        let start = Instant::now();
        while start.elapsed() < STOP {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The same command on one core, with enough descriptors.
pub fn pinned(core: usize, command: &Command) -> Command {
    let mut pinned = Command::new("prlimit");
    pinned.arg(format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}"));
    pinned.args(["taskset", "-c", &core.to_string()]).arg(command.get_program()).args(command.get_args());
    pinned
}

/// A loopback address whose port was free a moment ago.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
