//! Portcullis.

pub mod kernel;
