//! Edits of `multipart/form-data` (RFC 7578): parts by their name. Parts that no edit names keep their bytes.

use super::{Edits, Malformed, Place, Rendered};

/// One part: from behind its boundary's line break to before the next one's.
struct Part {
    name: Option<Vec<u8>>,
    bytes: Vec<u8>,
}

/// Most parts of one body.
const MAX_PARTS: usize = 10_000;

/// The edits made on a body.
pub fn edited(
    edits: &Edits<Place>,
    boundary: &[u8],
    body: &[u8],
    rendered: &Rendered,
) -> Result<Vec<u8>, Malformed> {
    let mut parts = if body.is_empty() { Vec::new() } else { split(boundary, body)? };
    let is = |part: &Part, place: &Place| part.name.as_deref() == Some(place.text().as_bytes());
    for place in &edits.remove {
        parts.retain(|part| !is(part, place));
    }
    for (old, new) in &edits.rename {
        if !parts.iter().any(|part| is(part, old)) {
            continue;
        }
        parts.retain(|part| !is(part, new) || is(part, old));
        for part in parts.iter_mut().filter(|part| is(part, old)) {
            part.rename(new.text());
        }
    }
    for (place, value) in &edits.replace {
        let mut first = true;
        parts.retain_mut(|part| {
            if !is(part, place) {
                return true;
            }
            part.set(rendered.value(value));
            std::mem::replace(&mut first, false)
        });
    }
    for (place, value) in &edits.add {
        if !parts.iter().any(|part| is(part, place)) {
            parts.push(Part::new(place.text(), rendered.value(value)));
        }
    }
    for (place, value) in &edits.append {
        parts.push(Part::new(place.text(), rendered.value(value)));
    }
    if parts.iter().any(|part| part.holds(boundary)) {
        return Err(Malformed); // a value that would end its part
    }
    Ok(joined(boundary, &parts))
}

/// The contents of all parts with a name.
pub fn values(boundary: &[u8], body: &[u8], name: &str) -> Result<Vec<Vec<u8>>, Malformed> {
    let parts = if body.is_empty() { Vec::new() } else { split(boundary, body)? };
    let own = parts.iter().filter(|part| part.name.as_deref() == Some(name.as_bytes()));
    let content = |part: &Part| find(&part.bytes, b"\r\n\r\n").map(|at| part.bytes[at + 4..].to_vec());
    Ok(own.filter_map(content).collect())
}

/// The parts between the boundaries (RFC 2046 section 5.1.1). What stands before the first and behind the last is no
/// part, and is left out.
fn split(boundary: &[u8], body: &[u8]) -> Result<Vec<Part>, Malformed> {
    let delimiter = [b"--", boundary].concat();
    let mut parts = Vec::new();
    let mut rest = if body.starts_with(&delimiter) {
        &body[delimiter.len()..]
    } else {
        let at = find(body, &[b"\r\n", &*delimiter].concat()).ok_or(Malformed)?;
        &body[at + 2 + delimiter.len()..]
    };
    let between = [b"\r\n--", boundary].concat();
    loop {
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        // Blanks may follow a boundary.
        let line = find(rest, b"\r\n")
            .filter(|&at| rest[..at].iter().all(|byte| b" \t".contains(byte)))
            .ok_or(Malformed)?;
        rest = &rest[line + 2..];
        let end = find(rest, &between).ok_or(Malformed)?;
        if parts.len() == MAX_PARTS {
            return Err(Malformed);
        }
        parts.push(Part { name: name_of(&rest[..end]), bytes: rest[..end].to_vec() });
        rest = &rest[end + between.len()..];
    }
}

fn joined(boundary: &[u8], parts: &[Part]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend_from_slice(b"--");
        out.extend_from_slice(boundary);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&part.bytes);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"--");
    out.extend_from_slice(boundary);
    out.extend_from_slice(b"--\r\n");
    out
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// Where the name of a part stands in it, between its quotes.
fn name_range(part: &[u8]) -> Option<std::ops::Range<usize>> {
    let head = find(part, b"\r\n\r\n").map_or(part.len(), |at| at);
    let mut at = 0;
    for line in part[..head].split(|&byte| byte == b'\n') {
        let lower = line.to_ascii_lowercase();
        if lower.starts_with(b"content-disposition:") {
            // Not the end of `filename="`.
            let start = [&b"; name=\""[..], b";name=\"", b"\tname=\""]
                .iter()
                .find_map(|key| Some(find(&lower, key)? + key.len()))?;
            let end = line[start..].iter().position(|&byte| byte == b'"')? + start;
            return Some(at + start..at + end);
        }
        at += line.len() + 1;
    }
    None
}

fn name_of(part: &[u8]) -> Option<Vec<u8>> {
    name_range(part).map(|range| part[range].to_vec())
}

/// RFC 7578 section 4.2, as browsers write names.
fn escaped(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

impl Part {
    fn new(name: &str, value: &[u8]) -> Part {
        let head = format!("Content-Disposition: form-data; name=\"{}\"\r\n\r\n", escaped(name));
        Part { name: Some(name.as_bytes().to_vec()), bytes: [head.as_bytes(), value].concat() }
    }

    fn rename(&mut self, name: &str) {
        if let Some(range) = name_range(&self.bytes) {
            self.bytes.splice(range, escaped(name).into_bytes());
        }
        self.name = Some(name.as_bytes().to_vec());
    }

    fn set(&mut self, value: &[u8]) {
        if let Some(at) = find(&self.bytes, b"\r\n\r\n") {
            self.bytes.truncate(at + 4);
            self.bytes.extend_from_slice(value);
        }
    }

    fn holds(&self, boundary: &[u8]) -> bool {
        find(&self.bytes, &[b"\r\n--", boundary].concat()).is_some()
    }
}
