//! Edits of JSON. A body is opened only as far down as an edit goes; the rest stays text.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Edits, Malformed, Place, Rendered, Segment, ValueKind};

/// A value: its text, or its parts where it has been opened. Texts are valid JSON.
enum Value<'b> {
    Text(Cow<'b, str>),
    Object(Vec<(String, Value<'b>)>),
    Array(Vec<Value<'b>>),
}

/// The edits made on a body, which may be empty.
pub fn edited(edits: &Edits<Place>, body: &[u8], rendered: &Rendered) -> Result<Vec<u8>, Malformed> {
    let text = std::str::from_utf8(body).map_err(|_| Malformed)?;
    let mut root = match text.trim_ascii() {
        "" => Value::Object(Vec::new()),
        text => {
            Value::Text(Cow::Borrowed(serde_json::from_str::<&RawValue>(text).map_err(|_| Malformed)?.get()))
        }
    };
    for place in &edits.remove {
        root.visit(place, &mut |members, name| members.retain(|(own, _)| own != name), &mut Remove);
    }
    for (old, new) in &edits.rename {
        root.rename(old, new);
    }
    for (place, value) in &edits.replace {
        let new = literal(place, rendered.value(value));
        root.visit(place, &mut |members, name| replace(members, name, &new), &mut Replace(&new));
    }
    for (place, value) in &edits.add {
        root.make_way(place);
        let new = literal(place, rendered.value(value));
        root.visit(place, &mut |members, name| add(members, name, &new), &mut Leave);
    }
    for (place, value) in &edits.append {
        root.make_way(place);
        let new = literal(place, rendered.value(value));
        root.visit(place, &mut |members, name| append(members, name, &new), &mut Leave);
    }
    let mut out = Vec::with_capacity(body.len() + 64);
    root.write(&mut out);
    Ok(out)
}

/// What of a body the places name.
pub fn allowed(places: &[Place], body: &[u8]) -> Result<Vec<u8>, Malformed> {
    let text = std::str::from_utf8(body).map_err(|_| Malformed)?.trim_ascii();
    let mut root =
        Value::Text(Cow::Borrowed(serde_json::from_str::<&RawValue>(text).map_err(|_| Malformed)?.get()));
    let ways: Vec<&[Segment]> = places.iter().map(|place| &*place.path).collect();
    root.keep(&ways);
    let mut out = Vec::with_capacity(body.len());
    root.write(&mut out);
    Ok(out)
}

/// A configured value as JSON. One that is not of its kind is a text: the configuration has been told.
fn literal(place: &Place, value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let bare = place.value != ValueKind::String && place.value.fits(value);
    if bare { text.into_owned() } else { quoted(&text) }
}

fn quoted(text: &str) -> String {
    // A text can always be written.
    serde_json::to_string(text).unwrap_or_default()
}

type Members<'b> = Vec<(String, Value<'b>)>;

fn replace(members: &mut Members<'_>, name: &str, new: &str) {
    for (_, value) in members.iter_mut().filter(|(own, _)| own == name) {
        *value = Value::Text(Cow::Owned(new.to_owned()));
    }
}

/// Kong takes null for absent.
fn add(members: &mut Members<'_>, name: &str, new: &str) {
    let new = || Value::Text(Cow::Owned(new.to_owned()));
    match members.iter_mut().find(|(own, _)| own == name) {
        None => members.push((name.to_owned(), new())),
        Some((_, value)) if value.is_null() => *value = new(),
        Some(_) => {}
    }
}

/// One value becomes a list of two, a list gets one more.
fn append(members: &mut Members<'_>, name: &str, new: &str) {
    let new = Value::Text(Cow::Owned(new.to_owned()));
    match members.iter_mut().find(|(own, _)| own == name) {
        Some((_, value)) if !value.is_null() => {
            value.open();
            match value {
                Value::Array(items) => items.push(new),
                _ => {
                    let old = std::mem::replace(value, Value::Array(Vec::new()));
                    *value = Value::Array(vec![old, new]);
                }
            }
        }
        Some((_, value)) => *value = Value::Array(vec![new]),
        None => members.push((name.to_owned(), Value::Array(vec![new]))),
    }
}

/// What is done to items of lists that a place ends with.
trait OnItems {
    fn one(&mut self, items: &mut Vec<Value<'_>>, index: usize);
    fn all(&mut self, items: &mut Vec<Value<'_>>);
}

struct Remove;
struct Replace<'n>(&'n str);
struct Leave;

impl OnItems for Remove {
    fn one(&mut self, items: &mut Vec<Value<'_>>, index: usize) {
        if index < items.len() {
            items.remove(index);
        }
    }

    fn all(&mut self, items: &mut Vec<Value<'_>>) {
        items.clear();
    }
}

impl OnItems for Replace<'_> {
    fn one(&mut self, items: &mut Vec<Value<'_>>, index: usize) {
        if let Some(item) = items.get_mut(index) {
            *item = Value::Text(Cow::Owned(self.0.to_owned()));
        }
    }

    fn all(&mut self, items: &mut Vec<Value<'_>>) {
        for index in 0..items.len() {
            self.one(items, index);
        }
    }
}

impl OnItems for Leave {
    fn one(&mut self, _: &mut Vec<Value<'_>>, _: usize) {}
    fn all(&mut self, _: &mut Vec<Value<'_>>) {}
}

impl<'b> Value<'b> {
    fn is_null(&self) -> bool {
        matches!(self, Value::Text(text) if text == "null")
    }

    /// Splits an object or an array into its parts.
    fn open(&mut self) {
        // A value that a configuration gave is a single one.
        let Value::Text(Cow::Borrowed(text)) = self else { return };
        match text.as_bytes().first() {
            Some(b'{') => *self = Value::Object(members(text)),
            Some(b'[') => *self = Value::Array(items(text)),
            _ => {}
        }
    }

    /// Does `member` at the object that holds the last step of `place`, or `item` at the array.
    fn visit(
        &mut self,
        place: &Place,
        member: &mut dyn FnMut(&mut Members<'b>, &str),
        item: &mut dyn OnItems,
    ) {
        self.open();
        // A member that is called like the whole place comes first: dots may be part of a name.
        if let Value::Object(members) = self
            && place.path.len() > 1
            && members.iter().any(|(own, _)| *own == *place.text)
        {
            return member(members, &place.text);
        }
        self.descend(&place.path, member, item);
    }

    fn descend(
        &mut self,
        path: &[Segment],
        member: &mut dyn FnMut(&mut Members<'b>, &str),
        item: &mut dyn OnItems,
    ) {
        self.open();
        let Some((first, rest)) = path.split_first() else { return };
        match (self, first) {
            (Value::Object(members), Segment::Member(name)) if rest.is_empty() => member(members, name),
            (Value::Object(members), Segment::Member(name)) => {
                for (_, value) in members.iter_mut().filter(|(own, _)| **own == **name) {
                    value.descend(rest, member, item);
                }
            }
            (Value::Array(items), Segment::Item(index)) if rest.is_empty() => item.one(items, *index),
            (Value::Array(items), Segment::Item(index)) => {
                if let Some(value) = items.get_mut(*index) {
                    value.descend(rest, member, item);
                }
            }
            (Value::Array(items), Segment::Items) if rest.is_empty() => item.all(items),
            (Value::Array(items), Segment::Items) => {
                items.iter_mut().for_each(|value| value.descend(rest, member, item));
            }
            _ => {}
        }
    }

    /// Keeps what is at the end of a way, and on it.
    fn keep(&mut self, ways: &[&[Segment]]) {
        self.open();
        /// The rest of each way that begins with what `takes` takes; `None` if there is none.
        fn onward<'w>(
            ways: &[&'w [Segment]],
            takes: impl Fn(&Segment) -> bool,
        ) -> Option<Vec<&'w [Segment]>> {
            let rests = ways.iter().filter_map(|way| way.split_first().filter(|(first, _)| takes(first)));
            let rests: Vec<_> = rests.map(|(_, rest)| rest).collect();
            (!rests.is_empty()).then_some(rests)
        }
        let go_on = |value: &mut Value<'b>, ways: Option<Vec<&[Segment]>>| match ways {
            None => false,
            Some(ways) => {
                // A way that ends here takes everything below.
                if ways.iter().all(|way| !way.is_empty()) {
                    value.keep(&ways);
                }
                true
            }
        };
        match self {
            Value::Object(members) => members.retain_mut(|(name, value)| {
                let is = |segment: &Segment| matches!(segment, Segment::Member(own) if **own == **name);
                go_on(value, onward(ways, is))
            }),
            Value::Array(items) => {
                let mut index = 0;
                items.retain_mut(|value| {
                    let is = |segment: &Segment| match segment {
                        Segment::Item(own) => *own == index,
                        Segment::Items => true,
                        Segment::Member(_) => false,
                    };
                    let kept = go_on(value, onward(ways, is));
                    index += 1;
                    kept
                });
            }
            Value::Text(_) => {}
        }
    }

    /// Makes the objects on the way to a member that is to be added.
    fn make_way(&mut self, place: &Place) {
        let names: Option<Vec<&str>> = place
            .path
            .iter()
            .map(|segment| match segment {
                Segment::Member(name) => Some(&**name),
                _ => None,
            })
            .collect();
        let Some(names) = names else { return };
        let mut value = self;
        for name in names.iter().take(names.len().saturating_sub(1)) {
            value.open();
            let Value::Object(members) = value else { return };
            if members.iter().any(|(own, _)| *own == *place.text) {
                return;
            }
            let at = match members.iter().position(|(own, _)| own == name) {
                Some(at) => at,
                None => {
                    members.push(((*name).to_owned(), Value::Object(Vec::new())));
                    members.len() - 1
                }
            };
            value = &mut members[at].1;
        }
    }

    /// Moves what is called `old`. A new name without dots stays in the same object.
    fn rename(&mut self, old: &Place, new: &Place) {
        let moves = new.path.len() > 1;
        let mut taken = None;
        let mut rename = |members: &mut Members<'b>, name: &str| {
            if !members.iter().any(|(own, _)| own == name) {
                return;
            }
            if moves {
                let at = members.iter().position(|(own, _)| own == name).unwrap_or_default();
                taken = Some(members.remove(at).1);
                return;
            }
            members.retain(|(own, _)| own == name || **own != *new.text);
            for (own, _) in members.iter_mut().filter(|(own, _)| own == name) {
                *own = new.text.clone().into();
            }
        };
        self.visit(old, &mut rename, &mut Leave);
        if let Some(value) = taken {
            self.make_way(new);
            let mut value = Some(value);
            let mut put = |members: &mut Members<'b>, name: &str| {
                if let Some(value) = value.take() {
                    members.retain(|(own, _)| own != name);
                    members.push((name.to_owned(), value));
                }
            };
            self.visit(new, &mut put, &mut Leave);
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Text(text) => out.extend_from_slice(text.as_bytes()),
            Value::Object(members) => {
                out.push(b'{');
                for (number, (name, value)) in members.iter().enumerate() {
                    if number > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(quoted(name).as_bytes());
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
            Value::Array(items) => {
                out.push(b'[');
                for (number, value) in items.iter().enumerate() {
                    if number > 0 {
                        out.push(b',');
                    }
                    value.write(out);
                }
                out.push(b']');
            }
        }
    }
}

/// The members of an object that is known to be valid.
fn members(text: &str) -> Members<'_> {
    struct Visit;
    impl<'de> Visitor<'de> for Visit {
        type Value = Members<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                all.push((name, Value::Text(Cow::Borrowed(value.get()))));
            }
            Ok(all)
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_map(Visit).unwrap_or_default()
}

/// The items of an array that is known to be valid.
fn items(text: &str) -> Vec<Value<'_>> {
    struct Visit;
    impl<'de> Visitor<'de> for Visit {
        type Value = Vec<Value<'de>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(value) = list.next_element::<&'de RawValue>()? {
                all.push(Value::Text(Cow::Borrowed(value.get())));
            }
            Ok(all)
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_seq(Visit).unwrap_or_default()
}
