//! Responses: what is relayed is framed alike by every client, strict or lenient, and as the upstream meant it.
//!
//! The first byte of the input says what was asked for: HEAD or not, and by which version.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::http::Method;
use portcullis_fuzz::independent::{Kind, Reading, message};
use portcullis_fuzz::{Version, read_response, relay};

fuzz_target!(|data: &[u8]| {
    let Some((&asked, data)) = data.split_first() else { return };
    let method = if asked & 1 == 0 { Method::Get } else { Method::Head };
    let version = if asked & 2 == 0 { Version::Http11 } else { Version::Http10 };
    let Some((response, taken)) = read_response(data, method) else { return };
    let kind = Kind::Response { to_head: method == Method::Head };
    let (received, rest) = message(&data[..taken], kind, &Reading::default()).expect("a strict reader agrees");
    assert!(rest.is_empty(), "the end that the upstream meant");
    assert_eq!(response.body, received.body);
    let mut out = Vec::new();
    relay(response, version, &mut out);
    for mut reading in Reading::all() {
        reading.no_chunks = version == Version::Http10;
        let (relayed, rest) = message(&out, kind, &reading).unwrap_or_else(|error| panic!("{reading:?}: {error}"));
        assert!(rest.is_empty(), "{reading:?} sees more than one response");
        assert_eq!(relayed.body, received.body, "{reading:?}");
    }
});
