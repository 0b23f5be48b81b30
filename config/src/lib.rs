//! Configuration of Portcullis: text to validated model, with precise errors.
//!
//! ```text
//! files ──► parse ──► Node tree ──► schema::check ──► build ──► Config ──► (the gateway compiles a snapshot)
//!             │        with places    against the       rules     validated
//!         environment                 section tables    between
//!        ${env:} ${file:}             (sections)        keys
//! ```
//!
//! Owns the format: a superset of Kong's declarative format 3.0. It starts nothing, resolves no name, reads no
//! certificate and computes no route priority; only `load` touches files. Invariant: [`load`] gives a [`Config`]
//! or every finding at once, and never panics, whatever the input.
//!
//! Plugins own their `config:`: they describe it as a [`Section`], hand it over through a [`PluginCatalog`], and
//! read it with [`Fields`]. Next: `model` for the result, `sections` for the words, `load` for the way.

#![forbid(unsafe_code)]

mod build;
pub mod diagnostic;
pub mod environment;
mod fields;
mod import;
mod load;
pub mod model;
pub mod node;
mod parse;
pub mod rule;
pub mod schema;
pub mod secret;
pub mod sections;
pub mod source;
pub mod units;

pub use diagnostic::{Diagnostic, Diagnostics, Fault, Severity};
pub use environment::{Environment, FixedEnvironment};
pub use fields::{Fields, Reference, check_section};
pub use load::{
    Format, Imported, Loaded, ProcessEnvironment, Text, import, import_texts, load, load_paths, load_str,
    load_texts, parse_str, read_section,
};
pub use model::*;
pub use node::{Entry, Node, Scalar, Value};
pub use rule::{Matcher, Rule};
pub use schema::{EmptyCatalog, Key, Kind, PluginCatalog, Section, StaticCatalog, json_schema};
pub use secret::Secret;
pub use source::{FileId, Origin, Source, Sources, Span};
