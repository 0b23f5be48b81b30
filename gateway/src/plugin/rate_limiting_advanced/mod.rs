//! `rate-limiting-advanced`: limits over windows of any length, by five strategies.
//!
//! Owns the keys of Kong's plugin of that name, and those that it lacks: `algorithm`, `burst`, `tiers`, and what
//! [`super::limiting`] has for all. What they come to is there.
//!
//! | `algorithm` | what it promises |
//! |---|---|
//! | `fixed_window` (`window_type: fixed`) | at most `limit` in each window, as the clock divides time |
//! | `sliding_counter` (`window_type: sliding`) | about `limit` in any span, by two counts |
//! | `sliding_log` | at most `limit` in any span, exactly |
//! | `token_bucket` | at most `burst` at once, and `limit` a window |
//! | `leaky_bucket` | one by one at that rate; up to `burst` requests wait for their turn |
//!
//! **Invariant.** See [`super::limiting`].

mod settings;

use super::Registration;

/// Kong's plugin of this name.
pub static REGISTRATION: Registration = Registration {
    name: "rate-limiting-advanced",
    priority: 910,
    section: &settings::SECTION,
    compile: settings::compile,
};

#[cfg(test)]
mod tests;
