//! What proves that both sides mean a WebSocket (RFC 6455 sections 4.1 and 4.2).
//!
//! Owns the check of a request for one, and the proof that its answer must hold. Never decides what becomes of either.
//! Invariant: an answer that was made without reading the key of the request proves nothing.

use crate::http::Head;

/// The version of the protocol.
pub const VERSION: &str = "13";
/// Fields of the handshake.
pub const KEY: &str = "Sec-WebSocket-Key";
const ACCEPT: &str = "Sec-WebSocket-Accept";
const VERSION_FIELD: &str = "Sec-WebSocket-Version";
/// What a server puts behind the key (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What is wrong with a request for a WebSocket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Another version than 13, or none: 426 tells which one is spoken (RFC 6455 section 4.4).
    Version,
    /// The key is not 16 bytes in base64, or not there exactly once: 400.
    Key,
}

/// What `Sec-WebSocket-Accept` must hold: the SHA-1 of key and GUID in base64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proof([u8; 28]);

impl Proof {
    /// The proof that is to be given to a request with these fields.
    ///
    /// # Errors
    /// The request is no request for a WebSocket.
    pub fn asked_by(head: &Head) -> Result<Proof, Fault> {
        if one(head, VERSION_FIELD) != Some(VERSION.as_bytes()) {
            return Err(Fault::Version);
        }
        let key = one(head, KEY).filter(|key| is_key(key)).ok_or(Fault::Key)?;
        Ok(Proof::of(key))
    }

    /// The proof for a key.
    pub fn of(key: &[u8]) -> Proof {
        let mut text = [0; 28];
        base64(&sha1(&[key, GUID].concat()), &mut text);
        Proof(text)
    }

    /// The text of the field.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether an answer with these fields gives the proof.
    pub fn is_given_by(&self, head: &Head) -> bool {
        one(head, ACCEPT) == Some(&self.0[..])
    }
}

/// The value of a field that is there exactly once.
fn one<'h>(head: &'h Head, name: &str) -> Option<&'h [u8]> {
    let mut values = head.get_all(name);
    values.next().filter(|_| values.next().is_none())
}

/// Whether a key is 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key[..22].iter().all(letter) && &key[22..] == b"=="
}

fn base64(bytes: &[u8; 20], out: &mut [u8; 28]) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (group, text) in bytes.chunks(3).zip(out.chunks_mut(4)) {
        let bits =
            group.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for (at, letter) in text.iter_mut().enumerate() {
            let padding = at > group.len();
            *letter = if padding { b'=' } else { LETTERS[(bits >> (18 - 6 * at)) as usize & 63] };
        }
    }
}

/// SHA-1 (RFC 3174). It tells here only that somebody has read the request, which no attack on it makes easier.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0];
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64) + if padded.len() % 64 > 56 { 64 } else { 0 } - 8, 0);
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.as_chunks::<64>().0 {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        for at in 16..80 {
            words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (round, word) in words.into_iter().enumerate() {
            let (mixed, constant) = match round / 20 {
                0 => (b & c | !b & d, 0x5A82_7999),
                1 => (b ^ c ^ d, 0x6ED9_EBA1),
                2 => (b & c | b & d | c & d, 0x8F1B_BCDC),
                _ => (b ^ c ^ d, 0xCA62_C1D6),
            };
            let next = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e);
            (a, b, c, d, e) = (next.wrapping_add(constant).wrapping_add(word), a, b.rotate_left(30), c, d);
        }
        for (part, mixed) in state.iter_mut().zip([a, b, c, d, e]) {
            *part = part.wrapping_add(mixed);
        }
    }
    let mut digest = [0; 20];
    for (bytes, part) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = part.to_be_bytes();
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn digests_rfc3174_7_3() {
        for (text, want) in [
            (String::new(), "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            ("abc".into(), "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".into(),
                "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
            ),
            (
                "0123456701234567012345670123456701234567012345670123456701234567".repeat(10),
                "dea356a2cddd90c7a7ecedc5ebb563934f460452",
            ),
            ("a".repeat(55), "c1c8bbdc22796e28c0e15163d20899b65621d65a"),
            ("a".repeat(56), "c2db330f6083854c99d4b5bfb6e8f29f201be699"),
            ("a".repeat(64), "0098ba824b5c16427bd7a1122a5a442a25ec644d"),
        ] {
            assert_eq!(hex(&sha1(text.as_bytes())), want, "{} bytes", text.len());
        }
    }

    #[test]
    fn the_proof_of_rfc6455_1_3() {
        let proof = Proof::of(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(proof.as_bytes(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn requests_and_answers_rfc6455_4() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        for (fields, want) in [
            (&[(KEY, key), (VERSION_FIELD, "13")][..], Ok(())),
            (&[(KEY, key)], Err(Fault::Version)),
            (&[(KEY, key), (VERSION_FIELD, "8")], Err(Fault::Version)),
            (&[(KEY, key), (VERSION_FIELD, "13, 8")], Err(Fault::Version)),
            (&[(KEY, key), (VERSION_FIELD, "13"), (VERSION_FIELD, "13")], Err(Fault::Version)),
            (&[(VERSION_FIELD, "13")], Err(Fault::Key)),
            (&[(KEY, key), (KEY, key), (VERSION_FIELD, "13")], Err(Fault::Key)),
            (&[(KEY, ""), (VERSION_FIELD, "13")], Err(Fault::Key)),
            (&[(KEY, "dGhlIHNhbXBsZSBub25jZQ"), (VERSION_FIELD, "13")], Err(Fault::Key)),
            (&[(KEY, "dGhlIHNhbXBsZSBub25jZ*=="), (VERSION_FIELD, "13")], Err(Fault::Key)),
            (&[(KEY, "dGhlIHNhbXBsZSBub25jZQ=a"), (VERSION_FIELD, "13")], Err(Fault::Key)),
        ] {
            let mut head = Head::new();
            fields.iter().for_each(|(name, value)| head.append(name, value));
            assert_eq!(Proof::asked_by(&head).map(drop), want, "{fields:?}");
        }
        let proof = Proof::of(key.as_bytes());
        for (values, given) in [
            (&["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="][..], true),
            (&["s3pPLMBiTxaQ9kYGzzhZRbK+xOo"], false),
            (&["S3pPLMBiTxaQ9kYGzzhZRbK+xOo="], false),
            (&["s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="], false),
            (&[], false),
        ] {
            let mut head = Head::new();
            values.iter().for_each(|value| head.append(ACCEPT, value));
            assert_eq!(proof.is_given_by(&head), given, "{values:?}");
        }
    }
}
