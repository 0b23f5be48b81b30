//! Requests: what is forwarded is framed alike by every other program, strict or lenient, and as it was received.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::independent::{Kind, Reading, messages};
use portcullis_fuzz::{Version, forward, read_requests};

fuzz_target!(|data: &[u8]| {
    let (requests, taken) = read_requests(data);
    let received = messages(&data[..taken], Kind::Request, &Reading::default()).expect("a strict reader agrees");
    assert_eq!(received.len(), requests.len(), "as many messages as were received");
    let mut out = Vec::new();
    for (ours, theirs) in requests.into_iter().zip(&received) {
        assert_eq!(ours.body, theirs.body, "the body that was received");
        assert_eq!(ours.head.method_text(), &theirs.start[0][..]);
        assert!(ours.head.version() != Version::Http2);
        forward(ours, &mut out);
    }
    for reading in Reading::all() {
        let forwarded = messages(&out, Kind::Request, &reading).unwrap_or_else(|error| panic!("{reading:?}: {error}"));
        let bodies = |list: &[portcullis_fuzz::independent::Message]| -> Vec<Vec<u8>> {
            list.iter().map(|one| one.body.clone()).collect()
        };
        assert_eq!(bodies(&forwarded), bodies(&received), "{reading:?}");
    }
});
