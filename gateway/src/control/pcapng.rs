//! A capture file that tcpdump and Wireshark read, with the reason of each drop as the packet's comment.
//!
//! Owns the parts of the PCAP Next Generation format that this takes (draft-ietf-opsawg-pcapng): a section header, an
//! interface block for each interface, an enhanced packet block for each packet. Little-endian, microseconds.

use std::io::Write;

use anyhow::Result;

use super::ledger::Sample;

/// A file being written.
pub struct Capture<W> {
    out: W,
    interfaces: Vec<String>,
    packets: u64,
}

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const ETHERNET: u32 = 1;
/// Longer than any sample; a reader makes room for it.
const SNAP_LENGTH: u32 = 65_535;
const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_INTERFACE_NAME: u16 = 2;

impl<W: Write> Capture<W> {
    /// Writes the header.
    pub fn begin(mut out: W) -> Result<Self> {
        let mut body = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
        body.extend(1_u16.to_le_bytes());
        body.extend(0_u16.to_le_bytes());
        // The section's length is not known yet.
        body.extend((-1_i64).to_le_bytes());
        out.write_all(&block(SECTION_HEADER, &body))?;
        Ok(Self { out, interfaces: Vec::new(), packets: 0 })
    }

    /// Writes a packet.
    pub fn add(&mut self, sample: &Sample) -> Result<()> {
        let interface = match self.interfaces.iter().position(|name| *name == sample.interface) {
            Some(number) => number,
            None => {
                let mut body = ETHERNET.to_le_bytes().to_vec();
                body.extend(SNAP_LENGTH.to_le_bytes());
                body.extend(option(OPTION_INTERFACE_NAME, sample.interface.as_bytes()));
                body.extend(option(OPTION_END, b""));
                self.out.write_all(&block(INTERFACE, &body))?;
                self.interfaces.push(sample.interface.clone());
                self.interfaces.len() - 1
            }
        };
        let bytes = unhex(&sample.bytes);
        let mut body = (interface as u32).to_le_bytes().to_vec();
        body.extend(((sample.at_us >> 32) as u32).to_le_bytes());
        body.extend((sample.at_us as u32).to_le_bytes());
        body.extend((bytes.len() as u32).to_le_bytes());
        body.extend(sample.length.max(bytes.len() as u32).to_le_bytes());
        body.extend(padded(&bytes));
        body.extend(option(OPTION_COMMENT, sample.reason.as_bytes()));
        body.extend(option(OPTION_END, b""));
        self.out.write_all(&block(ENHANCED_PACKET, &body))?;
        self.packets += 1;
        Ok(())
    }

    /// Packets written.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Hands everything to the file.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = (12 + body.len() as u32).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, body, &length].concat()
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let length = value.len() as u16;
    [&code.to_le_bytes()[..], &length.to_le_bytes(), &padded(value)].concat()
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    padded
}

/// Stops at what is no hexadecimal digit.
fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map_while(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_and_aligned() {
        let sample = |interface: &str| Sample {
            number: 0,
            at_us: 1_700_000_000_000_001,
            interface: interface.into(),
            reason: "drop_denied".into(),
            protocol: "tcp".into(),
            from: "a".into(),
            to: "b".into(),
            length: 60,
            bytes: "00112233445566".into(),
        };
        let mut file = Vec::new();
        let mut capture = Capture::begin(&mut file).unwrap();
        for interface in ["eth0", "eth0", "veth"] {
            capture.add(&sample(interface)).unwrap();
        }
        assert_eq!(capture.packets(), 3);
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let mut kinds = Vec::new();
        let mut at = 0;
        while at < file.len() {
            let length = word(at + 4);
            assert_eq!(length, word(at + length as usize - 4), "both lengths of a block");
            assert!(length.is_multiple_of(4));
            kinds.push(word(at));
            at += length as usize;
        }
        assert_eq!(at, file.len());
        assert_eq!(kinds, [SECTION_HEADER, 1, 6, 6, 1, 6]);
        assert_eq!(unhex("0aff zz"), [0x0a, 0xff]);
    }
}
