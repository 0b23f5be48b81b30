//! Packets: the XDP program's own parser never reads past the frame.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::packet::{Cursor, Network, Packet};

fuzz_target!(|data: &[u8]| {
    // A copy of its own size: the frame ends where its allocation ends, so one byte too many is caught.
    let frame: Box<[u8]> = data.into();
    let mut cursor = Cursor::new(&frame);
    match cursor.link() {
        Ok(Network::V4) => drop(cursor.ipv4(&mut Packet::empty())),
        Ok(Network::V6) => drop(cursor.ipv6(&mut Packet::empty())),
        Ok(Network::Other) | Err(_) => {}
    }
});
