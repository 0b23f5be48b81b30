//! Portcullis.
pub mod http;
