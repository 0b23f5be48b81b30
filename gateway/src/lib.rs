//! Portcullis: an API gateway that drops abusive sources at the NIC (XDP) and serves everybody else from pinned,
//! share-nothing shards on io_uring.
//!
//! Modules import downward only; `ARCHITECTURE.md` has the picture, `exchange` reads as one request.
#![deny(unsafe_code)]

pub mod control;
pub mod exchange;
pub mod http;
pub mod id;
#[allow(unsafe_code, reason = "maps shared with the XDP program are mapped into memory")]
pub mod kernel;
pub mod limit;
pub mod log;
pub mod metrics;
#[allow(unsafe_code, reason = "sockets by descriptor: shutdown(2), clock_gettime(2), borrowed descriptors")]
pub mod net;
pub mod plugin;
pub mod route;
pub mod shard;
pub mod snapshot;
pub mod tls;
pub mod upstream;
