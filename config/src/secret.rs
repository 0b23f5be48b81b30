//! Text that must not be shown.
//!
//! Owns the one type for keys, passwords and private keys. It never prints what it holds: `Debug` and
//! `Display` give a mask, and only [`Secret::expose`] gives the text.

use std::fmt;

/// What is shown in place of a secret.
pub const MASK: &str = "******";

/// A secret text, masked wherever it is printed.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Every call is a place where the secret may leak; keep them few.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}
