//! MD5-crypt as Apache (`$apr1$`) and older systems (`$1$`) write it.
//!
//! The steps are those of crypt(3) of FreeBSD 2.0. Old and quick to guess; read because password files have it.
//!
//! Owns nothing.

use md5::{Digest, Md5};

use super::same;

const ROUNDS: usize = 1000;
/// Digits of the hash in its own order of base64.
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Which bytes make up four digits each, the highest first; the last two digits are byte 11 alone.
const GROUPS: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];
const LENGTH: usize = 22;

/// The parts of a hash: magic, salt and digits. `None` for what is none.
pub fn split(text: &str) -> Option<(&str, &str, &str)> {
    let magic = ["$apr1$", "$1$"].into_iter().find(|magic| text.starts_with(magic))?;
    let (salt, digits) = text[magic.len()..].split_once('$')?;
    let whole = digits.len() == LENGTH && digits.bytes().all(|digit| DIGITS.contains(&digit));
    (whole && salt.len() <= 8).then_some((magic, salt, digits))
}

/// Whether `given` is the password of a hash.
pub fn verify(text: &str, given: &[u8]) -> bool {
    split(text).is_some_and(|(magic, salt, digits)| {
        same(digits.as_bytes(), &hash(given, magic.as_bytes(), salt.as_bytes()))
    })
}

fn hash(given: &[u8], magic: &[u8], salt: &[u8]) -> [u8; LENGTH] {
    let inner = Md5::new().chain_update(given).chain_update(salt).chain_update(given).finalize();
    let mut outer = Md5::new().chain_update(given).chain_update(magic).chain_update(salt);
    for at in (0..given.len()).step_by(16) {
        outer.update(&inner[..(given.len() - at).min(16)]);
    }
    let mut bits = given.len();
    while bits > 0 {
        // Odd, but so it was written once.
        outer.update(if bits & 1 == 1 { &[0][..] } else { given.get(..1).unwrap_or_default() });
        bits >>= 1;
    }
    let mut last = outer.finalize();
    for round in 0..ROUNDS {
        let odd = round % 2 == 1;
        let mut next = Md5::new();
        next.update(if odd { given } else { &last[..] });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(given);
        }
        next.update(if odd { &last[..] } else { given });
        last = next.finalize();
    }
    digits(&last)
}

fn digits(bytes: &[u8]) -> [u8; LENGTH] {
    let mut out = [0; LENGTH];
    let groups =
        GROUPS.iter().map(|group| group.iter().fold(0, |value, &at| value << 8 | u32::from(bytes[at])));
    for (four, mut value) in out.chunks_mut(4).zip(groups.chain([u32::from(bytes[11])])) {
        for digit in four {
            *digit = DIGITS[value as usize & 63];
            value >>= 6;
        }
    }
    out
}
