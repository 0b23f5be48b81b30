//! A body of any length whose every byte is known from its offset.
//!
//! Big bodies are checked while they stream, so neither side of a test holds one in memory, and a
//! lost, repeated or swapped piece of any size is noticed: the period is prime, so no buffer size
//! is a multiple of it.

use std::sync::OnceLock;

/// Period of the pattern in bytes.
const PERIOD: usize = 251;
/// Longest piece given or compared at once, in bytes.
pub const PIECE: usize = 64 * 1024;

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| (0..PIECE + PERIOD).map(|offset| (offset % PERIOD) as u8).collect())
}

/// The bytes from `offset` on: `len` of them, at most [`PIECE`].
pub fn piece(offset: u64, len: usize) -> &'static [u8] {
    let start = (offset % PERIOD as u64) as usize;
    &table()[start..start + len.min(PIECE)]
}

/// Whether `bytes` is what the pattern has at `offset`.
pub fn matches(offset: u64, bytes: &[u8]) -> bool {
    let mut at = offset;
    bytes.chunks(PIECE).all(|part| {
        let same = piece(at, part.len()) == part;
        at += part.len() as u64;
        same
    })
}

/// The first `len` bytes as one vector.
pub fn whole(len: usize) -> Vec<u8> {
    (0..len).map(|offset| (offset % PERIOD) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_piece_does_not_match() {
        let body = whole(200_000);
        assert!(matches(0, &body));
        assert!(matches(7, &body[7..]));
        assert!(!matches(8, &body[7..]));
    }
}
