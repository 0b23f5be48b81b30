//! Limits: who may do how much, exactly, on any number of shards, without a lock.
//!
//! Owns the tables of bucket words in user space ([`Table`]), the keys under which things are limited
//! ([`limit_key`], [`source_key`]), limits by five strategies ([`Limiter`]; fixed windows as Kong counts them are
//! [`WindowLimiter`]), the shared
//! bucket of a source as the proxy uses it ([`SourceLimiter`]), sets of prefixes ([`CidrSet`]) and the least
//! rate of a sender ([`Pace`]).
//! The bucket arithmetic itself is `portcullis_abi`'s, the same source that the XDP program runs. It
//! never reads a clock, does no I/O, and allocates nothing once a limiter is compiled, but for a sliding log's look.
//!
//! Two tables exist in a gateway. The table of **sources** is shared with the XDP program where there is
//! one. The table of **limit keys** (windows by consumer, credential, header, ...) is ordinary memory: its
//! words reach up to two years ahead, and in the table of sources they would evict the debt of abusers.
//!
//! Invariant: a limit of N admits N and not one more, whatever the interleaving of shards, as long as
//! the key keeps its way in the table; and the ways lost first are those whose loss gives least away.
//!
//! Next to read: `table`, then `window`, then `limiter`.

mod bucket;
mod calendar;
mod cidr;
mod clock;
mod connections;
mod decision;
mod inspect;
mod key;
mod limiter;
mod offence;
mod pace;
mod prefixes;
mod recent;
mod sliding_counter;
mod sliding_log;
mod source;
mod span;
mod table;
mod throttle;
mod window;

pub use calendar::Period;
pub use cidr::CidrSet;
pub use clock::WallClock;
pub use connections::Connections;
pub use decision::{Decision, WINDOWS_MAX, WindowState};
pub use inspect::{Words, source_prefix, source_text};
pub use key::{KeyHasher, LimiterId, limit_key, random_secret, source_key};
pub use limiter::{Algorithm, LOG_MAX, Limiter, Moment, Place, Quota, Raw};
pub use offence::{Ban, BanSettings, Behaviour, Costs};
pub use pace::{LeastRate, Pace};
pub use portcullis_abi::aggregate_key;
pub use prefixes::read_prefixes;
pub use sliding_counter::Counts;
pub use sliding_log::{LogState, Logs};
pub use source::{Admission, Enforcement, KNOWN_GOOD_NS, SourceLimiter, SourceSettings, Trusted};
pub use span::Span;
pub use table::{Table, TableError, Word};
pub use throttle::Throttle;
pub use window::{WindowError, WindowLimiter};
