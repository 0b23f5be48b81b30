//! Formats of other gateways, translated into our own.
//!
//! Owns nothing but translations from tree to tree: what comes out is checked and built like a file of ours, and every
//! part of it remembers the place in the foreign text that it came from. So a mistake is shown where it was made.
//! Kong's format needs none: ours is a superset of it. Next: `traefik`, then `write`, which prints trees.

pub(crate) mod native;
pub(crate) mod traefik;
mod tree;
pub(crate) mod write;
