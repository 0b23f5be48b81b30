//! What the two transformers have in common: Kong's lists of edits, and their application to a head.
//!
//! Owns the syntax of an entry (`name`, `name:value`, `old:new`), the order of the steps, and the list of field names
//! that no configuration may touch. Never knows whether it edits a request or a response, beyond [`Side`].
//!
//! | step | does | an entry is |
//! |---|---|---|
//! | remove | removes every field of that name | `name` |
//! | rename | gives it another name; what bore that name before goes | `old:new` |
//! | replace | sets the value where the name is present | `name:value` |
//! | add | adds it where the name is absent | `name:value` |
//! | append | adds it in any case | `name:value` |
//!
//! **Invariant.** No edit touches how a message is framed or what concerns one connection only: such an entry is
//! refused with the configuration.

use portcullis_config::{Fault, Fields, Node};

use crate::http::{FieldName, Head, Known, KnownSet};

/// Which head is edited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Request,
    Response,
}

/// A value as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    Literal(Box<[u8]>),
    /// Made anew for each request: the text of that number among the [`Rendered`].
    Template(usize),
}

/// The texts that are made for one request, in one arena that keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct Rendered {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Rendered {
    pub const fn new() -> Self {
        Self { text: Vec::new(), ends: Vec::new() }
    }

    pub fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// Adds a text: what `write` appends.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.text);
        self.ends.push(self.text.len());
    }

    #[inline]
    pub fn value<'t>(&'t self, text: &'t Text) -> &'t [u8] {
        match text {
            Text::Literal(literal) => literal,
            Text::Template(number) => {
                let end = self.ends.get(*number).copied().unwrap_or_default();
                let start = number
                    .checked_sub(1)
                    .and_then(|before| self.ends.get(before))
                    .copied()
                    .unwrap_or_default();
                self.text.get(start..end).unwrap_or_default()
            }
        }
    }
}

/// The five lists for one part of a message, of names as `N`.
#[derive(Clone, Debug)]
pub struct Edits<N> {
    pub remove: Vec<N>,
    pub rename: Vec<(N, N)>,
    pub replace: Vec<(N, Text)>,
    pub add: Vec<(N, Text)>,
    pub append: Vec<(N, Text)>,
}

impl<N> Default for Edits<N> {
    fn default() -> Self {
        Self {
            remove: Vec::new(),
            rename: Vec::new(),
            replace: Vec::new(),
            add: Vec::new(),
            append: Vec::new(),
        }
    }
}

impl<N: Clone> Edits<N> {
    /// The edits of one step alone.
    pub fn only(&self, step: Step) -> Self {
        let mut edits = Self::default();
        match step {
            Step::Remove => edits.remove.clone_from(&self.remove),
            Step::Rename => edits.rename.clone_from(&self.rename),
            Step::Replace => edits.replace.clone_from(&self.replace),
            Step::Add => edits.add.clone_from(&self.add),
            Step::Append => edits.append.clone_from(&self.append),
        }
        edits
    }
}

impl Edits<FieldName> {
    /// Makes the edits, step by step.
    pub fn apply(&self, head: &mut Head, rendered: &Rendered) {
        for name in &self.remove {
            head.remove_field(name);
        }
        for (old, new) in &self.rename {
            head.rename(old.as_bytes(), new.as_bytes());
        }
        for (name, value) in &self.replace {
            head.replace_field(name, rendered.value(value));
        }
        for (name, value) in &self.add {
            if head.get_field(name).is_none() {
                head.append_field(name, rendered.value(value));
            }
        }
        for (name, value) in &self.append {
            head.append_field(name, rendered.value(value));
        }
    }
}

/// One step of the order above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Remove,
    Rename,
    Replace,
    Add,
    Append,
}

impl Step {
    pub const ALL: [Step; 5] = [Step::Remove, Step::Rename, Step::Replace, Step::Add, Step::Append];

    /// Its key in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Step::Remove => "remove",
            Step::Rename => "rename",
            Step::Replace => "replace",
            Step::Add => "add",
            Step::Append => "append",
        }
    }
}

/// How the entries of lists become edits: what a name and a value are, for one part of a message.
pub trait Reader {
    type Name;

    /// The name, if `step` may have it.
    fn name(&mut self, step: Step, text: &str) -> Result<Self::Name, Fault>;

    /// The value of a `name:value` entry.
    fn value(&mut self, text: &str) -> Result<Text, Fault>;
}

/// Reads the five lists under `key` (`headers`, `querystring`) of the plugin's settings. What is wrong is reported and
/// left out.
pub fn read<R: Reader>(fields: &Fields<'_>, key: &str, reader: &mut R) -> Edits<R::Name> {
    let mut edits = Edits::default();
    for step in Step::ALL {
        let section = fields.section(step.as_str());
        let items = section.get(key).map(Node::items).unwrap_or_default();
        for (number, item) in items.iter().enumerate() {
            let Some(entry) = item.text() else { continue }; // refused with the file
            let place = Place { fields: &section, key, number, item };
            if let Err(fault) = read_entry(step, entry, &place, reader, &mut edits) {
                place.fields.diagnostics().error(item.span, place.path(), fault);
            }
        }
    }
    edits
}

/// Reads the list of names under `key`. What is wrong is reported and left out.
pub fn read_names<R: Reader>(fields: &Fields<'_>, key: &str, reader: &mut R) -> Vec<R::Name> {
    let items = fields.get(key).map(Node::items).unwrap_or_default();
    let name = |(number, item): (usize, &Node)| match reader.name(Step::Remove, item.text()?) {
        Ok(name) => Some(name),
        Err(fault) => {
            fields.diagnostics().error(item.span, format!("{}[{number}]", fields.path_of(key)), fault);
            None
        }
    };
    items.iter().enumerate().filter_map(name).collect()
}

/// Where an entry stands.
struct Place<'p, 'f> {
    fields: &'p Fields<'f>,
    key: &'p str,
    number: usize,
    item: &'p Node,
}

impl Place<'_, '_> {
    fn path(&self) -> String {
        format!("{}[{}]", self.fields.path_of(self.key), self.number)
    }
}

fn read_entry<R: Reader>(
    step: Step,
    entry: &str,
    place: &Place<'_, '_>,
    reader: &mut R,
    edits: &mut Edits<R::Name>,
) -> Result<(), Fault> {
    let found = place.fields.diagnostics();
    // Kong's pattern takes any number of colons for one.
    let (name, value) = match entry.split_once(':') {
        Some((name, value)) => (name, Some(value.trim_start_matches(':'))),
        None => (entry, None),
    };
    if step == Step::Remove {
        if value.is_some() {
            found.warning(place.item.span, place.path(), "removed by its name alone; the value is ignored");
        }
        edits.remove.push(reader.name(step, name)?);
        return Ok(());
    }
    let value =
        value.ok_or_else(|| Fault::new(format!("key '{name}' has no value")).hint("write `name:value`"))?;
    let trimmed = value.trim_ascii();
    if trimmed.len() != value.len() {
        let fault = Fault::new("spaces around the value are not part of it");
        let hint = "Kong refuses such a header and sends the space on in a query; leave it out";
        found.warning(place.item.span, place.path(), fault.hint(hint));
    }
    if step == Step::Rename {
        let pair = (reader.name(step, name)?, reader.name(step, trimmed)?);
        edits.rename.push(pair);
        return Ok(());
    }
    let name = reader.name(step, name)?;
    if trimmed.is_empty() {
        found.warning(place.item.span, place.path(), "has no value, so it does nothing");
        return Ok(());
    }
    let pair = (name, reader.value(trimmed)?);
    match step {
        Step::Replace => edits.replace.push(pair),
        Step::Add => edits.add.push(pair),
        _ => edits.append.push(pair),
    }
    Ok(())
}

/// Tells where a message ends.
const FRAMING: KnownSet = KnownSet::of(&[Known::ContentLength, Known::TransferEncoding]);

/// Is about one connection; received ones are never forwarded.
const CONNECTION: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Te,
    Known::Trailer,
    Known::Upgrade,
    Known::Http2Settings,
    Known::Expect,
]);

/// A field name that `step` may be given.
pub fn field_name(side: Side, step: Step, text: &str) -> Result<FieldName, Fault> {
    let name = FieldName::new(text).ok_or_else(|| Fault::new(format!("'{text}' is not a valid header")))?;
    let known = name.known();
    if FRAMING.contains(known) {
        let fault = Fault::new(format!("'{text}' cannot be edited: it says where the body ends"));
        return Err(fault.hint("the gateway writes it by itself"));
    }
    if CONNECTION.contains(known) && step != Step::Remove {
        let fault =
            Fault::new(format!("'{text}' cannot be edited: it is about one connection, not the message"));
        return Err(fault);
    }
    if side == Side::Request && known == Known::Host && !matches!(step, Step::Replace | Step::Add) {
        let fault = Fault::new("'Host' can only be replaced: every request has one");
        return Err(fault.hint("write `replace: {headers: [\"Host:name\"]}`"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> FieldName {
        FieldName::new(text).expect("a token")
    }

    fn literal(text: &str) -> Text {
        Text::Literal(text.as_bytes().into())
    }

    fn edited(edits: &Edits<FieldName>, lines: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut head = Head::new();
        for (name, value) in lines {
            head.append(name, value);
        }
        edits.apply(&mut head, &Rendered::new());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("ASCII");
        head.iter().map(|(_, name, value)| (text(name), text(value))).collect()
    }

    /// Each step's entry for `X-A` makes a difference only if the steps before it left the right thing.
    #[test]
    fn the_steps_come_in_kongs_order() {
        let edits = Edits {
            remove: vec![name("X-A")],
            rename: vec![(name("X-B"), name("X-A"))],
            replace: vec![(name("X-A"), literal("replaced"))],
            add: vec![(name("X-A"), literal("not added")), (name("X-B"), literal("added"))],
            append: vec![(name("X-A"), literal("appended"))],
        };
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect::<Vec<_>>()
        };
        assert_eq!(
            edited(&edits, &[("x-a", "1"), ("x-b", "2"), ("Etag", "e")]),
            pairs(&[("X-A", "replaced"), ("Etag", "e"), ("X-B", "added"), ("X-A", "appended")])
        );
        assert_eq!(
            edited(&edits, &[("x-a", "1")]),
            pairs(&[("X-A", "not added"), ("X-B", "added"), ("X-A", "appended")])
        );
    }

    #[test]
    fn entries_of_one_step_see_each_other() {
        let edits = Edits {
            rename: vec![(name("X-A"), name("X-B")), (name("X-B"), name("X-C"))],
            add: vec![(name("X-A"), literal("1")), (name("x-a"), literal("2"))],
            ..Edits::default()
        };
        assert_eq!(
            edited(&edits, &[("X-A", "a"), ("X-B", "b")]),
            [("X-C".to_owned(), "a".to_owned()), ("X-A".to_owned(), "1".to_owned())]
        );
    }

    #[test]
    fn replace_leaves_one_of_several_and_remove_none() {
        let edits = Edits {
            remove: vec![name("set-cookie"), name("X-None")],
            replace: vec![(name("Accept"), literal("a")), (name("X-None"), literal("b"))],
            ..Edits::default()
        };
        let lines =
            [("Accept", "1"), ("Set-Cookie", "2"), ("accept", "3"), ("Set-Cookie", "4"), ("X-D", "5")];
        assert_eq!(edited(&edits, &lines), [("Accept".into(), "a".into()), ("X-D".into(), "5".into())]);
    }

    #[test]
    fn rendered_texts_are_told_apart() {
        let mut rendered = Rendered::new();
        for _ in 0..2 {
            rendered.clear();
            for text in ["one", "", "three"] {
                rendered.push(|out| out.extend_from_slice(text.as_bytes()));
            }
            let values = [0, 1, 2, 3].map(|number| rendered.value(&Text::Template(number)).to_vec());
            assert_eq!(values, [&b"one"[..], b"", b"three", b""]);
        }
    }

    #[test]
    fn framing_is_out_of_reach() {
        for step in Step::ALL {
            for text in ["content-length", "Transfer-Encoding", "a b", "X:", ""] {
                assert!(field_name(Side::Response, step, text).is_err(), "{step:?} {text}");
            }
            for text in ["Connection", "keep-alive", "TE", "Upgrade", "Expect", "Trailer"] {
                assert_eq!(
                    field_name(Side::Request, step, text).is_ok(),
                    step == Step::Remove,
                    "{step:?} {text}"
                );
            }
            let host = field_name(Side::Request, step, "host").is_ok();
            assert_eq!(host, matches!(step, Step::Replace | Step::Add), "{step:?}");
            assert!(field_name(Side::Response, step, "host").is_ok());
            assert!(field_name(Side::Request, step, "X-A_b.c").is_ok());
        }
    }
}
