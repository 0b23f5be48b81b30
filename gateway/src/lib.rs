//! Portcullis.
pub mod tls;
