//! Into which share of the traffic a request falls: for canaries, splits, mirrors and faults.
//!
//! Owns the point that a request is given on the line from 0 to 2^64: by something it has, so that the same client falls
//! into the same share every time and on every node; or by turns, so that shares come out right even over few requests.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};

use portcullis_config::{Fields, Key, Kind};

use super::Cx;
use crate::http::{FieldName, Known, RequestHead};

/// What decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// Nothing of the request.
    Turn,
    /// The consumer, or else the client's address.
    Consumer,
    Ip,
    Header(FieldName),
    Cookie(Box<str>),
    Parameter(Box<[u8]>),
    Path,
}

/// The key `headers` of those plugins: names and values that a request is to have. `None`: a name is none, as was told.
pub fn headers(fields: &Fields<'_>) -> Option<Vec<(FieldName, String)>> {
    let named = fields.map("headers").into_iter().map(|(name, value)| {
        let known = FieldName::new(&name);
        if known.is_none() {
            fields.error("headers", format!("'{name}' is not a valid header"));
        }
        Some((known?, value))
    });
    named.collect()
}

/// Words for [`By`], in plugins that offer all of them.
pub const WORDS: &[&str] = &["none", "consumer", "ip", "header", "cookie", "query", "path"];

/// What `hash: header`, `cookie` and `query` go by.
pub const HASH_NAME: Key =
    Key::new("hash_name", Kind::NAME, "Name of the header, cookie or parameter that `hash` goes by.");

impl By {
    /// Reads `hash` and `hash_name`. What is wrong is reported.
    pub fn read(fields: &Fields<'_>) -> Option<Self> {
        let word = fields.word("hash");
        let name = fields.optional_string("hash_name");
        let needed = || {
            if name.is_none() {
                fields.error("hash", format!("`hash: {word}` needs `hash_name`"));
            }
            name.clone()
        };
        Some(match word {
            "consumer" => Self::Consumer,
            "ip" => Self::Ip,
            "path" => Self::Path,
            "header" => {
                let name = needed()?;
                match FieldName::new(&name) {
                    Some(name) => Self::Header(name),
                    None => {
                        fields.error("hash_name", format!("'{name}' is not a valid header"));
                        return None;
                    }
                }
            }
            "cookie" => Self::Cookie(needed()?.into()),
            "query" => Self::Parameter(needed()?.into_bytes().into()),
            _ => Self::Turn,
        })
    }

    /// Where a request falls. One that lacks what decides is taken by turns.
    pub fn point(&self, cx: &Cx<'_>, request: &RequestHead, turns: &Turns) -> u64 {
        let found = match self {
            Self::Turn => None,
            Self::Consumer => match cx.identity.consumer {
                Some(id) => Some(hash(&cx.consumers.consumer(id).id)),
                None => Some(hash(&cx.client)),
            },
            Self::Ip => Some(hash(&cx.client)),
            Self::Header(name) => request.head.get_field(name).map(hash),
            Self::Cookie(name) => cookie(request, name).map(hash),
            Self::Parameter(name) => request.parameter(name).map(|value| hash(&*value)),
            Self::Path => Some(hash(request.path())),
        };
        found.unwrap_or_else(|| turns.next())
    }
}

/// The same on every shard and node.
fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The value of a cookie of the request.
pub fn cookie<'r>(request: &'r RequestHead, name: &str) -> Option<&'r [u8]> {
    let pairs = request.head.all_known(Known::Cookie).flat_map(|field| field.split(|&byte| byte == b';'));
    pairs.into_iter().find_map(|pair| {
        pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::trim_ascii)
    })
}

/// Points one after the other, each far from the ones before: of any few of them in a row, each share has its part.
#[derive(Debug, Default)]
pub struct Turns(Cell<u64>);

impl Turns {
    /// The next point: the golden ratio further on, which is never long near a place where it was.
    pub fn next(&self) -> u64 {
        let point = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(point);
        point
    }
}

/// A part of all requests, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// From percent, of which the configuration allows 0 to 100.
    pub fn percent(percent: f64) -> Self {
        Self((percent * 10_000.0).round().clamp(0.0, 1_000_000.0) as u32)
    }

    /// `part` of `whole`.
    pub fn of(part: u64, whole: u64) -> Self {
        let millionths = u128::from(part) * 1_000_000 / u128::from(whole.max(1));
        Self(millionths.min(1_000_000) as u32)
    }

    /// Whether the request at this point falls into it.
    pub fn holds(self, point: u64) -> bool {
        ((u128::from(point) * 1_000_000) >> 64) as u32 <= self.0.wrapping_sub(1) && self.0 > 0
    }
}

/// The one of several weights into which a point falls; `None` where they are all 0.
pub fn weighted(weights: impl Iterator<Item = u32> + Clone, point: u64) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    let mut at = ((u128::from(point) * u128::from(total)) >> 64) as u64;
    weights.enumerate().find_map(|(index, weight)| match at.checked_sub(weight.into()) {
        Some(rest) => {
            at = rest;
            None
        }
        None => Some(index),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, request_with};

    #[test]
    fn turns_give_each_share_its_part_of_few_requests() {
        for percent in [1.0, 10.0, 25.0, 50.0, 99.0] {
            let (turns, share) = (Turns::default(), Share::percent(percent));
            let taken = (0..1000).filter(|_| share.holds(turns.next())).count() as f64;
            assert!((taken - percent * 10.0).abs() <= 4.0, "{taken} of 1000 for {percent} percent");
        }
        let turns = Turns::default();
        assert!((0..1000).all(|_| Share::percent(100.0).holds(turns.next())));
        assert!(!(0..1000).any(|_| Share::percent(0.0).holds(turns.next())));
        assert!(Share::percent(100.0).holds(u64::MAX) && Share::percent(0.1).holds(0));
    }

    #[test]
    fn weights_share_the_line() {
        let turns = Turns::default();
        let mut counts = [0; 3];
        for _ in 0..1000 {
            counts[weighted([3, 0, 1].into_iter(), turns.next()).expect("a weight")] += 1;
        }
        assert!((746..=754).contains(&counts[0]) && counts[1] == 0, "{counts:?}");
        assert_eq!(weighted([0, 0].into_iter(), 5), None);
        assert_eq!(weighted([1, 1].into_iter(), u64::MAX), Some(1));
    }

    #[test]
    fn the_same_client_falls_to_the_same_place() {
        let fixture = Fixture::default();
        let turns = Turns::default();
        let name = || FieldName::new("X-User").expect("a name");
        let point = |by: &By, client: &str, lines: &[&str], target: &str| {
            by.point(&fixture.cx_from(client), &request_with(target, lines), &turns)
        };
        let (header, cookie) = (By::Header(name()), By::Cookie("user".into()));
        let parameter = By::Parameter(b"u".to_vec().into());
        assert_eq!(point(&By::Ip, "203.0.113.1", &[], "/"), point(&By::Ip, "203.0.113.1", &[], "/x"));
        assert_ne!(point(&By::Ip, "203.0.113.1", &[], "/"), point(&By::Ip, "203.0.113.2", &[], "/"));
        assert_eq!(point(&By::Consumer, "203.0.113.1", &[], "/"), point(&By::Ip, "203.0.113.1", &[], "/"));
        for (by, lines, target) in [
            (&header, &["X-User: a"][..], "/"),
            (&cookie, &["Cookie: x=1; user=a"][..], "/"),
            (&parameter, &[][..], "/?u=a"),
            (&By::Path, &[][..], "/path"),
        ] {
            let first = point(by, "203.0.113.1", lines, target);
            assert_eq!(first, point(by, "203.0.113.9", lines, target), "{by:?}");
        }
        assert_ne!(
            point(&header, "203.0.113.1", &[], "/"),
            point(&header, "203.0.113.1", &[], "/"),
            "by turns"
        );
    }
}
