//! The guard of HTTP/2: cutting the input changes no verdict, and what both sides send is followed without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::h2::guard::{Guard, Thresholds, Violation};

/// What a guard says of `data` in pieces of `size`.
fn verdict(data: &[u8], size: usize) -> (Option<Violation>, bool) {
    let mut guard = Guard::new(Thresholds::default());
    for piece in data.chunks(size) {
        if let Err(violation) = guard.received(piece, 1) {
            return (Some(violation), false);
        }
    }
    (None, guard.in_header_block())
}

fuzz_target!(|data: &[u8]| {
    let mut stream = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    stream.extend_from_slice(data);
    let whole = verdict(&stream, stream.len());
    assert_eq!(verdict(&stream, 1), whole);
    assert_eq!(verdict(&stream, 7), whole);

    let (mut guard, mut faults) = (Guard::new(Thresholds::default()), 0_usize);
    let sent = guard.sending(data, 1, |_| faults += 1);
    assert!(sent.is_err() || faults <= data.len() / 9);
});
