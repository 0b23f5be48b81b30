//! Portcullis: an API gateway that drops abusive sources at the NIC (XDP) and serves everybody else from pinned,
//! share-nothing shards on io_uring.
//!
//! Modules import downward only; `ARCHITECTURE.md` has the picture, `exchange` reads as one request.
#![deny(unsafe_code)]

pub mod http;
pub mod log;
#[allow(unsafe_code, reason = "sockets by descriptor: shutdown(2), clock_gettime(2), borrowed descriptors")]
pub mod net;
pub mod tls;
