//! `rate-limiting`: how many requests somebody may make in a second, minute, hour, day, month or year.
//!
//! Owns Kong's keys of that name; what they come to is [`super::limiting`]. Its windows are Kong's and exact across
//! shards.
//!
//! | `limit_by` | counted together | where |
//! |---|---|---|
//! | `ip` | a client address, IPv6 by its /64 | the table of sources |
//! | others | a consumer, a credential, a header's value, ... | the table of limit keys |
//!
//! A request that lacks what it is to be counted by (no consumer, no such header, another path) is counted by its
//! client address, as in Kong. Counts belong to the plugin instance, so they survive a reload and are not shared by
//! two instances.
//!
//! **Invariant.** A request that is let through allocates nothing but room in the warm arena of its response fields.

mod settings;

use super::Registration;

/// Kong's plugin of this name.
pub static REGISTRATION: Registration = Registration {
    name: "rate-limiting",
    priority: 910,
    section: &settings::RATE_LIMITING,
    compile: settings::compile,
};

#[cfg(test)]
mod tests;
