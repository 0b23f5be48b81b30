//! Chunked bodies: cutting the input changes nothing, and what is decoded can be encoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::decode_chunked;
use portcullis_fuzz::http::h1::{write_chunk_end, write_chunk_header};

fuzz_target!(|data: &[u8]| {
    let whole = decode_chunked([data].into_iter());
    assert_eq!(decode_chunked(data.chunks(1)), whole);
    assert_eq!(decode_chunked(data.chunks(7)), whole);
    let Some((payload, _)) = whole else { return };
    let mut encoded = Vec::new();
    for chunk in payload.chunks(5) {
        write_chunk_header(chunk.len(), &mut encoded);
        encoded.extend_from_slice(&[chunk, b"\r\n"].concat());
    }
    write_chunk_end(None, &mut encoded);
    assert_eq!(decode_chunked([&encoded[..]].into_iter()), Some((payload, encoded.len())));
});
