//! Frame headers in a stream of bytes (RFC 9113 section 4.1), found without decoding what they frame.
//!
//! Owns the position in the stream: how much of a header is there, how much of a payload is still to come. Never
//! checks a frame: the codec does. Invariant: the frames that are found do not depend on how the bytes are cut.

/// Frame types (RFC 9113 section 6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
    /// RFC 9218 section 7.1.
    pub const PRIORITY_UPDATE: u8 = 16;
}

/// Frame flags.
pub mod flag {
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 32;
}

/// Octets of a frame header.
pub const HEADER_LEN: usize = 9;
/// Octets of a payload that are looked at: padding, priority, and the beginning of a first field.
const PAYLOAD_LEN: usize = 14;

/// A frame, as far as its header and the first octets of its payload tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    /// Octets of payload.
    pub length: u32,
    /// The first four octets of the payload, as a number, where the type has a use for them: an error code (RST_STREAM)
    /// or an increment (WINDOW_UPDATE).
    pub word: u32,
    /// Octets of padding and of the field that tells of them (DATA only).
    pub padding: u32,
    /// The first field of the block is a pseudo-field, as far as that can be told without decoding (HEADERS only).
    pub pseudo: bool,
}

impl Frame {
    /// Whether the flag is set; what a flag means depends on the type.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Finds frames in bytes that arrive in pieces.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    /// The header, and what is looked at of the payload.
    held: [u8; HEADER_LEN + PAYLOAD_LEN],
    have: u8,
    /// Octets to pass over before the next header.
    skip: u32,
    /// How many of them, from the first, are of a header block.
    block: u32,
}

/// What is seen of header blocks on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'b> {
    /// One begins.
    Begins,
    /// Octets of the one that began last.
    Octets(&'b [u8]),
}

impl Scanner {
    /// A scanner of a stream whose first `skip` octets are no frame (the preface of a client).
    pub fn after(skip: u32) -> Scanner {
        Scanner { skip, ..Scanner::default() }
    }

    /// Takes bytes off the front of `input` until a frame is found or none are left.
    #[inline]
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Frame> {
        self.next_with(input, |_| {})
    }

    /// [`Scanner::next`], showing `sight` the header blocks. Of a frame that is found it has seen the first octets.
    #[inline]
    pub fn next_with(&mut self, input: &mut &[u8], mut sight: impl FnMut(Seen<'_>)) -> Option<Frame> {
        loop {
            let pass = (self.skip as usize).min(input.len());
            if self.block > 0 {
                let shown = (self.block as usize).min(pass);
                sight(Seen::Octets(&input[..shown]));
                self.block -= shown as u32;
            }
            self.skip -= pass as u32;
            *input = &input[pass..];
            let (&first, rest) = input.split_first()?;
            if usize::from(self.have) < self.wanted() {
                self.held[usize::from(self.have)] = first;
                self.have += 1;
                *input = rest;
            }
            if usize::from(self.have) == self.wanted() {
                return Some(self.found(&mut sight));
            }
        }
    }

    fn length(&self) -> u32 {
        u32::from_be_bytes([0, self.held[0], self.held[1], self.held[2]])
    }

    /// Octets to hold before a frame can be told of.
    #[inline]
    fn wanted(&self) -> usize {
        if usize::from(self.have) < HEADER_LEN {
            return HEADER_LEN;
        }
        let payload = match self.held[3] {
            kind::RST_STREAM | kind::WINDOW_UPDATE => 4,
            kind::DATA if self.held[4] & flag::PADDED != 0 => 1,
            kind::HEADERS => PAYLOAD_LEN,
            _ => 0,
        };
        HEADER_LEN + payload.min(self.length() as usize)
    }

    fn found(&mut self, sight: &mut impl FnMut(Seen<'_>)) -> Frame {
        let length = self.length();
        let payload = &self.held[HEADER_LEN..usize::from(self.have)];
        let word = payload.first_chunk().map_or(0, |word| u32::from_be_bytes(*word));
        let padded = self.held[3] == kind::DATA && self.held[4] & flag::PADDED != 0;
        let frame = Frame {
            kind: self.held[3],
            flags: self.held[4],
            stream: u32::from_be_bytes([self.held[5], self.held[6], self.held[7], self.held[8]])
                & 0x7fff_ffff,
            length,
            word,
            padding: if padded { payload.first().map_or(0, |pad| u32::from(*pad) + 1) } else { 0 },
            pseudo: self.held[3] == kind::HEADERS && begins_with_pseudo(self.held[4], payload),
        };
        self.skip = length - payload.len() as u32;
        self.block = 0;
        if matches!(frame.kind, kind::HEADERS | kind::CONTINUATION) {
            let (before, behind) = match frame.kind {
                kind::HEADERS => around_block(frame.flags, payload),
                _ => (0, 0),
            };
            let end = (length as usize).saturating_sub(behind);
            if frame.kind == kind::HEADERS {
                sight(Seen::Begins);
            }
            let held = payload.len().min(end);
            sight(Seen::Octets(payload.get(before..held).unwrap_or_default()));
            self.block = (end - held) as u32;
        }
        self.have = 0;
        frame
    }
}

/// Octets of a HEADERS frame before its part of a header block, and behind it.
fn around_block(flags: u8, payload: &[u8]) -> (usize, usize) {
    let padded = flags & flag::PADDED != 0;
    let before = usize::from(padded) + if flags & flag::PRIORITY != 0 { 5 } else { 0 };
    (before, payload.first().filter(|_| padded).map_or(0, |padding| usize::from(*padding)))
}

/// Whether the first field of a header block has a name that begins with a colon: by the static table (RFC 7541 appendix
/// A), or as a literal, plain or in Huffman code. A name in the dynamic table is not known here, and passes: see `table`.
fn begins_with_pseudo(flags: u8, payload: &[u8]) -> bool {
    let (before, _) = around_block(flags, payload);
    let mut block = payload.get(before..).unwrap_or_default();
    // Updates of the size of the table come first.
    while let [first @ 0x20..=0x3f, rest @ ..] = block {
        let last = rest.iter().position(|octet| octet & 0x80 == 0).map_or(rest.len(), |at| at + 1);
        block = if *first == 0x3f { &rest[last..] } else { rest };
    }
    const PSEUDO: std::ops::RangeInclusive<u8> = 1..=14;
    match block {
        [field @ 0x80..=0xff, ..] => PSEUDO.contains(&(field & 0x7f)),
        [0x00 | 0x10 | 0x40, length, first, ..] if length & 0x80 != 0 => first >> 1 == 0b101_1100,
        [0x00 | 0x10 | 0x40, _, first, ..] => *first == b':',
        [field @ 0x40..=0x7f, ..] => PSEUDO.contains(&(field & 0x3f)),
        [field, ..] => PSEUDO.contains(&(field & 0x0f)),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pseudo_field_is_told_by_its_first_octets() {
        let check = |flags, payload: &[u8], expected| {
            assert_eq!(begins_with_pseudo(flags, payload), expected, "{payload:x?}");
        };
        check(0, &[0x82], true);
        check(0, &[0x8f], false);
        check(0, &[0xbe], false);
        check(0, &[0x20, 0x3f, 0xe1, 0x1f, 0x83], true);
        check(0, &[0x44, 1, b'/'], true);
        check(0, &[0x04, 1, b'/'], true);
        check(0, &[0x14, 1, b'/'], true);
        check(0, &[0x0f, 0x01, 1, b'a'], false);
        check(0, &[0x5f, 1, b'a'], false);
        check(0, &[0x40, 7, b':', b'm'], true);
        check(0, &[0x00, 1, b'x'], false);
        // `:a` and `ab` in Huffman code.
        check(0, &[0x00, 0x82, 0xb8, 0xff], true);
        check(0, &[0x00, 0x82, 0x1c, 0x7f], false);
        check(flag::PADDED | flag::PRIORITY, &[0, 0, 0, 0, 0, 0, 0x82], true);
        check(flag::PADDED, &[], false);
        check(0, &[], false);
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn scan(scanner: &mut Scanner, pieces: &[&[u8]]) -> Vec<Frame> {
        let mut found = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            while let Some(frame) = scanner.next(&mut input) {
                found.push(frame);
            }
            assert!(input.is_empty());
        }
        found
    }

    #[test]
    fn header_blocks_are_seen_without_what_is_around_them() {
        let long = [b'x'; 40];
        let stream = [
            frame(kind::HEADERS, 0, 1, &long),
            frame(kind::CONTINUATION, 0, 1, b"more"),
            frame(kind::DATA, 0, 1, b"not this"),
            frame(
                kind::HEADERS,
                flag::PADDED | flag::PRIORITY,
                3,
                &[&[4, 0, 0, 0, 0, 1][..], b"second", &[0; 4]].concat(),
            ),
            frame(kind::HEADERS, flag::PADDED, 5, &[&[3][..], &long, &[0; 3]].concat()),
            frame(kind::HEADERS, flag::PADDED, 5, &[200, 1]),
            frame(kind::CONTINUATION, 0, 5, b""),
        ]
        .concat();
        for size in [1, 2, 7, 1 << 20] {
            let mut blocks: Vec<Vec<u8>> = Vec::new();
            let mut scanner = Scanner::default();
            for mut piece in stream.chunks(size) {
                let sight = |blocks: &mut Vec<Vec<u8>>, seen: Seen<'_>| match seen {
                    Seen::Begins => blocks.push(Vec::new()),
                    Seen::Octets(octets) => blocks.last_mut().unwrap().extend(octets),
                };
                while scanner.next_with(&mut piece, |seen| sight(&mut blocks, seen)).is_some() {}
            }
            let expected = [[&long[..], b"more"].concat(), b"second".to_vec(), long.to_vec(), Vec::new()];
            assert_eq!(blocks, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let stream = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(kind::SETTINGS, 0, 0, &[0; 6]),
            frame(kind::WINDOW_UPDATE, 0, 0x8000_0000, &[0, 0, 1, 0]),
            frame(kind::DATA, flag::PADDED, 1, &[3, 9, 0, 0, 0]),
            frame(kind::DATA, flag::END_STREAM, 1, &[]),
            frame(kind::RST_STREAM, 0, 3, &[0, 0, 0, 8]),
            frame(kind::PING, 0, 0, &[7; 8]),
            frame(kind::WINDOW_UPDATE, 0, 5, &[1]),
            frame(0xbb, 0xff, 7, &[0; 300]),
        ]
        .concat();
        let whole = scan(&mut Scanner::after(24), &[&stream]);
        let told: Vec<_> = whole.iter().map(|f| (f.kind, f.stream, f.length, f.word, f.padding)).collect();
        assert_eq!(
            told,
            [
                (kind::SETTINGS, 0, 6, 0, 0),
                (kind::WINDOW_UPDATE, 0, 4, 256, 0),
                (kind::DATA, 1, 5, 0, 4),
                (kind::DATA, 1, 0, 0, 0),
                (kind::RST_STREAM, 3, 4, 8, 0),
                (kind::PING, 0, 8, 0, 0),
                (kind::WINDOW_UPDATE, 5, 1, 0, 0),
                (0xbb, 7, 300, 0, 0),
            ]
        );
        for size in [1, 2, 3, 5, 8, 13, 64] {
            let pieces: Vec<_> = stream.chunks(size).collect();
            let mut scanner = Scanner::after(24);
            assert_eq!(scan(&mut scanner, &pieces), whole, "in pieces of {size}");
        }
    }
}
