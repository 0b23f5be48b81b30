//! `in-flight-limit`: how many requests of one client, host or consumer may be under way at once (Traefik's
//! `inFlightReq`).
//!
//! Owns the counts: a table of words shared by all shards, each with the tag of a key and a number. A place is held by a
//! guard in the exchange, and given back when the exchange ends, however it ends.
//!
//! Who takes a place adds to a word of its key first and looks at the sum of all words of that key then, so of several
//! that come at once the last sees all others.
//!
//! **Invariant.** Never more than `amount` exchanges of one key hold a place, whatever the interleaving of shards.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use portcullis_abi::Reason;
use portcullis_config::{self as config, Diagnostics, Key, Kind, Section};

use super::limiting::key::{self, COMPOUND, LIMIT_BY};
use super::limiting::{Exempt, LimitKey, settings};
use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration, Response, Wants};
use crate::http::RequestHead;
use crate::limit::LimiterId;
use crate::metrics::LimiterDecision;

/// The plugin's line of the registry: before the limits by time, which a refusal here should not charge.
pub static REGISTRATION: Registration =
    Registration { name: "in-flight-limit", priority: 911, section: &SECTION, compile };

static SECTION: Section =
    Section::new("in-flight-limit", "Limits the requests that are under way at once.", KEYS);

const KEYS: &[Key] = &[
    Key::new("amount", Kind::integer(1, COUNT_MAX as i64), "How many.").required(),
    LIMIT_BY,
    COMPOUND,
    key::KEYS[0],
    key::KEYS[1],
    key::KEYS[2],
    key::KEYS[3],
    settings::EXEMPT,
    settings::DRY_RUN,
    Key::new("status", Kind::integer(400, 599), "Status of a refusal.").default("429"),
    Key::new("message", Kind::STRING, "Message of a refusal.").default("Too many requests at once"),
];

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    Some(Arc::new(InFlightLimit {
        id: LimiterId::from_number(cx.instance),
        amount: fields.optional_integer("amount")?,
        key: LimitKey::read_by(&fields)?,
        exempt: settings::exempt(&fields, cx),
        dry_run: fields.bool("dry_run"),
        status: fields.integer("status"),
        message: fields.string("message"),
        places: Arc::new(Places::default()),
    }))
}

struct InFlightLimit {
    id: LimiterId,
    amount: u64,
    key: LimitKey,
    exempt: Exempt,
    dry_run: bool,
    status: u16,
    message: String,
    places: Arc<Places>,
}

/// Words of a set that a key may have.
const WAYS: usize = 8;
const SETS: usize = 2048;
const COUNT_BITS: u32 = 24;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// Counts by key: the upper 40 bits of a word are the key's tag, the lower ones how many places are taken. A word
/// without a count is free.
struct Places {
    words: Box<[AtomicU64]>,
}

impl Default for Places {
    fn default() -> Self {
        Self { words: (0..WAYS * SETS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Places {
    fn set(&self, key: u64) -> (&[AtomicU64], usize) {
        let at = (key as usize % SETS) * WAYS;
        (&self.words[at..at + WAYS], at)
    }

    /// The upper bits of the words of a key, which are never zero.
    fn tag(key: u64) -> u64 {
        (key << COUNT_BITS) | 1 << 63
    }

    /// Takes a place and says which word has it; `None` when `amount` are taken, or all words are other keys'.
    fn take(&self, key: u64, amount: u64) -> Result<Option<usize>, Full> {
        let (words, at) = self.set(key);
        let tag = Self::tag(key);
        let Some(way) = Self::add(words, tag) else { return Ok(None) };
        let own = |word: &AtomicU64| {
            let word = word.load(SeqCst);
            if word & !COUNT_MAX == tag { word & COUNT_MAX } else { 0 }
        };
        if words.iter().map(own).sum::<u64>() > amount {
            self.give_back(at + way);
            return Err(Full);
        }
        Ok(Some(at + way))
    }

    /// One more in a word of the tag, or in a free one that becomes its.
    fn add(words: &[AtomicU64], tag: u64) -> Option<usize> {
        loop {
            let mut free = None;
            for (way, word) in words.iter().enumerate() {
                let seen = word.load(SeqCst);
                if seen & COUNT_MAX == 0 {
                    free = free.or(Some((way, seen)));
                } else if seen & !COUNT_MAX == tag
                    && seen & COUNT_MAX < COUNT_MAX
                    && word.compare_exchange(seen, seen + 1, SeqCst, SeqCst).is_ok()
                {
                    return Some(way);
                }
            }
            let (way, seen) = free?;
            if words[way].compare_exchange(seen, tag | 1, SeqCst, SeqCst).is_ok() {
                return Some(way);
            }
        }
    }

    fn give_back(&self, word: usize) {
        self.words[word].fetch_sub(1, SeqCst);
    }
}

/// All places are taken.
#[derive(Debug, PartialEq, Eq)]
struct Full;

/// A place until it is dropped.
struct Held {
    places: Arc<Places>,
    word: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.places.give_back(self.word);
    }
}

impl PluginSpec for InFlightLimit {
    /// The counts of the generation before go on: its exchanges may be under way still.
    fn instantiate(self: Arc<Self>, previous: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        let kept = previous.and_then(|state| state.downcast::<Arc<Places>>().ok());
        let places = kept.map_or_else(|| self.places.clone(), |kept| Arc::clone(&kept));
        Rc::new(OnShard { plugin: self, places })
    }

    fn wants(&self) -> Wants {
        Wants { claims: self.key.wants_claims(), ..Wants::default() }
    }
}

struct OnShard {
    plugin: Arc<InFlightLimit>,
    places: Arc<Places>,
}

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, head: &mut RequestHead) -> Flow {
        let plugin = &*self.plugin;
        if plugin.exempt.includes(cx) {
            return Flow::Continue;
        }
        let (_, key) = plugin.key.place(plugin.id, cx, head);
        match self.places.take(key, plugin.amount) {
            Ok(Some(word)) => {
                cx.held.push(Box::new(Held { places: self.places.clone(), word }));
                cx.limiter = Some(LimiterDecision::Conforming);
                Flow::Continue
            }
            // So many keys that they crowd each other out: nobody is refused for that.
            Ok(None) => Flow::Continue,
            Err(Full) if plugin.dry_run => {
                cx.limiter = Some(LimiterDecision::DryRun);
                Flow::Continue
            }
            Err(Full) => {
                cx.limiter = Some(LimiterDecision::Limited);
                let message = plugin.message.clone();
                Flow::Respond(Response::new(plugin.status, Reason::ConcurrencyLimited, message))
            }
        }
    }

    fn state(&self) -> Option<Rc<dyn Any>> {
        Some(Rc::new(self.places.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, answer, request_with};

    #[test]
    fn places_are_held_as_long_as_the_exchange() {
        let fixture = Fixture::default();
        let plugin = fixture.accepted("in-flight-limit", "{amount: 2}");
        let begin = |client: &str| {
            let mut cx = fixture.cx_from(client);
            let refused = answer(plugin.on_request(&mut cx, &mut request_with("/", &[])));
            (cx, refused.map(|answer| (answer.status, answer.reason)))
        };
        let (first, a) = begin("192.0.2.1");
        let (_second, b) = begin("192.0.2.1");
        assert_eq!((a, b), (None, None));
        assert_eq!(begin("192.0.2.1").1, Some((429, Some(Reason::ConcurrencyLimited))));
        assert_eq!(begin("192.0.2.2").1, None);
        drop(first);
        assert_eq!(begin("192.0.2.1").1, None);
    }

    #[test]
    fn threads_never_hold_more_than_the_amount() {
        const AMOUNT: u64 = 5;
        let places = Arc::new(Places::default());
        let (held, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let run = |seed: u64| {
            let (places, held, most) = (places.clone(), held.clone(), most.clone());
            std::thread::spawn(move || {
                let mut got = 0;
                for round in 0..20_000_u64 {
                    // Other keys of the same set come and go beside.
                    let other = 7 + SETS as u64 * (1 + (seed + round) % 4);
                    let beside = places.take(other, 100).ok().flatten();
                    if let Ok(Some(word)) = places.take(7, AMOUNT) {
                        most.fetch_max(held.fetch_add(1, SeqCst) + 1, SeqCst);
                        got += 1;
                        held.fetch_sub(1, SeqCst);
                        places.give_back(word);
                    }
                    beside.into_iter().for_each(|word| places.give_back(word));
                }
                got
            })
        };
        let threads: Vec<_> = (0..8).map(run).collect();
        let got: u64 = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
        assert!(got > 0 && most.load(SeqCst) <= AMOUNT);
        assert!(places.words.iter().all(|word| word.load(SeqCst) & COUNT_MAX == 0), "all are given back");
    }

    #[test]
    fn a_set_full_of_other_keys_refuses_nobody() {
        let places = Places::default();
        for key in 0..WAYS as u64 {
            assert!(matches!(places.take(key * SETS as u64, 1), Ok(Some(_))));
        }
        assert_eq!(places.take(100 * SETS as u64, 1), Ok(None));
        assert_eq!(places.take(0, 1), Err(Full));
    }
}
