//! Which entries of a decoder's dynamic table are pseudo-fields (RFC 7541 section 2.3.2), found without decoding.
//!
//! Owns a walk over header blocks that looks at what each field line begins with and passes over its text, and one bit for
//! each entry. Never decodes a string, and refuses nothing. The codec does not tell a pseudo-field in trailers (RFC 9113
//! section 8.1), so the guard does; and one that was put into the table by an earlier block is a single octet.
//!
//! Entries are numbered from the newest, so which one an index names depends only on what was inserted after it. An entry
//! that is larger than the table empties it instead (section 4.4), and how large one is cannot be told without decoding.
//! Therefore: what may be that large, and a smaller table, end all knowledge for the rest of the connection.
//!
//! Invariants: an entry that is said to be a pseudo-field is one; and what is found does not depend on how the bytes are cut.

/// Octets of a string, coded, that surely leave room for another such beside it in a table of [`TABLE`] octets: Huffman
/// code makes at most 8/5 of an octet of one.
const STRING_MAX: u32 = 1024;
/// Octets of the table: its default size, which no setting of ours changes. An entry counts 32 more than its text.
const TABLE: u32 = 4096;
const _: () = assert!(2 * (STRING_MAX * 8 / 5) + 32 <= TABLE);
/// Entries that can be in the table at once, which are as many as there are bits.
const _: () = assert!(TABLE / 32 == u128::BITS);
/// Entries of the static table (RFC 7541 appendix A), and those of them that are pseudo-fields: 1 to 14.
const STATIC: u32 = 61;
const STATIC_PSEUDO: u32 = 14;

/// What is known of the table of one direction of a connection.
#[derive(Clone, Debug)]
pub struct Table {
    /// A bit for each entry, the newest lowest: it is a pseudo-field.
    pseudo: u128,
    /// Nothing is known any more.
    lost: bool,
    /// No field of the block was seen yet.
    first: bool,
    /// The first field of the block is a pseudo-field of the dynamic table.
    found: bool,
    state: State,
}

/// Where in a block the walk is.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Before a field line.
    Start,
    /// In the index of one.
    Index { kind: Kind, number: Number },
    /// Before the length of a string.
    Text { what: Text },
    /// In it.
    Length { what: Text, number: Number },
    /// Before the first octet of a name.
    Name { left: u32, huffman: bool, inserts: bool },
    /// In a string.
    Pass { left: u32, then: Option<Text> },
}

/// What a field line is (RFC 7541 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Indexed,
    Inserted,
    /// Without indexing, or never indexed.
    Plain,
    /// A new size of the table.
    Size,
}

/// A string that comes.
#[derive(Clone, Copy, Debug)]
enum Text {
    Name { inserts: bool },
    Value { inserts: bool },
}

/// An integer of several octets so far (RFC 7541 section 5.1).
#[derive(Clone, Copy, Debug)]
struct Number {
    value: u32,
    shift: u32,
    huffman: bool,
}

impl Number {
    fn new(value: u32, huffman: bool) -> Number {
        Number { value, shift: 0, huffman }
    }

    /// Takes an octet; the value once it is whole, `None` beyond what any field needs.
    fn next(&mut self, octet: u8) -> Option<Option<u32>> {
        if self.shift > 21 {
            return None;
        }
        self.value += u32::from(octet & 0x7f) << self.shift;
        self.shift += 7;
        Some((octet & 0x80 == 0).then_some(self.value))
    }
}

impl Default for Table {
    fn default() -> Table {
        Table { pseudo: 0, lost: false, first: true, found: false, state: State::Start }
    }
}

impl Table {
    /// A header block begins.
    pub fn begin(&mut self) {
        (self.first, self.found, self.state) = (true, false, State::Start);
    }

    /// Whether the block begins with a pseudo-field of the dynamic table, as far as it was taken.
    pub fn begins_with_pseudo(&self) -> bool {
        self.found
    }

    /// Takes the octets of the block that come next.
    #[inline]
    pub fn take(&mut self, mut octets: &[u8]) {
        while let Some((&octet, rest)) = octets.split_first() {
            if self.lost {
                return;
            }
            if let State::Pass { left, then } = self.state {
                let passed = (left as usize).min(octets.len());
                octets = &octets[passed..];
                self.pass(left - passed as u32, then);
                continue;
            }
            octets = rest;
            self.octet(octet);
        }
    }

    fn octet(&mut self, octet: u8) {
        self.state = match self.state {
            State::Start => {
                let (kind, mask) = match octet {
                    0x80.. => (Kind::Indexed, 0x7f),
                    0x40.. => (Kind::Inserted, 0x3f),
                    0x20.. => (Kind::Size, 0x1f),
                    _ => (Kind::Plain, 0x0f),
                };
                match octet & mask {
                    prefix if prefix == mask => {
                        State::Index { kind, number: Number::new(u32::from(prefix), false) }
                    }
                    index => return self.indexed(kind, u32::from(index)),
                }
            }
            State::Index { kind, mut number } => match number.next(octet) {
                None => return self.lost = true,
                Some(None) => State::Index { kind, number },
                Some(Some(index)) => return self.indexed(kind, index),
            },
            State::Text { what } => match octet & 0x7f {
                0x7f => State::Length { what, number: Number::new(0x7f, octet & 0x80 != 0) },
                length => return self.text(what, u32::from(length), octet & 0x80 != 0),
            },
            State::Length { what, mut number } => match number.next(octet) {
                None => return self.lost = true,
                Some(None) => State::Length { what, number },
                Some(Some(length)) => return self.text(what, length, number.huffman),
            },
            State::Name { left, huffman, inserts } => {
                // A colon, plain or in Huffman code (seven bits).
                let pseudo = if huffman { octet >> 1 == 0b101_1100 } else { octet == b':' };
                if inserts {
                    self.insert(pseudo);
                }
                return self.pass(left - 1, Some(Text::Value { inserts }));
            }
            State::Pass { .. } => return,
        };
    }

    /// The index of a field line is known.
    fn indexed(&mut self, kind: Kind, index: u32) {
        if kind == Kind::Size {
            // One that is as large as before has emptied nothing.
            self.lost |= index < TABLE;
            self.state = State::Start;
            return;
        }
        let pseudo = self.is_pseudo(index);
        if std::mem::take(&mut self.first) {
            self.found = index > STATIC && pseudo;
        }
        let inserts = kind == Kind::Inserted;
        self.state = match (kind, index) {
            (Kind::Indexed, _) => State::Start,
            (_, 0) => State::Text { what: Text::Name { inserts } },
            _ => {
                if inserts {
                    self.insert(pseudo);
                }
                State::Text { what: Text::Value { inserts } }
            }
        };
    }

    /// The length of a string is known.
    fn text(&mut self, what: Text, left: u32, huffman: bool) {
        match what {
            Text::Name { inserts: true } | Text::Value { inserts: true } if left > STRING_MAX => {
                self.lost = true;
            }
            // A field without a name: the codec refuses it.
            Text::Name { .. } if left == 0 => self.lost = true,
            Text::Name { inserts } => self.state = State::Name { left, huffman, inserts },
            Text::Value { .. } => self.pass(left, None),
        }
    }

    fn pass(&mut self, left: u32, then: Option<Text>) {
        self.state = match (left, then) {
            (0, None) => State::Start,
            (0, Some(what)) => State::Text { what },
            _ => State::Pass { left, then },
        };
    }

    /// The entry is in the table only once its value was read, but nothing of the same line can name it.
    fn insert(&mut self, pseudo: bool) {
        self.pseudo = self.pseudo << 1 | u128::from(pseudo);
    }

    fn is_pseudo(&self, index: u32) -> bool {
        match index.checked_sub(STATIC + 1) {
            None => (1..=STATIC_PSEUDO).contains(&index),
            Some(age) => age < u128::BITS && self.pseudo >> age & 1 == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer after the last of these blocks, however they are cut.
    #[track_caller]
    fn check(what: &str, blocks: &[&[u8]], expected: bool) {
        for size in [1, 2, 3, 64, 1 << 20] {
            let mut table = Table::default();
            for block in blocks {
                table.begin();
                block.chunks(size).for_each(|piece| table.take(piece));
            }
            assert_eq!(table.begins_with_pseudo(), expected, "{what}, in pieces of {size}");
        }
    }

    /// `:authority: a` and `x: 1`, with incremental indexing.
    const AUTHORITY: &[u8] = &[0x41, 1, b'a'];
    const OWN: &[u8] = &[0x40, 1, b'x', 1, b'1'];

    #[test]
    fn an_index_names_what_was_inserted() {
        check("nothing was", &[&[0xbe]], false);
        check("by a name of the static table", &[AUTHORITY, &[0xbe]], true);
        check("not by itself", &[&[AUTHORITY, &[0xbe]].concat()], false);
        check("the newest is another", &[&[AUTHORITY, OWN].concat(), &[0xbe]], false);
        check("behind the newest", &[&[AUTHORITY, OWN].concat(), &[0xbf]], true);
        check("by a name in letters", &[&[0x40, 2, b':', b'p', 1, b'/'], &[0xbe]], true);
        check("by a name in Huffman code", &[&[0x40, 0x82, 0xb8, 0xff, 0x81, 0x1f], &[0xbe]], true);
        check("by another name in Huffman code", &[&[0x40, 0x82, 0x1c, 0x7f, 0x81, 0x1f], &[0xbe]], false);
        check("by a name of the dynamic table", &[AUTHORITY, &[0x7e, 1, b'b'], OWN, &[0xbf]], true);
        check("as the name of a literal", &[AUTHORITY, &[0x0f, 0x2f, 1, b'b']], true);
        check("never inserted", &[&[0x01, 1, b'a'], &[0x11, 1, b'a'], &[0xbe]], false);
        check("only the first field is asked about", &[AUTHORITY, &[0x8f, 0xbe]], false);
        check("of the static table, which is told elsewhere", &[&[0x82]], false);
    }

    #[test]
    fn long_strings_are_passed_over() {
        // 300 octets: 127 and 173.
        let long = [&[0x00, 1, b'y', 0x7f, 0xad, 0x01][..], &[0x41; 300], OWN].concat();
        check("a value", &[AUTHORITY, &long, &[0xbf]], true);
        check("a value", &[AUTHORITY, &long, &[0xbe]], false);
        let name = [&[0x40, 0x7f, 0xad, 0x01][..], &[b'n'; 300], &[0]].concat();
        check("a name", &[AUTHORITY, &name, &[0xbf]], true);
    }

    #[test]
    fn what_may_have_emptied_the_table_ends_all_knowledge() {
        // 3000 octets: 127 and 2873.
        let large = [&[0x40, 1, b'y', 0x7f, 0xb9, 0x16][..], &[b'v'; 3000]].concat();
        check("an entry that may be too large", &[AUTHORITY, &large, &[0xbf]], false);
        check("a smaller table", &[AUTHORITY, &[0x20], &[0xbe]], false);
        check("a table as large as before", &[AUTHORITY, &[0x3f, 0xe1, 0x1f], &[0xbe]], true);
        check(
            "an index beyond all bounds",
            &[AUTHORITY, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f], &[0xbe]],
            false,
        );
        check("an index of no entry", &[AUTHORITY, &[0xff, 0x80, 0x02]], false);
    }
}
