//! Heads: however one is cut it is read alike, and what is accepted is written and read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::http::h1::{HeadLimits, Persistence, parse_response, request_framing, write_request};
use portcullis_fuzz::http::{Known, ResponseHead};
use portcullis_fuzz::read_request;

fuzz_target!(|data: &[u8]| {
    let _ = parse_response(data, &HeadLimits::default(), &mut ResponseHead::new());
    let whole = read_request(&[data]);
    assert_eq!(read_request(&[&data[..data.len() / 2], data]).is_some(), whole.is_some());
    let Some((mut head, _)) = whole else { return };
    if head.host().is_empty() {
        head.head.set_known(Known::Host, "a");
    }
    let mut out = Vec::new();
    write_request(&head, Persistence::Implied, &mut out);
    let (back, len) = read_request(&[&out]).expect("what is written can be read");
    assert_eq!(len, out.len());
    assert_eq!((back.path(), back.query()), (head.path(), head.query()));
    let framing = request_framing(&head);
    assert!(framing.is_err() || request_framing(&back) == framing, "the body would end elsewhere");
});
