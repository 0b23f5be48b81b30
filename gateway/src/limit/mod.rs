//! Limits: who may do how much, exactly, on any number of shards, without a lock.
//!
//! Owns the tables of bucket words in user space ([`Table`]), the keys under which things are limited
//! ([`limit_key`], [`source_key`]), fixed windows as Kong counts them ([`WindowLimiter`]), the shared
//! bucket of a source as the proxy uses it ([`SourceLimiter`]), sets of prefixes ([`CidrSet`]) and the least
//! rate of a sender ([`Pace`]).
//! The bucket arithmetic itself is `portcullis_abi`'s, the same source that the XDP program runs. It
//! never reads a clock, does no I/O, and allocates nothing once a limiter is compiled.
//!
//! Two tables exist in a gateway. The table of **sources** is shared with the XDP program where there is
//! one. The table of **limit keys** (windows by consumer, credential, header, ...) is ordinary memory: its
//! words reach up to two years ahead, and in the table of sources they would evict the debt of abusers.
//!
//! Invariant: a limit of N admits N and not one more, whatever the interleaving of shards, as long as
//! the key keeps its way in the table; and the ways lost first are those whose loss gives least away.
//!
//! Next to read: `table`, then `window`.

mod calendar;
mod cidr;
mod clock;
mod connections;
mod inspect;
mod key;
mod offence;
mod pace;
mod prefixes;
mod recent;
mod source;
mod table;
mod window;

pub use calendar::Period;
pub use cidr::CidrSet;
pub use clock::WallClock;
pub use connections::Connections;
pub use inspect::{Words, source_prefix, source_text};
pub use key::{LimiterId, limit_key, random_secret, source_key};
pub use offence::{Ban, BanSettings, Behaviour, Costs};
pub use pace::{LeastRate, Pace};
pub use portcullis_abi::aggregate_key;
pub use prefixes::read_prefixes;
pub use source::{Admission, Enforcement, KNOWN_GOOD_NS, SourceLimiter, SourceSettings, Trusted};
pub use table::{Table, TableError, Word};
pub use window::{Decision, WindowError, WindowLimiter, WindowState};
