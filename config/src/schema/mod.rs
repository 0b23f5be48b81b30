//! The descriptor tables: what each section of a configuration may hold.
//!
//! Owns the table types. One table drives everything that must never disagree: unknown-key errors with their
//! suggestion, type and range errors, defaults (ours and Kong's), the JSON schema, the notes on where the two
//! defaults differ, and the test that the reference file mentions every key. It holds no rule that spans
//! several keys; those are in `build`. Next: `check` (validation), then `fields` (typed reading).

pub(crate) mod check;
pub(crate) mod conceal;
mod json;
pub(crate) mod leaf;
pub mod reference;
pub(crate) mod suggest;
pub mod text;

use std::time::Duration;

pub use self::json::json_schema;
pub use self::text::Text;
use crate::units::Bare;

/// A map with known keys.
#[derive(Debug)]
pub struct Section {
    /// The name, unique among sections: `service`, `healthchecks.active`, a plugin's name.
    pub name: &'static str,
    /// What the section is for.
    pub doc: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// Further keys shared with other sections.
    pub shared: &'static [Key],
}

impl Section {
    /// A section with these keys.
    pub const fn new(name: &'static str, doc: &'static str, keys: &'static [Key]) -> Self {
        Self { name, doc, keys, shared: &[] }
    }

    /// Adds keys that several sections have.
    pub const fn with(mut self, shared: &'static [Key]) -> Self {
        self.shared = shared;
        self
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> + Clone + use<> {
        self.keys.iter().chain(self.shared)
    }

    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }
}

/// One key of a section.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// How it is written.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What it means, with its unit.
    pub doc: &'static str,
    /// Our default, as it would be written in YAML (lists as `[a, b]`); `None` when absence means absence.
    pub default: Option<&'static str>,
    /// Kong's default where it differs from ours; an empty text for "not set".
    pub kong_default: Option<&'static str>,
    /// The Kong key, or kong.conf property, that it corresponds to.
    pub kong: Option<&'static str>,
    /// Whether it must be given.
    pub required: bool,
    /// Whether its value must not be shown.
    pub secret: bool,
    /// Whether it does anything.
    pub status: Status,
}

/// Whether a key does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It does what its doc says.
    Acts,
    /// It is Kong's or our own, it is checked and kept, and nothing acts on it yet: a warning.
    Reserved,
    /// It is pure bookkeeping that no gateway acts on, so it deserves no warning.
    Ignored,
    /// It works, but something else should be written: a warning with this hint.
    Deprecated(&'static str),
}

impl Key {
    /// An optional key without a default.
    pub const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self {
            name,
            kind,
            doc,
            default: None,
            kong_default: None,
            kong: None,
            required: false,
            secret: false,
            status: Status::Acts,
        }
    }

    /// Sets our default.
    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    /// Sets Kong's default where it differs.
    pub const fn kong_default(mut self, text: &'static str) -> Self {
        self.kong_default = Some(text);
        self
    }

    /// Names the corresponding Kong key.
    pub const fn kong(mut self, name: &'static str) -> Self {
        self.kong = Some(name);
        self
    }

    /// The key must be given.
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// The value is masked when shown.
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Nothing acts on the key yet.
    pub const fn reserved(mut self) -> Self {
        self.status = Status::Reserved;
        self
    }

    /// The key is bookkeeping.
    pub const fn ignored(mut self) -> Self {
        self.status = Status::Ignored;
        self
    }

    /// Something else should be written.
    pub const fn deprecated(mut self, hint: &'static str) -> Self {
        self.status = Status::Deprecated(hint);
        self
    }
}

/// What a key may hold.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`; `yes`, `no`, `on` and `off` as YAML 1.1 had them.
    Bool,
    /// A whole number in a range, both ends included.
    Integer {
        /// Least.
        min: i64,
        /// Greatest.
        max: i64,
    },
    /// A number in a range, both ends included.
    Number {
        /// Least.
        min: f64,
        /// Greatest.
        max: f64,
    },
    /// A text that passes a check.
    Text(&'static Text),
    /// A time, in a range with both ends included.
    Duration {
        /// What a number without a unit means.
        bare: Bare,
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
    /// A number of bytes in a range, both ends included.
    Size {
        /// Least.
        min: u64,
        /// Greatest.
        max: u64,
    },
    /// A rate, as in `100/s`.
    Rate,
    /// One of these words.
    Word(&'static [&'static str]),
    /// An address or prefix, as in `10.0.0.0/8`.
    Cidr,
    /// An address with a port, as in `0.0.0.0:8080`.
    SocketAddress,
    /// A list; `max` bounds its length.
    List {
        /// What each item is.
        of: &'static Kind,
        /// Most items.
        max: usize,
    },
    /// A map with free keys.
    Map {
        /// What the keys are.
        keys: &'static Text,
        /// What each value is.
        of: &'static Kind,
    },
    /// A map with known keys.
    Section(&'static Section),
    /// A reference to another part of the configuration: its name or id, or `{name: ..}`, `{id: ..}`.
    Reference(Entity),
    /// One of several shapes; the first that fits the shape of the value decides what is checked.
    Either(&'static [Kind]),
    /// Anything, kept as it is.
    Any,
}

/// What a reference can point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entity {
    /// A service.
    Service,
    /// A route.
    Route,
    /// An upstream.
    Upstream,
    /// A consumer.
    Consumer,
    /// A certificate.
    Certificate,
    /// An authority.
    CaCertificate,
    /// A consumer group.
    ConsumerGroup,
}

impl Entity {
    /// The word for errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Consumer => "consumer",
            Self::Certificate => "certificate",
            Self::CaCertificate => "CA certificate",
            Self::ConsumerGroup => "consumer group",
        }
    }

    /// The keys that a reference written as a map may use, besides `id`.
    pub const fn reference_keys(self) -> &'static [&'static str] {
        match self {
            Self::Consumer => &["id", "username", "custom_id", "name"],
            _ => &["id", "name"],
        }
    }
}

/// Kinds that many tables use.
impl Kind {
    /// Any text.
    pub const STRING: Self = Self::Text(&text::ANY);
    /// A text that is not empty.
    pub const NAME: Self = Self::Text(&text::NAME);
    /// The path of a file.
    pub const FILE: Self = Self::Text(&text::FILE);
    /// A list of texts that are not empty.
    pub const STRINGS: Self = Self::List { of: &Self::NAME, max: MAX_ITEMS };
    /// A list of addresses and prefixes.
    pub const CIDRS: Self = Self::List { of: &Self::Cidr, max: MAX_CIDRS };
    /// A timeout as Kong bounds it: 1 ms to 2^31 - 2 ms, bare numbers being milliseconds.
    pub const TIMEOUT: Self = Self::Duration {
        bare: Bare::Milliseconds,
        min: Duration::from_millis(1),
        max: Duration::from_millis((1 << 31) - 2),
    };
    /// A number of things that fits 32 bits.
    pub const COUNT: Self = Self::Integer { min: 0, max: u32::MAX as i64 };
    /// A TCP port.
    pub const PORT: Self = Self::Integer { min: 1, max: 65535 };

    /// A list of at most [`MAX_ITEMS`] of these.
    pub const fn list(of: &'static Kind) -> Self {
        Self::List { of, max: MAX_ITEMS }
    }

    /// A whole number in a range.
    pub const fn integer(min: i64, max: i64) -> Self {
        Self::Integer { min, max }
    }

    /// A duration between two numbers of seconds, a bare number being milliseconds.
    pub const fn duration(min_s: u64, max_s: u64) -> Self {
        Self::Duration {
            bare: Bare::Milliseconds,
            min: Duration::from_secs(min_s),
            max: Duration::from_secs(max_s),
        }
    }

    /// A duration between two numbers of seconds, a bare number being seconds.
    pub const fn seconds(min_s: u64, max_s: u64) -> Self {
        Self::Duration {
            bare: Bare::Seconds,
            min: Duration::from_secs(min_s),
            max: Duration::from_secs(max_s),
        }
    }
}

/// Most items of an ordinary list: hosts of a route, header values, tags.
pub const MAX_ITEMS: usize = 4096;

/// Most entities of one kind, and most prefixes of one list.
pub const MAX_ENTITIES: usize = 1 << 20;

/// Most prefixes of one list.
pub const MAX_CIDRS: usize = 1 << 20;

/// The plugins that exist: supplied by the gateway, which owns their sections.
pub trait PluginCatalog {
    /// The names, in any order.
    fn names(&self) -> Vec<&'static str>;

    /// The section of `config:`; `None` for an unknown plugin.
    fn section(&self, name: &str) -> Option<&'static Section>;
}

/// A catalog without plugins.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyCatalog;

impl PluginCatalog for EmptyCatalog {
    fn names(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn section(&self, _: &str) -> Option<&'static Section> {
        None
    }
}

/// A catalog of these sections, each named like its plugin.
#[derive(Clone, Debug, Default)]
pub struct StaticCatalog(pub &'static [&'static Section]);

impl PluginCatalog for StaticCatalog {
    fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|section| section.name).collect()
    }

    fn section(&self, name: &str) -> Option<&'static Section> {
        self.0.iter().find(|section| section.name == name).copied()
    }
}
