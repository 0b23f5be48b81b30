//! Steering new connections by a program of the object (BPF_PROG_TYPE_SK_REUSEPORT): which socket of a listener the
//! shard of each core has.
//!
//! Both maps are pinned: at an upgrade the sockets that the new process was given are in them already, and it puts its
//! own order in their place, one entry after the other. Invariant: an entry that is missing is no refusal, the kernel's
//! hash decides then; so entries may be taken out and put in under load.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError, ReusePortSockArray};
use aya::programs::SkReuseport;
use portcullis_abi::{ListenerKey, PROGRAM_STEER, Protocol, STEER_CORES, STEER_GROUPS, map};

use super::{Kernel, KernelError, load, undisturbed};

/// The maps.
pub(super) struct Steer {
    group: HashMap<MapData, ListenerKey, u32>,
    sockets: ReusePortSockArray<MapData>,
    /// What `group` holds.
    numbers: BTreeMap<ListenerKey, u32>,
}

impl Steer {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Steer, KernelError> {
        let group: HashMap<MapData, ListenerKey, u32> = load::typed(ebpf, map::STEER_GROUP)?;
        let sockets = load::typed(ebpf, map::STEER_SOCKETS)?;
        let numbers = group.iter().collect::<Result<_, _>>().map_err(KernelError::map(map::STEER_GROUP))?;
        Ok(Steer { group, sockets, numbers })
    }

    /// The number of a listener: the one it has, or the lowest that is free.
    fn number(&mut self, key: ListenerKey) -> Result<u32, KernelError> {
        if let Some(&number) = self.numbers.get(&key) {
            return Ok(number);
        }
        let free = (0..STEER_GROUPS).find(|number| !self.numbers.values().any(|taken| taken == number));
        free.ok_or(KernelError::TooMany {
            what: "listeners to steer",
            count: self.numbers.len() + 1,
            max: STEER_GROUPS,
            setting: "shards.steering",
        })
    }

    fn clear(&mut self, number: u32) -> Result<(), KernelError> {
        for core in 0..STEER_CORES {
            match self.sockets.clear_index(&(number * STEER_CORES + core)) {
                Ok(()) => {}
                Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                }
                Err(error) => return Err(KernelError::map(map::STEER_SOCKETS)(error)),
            }
        }
        Ok(())
    }

    /// Entries come before the number that leads to them. A socket is in the map at most once (EBUSY otherwise), so what
    /// was there goes first.
    fn fill(
        &mut self,
        address: SocketAddr,
        sockets: &[TcpListener],
        cores: &[usize],
    ) -> Result<(), KernelError> {
        let key = key_of(address);
        let number = self.number(key)?;
        self.clear(number)?;
        for (socket, &core) in sockets.iter().zip(cores) {
            // A shard on a core past those of the map gets what the hash gives it.
            if let Some(core) = u32::try_from(core).ok().filter(|core| *core < STEER_CORES) {
                let index = number * STEER_CORES + core;
                self.sockets.set(index, socket, 0).map_err(KernelError::map(map::STEER_SOCKETS))?;
            }
        }
        self.group.insert(key, number, 0).map_err(KernelError::map(map::STEER_GROUP))?;
        self.numbers.insert(key, number);
        Ok(())
    }

    fn forget(&mut self, address: SocketAddr) -> Result<(), KernelError> {
        let key = key_of(address);
        let Some(number) = self.numbers.remove(&key) else { return Ok(()) };
        match self.group.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(KernelError::map(map::STEER_GROUP)(error)),
        }
        self.clear(number)
    }
}

impl Kernel {
    /// Gives each new connection of a listener to the socket whose shard is on the core that received it. `sockets` and
    /// `cores` are those of its shards, in the same order; cores without a shard, and sockets without a core, are left
    /// to the kernel's hash. Takes the place of whatever steered these sockets before, also another process's program.
    ///
    /// # Errors
    /// The kernel refuses (before Linux 5.14 it does), or there are more than 64 listeners; nothing is steered then that
    /// was not before.
    pub fn steer(
        &mut self,
        address: SocketAddr,
        sockets: &[TcpListener],
        cores: &[usize],
    ) -> Result<(), KernelError> {
        let Some(first) = sockets.first() else { return Ok(()) };
        let missing = || KernelError::Missing { name: PROGRAM_STEER };
        let program: &mut SkReuseport = self
            .ebpf
            .program_mut(PROGRAM_STEER)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(missing)?;
        if program.fd().is_err() {
            undisturbed(|| program.load()).map_err(KernelError::program(PROGRAM_STEER))?;
        }
        self.steer.fill(address, sockets, cores)?;
        program.attach(first).map_err(KernelError::program(PROGRAM_STEER))
    }

    /// Forgets a listener that is gone, or that is no longer steered.
    ///
    /// # Errors
    /// Its entries cannot be removed.
    pub fn steer_no_more(&mut self, address: SocketAddr) -> Result<(), KernelError> {
        self.steer.forget(address)
    }
}

/// As the socket itself says where it is bound: a v4-mapped address stays IPv6 here.
fn key_of(address: SocketAddr) -> ListenerKey {
    match address.ip() {
        IpAddr::V4(ip) => ListenerKey::v4(u32::from_ne_bytes(ip.octets()), address.port(), Protocol::Tcp),
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            let word =
                |at: usize| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
            ListenerKey::v6([word(0), word(4), word(8), word(12)], address.port(), Protocol::Tcp)
        }
    }
}
