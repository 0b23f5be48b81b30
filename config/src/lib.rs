//! Configuration of Portcullis: text to validated model, with precise errors.

#![forbid(unsafe_code)]

mod build;
pub mod diagnostic;
pub mod environment;
mod fields;
mod load;
pub mod model;
pub mod node;
mod parse;
pub mod schema;
pub mod secret;
pub mod sections;
pub mod source;
pub mod units;

pub use diagnostic::{Diagnostic, Diagnostics, Fault, Severity};
pub use environment::{Environment, FixedEnvironment};
pub use fields::{Fields, Reference, check_section};
pub use load::{
    Loaded, ProcessEnvironment, Text, load, load_paths, load_str, load_texts, parse_str, read_section,
};
pub use model::*;
pub use node::{Entry, Node, Scalar, Value};
pub use schema::{EmptyCatalog, Key, Kind, PluginCatalog, Section, StaticCatalog, json_schema};
pub use secret::Secret;
pub use source::{FileId, Origin, Source, Sources, Span};
