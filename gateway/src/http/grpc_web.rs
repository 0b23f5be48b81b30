//! gRPC-Web, to and from gRPC ("PROTOCOL-WEB" of the gRPC documentation).
//!
//! Owns the two differences on the wire: trailers, which are a frame of the body with the flag 0x80, and base64 for
//! clients that cannot read bytes. Never looks into a message.

use super::Head;

/// Flag of the frame that holds trailers.
const TRAILERS: u8 = 0x80;

/// The trailers as the last frame of a body.
pub fn trailer_frame(trailers: &Head) -> Vec<u8> {
    let mut frame = vec![TRAILERS, 0, 0, 0, 0];
    for (_, name, value) in trailers.iter() {
        frame.extend(name.iter().map(u8::to_ascii_lowercase));
        frame.extend_from_slice(b": ");
        frame.extend_from_slice(value);
        frame.extend_from_slice(b"\r\n");
    }
    let length = (frame.len() - 5) as u32;
    frame[1..5].copy_from_slice(&length.to_be_bytes());
    frame
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 of `bytes`, padded: what follows is encoded anew, as readers of a stream expect.
pub fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0, |bits: u32, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = bits >> (18 - 6 * digit) & 63;
            out.push(if digit <= group.len() { ALPHABET[index as usize] } else { b'=' });
        }
    }
    out
}

/// Decodes base64 that comes in pieces, padded at any multiple of four digits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoder {
    bits: u32,
    digits: u8,
    padding: u8,
}

impl Decoder {
    /// Decodes the next piece. `None`: it is no base64.
    pub fn decode(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
        for &byte in text {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' if self.digits >= 2 => {
                    self.padding += 1;
                    0
                }
                b'\r' | b'\n' => continue,
                _ => return None,
            };
            if self.padding > 0 && byte != b'=' {
                return None;
            }
            self.bits = self.bits << 6 | u32::from(value);
            self.digits += 1;
            if self.digits == 4 {
                let [_, group @ ..] = self.bits.to_be_bytes();
                out.extend_from_slice(&group[..3 - usize::from(self.padding)]);
                *self = Decoder::default();
            }
        }
        Some(out)
    }

    /// Whether it has ended where it may.
    pub fn is_whole(&self) -> bool {
        self.digits == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_are_a_frame() {
        let mut trailers = Head::new();
        trailers.append("Grpc-Status", "0");
        trailers.append("grpc-message", "ok");
        assert_eq!(trailer_frame(&trailers), b"\x80\0\0\0\x22grpc-status: 0\r\ngrpc-message: ok\r\n");
        assert_eq!(trailer_frame(&Head::new()), b"\x80\0\0\0\0");
    }

    #[test]
    fn base64_goes_and_comes() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(encode(plain.as_bytes()), coded.as_bytes(), "RFC 4648 section 10");
        }
        let bytes: Vec<u8> = (0..=255).collect();
        // Parts that are padded each, as a stream has them.
        let text = [encode(&bytes[..100]), encode(&bytes[100..101]), encode(&bytes[101..])].concat();
        for piece in [1, 2, 3, 5, 64, text.len()] {
            let mut decoder = Decoder::default();
            let decoded: Vec<u8> =
                text.chunks(piece).flat_map(|part| decoder.decode(part).unwrap()).collect();
            assert_eq!((decoded, decoder.is_whole()), (bytes.clone(), true), "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for bad in ["*", "=", "A=", "AA=A", "Z g=", "A==="] {
            let mut decoder = Decoder::default();
            assert!(decoder.decode(bad.as_bytes()).is_none(), "{bad}");
        }
        let mut decoder = Decoder::default();
        assert!(decoder.decode(b"Zm9vY").is_some() && !decoder.is_whole());
    }
}
