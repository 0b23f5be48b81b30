//! Configuration of Portcullis: text to validated model, with precise errors.

#![forbid(unsafe_code)]

pub mod model;
pub mod node;
pub mod secret;
pub mod source;

pub use model::*;
pub use node::{Entry, Node, Scalar, Value};
pub use secret::Secret;
pub use source::{FileId, Origin, Source, Sources, Span};
