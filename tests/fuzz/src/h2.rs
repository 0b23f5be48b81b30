//! The part of HTTP/2 that is ours and does no I/O.
//!
//! A file of its own, as paths inside an inline module are taken from a folder of its name, which does not exist here.

#[path = "../../../gateway/src/http/h2/frames.rs"]
pub mod frames;
#[path = "../../../gateway/src/http/h2/guard.rs"]
pub mod guard;
#[path = "../../../gateway/src/http/h2/table.rs"]
pub mod table;
