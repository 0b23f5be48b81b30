//! Portcullis.
pub mod http;

pub mod kernel;
