//! Short texts, eight bytes at a time: their hash, and whether they are the same.
//!
//! Host names and the beginnings of paths are some ten to forty bytes long, each another length. A call into the C
//! library for each comparison, or a step for each byte, would be most of what routing costs when the tables are at
//! hand. Invariant: no text is read beyond its end; the last bytes of one that is no multiple of eight are read twice.

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// One more word into a hash.
#[inline]
pub(super) fn step(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(23) ^ word).wrapping_mul(MULTIPLIER)
}

/// A hash whose high bits are its best.
#[inline]
pub(super) fn hash(text: &[u8]) -> u64 {
    let len = text.len() as u64;
    if let Some(last) = text.last_chunk::<8>() {
        let words = text.as_chunks::<8>().0.iter();
        let hash = words.fold(len, |hash, word| step(hash, u64::from_le_bytes(*word)));
        return step(hash, u64::from_le_bytes(*last));
    }
    let word = match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        _ => text.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    step(len, word)
}

/// Whether the two are the same.
#[inline]
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && starts_with(a, b)
}

/// Whether `text` begins with `start`.
#[inline]
pub(super) fn starts_with(text: &[u8], start: &[u8]) -> bool {
    let Some(text) = text.get(..start.len()) else { return false };
    if let (Some(own), Some(its)) = (text.last_chunk::<8>(), start.last_chunk::<8>()) {
        return own == its && text.as_chunks::<8>().0.iter().eq(start.as_chunks::<8>().0);
    }
    match (text.first_chunk::<4>(), start.first_chunk::<4>()) {
        (Some(own), Some(its)) => own == its && text.last_chunk::<4>() == start.last_chunk::<4>(),
        _ => text.iter().eq(start),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_every_byte_counts() {
        let text: Vec<u8> = (1..=40).collect();
        for len in 0..=40 {
            let own = &text[..len];
            assert!(same(own, own) && starts_with(&text, own));
            assert!(len == 40 || (!same(own, &text) && !starts_with(own, &text)));
            for at in 0..len {
                let mut other = own.to_vec();
                other[at] ^= 1;
                assert!(!same(own, &other) && !starts_with(&text, &other), "{len} {at}");
                assert_ne!(hash(own), hash(&other), "{len} {at}");
            }
        }
    }
}
