//! Harness.

pub mod packet;
