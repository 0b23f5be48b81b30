//! What a connection to a target begins with: the PROXY header that names the client.
//!
//! Owns the header and the rule that follows from it: a connection that names a client carries nobody else's requests.

use std::net::SocketAddr;

use portcullis_config::ProxyHeader;

use crate::http::proxy_protocol::{self, Tlvs};

/// What a new connection begins with, and whose it is then.
#[derive(Clone, Debug, Default)]
pub struct Preamble {
    /// A PROXY header; empty for none.
    pub header: Vec<u8>,
    /// The client that the header names.
    pub owner: Option<SocketAddr>,
}

/// The PROXY header for a connection of `client`, who connected to `destination`, with what else is
/// said; empty where none is wanted.
pub fn proxy_header(
    version: ProxyHeader,
    client: SocketAddr,
    destination: SocketAddr,
    said: &Tlvs,
) -> Vec<u8> {
    let mut header = Vec::new();
    match version {
        ProxyHeader::Off => {}
        ProxyHeader::V1 => proxy_protocol::write_v1(client, destination, &mut header),
        ProxyHeader::V2 => proxy_protocol::write_v2(client, destination, said, &mut header),
    }
    header
}
