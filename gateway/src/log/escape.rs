//! JSON strings from arbitrary bytes (RFC 8259 section 7).
//!
//! Owns: escaping. Invariant: what is appended is valid UTF-8 and one JSON string, whatever the input.

/// Appends `text` as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    content(text, out);
    out.push(b'"');
}

/// As [`string`], without quotes: for strings made of parts.
///
/// Parts must be cut at UTF-8 boundaries, or the halves of a character become two U+FFFD.
pub(super) fn content(text: &[u8], out: &mut Vec<u8>) {
    // Nearly all text in a request is plain ASCII: copied in one piece.
    let plain = text.iter().take_while(|byte| is_plain(**byte)).count();
    let (plain, rest) = text.split_at(plain);
    out.extend_from_slice(plain);
    if !rest.is_empty() {
        rest.utf8_chunks().for_each(|chunk| {
            valid(chunk.valid().as_bytes(), out);
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        });
    }
}

fn valid(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            // DEL need not be escaped, but a log is read in terminals.
            0..=0x1f | 0x7f => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &[u8]) -> String {
        let mut out = Vec::new();
        string(text, &mut out);
        serde_json::from_slice(&out).unwrap_or_else(|e| panic!("{e} in {:?}", String::from_utf8_lossy(&out)))
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in any::<String>()) {
            prop_assert_eq!(parsed(text.as_bytes()), text);
        }

        #[test]
        fn any_bytes_come_back_as_the_standard_library_would_read_them(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(parsed(&bytes), String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn every_single_byte_stays_on_one_line() {
        for byte in 0..=255 {
            let mut out = Vec::new();
            string(&[b'a', byte, b'z'], &mut out);
            assert!(out.iter().all(|b| !b.is_ascii_control()), "{byte}");
            assert_eq!(parsed(&[byte]), String::from_utf8_lossy(&[byte]));
        }
    }
}
