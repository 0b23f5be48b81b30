//! Another reader of HTTP/1 messages, written from RFC 9112 alone.
//!
//! Owns what some other program would make of bytes that Portcullis has let through. It shares nothing with the sources
//! under test. A [`Reading`] is one program's way to read: strict, or lenient in the ways by which servers and proxies have
//! been known to part. Invariant: it judges framing only; a message whose end it finds is a message.

/// The ways in which a program may be lenient.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// A line may end in LF alone.
    pub bare_lf: bool,
    /// A line may end in CR alone.
    pub bare_cr: bool,
    /// A line that begins with a blank goes on with the field before.
    pub folds: bool,
    /// Blanks before the colon are no part of the name.
    pub blank_before_colon: bool,
    /// `_` in a name is `-`.
    pub underscores: bool,
    /// Any Transfer-Encoding with `chunked` somewhere in it is chunked.
    pub chunked_anywhere: bool,
    /// Of several fields the first counts, else the last.
    pub first_counts: bool,
    /// Numbers end where they stop being numbers, and may have a sign, a prefix or blanks before them.
    pub sloppy_numbers: bool,
    /// A value ends at NUL.
    pub nul_ends: bool,
    /// Content-Length is looked at before Transfer-Encoding.
    pub length_first: bool,
    /// Chunks are not known: HTTP/1.0.
    pub no_chunks: bool,
}

impl Reading {
    /// Strict, lenient in one way each, and in all at once. None of `no_chunks`: that is no leniency.
    pub fn all() -> Vec<Reading> {
        let strict = Reading::default();
        let everything = Reading {
            bare_lf: true,
            bare_cr: true,
            folds: true,
            blank_before_colon: true,
            underscores: true,
            chunked_anywhere: true,
            first_counts: true,
            sloppy_numbers: true,
            nul_ends: true,
            length_first: false,
            no_chunks: false,
        };
        vec![
            strict,
            Reading { bare_lf: true, ..strict },
            Reading { bare_cr: true, ..strict },
            Reading { folds: true, ..strict },
            Reading { blank_before_colon: true, ..strict },
            Reading { underscores: true, ..strict },
            Reading { chunked_anywhere: true, ..strict },
            Reading { first_counts: true, ..strict },
            Reading { sloppy_numbers: true, ..strict },
            Reading { nul_ends: true, ..strict },
            Reading { length_first: true, ..strict },
            everything,
            Reading { length_first: true, first_counts: false, ..everything },
        ]
    }
}

/// A message as it was framed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Words of the first line.
    pub start: Vec<Vec<u8>>,
    pub body: Vec<u8>,
}

/// What a response answers: whether it can have a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Request,
    Response { to_head: bool },
}

/// The whole messages at the start of `bytes`, and how many bytes they take. `Err`: something there is no message.
pub fn messages(mut bytes: &[u8], kind: Kind, reading: &Reading) -> Result<Vec<Message>, &'static str> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (message, rest) = message(bytes, kind, reading)?;
        bytes = rest;
        found.push(message);
    }
    Ok(found)
}

/// The message at the start of `bytes`, and what follows it.
pub fn message<'a>(
    mut bytes: &'a [u8],
    kind: Kind,
    reading: &Reading,
) -> Result<(Message, &'a [u8]), &'static str> {
    let first = loop {
        let (line, rest) = line(bytes, reading).ok_or("no line")?;
        bytes = rest;
        // RFC 9112 section 2.2.
        if !line.is_empty() || kind != Kind::Request {
            break line;
        }
    };
    let start: Vec<Vec<u8>> = first.splitn(3, |&byte| byte == b' ').map(<[u8]>::to_vec).collect();
    if start.len() < 2 {
        return Err("a first line of one word");
    }
    let (fields, rest) = fields(bytes, reading)?;
    let (body, rest) = match framing(&start, &fields, kind, reading)? {
        Framing::Length(length) => {
            let length = usize::try_from(length).map_err(|_| "too long")?;
            (rest.get(..length).ok_or("a short body")?.to_vec(), &rest[length..])
        }
        Framing::Chunked => chunks(rest, reading)?,
        Framing::UntilClose => (rest.to_vec(), &rest[rest.len()..]),
    };
    Ok((Message { start, body }, rest))
}

type Field = (Vec<u8>, Vec<u8>);

fn fields<'a>(mut bytes: &'a [u8], reading: &Reading) -> Result<(Vec<Field>, &'a [u8]), &'static str> {
    let mut found: Vec<Field> = Vec::new();
    loop {
        let (text, rest) = line(bytes, reading).ok_or("no end of the head")?;
        bytes = rest;
        if text.is_empty() {
            return Ok((found, bytes));
        }
        if matches!(text[0], b' ' | b'\t') {
            let last = found.last_mut().filter(|_| reading.folds).ok_or("a folded line")?;
            last.1.push(b' ');
            last.1.extend_from_slice(text.trim_ascii());
            continue;
        }
        let colon = text.iter().position(|&byte| byte == b':').ok_or("a field without a colon")?;
        let (mut name, mut value) = (&text[..colon], &text[colon + 1..]);
        if reading.blank_before_colon {
            name = name.trim_ascii_end();
        }
        if reading.nul_ends {
            value = value.split(|&byte| byte == 0).next().unwrap_or_default();
        }
        let mut name = name.to_ascii_lowercase();
        if reading.underscores {
            name.iter_mut().filter(|byte| **byte == b'_').for_each(|byte| *byte = b'-');
        }
        found.push((name, value.trim_ascii().to_vec()));
    }
}

#[derive(Debug)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// RFC 9112 section 6.3.
fn framing(
    start: &[Vec<u8>],
    fields: &[Field],
    kind: Kind,
    reading: &Reading,
) -> Result<Framing, &'static str> {
    if let Kind::Response { to_head } = kind {
        let status = start[1].as_slice();
        if to_head || status.starts_with(b"1") || matches!(status, b"204" | b"304") {
            return Ok(Framing::Length(0));
        }
    }
    let all = |name: &[u8]| -> Vec<&[u8]> {
        fields.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_slice()).collect()
    };
    let counting = |values: &[&[u8]]| -> Vec<u8> {
        let value = if reading.first_counts { values.first() } else { values.last() };
        value.copied().unwrap_or_default().to_vec()
    };
    let (codings, lengths) = (all(b"transfer-encoding"), all(b"content-length"));
    if !codings.is_empty() && !reading.no_chunks && !(reading.length_first && !lengths.is_empty()) {
        let coding = counting(&codings).to_ascii_lowercase();
        let chunked = if reading.chunked_anywhere {
            coding.windows(7).any(|part| part == b"chunked")
        } else {
            coding.split(|&byte| byte == b',').next_back().map(<[u8]>::trim_ascii) == Some(b"chunked")
        };
        return match (chunked, kind) {
            (true, _) => Ok(Framing::Chunked),
            (false, Kind::Request) => Err("a coding that is not chunked"),
            (false, Kind::Response { .. }) => Ok(Framing::UntilClose),
        };
    }
    match (lengths.is_empty(), kind) {
        (false, _) => number(&counting(&lengths), 10, reading).map(Framing::Length).ok_or("a bad length"),
        (true, Kind::Request) => Ok(Framing::Length(0)),
        (true, Kind::Response { .. }) => Ok(Framing::UntilClose),
    }
}

fn chunks<'a>(mut bytes: &'a [u8], reading: &Reading) -> Result<(Vec<u8>, &'a [u8]), &'static str> {
    let mut body = Vec::new();
    loop {
        let (text, rest) = line(bytes, reading).ok_or("no size line")?;
        let size = text.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
        let size = number(size, 16, reading).ok_or("a bad chunk size")?;
        let size = usize::try_from(size).map_err(|_| "too long")?;
        if size == 0 {
            let (_, rest) = fields(rest, reading)?;
            return Ok((body, rest));
        }
        body.extend_from_slice(rest.get(..size).ok_or("a short chunk")?);
        let (end, rest) = line(&rest[size..], reading).ok_or("a chunk that does not end")?;
        if !end.is_empty() {
            return Err("more in a chunk than its size");
        }
        bytes = rest;
    }
}

fn number(text: &[u8], radix: u32, reading: &Reading) -> Option<u64> {
    let mut text = text;
    if reading.sloppy_numbers {
        text = text.trim_ascii_start();
        text = text.strip_prefix(b"+").unwrap_or(text);
        if radix == 16 {
            text = text.strip_prefix(b"0x").or(text.strip_prefix(b"0X")).unwrap_or(text);
        }
    }
    let mut value: u64 = 0;
    for (at, &byte) in text.iter().enumerate() {
        match char::from(byte).to_digit(radix) {
            Some(digit) if reading.sloppy_numbers => {
                value = value.wrapping_mul(radix.into()).wrapping_add(digit.into());
            }
            Some(digit) => value = value.checked_mul(radix.into())?.checked_add(digit.into())?,
            None => return (reading.sloppy_numbers && at > 0).then_some(value),
        }
    }
    (!text.is_empty()).then_some(value)
}

/// The line at the start of `bytes` without its end, and what follows it.
fn line<'a>(bytes: &'a [u8], reading: &Reading) -> Option<(&'a [u8], &'a [u8])> {
    for (at, &byte) in bytes.iter().enumerate() {
        match (byte, bytes.get(at + 1)) {
            (b'\r', Some(b'\n')) => return Some((&bytes[..at], &bytes[at + 2..])),
            (b'\n', _) if reading.bare_lf => return Some((&bytes[..at], &bytes[at + 1..])),
            (b'\r', Some(_)) if reading.bare_cr => return Some((&bytes[..at], &bytes[at + 1..])),
            (b'\r' | b'\n', _) => return None,
            _ => {}
        }
    }
    None
}
