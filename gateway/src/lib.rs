//! Portcullis.
pub mod log;
pub mod tls;
