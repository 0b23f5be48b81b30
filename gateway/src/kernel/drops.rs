//! What the program tells beyond counters: samples of dropped packets, and the known-good sources among them.

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError, RingBuf};
use portcullis_abi::{DropEvent, GoodHit, GoodKey, Reason, SAMPLE_BYTES, map};

use super::{KernelError, load};

/// A packet that was dropped, or in shadow mode would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drop {
    /// When, ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// On which interface, by its index.
    pub interface_index: u32,
    /// What it was counted under.
    pub reason: Reason,
    /// Whether it passed, being only counted.
    pub shadow: bool,
    /// How long it was.
    pub len: u32,
    /// Its first bytes, from Ethernet on: at most [`SAMPLE_BYTES`], and of a shorter one all but at most 7.
    pub data: Vec<u8>,
}

/// A source that authenticated lately and was dropped, or in shadow mode would have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The source, as in the table.
    pub key: u64,
    /// The reason to drop, also where it is only counted.
    pub reason: Reason,
    /// The number of the list for [`Reason::DropDenied`], of the limit for [`Reason::DropRuleRate`]; else 0.
    pub number: u32,
    /// Packets that met it.
    pub packets: u64,
    /// When the last one did, ns of CLOCK_MONOTONIC.
    pub last_ns: u64,
    /// Whether that one was dropped indeed.
    pub dropped: bool,
}

/// Both maps.
pub(super) struct Reports {
    ring: RingBuf<MapData>,
    good: HashMap<MapData, GoodKey, GoodHit>,
}

impl Reports {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Reports, KernelError> {
        Ok(Reports { ring: load::typed(ebpf, map::DROPS)?, good: load::typed(ebpf, map::KNOWN_GOOD)? })
    }

    /// Takes up to `max` samples out of the ring, oldest first.
    pub(super) fn take(&mut self, max: usize) -> Vec<Drop> {
        std::iter::from_fn(|| self.ring.next().map(|item| parse(&item))).take(max).flatten().collect()
    }

    /// Every hit since the maps were made, of those the map has room for.
    pub(super) fn hits(&self) -> Result<Vec<Hit>, KernelError> {
        let mut hits = Vec::new();
        for entry in self.good.iter() {
            match entry {
                Ok((key, hit)) => hits.extend(Reason::from_index(key.reason as usize).map(|reason| Hit {
                    key: key.source,
                    reason,
                    number: key.number,
                    packets: hit.packets,
                    last_ns: hit.last_ns & !1,
                    dropped: hit.last_ns & 1 != 0,
                })),
                // Evicted while it was being read.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(KernelError::map(map::KNOWN_GOOD)(error)),
            }
        }
        Ok(hits)
    }

    /// Forgets the hits that `old` says so of.
    pub(super) fn forget(&mut self, old: impl Fn(&Hit) -> bool) -> Result<(), KernelError> {
        for hit in self.hits()?.iter().filter(|hit| old(hit)) {
            let key = GoodKey { source: hit.key, reason: hit.reason as u32, number: hit.number };
            // Gone already is as good.
            let _ = self.good.remove(&key);
        }
        Ok(())
    }
}

/// An event as it lies in the ring; `None` for one that this build does not know.
fn parse(bytes: &[u8]) -> Option<Drop> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let time_ns = u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?);
    let reason = Reason::from_index(word(std::mem::offset_of!(DropEvent, reason))? as usize)?;
    let captured = (word(std::mem::offset_of!(DropEvent, captured))? as usize).min(SAMPLE_BYTES);
    let data = std::mem::offset_of!(DropEvent, data);
    Some(Drop {
        time_ns,
        interface_index: word(std::mem::offset_of!(DropEvent, interface))?,
        reason,
        shadow: !reason.drops_packet(),
        len: word(std::mem::offset_of!(DropEvent, length))?,
        data: bytes.get(data..data + captured)?.to_vec(),
    })
}
