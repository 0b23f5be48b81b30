//! A header section in one arena.
//!
//! Owns the bytes and order of the fields of a message head (or of a trailer section), their
//! lookup and editing. Never knows what a field means, does no I/O and reads no clock.
//!
//! Invariants:
//! 1. Each field is stored in the arena as the line `name: value CR LF`. So a writer copies runs of
//!    neighbouring fields in one piece, and an untouched head is copied whole.
//! 2. No name holds anything but token characters and no value holds CR, LF or NUL, whoever adds
//!    it: a head cannot be split by the text that is put into it (RFC 9110 section 5.5).
//! 3. The arena only grows until [`Head::clear`], so a [`Span`] stays valid while fields are
//!    edited. A warm arena allocates nothing.

mod span;

use super::known::{Known, KnownSet};

pub use span::Span;

/// One field: where its line starts, and how long name and value are.
#[derive(Clone, Copy, Debug)]
struct Field {
    off: u32,
    name_len: u32,
    value_len: u32,
    known: Known,
    live: bool,
}

impl Field {
    #[inline]
    fn name(&self) -> Span {
        Span::at(self.off, self.name_len)
    }

    #[inline]
    fn value(&self) -> Span {
        Span::at(self.off + self.name_len + 2, self.value_len)
    }

    /// End of the line, past its CR LF.
    #[inline]
    fn end(&self) -> usize {
        self.off as usize + self.name_len as usize + self.value_len as usize + 4
    }
}

/// The fields of a message head, in order, with the text they are made of.
#[derive(Clone, Debug, Default)]
pub struct Head {
    arena: Vec<u8>,
    fields: Vec<Field>,
    /// A bit for each [`Known`] that may be live: a clear bit is a certain no.
    present: u128,
    live: u32,
}

impl Head {
    /// An empty head that owns no memory yet.
    pub const fn new() -> Head {
        Head { arena: Vec::new(), fields: Vec::new(), present: 0, live: 0 }
    }

    /// Forgets all fields and text, and keeps the memory for the next message.
    #[inline]
    pub fn clear(&mut self) {
        self.arena.clear();
        self.fields.clear();
        self.present = 0;
        self.live = 0;
    }

    /// Gives memory above `bytes` of arena back, so that one large head does not stay with an
    /// idle connection. Clears the head.
    pub fn shrink(&mut self, bytes: usize) {
        self.clear();
        self.arena.shrink_to(bytes);
        self.fields.shrink_to(bytes / 32);
    }

    /// Bytes of arena that it holds.
    pub fn capacity(&self) -> usize {
        self.arena.capacity()
    }

    /// Number of live fields.
    pub fn len(&self) -> usize {
        self.live as usize
    }

    /// Whether there is no live field.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Name and value of every live field, in order of appearance.
    pub fn iter(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        self.live_fields().map(|field| (field.known, self.slice(field.name()), self.slice(field.value())))
    }

    /// All text of this head, also that of fields that were removed.
    pub fn text(&self) -> &[u8] {
        &self.arena
    }

    /// Where in [`Head::text`] a piece of it is.
    pub fn place_of(&self, piece: &[u8]) -> std::ops::Range<usize> {
        let start = (piece.as_ptr() as usize).wrapping_sub(self.arena.as_ptr() as usize);
        debug_assert!(start <= self.arena.len(), "a piece of another text");
        match start.checked_add(piece.len()) {
            Some(end) if end <= self.arena.len() => start..end,
            _ => 0..0,
        }
    }

    /// The text of a span of this head.
    #[inline]
    pub fn slice(&self, span: Span) -> &[u8] {
        self.arena.get(span.start()..span.end()).unwrap_or_default()
    }

    /// Value of the first field of that name, compared without regard to case.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// Value of the first field of that name.
    #[inline]
    pub fn get_known(&self, known: Known) -> Option<&[u8]> {
        if self.present & known.bit() == 0 {
            return None;
        }
        self.live_fields().find(|field| field.known == known).map(|field| self.slice(field.value()))
    }

    /// Values of all fields of that name, in order, compared without regard to case.
    pub fn get_all(&self, name: impl AsRef<[u8]>) -> impl Iterator<Item = &[u8]> {
        let known = Known::of(name.as_ref());
        self.live_fields()
            .filter(move |field| {
                field.known == known
                    && (known != Known::Other || self.slice(field.name()).eq_ignore_ascii_case(name.as_ref()))
            })
            .map(|field| self.slice(field.value()))
    }

    /// Values of all fields of that name, in order.
    pub fn all_known(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let fields = if self.present & known.bit() == 0 { &[] } else { self.fields.as_slice() };
        fields
            .iter()
            .filter(move |field| field.live && field.known == known)
            .map(|field| self.slice(field.value()))
    }

    /// Whether a field of that name is there.
    pub fn contains(&self, name: impl AsRef<[u8]>) -> bool {
        self.get(name).is_some()
    }

    /// Whether a field of any of these names may be there: a false answer is certain.
    #[inline]
    pub fn contains_any(&self, set: KnownSet) -> bool {
        self.present & set.0 != 0
    }

    /// How many fields of that name there are.
    pub fn count_known(&self, known: Known) -> usize {
        if self.present & known.bit() == 0 {
            return 0;
        }
        self.live_fields().filter(|field| field.known == known).count()
    }

    /// Adds a field after all others. CR, LF and NUL in `value` become spaces (RFC 9110 section
    /// 5.5); a field whose name is no token is not added, and is a mistake of the caller.
    pub fn append(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let name = name.as_ref();
        self.append_line(Known::of(name), name, &[value.as_ref()]);
    }

    /// [`append`](Self::append) with the canonical spelling of a known name.
    pub fn append_known(&mut self, known: Known, value: impl AsRef<[u8]>) {
        self.append_line(known, known.as_str().as_bytes(), &[value.as_ref()]);
    }

    /// Adds a field whose value stands in the arena already.
    pub(super) fn append_span(&mut self, known: Known, value: Span) {
        let name = known.as_str().as_bytes();
        let off = self.arena.len();
        self.arena.extend_from_slice(name);
        self.arena.extend_from_slice(b": ");
        self.arena.extend_from_within(value.start()..value.end());
        self.arena.extend_from_slice(b"\r\n");
        self.fields.push(Field {
            off: off as u32,
            name_len: name.len() as u32,
            value_len: value.len,
            known,
            live: true,
        });
        self.present |= known.bit();
        self.live += 1;
    }

    /// [`append`](Self::append) with the value put together from `parts`.
    pub fn append_parts(&mut self, name: impl AsRef<[u8]>, parts: &[&[u8]]) {
        let name = name.as_ref();
        self.append_line(Known::of(name), name, parts);
    }

    /// [`append`](Self::append) of a decimal number.
    pub fn append_number(&mut self, name: impl AsRef<[u8]>, value: u64) {
        let mut digits = [0; 20];
        self.append(name, decimal(value, &mut digits));
    }

    /// Replaces all fields of that name by one, in the place of the first; appends it where there
    /// was none.
    pub fn set(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let name = name.as_ref();
        self.set_line(Known::of(name), name, &[value.as_ref()]);
    }

    /// [`set`](Self::set) with the canonical spelling of a known name.
    pub fn set_known(&mut self, known: Known, value: impl AsRef<[u8]>) {
        self.set_line(known, known.as_str().as_bytes(), &[value.as_ref()]);
    }

    /// [`set`](Self::set) with the value put together from `parts`.
    pub fn set_parts(&mut self, name: impl AsRef<[u8]>, parts: &[&[u8]]) {
        let name = name.as_ref();
        self.set_line(Known::of(name), name, parts);
    }

    /// [`set`](Self::set) of a decimal number.
    pub fn set_number(&mut self, name: impl AsRef<[u8]>, value: u64) {
        let mut digits = [0; 20];
        self.set(name, decimal(value, &mut digits));
    }

    /// Adds `item` to a comma-separated field: to the last line of that name, or as a new field.
    pub fn append_item(&mut self, known: Known, item: impl AsRef<[u8]>) {
        let last = if self.present & known.bit() == 0 {
            None
        } else {
            self.fields.iter().rposition(|field| field.live && field.known == known)
        };
        let Some(index) = last.filter(|&index| self.fields[index].value_len > 0) else {
            self.set_line(known, known.as_str().as_bytes(), &[item.as_ref()]);
            return;
        };
        let old = self.fields[index];
        let off = self.arena.len();
        self.arena.extend_from_within(old.off as usize..old.end() - 2);
        self.arena.extend_from_slice(b", ");
        self.push_value(item.as_ref());
        let value_len = self.arena.len() - off - old.name_len as usize - 2;
        self.arena.extend_from_slice(b"\r\n");
        self.fields[index] = Field { off: off as u32, value_len: value_len as u32, ..old };
    }

    /// Removes all fields of that name; says how many there were.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) -> usize {
        let name = name.as_ref();
        match Known::of(name) {
            Known::Other => {
                let arena = &self.arena;
                let same = |field: &Field| {
                    let found = arena.get(field.name().start()..field.name().end()).unwrap_or_default();
                    field.known == Known::Other && found.eq_ignore_ascii_case(name)
                };
                let mut removed = 0;
                for field in self.fields.iter_mut().filter(|field| field.live && same(field)) {
                    field.live = false;
                    removed += 1;
                }
                self.live -= removed;
                removed as usize
            }
            known => self.remove_known(known),
        }
    }

    /// Removes all fields of that name; says how many there were.
    #[inline]
    pub fn remove_known(&mut self, known: Known) -> usize {
        if self.present & known.bit() == 0 || known == Known::Other {
            return 0;
        }
        let mut removed = 0;
        for field in self.fields.iter_mut().filter(|field| field.live && field.known == known) {
            field.live = false;
            removed += 1;
        }
        self.present &= !known.bit();
        self.live -= removed;
        removed as usize
    }

    /// Removes all fields whose name is in `set`, in one pass; says how many there were.
    #[inline]
    pub fn remove_set(&mut self, set: KnownSet) -> usize {
        if self.present & set.0 == 0 {
            return 0;
        }
        let mut removed = 0;
        for field in self.fields.iter_mut().filter(|field| field.live && set.contains(field.known)) {
            field.live = false;
            removed += 1;
        }
        self.present &= !set.0;
        self.live -= removed;
        removed as usize
    }

    /// Adds all fields of `other` after all others, in one copy of text: for fields that are made
    /// once and sent many times, such as those that tell of a connection.
    pub fn append_head(&mut self, other: &Head) {
        let shift = self.arena.len() as u32;
        self.arena.extend_from_slice(&other.arena);
        for field in other.live_fields() {
            self.push(Field { off: field.off + shift, ..*field });
        }
    }

    /// Gives all fields called `old` the name `new`, with values and places kept; says how many.
    /// They replace what was called `new` before, as in Kong's transformers.
    pub fn rename(&mut self, old: impl AsRef<[u8]>, new: impl AsRef<[u8]>) -> usize {
        let (old, new) = (old.as_ref(), new.as_ref());
        if !is_token(new) {
            debug_assert!(false, "a field name must be a token");
            return 0;
        }
        if !self.contains(old) {
            return 0;
        }
        if !old.eq_ignore_ascii_case(new) {
            self.remove(new);
        }
        let (from, to) = (Known::of(old), Known::of(new));
        let mut renamed = 0;
        for index in 0..self.fields.len() {
            let field = self.fields[index];
            if !field.live
                || field.known != from
                || (from == Known::Other && !self.slice(field.name()).eq_ignore_ascii_case(old))
            {
                continue;
            }
            let off = self.arena.len();
            self.arena.extend_from_slice(new);
            self.arena.extend_from_within(field.off as usize + field.name_len as usize..field.end());
            self.fields[index] = Field { off: off as u32, name_len: new.len() as u32, known: to, ..field };
            renamed += 1;
        }
        self.present |= to.bit();
        renamed
    }

    /// Where the value of the field of that name with the index `line` (from 0) lies.
    pub(super) fn value_span(&self, known: Known, line: usize) -> Option<Span> {
        if self.present & known.bit() == 0 {
            return None;
        }
        self.live_fields().filter(|field| field.known == known).nth(line).map(Field::value)
    }

    /// [`remove`](Self::remove) of the unlisted name that lies in the arena at `name`.
    pub(super) fn remove_named(&mut self, name: Span) {
        let Head { arena, fields, live, .. } = self;
        let text = |span: Span| arena.get(span.start()..span.end()).unwrap_or_default();
        for field in fields.iter_mut().filter(|field| field.live && field.known == Known::Other) {
            if text(field.name()).eq_ignore_ascii_case(text(name)) {
                field.live = false;
                *live -= 1;
            }
        }
    }

    /// Removes the fields of unlisted name whose name does not satisfy `keep`.
    #[inline]
    pub fn retain_other(&mut self, keep: impl Fn(&[u8]) -> bool) {
        if self.present & Known::Other.bit() == 0 {
            return;
        }
        let Head { arena, fields, live, .. } = self;
        for field in fields.iter_mut().filter(|field| field.live && field.known == Known::Other) {
            let name = field.name();
            if !keep(arena.get(name.start()..name.end()).unwrap_or_default()) {
                field.live = false;
                *live -= 1;
            }
        }
    }

    /// Calls `sink` with the text of all live fields, CR LF after each, in as few pieces as their
    /// places in the arena allow.
    #[inline]
    pub(super) fn write_lines(&self, mut sink: impl FnMut(&[u8])) {
        let (mut start, mut end) = (0, 0);
        for field in self.live_fields() {
            let off = field.off as usize;
            if off != end {
                sink(self.arena.get(start..end).unwrap_or_default());
                start = off;
            }
            end = field.end();
        }
        sink(self.arena.get(start..end).unwrap_or_default());
    }

    /// Upper bound of what [`write_lines`](Self::write_lines) gives out.
    #[inline]
    pub(super) fn text_len(&self) -> usize {
        self.arena.len()
    }

    /// Puts text into the arena that belongs to no field.
    pub(super) fn store(&mut self, text: &[u8]) -> Span {
        let off = self.arena.len();
        self.arena.extend_from_slice(text);
        Span::new(off, text.len())
    }

    /// The arena itself, for text that is made in place; what is there already must stay.
    pub(super) fn arena(&mut self) -> &mut Vec<u8> {
        &mut self.arena
    }

    /// Adds a field whose text is in the arena already, name and value checked by the parser. A
    /// line that is not spelled `name: value CR LF` is written out anew (invariant 1).
    #[inline]
    pub(super) fn adopt(&mut self, known: Known, name: Span, value: Span) {
        // Between them are a colon and one blank, and the line ends in CR LF: the parser has seen to
        // that. So two bytes tell.
        let line = name.end() + 2 == value.start()
            && self.arena.get(name.end() + 1) == Some(&b' ')
            && self.arena.get(value.end()) == Some(&b'\r');
        let off = if line {
            name.start()
        } else {
            let off = self.arena.len();
            self.arena.extend_from_within(name.start()..name.end());
            self.arena.extend_from_slice(b": ");
            self.arena.extend_from_within(value.start()..value.end());
            self.arena.extend_from_slice(b"\r\n");
            off
        };
        self.push(Field { off: off as u32, name_len: name.len, value_len: value.len, known, live: true });
    }

    #[inline]
    fn live_fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| field.live)
    }

    #[inline]
    fn push(&mut self, field: Field) {
        self.present |= field.known.bit();
        self.live += 1;
        self.fields.push(field);
    }

    fn append_line(&mut self, known: Known, name: &[u8], parts: &[&[u8]]) {
        if let Some(field) = self.line(known, name, parts) {
            self.push(field);
        }
    }

    fn set_line(&mut self, known: Known, name: &[u8], parts: &[&[u8]]) {
        let Some(line) = self.line(known, name, parts) else { return };
        if self.present & known.bit() == 0 {
            self.push(line);
            return;
        }
        let mut placed = false;
        for index in 0..self.fields.len() {
            let field = self.fields[index];
            if !field.live
                || field.known != known
                || (known == Known::Other && !self.slice(field.name()).eq_ignore_ascii_case(name))
            {
                continue;
            }
            if placed {
                self.fields[index].live = false;
                self.live -= 1;
            } else {
                self.fields[index] = line;
                placed = true;
            }
        }
        if !placed {
            self.push(line);
        }
    }

    /// Writes a line to the arena; `None` where `name` is no token.
    fn line(&mut self, known: Known, name: &[u8], parts: &[&[u8]]) -> Option<Field> {
        if known == Known::Other && !is_token(name) {
            debug_assert!(false, "a field name must be a token");
            return None;
        }
        Some(self.checked_line(known, name, parts))
    }

    /// [`append_parts`](Self::append_parts) of a name that is known to be a token.
    #[inline]
    pub(super) fn append_checked(&mut self, known: Known, name: &[u8], parts: &[&[u8]]) {
        let field = self.checked_line(known, name, parts);
        self.push(field);
    }

    #[inline]
    fn checked_line(&mut self, known: Known, name: &[u8], parts: &[&[u8]]) -> Field {
        let off = self.arena.len();
        self.arena.extend_from_slice(name);
        self.arena.extend_from_slice(b": ");
        let value = self.arena.len();
        for part in parts {
            self.push_value(part);
        }
        let value_len = self.arena.len() - value;
        self.arena.extend_from_slice(b"\r\n");
        let (name_len, value_len) = (name.len() as u32, value_len as u32);
        Field { off: off as u32, name_len, value_len, known, live: true }
    }

    fn push_value(&mut self, value: &[u8]) {
        let at = self.arena.len();
        self.arena.extend_from_slice(value);
        // Invariant 2. Rare enough that looking first would cost more than it saves.
        for byte in &mut self.arena[at..] {
            // Written whatever it is: without a branch the loop goes over many bytes at once.
            *byte = if matches!(*byte, b'\r' | b'\n' | 0) { b' ' } else { *byte };
        }
    }
}

/// Whether `name` is a non-empty token (RFC 9110 section 5.6.2).
pub fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| is_tchar(byte))
}

#[inline]
pub(super) const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// The decimal digits of `value`, written by hand because formatting machinery costs ten times as
/// much.
#[inline]
pub fn decimal(mut value: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests;
