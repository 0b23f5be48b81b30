//! Edits of forms (`application/x-www-form-urlencoded`).

use super::{Edits, Place, Rendered};
use crate::http::query::{encode, parameters};

/// One field as it stands, or as it is set.
struct Field {
    /// The name, decoded.
    name: Vec<u8>,
    /// Name and value as they go on.
    raw: Vec<u8>,
}

impl Field {
    fn new(name: &[u8], value: &[u8]) -> Field {
        let mut raw = Vec::new();
        encode(name, &mut raw);
        raw.push(b'=');
        encode(value, &mut raw);
        Field { name: name.to_vec(), raw }
    }
}

/// What of a body the places name.
pub fn allowed(places: &[Place], body: &[u8]) -> Vec<u8> {
    let listed = |name: &[u8]| places.iter().any(|place| place.text().as_bytes() == name);
    let kept = parameters(body).filter(|one| listed(&one.name()));
    let raw = kept.map(|one| match one.raw_value {
        Some(value) => [one.raw_name, b"=", value].concat(),
        None => one.raw_name.to_vec(),
    });
    raw.collect::<Vec<_>>().join(&b'&')
}

/// The edits made on a body.
pub fn edited(edits: &Edits<Place>, body: &[u8], rendered: &Rendered) -> Vec<u8> {
    let mut fields: Vec<Field> = parameters(body)
        .map(|one| {
            let mut raw = one.raw_name.to_vec();
            if let Some(value) = one.raw_value {
                raw.push(b'=');
                raw.extend_from_slice(value);
            }
            Field { name: one.name().into_owned(), raw }
        })
        .collect();
    let is = |field: &Field, place: &Place| field.name == place.text().as_bytes();
    for place in &edits.remove {
        fields.retain(|field| !is(field, place));
    }
    for (old, new) in &edits.rename {
        if !fields.iter().any(|field| is(field, old)) {
            continue;
        }
        fields.retain(|field| !is(field, new) || is(field, old));
        for field in fields.iter_mut().filter(|field| is(field, old)) {
            let value = field.raw.iter().position(|&byte| byte == b'=').map(|at| field.raw.split_off(at));
            field.raw.clear();
            encode(new.text().as_bytes(), &mut field.raw);
            field.raw.extend(value.unwrap_or_default());
            field.name = new.text().as_bytes().to_vec();
        }
    }
    for (place, value) in &edits.replace {
        let mut first = true;
        fields.retain_mut(|field| {
            if !is(field, place) {
                return true;
            }
            *field = Field::new(place.text().as_bytes(), rendered.value(value));
            std::mem::replace(&mut first, false)
        });
    }
    for (place, value) in &edits.add {
        if !fields.iter().any(|field| is(field, place)) {
            fields.push(Field::new(place.text().as_bytes(), rendered.value(value)));
        }
    }
    for (place, value) in &edits.append {
        fields.push(Field::new(place.text().as_bytes(), rendered.value(value)));
    }
    fields.iter().map(|field| &*field.raw).collect::<Vec<_>>().join(&b'&')
}
