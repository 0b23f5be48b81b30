//! Which shard a new connection goes to: the one on the core that received it, or the one the kernel's hash says.
//!
//! Owns the choice for each listener, and the words for it. A program of the BPF object does it where the kernel part is
//! loaded, and a classic filter, which needs no privilege, elsewhere. Never: a wrong guess that costs more than it gives.
//! A network card with one receive queue interrupts one core, and steering by core would give that core's shard
//! everything; so `auto` steers only where each shard can have a queue of its own.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

use portcullis_config::Steering;

use super::interfaces::Network;
use crate::kernel::Kernel;
use crate::net;

/// What was obtained for a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steered {
    /// By the receiving core.
    Core(Means),
    /// By the kernel's hash, and why.
    Hash(String),
}

/// What finds the socket of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// A program of the BPF object: its entries follow the shards, whatever process bound the sockets.
    Program,
    /// A classic filter: it counts the sockets of an address, so there must be exactly one a shard.
    Filter,
}

impl Steered {
    /// The value of the `steering` label.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Core(_) => "core",
            Self::Hash(_) => "hash",
        }
    }

    /// What does it: `program`, `filter`, or `kernel` for its own hash.
    pub fn by(&self) -> &'static str {
        match self {
            Self::Core(Means::Program) => "program",
            Self::Core(Means::Filter) => "filter",
            Self::Hash(_) => "kernel",
        }
    }
}

/// By listener address.
pub type Steerings = BTreeMap<SocketAddr, Steered>;

/// Steers the sockets of one address, the first of them one a shard in the order of `cores`, and says what came of it.
pub fn steer(
    wanted: Steering,
    address: SocketAddr,
    sockets: &[TcpListener],
    cores: &[usize],
    kernel: Option<&mut Kernel>,
) -> Steered {
    let Some(group) = sockets.first() else { return Steered::Hash("no socket".into()) };
    let chosen = match wanted {
        Steering::Hash => Err("as configured".to_owned()),
        Steering::Core => apart(cores),
        Steering::Auto => apart(cores).and_then(|()| queues(address, cores.len(), &Network::read())),
    };
    let attached = chosen.and_then(|()| {
        if let Some(kernel) = kernel {
            match kernel.steer(address, sockets, cores) {
                Ok(()) => return Ok(Means::Program),
                Err(cause) => tracing::info!(%address, %cause, "steering by a classic filter instead"),
            }
        }
        filter(group, sockets.len(), cores)
    });
    match attached {
        Ok(means) => Steered::Core(means),
        Err(why) => {
            // An earlier process may have left a program on sockets that it passed on.
            net::steer_by_hash(group);
            Steered::Hash(why)
        }
    }
}

fn filter(group: &TcpListener, sockets: usize, cores: &[usize]) -> Result<Means, String> {
    if sockets != cores.len() {
        return Err(format!("{sockets} sockets of an earlier process for {} shards", cores.len()));
    }
    let attached = net::steer_by_core(group, cores);
    attached.map(|()| Means::Filter).map_err(|cause| format!("the kernel refuses steering: {cause}"))
}

fn apart(cores: &[usize]) -> Result<(), String> {
    if cores.iter().enumerate().any(|(at, core)| cores[..at].contains(core)) {
        return Err("two shards share a core".into());
    }
    Ok(())
}

fn queues(address: SocketAddr, shards: usize, network: &Network) -> Result<(), String> {
    let interfaces = network.carrying(&[address.ip()]).unwrap_or_default();
    if interfaces.is_empty() {
        return Err("no interface with receive queues".into());
    }
    for interface in interfaces {
        let queues = receive_queues(&interface);
        if queues < shards {
            return Err(format!("{interface} has {queues} receive queues for {shards} shards"));
        }
    }
    Ok(())
}

fn receive_queues(interface: &str) -> usize {
    let folder = std::fs::read_dir(format!("/sys/class/net/{interface}/queues"));
    let names =
        folder.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with("rx-")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(count: usize) -> (SocketAddr, Vec<TcpListener>) {
        let first = net::bind("127.0.0.1:0".parse().unwrap(), 128).unwrap();
        let address = first.local_addr().unwrap();
        let more = (1..count).map(|_| net::bind(address, 128).unwrap());
        (address, std::iter::once(first).chain(more).collect())
    }

    #[test]
    fn core_is_taken_when_it_is_asked_for_and_possible() {
        let (address, two) = sockets(2);
        let filtered = steer(Steering::Core, address, &two, &[0, 1], None);
        assert_eq!((filtered.as_str(), filtered.by()), ("core", "filter"));
        let why = |wanted, cores: &[usize]| match steer(wanted, address, &two, cores, None) {
            Steered::Hash(why) => why,
            Steered::Core(_) => panic!("steered by core"),
        };
        assert!(why(Steering::Core, &[0, 1, 2]).contains("earlier process"));
        assert!(why(Steering::Core, &[3, 3]).contains("share a core"));
        assert!(why(Steering::Hash, &[0, 1]).contains("configured"));
        assert!(why(Steering::Auto, &[0, 1]).contains("receive queues"), "loopback has one");
    }

    #[test]
    fn a_connection_goes_to_the_shard_of_the_core_that_received_it() {
        // The first packet to loopback is received on the core that sent it.
        let (address, two) = sockets(2);
        two.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        let core = std::thread::spawn(move || {
            // Whichever core this process may use; the other socket is given to one that cannot be it.
            let cores = super::super::cores::allowed();
            assert!(net::pin_to_core(cores[0]));
            let elsewhere = cores[0] + 1000;
            let steered = steer(Steering::Core, address, &two, &[elsewhere, cores[0]], None);
            assert_eq!(steered, Steered::Core(Means::Filter));
            let clients: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
            let queued = |socket: &TcpListener| std::iter::from_fn(|| socket.accept().ok()).count();
            (queued(&two[0]), queued(&two[1]), clients.len())
        });
        assert_eq!(core.join().unwrap(), (0, 50, 50));
    }
}
