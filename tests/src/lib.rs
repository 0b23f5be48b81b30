//! Harness.

pub mod netns;
pub mod packet;
