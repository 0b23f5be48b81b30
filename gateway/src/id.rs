//! The numbers by which the parts of a snapshot refer to each other.
//!
//! Owns nothing but the types. They are indices (into the shards, routes, services, ... of one
//! snapshot) and never names: what must survive a reload is found by name and gets a new number.
//! Invariant: two kinds of number never convert into each other, only to and from plain integers.

use std::fmt;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident($int:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl $name {
            /// The number as an index into the list that it was taken from.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$int> for $name {
            fn from(number: $int) -> $name {
                $name(number)
            }
        }
    )*};
}

id! {
    /// A shard, counted from 0 in the order of the configured cores. Stable for the process' life.
    ShardId(u32);
    /// A route in the snapshot's order of precedence.
    RouteId(u32);
    /// A service, in the order of the configuration.
    ServiceId(u32);
    /// An upstream: a named group of targets.
    UpstreamId(u32);
    /// One target, counted over all upstreams of the snapshot.
    TargetId(u32);
    /// A consumer, in the order of the configuration.
    ConsumerId(u32);
    /// A published configuration, counted from 1; 0 means that nothing was published yet.
    Generation(u64);
}

impl Generation {
    /// The number of the next publication.
    pub const fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_prints_bare_and_pads_like_an_integer() {
        assert_eq!(RouteId(7).to_string(), "7");
        assert_eq!(format!("{:03}", ShardId(7)), "007");
        assert_eq!(Generation::default().next().to_string(), "1");
        assert_eq!(TargetId::from(9).index(), 9);
    }
}
