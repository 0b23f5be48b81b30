//! Portcullis.

pub mod id;
pub mod route;
pub mod upstream;
