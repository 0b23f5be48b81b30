//! Where one WebSocket frame ends and the next begins (RFC 6455 section 5.2).
//!
//! Owns the walk over frame headers, whatever pieces they arrive in. Never looks at a payload, unmasks nothing and
//! judges nothing: a frame that is wrong is for the receiver to refuse. Invariant: [`Frames::is_between`] is true
//! exactly when a frame put in at this place is read as a frame of its own.

mod handshake;

pub use handshake::{Fault, KEY, Proof, VERSION};

/// A close frame from a server, unmasked, status 1001: "going away" (RFC 6455 section 7.4.1).
pub const CLOSE_GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xE9];

/// The same from a client, masked with `key` (RFC 6455 section 5.3).
pub const fn masked_close_going_away(key: [u8; 4]) -> [u8; 8] {
    [0x88, MASKED | 0x02, key[0], key[1], key[2], key[3], 0x03 ^ key[0], 0xE9 ^ key[1]]
}

const OPCODE: u8 = 0x0F;
const OPCODE_CLOSE: u8 = 0x08;
const MASKED: u8 = 0x80;
/// Two bytes, an extended length of eight, a masking key of four.
const HEADER_MAX: usize = 14;

/// The frames of one direction, as far as they have come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    header: [u8; HEADER_MAX],
    /// Bytes of an unfinished header.
    have: usize,
    /// Bytes of payload still to come.
    payload: u64,
    closed: bool,
}

impl Frames {
    /// Walks over the next bytes of the direction. Gives where among them the last frame ended, if one did.
    pub fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut end = None;
        let mut at = 0;
        while at < bytes.len() {
            if self.payload > 0 {
                let step = self.payload.min((bytes.len() - at) as u64);
                self.payload -= step;
                at += step as usize;
            } else {
                self.header[self.have] = bytes[at];
                self.have += 1;
                at += 1;
                if self.have < 2 || self.have < header_len(self.header[1]) {
                    continue;
                }
                self.payload = payload_len(&self.header);
                self.closed |= self.header[0] & OPCODE == OPCODE_CLOSE;
                self.have = 0;
            }
            if self.payload == 0 {
                end = Some(at);
            }
        }
        end
    }

    /// Whether the last frame is whole and the next has not begun.
    pub fn is_between(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// Whether a close frame was among them: no frame may follow it.
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Length of a header by its second byte.
fn header_len(second: u8) -> usize {
    let extended = match second & !MASKED {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + extended + if second & MASKED == 0 { 0 } else { 4 }
}

fn payload_len(header: &[u8; HEADER_MAX]) -> u64 {
    let extended = |bytes: &[u8]| bytes.iter().fold(0, |len, &byte| len << 8 | u64::from(byte));
    match header[1] & !MASKED {
        126 => extended(&header[2..4]),
        127 => extended(&header[2..10]),
        len => u64::from(len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, len: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { MASKED } else { 0 };
        let mut bytes = vec![first];
        match len {
            0..=125 => bytes.push(mask | len as u8),
            126..=0xFFFF => {
                bytes.push(mask | 126);
                bytes.extend_from_slice(&(len as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(if masked { &[1, 2, 3, 4] } else { &[] });
        // Payload that looks like close frames.
        bytes.extend(std::iter::repeat_n(0x88, len));
        bytes
    }

    #[test]
    fn frames_end_where_they_end_however_they_are_cut() {
        let sizes = [0, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000];
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for masked in [false, true] {
            for len in sizes {
                bytes.extend(frame(0x82, len, masked));
                ends.push(bytes.len());
            }
        }
        for piece in [1, 2, 3, 7, 4096, bytes.len()] {
            let (mut frames, mut at) = (Frames::default(), 0);
            for part in bytes.chunks(piece) {
                let last = ends.iter().copied().filter(|end| (at + 1..=at + part.len()).contains(end)).max();
                assert_eq!(frames.advance(part), last.map(|end| end - at), "at {at} in pieces of {piece}");
                at += part.len();
                assert_eq!(frames.is_between(), ends.contains(&at), "at {at} in pieces of {piece}");
            }
            assert!(!frames.is_closed());
        }
    }

    #[test]
    fn a_close_frame_is_seen_by_its_opcode() {
        let mut frames = Frames::default();
        frames.advance(&frame(0x89, 5, false));
        assert!(!frames.is_closed());
        assert_eq!(frames.advance(&CLOSE_GOING_AWAY), Some(4));
        assert!(frames.is_closed() && frames.is_between());
    }

    #[test]
    fn the_longest_length_does_not_overflow() {
        let mut frames = Frames::default();
        assert_eq!(
            frames.advance(&[0x82, 0xFF, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 9]),
            None
        );
        assert!(!frames.is_between());
    }
}
